//! Tells the other replicas what counts at this one and is in no log, streams and requests, and hears of theirs: a limit is for all of them together.
//! What was let in elsewhere since the last exchange is not known here, nor is the only stream that an agent has at another replica, nor requests of an
//! agent that are less than a fourth of a limit there.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{meter::Meter, ports::CountStore, replica_counts::ReplicaCounts};
use crate::directory::{refresher::jittered, snapshot::Directory};

/// How often replicas exchange their counts.
pub const EVERY: Duration = Duration::from_secs(3);
/// How many exchanges a count lasts: of one that died nothing is known then.
const LASTS: u32 = 5;

/// Exchanges for as long as it is polled. A replica of which nothing matters to others asks for nothing.
pub async fn run(meter: Meter, store: Arc<dyn CountStore>, directory: Directory, every: Duration) {
    let replica = Uuid::new_v4();
    let (mut told, mut told_at) = (ReplicaCounts::default(), Instant::now());
    loop {
        sleep(jittered(every)).await;
        let own = meter.counts(&directory.snapshot());
        if own.is_nothing() && told.is_nothing() {
            meter.hear(Vec::new());
            continue;
        }
        let news = (own != told || told_at.elapsed() >= every * (LASTS / 2)).then_some(&own);
        match store.exchange(replica, news, every * LASTS).await {
            Ok(others) => {
                if news.is_some() {
                    (told, told_at) = (own, Instant::now());
                }
                meter.hear(others);
            }
            // What was known of the others stays: for a while that is better than nothing.
            Err(fault) => tracing::warn!(%fault, "counts of other replicas are not known now"),
        }
    }
}
