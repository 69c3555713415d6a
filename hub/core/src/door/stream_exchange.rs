//! Tells the other replicas how many streams are open at this one, and hears of theirs: a limit is for all of them together. A stream that was opened
//! elsewhere since the last exchange is not known here, nor is the only one that an agent has at another replica.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{meter::Meter, ports::StreamStore, stream_counts::StreamCounts};
use crate::directory::{refresher::jittered, snapshot::Directory};

/// How often replicas exchange their counts.
pub const EVERY: Duration = Duration::from_secs(3);
/// How many exchanges a count lasts: of one that died nothing is known then.
const LASTS: u32 = 5;

/// Exchanges for as long as it is polled. A replica of which nothing matters to others asks for nothing.
pub async fn run(meter: Meter, store: Arc<dyn StreamStore>, directory: Directory, every: Duration) {
    let replica = Uuid::new_v4();
    let (mut told, mut told_at) = (StreamCounts::default(), Instant::now());
    loop {
        sleep(jittered(every)).await;
        let own = meter.streams().of_several();
        let matters = !own.agents.is_empty() || (own.all > 0 && directory.snapshot().limits.concurrent_streams.is_some());
        let own = if matters { own } else { StreamCounts::default() };
        if !matters && told == own {
            meter.others(StreamCounts::default());
            continue;
        }
        let news = (own != told || told_at.elapsed() >= every * (LASTS / 2)).then_some(&own);
        match store.exchange(replica, news, every * LASTS).await {
            Ok(others) => {
                if news.is_some() {
                    (told, told_at) = (own, Instant::now());
                }
                meter.others(others);
            }
            // What was known of the others stays: for a while that is better than nothing.
            Err(fault) => tracing::warn!(%fault, "streams of other replicas are not known now"),
        }
    }
}
