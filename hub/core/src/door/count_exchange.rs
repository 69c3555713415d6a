//! Tells the other replicas what counts at this one and is in no log, streams, connections and requests, and hears of theirs: a limit is for all of
//! them together. What was let in elsewhere since the last exchange is not known here, nor is the only stream or connection that an agent has at
//! another replica, nor requests of an agent that are less than a fourth of a limit there.

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
    let mut heard_at = Instant::now();
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
                heard_at = Instant::now();
                meter.hear(others);
            }
            Err(fault) => {
                tracing::warn!(%fault, "counts of other replicas are not known now");
                // What was known of the others stays for as long as they said it does. One that died meanwhile must not be counted for ever.
                if heard_at.elapsed() >= every * LASTS {
                    meter.hear(Vec::new());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::{
        directory::{
            agent::{AgentId, Role},
            caller::Caller,
            limits::{Limits, OperationLimits},
            snapshot::Snapshot,
        },
        door::{access_token::tests::agent, open_counts::OpenCounts, origin::Origin, request_counts::RequestLimits},
        fault::Fault,
    };

    /// Answers that another replica has five streams of an agent, until it is away.
    struct Store(AgentId, AtomicBool);

    #[async_trait]
    impl CountStore for Store {
        async fn exchange(&self, _: Uuid, _: Option<&ReplicaCounts>, _: Duration) -> Result<Vec<ReplicaCounts>, Fault> {
            if self.1.load(Ordering::Relaxed) {
                return Err(Fault::unavailable("POSTGRES_UNAVAILABLE", "away"));
            }
            let streams = OpenCounts { all: 5, agents: [(self.0, 5)].into() };
            Ok(vec![ReplicaCounts { streams, ..ReplicaCounts::default() }])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_had_is_not_counted_for_long_while_the_store_is_away() {
        let (meter, agent) = (Meter::default(), Arc::new(agent(Role::Full)));
        let expires_at = time::OffsetDateTime::now_utc();
        let caller = Caller { agent: agent.clone(), expires_at, epoch: 0, source: None };
        let open = || {
            let call = meter.enter(Some(&caller), &Origin::default()).unwrap();
            call.open_stream(&agent, ("acme", Limits::default())).unwrap();
            call
        };
        // Two, so that they matter to others.
        let _held = [open(), open()];
        let store = Arc::new(Store(agent.id, AtomicBool::new(false)));
        let directory = Directory::new(Snapshot::default());
        let exchange = tokio::spawn(run(meter.clone(), store.clone(), directory, EVERY));
        let operations = OperationLimits::new();
        let limits = RequestLimits { tenant: ("acme", Limits::default()), operations: &operations };
        let used = || meter.usage(&agent, limits)[0].used;
        sleep(2 * EVERY).await;
        assert_eq!(used(), 7);
        store.1.store(true, Ordering::Relaxed);
        sleep(EVERY * (LASTS - 2)).await;
        assert_eq!(used(), 7, "for a while that is better than nothing");
        sleep(EVERY * 4).await;
        assert_eq!(used(), 2);
        store.1.store(false, Ordering::Relaxed);
        sleep(2 * EVERY).await;
        assert_eq!(used(), 7);
        exchange.abort();
    }
}
