//! Refusals, summed by source, agent and reason: however many strangers knock, they make a bounded number of records.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    journal::Journal,
    record::{AuditRecord, Phase},
};
use crate::directory::agent::AgentId;

/// How often the sums are written.
pub const EVERY: Duration = Duration::from_secs(10);

/// Sums that are kept at one time. What comes then is summed as one, of others.
const MAX_SUMS: usize = 10_000;

/// Sums that are on their way to the log at one time.
const AT_ONCE: usize = 256;

/// What is summed together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// The address, or the /64 of it. `None`: of others.
    pub source: Option<IpAddr>,
    /// The agent, where it was proved.
    pub agent: Option<(Option<AgentId>, String)>,
    /// What was called.
    pub operation: &'static str,
    /// The stable reason.
    pub reason: String,
}

/// The sums of one replica. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    known: HashMap<Refused, u64>,
    others: u64,
}

impl Refusals {
    /// One more.
    pub fn add(&self, refused: Refused) {
        self.sum(refused, 1);
    }

    fn sum(&self, refused: Refused, count: u64) {
        let mut sums = self.lock();
        if let Some(sum) = sums.known.get_mut(&refused) {
            *sum += count;
        } else if refused.source.is_some() && sums.known.len() < MAX_SUMS {
            sums.known.insert(refused, count);
        } else {
            sums.others += count;
        }
    }

    /// Writes the sums for as long as it is polled. What the log does not take is summed on.
    pub async fn write(&self, journal: &Journal) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.write_once(journal).await;
        }
    }

    /// Writes what there is.
    pub async fn write_once(&self, journal: &Journal) {
        let Sums { known, others } = std::mem::take(&mut *self.lock());
        let mut sums: Vec<(Refused, u64)> = known.into_iter().collect();
        if others > 0 {
            sums.push((Refused { source: None, agent: None, operation: "", reason: String::new() }, others));
        }
        let mut away = false;
        for some in sums.chunks(AT_ONCE) {
            // A log that is away refuses the others, too, each after a while.
            let written = match away {
                true => vec![false; some.len()],
                false => {
                    let append = async |(refused, count): &(Refused, u64)| {
                        journal.append(&record(journal.replica(), refused, *count)).await.is_ok()
                    };
                    join_all(some.iter().map(append)).await
                }
            };
            for ((refused, count), _) in some.iter().zip(&written).filter(|(_, written)| !**written) {
                away = true;
                self.sum(refused.clone(), *count);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(replica: &str, refused: &Refused, count: u64) -> AuditRecord {
    let (agent_id, agent) = refused.agent.clone().unwrap_or_default();
    AuditRecord {
        call: Uuid::now_v7(),
        phase: Phase::Refusals,
        at: OffsetDateTime::now_utc(),
        replica: replica.to_owned(),
        operation: refused.operation.to_owned(),
        agent_id,
        agent,
        key: String::new(),
        object: String::new(),
        version: 0,
        bytes: 0,
        source: refused.source.map_or_else(|| "other".to_owned(), |source| source.to_string()),
        outcome: "refused".to_owned(),
        reason: refused.reason.clone(),
        correlation_id: String::new(),
        count,
        change: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn from(source: u32, reason: &str) -> Refused {
        Refused {
            source: Some(Ipv4Addr::from_bits(source).into()),
            agent: None,
            operation: "Heartbeat",
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn a_flood_from_anywhere_makes_a_bounded_number_of_sums() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            for source in 0..20_000 {
                refusals.add(from(source, "TOKEN_REQUIRED"));
            }
        }
        let sums = refusals.lock();
        assert_eq!((sums.known.len(), sums.others), (MAX_SUMS, 30_000));
        assert!(sums.known.values().all(|count| *count == 3));
    }

    #[tokio::test(start_paused = true)]
    async fn sums_that_the_log_does_not_take_are_summed_on() {
        let (bus, journal, _queue) = crate::audit::journal::tests::journal();
        let refusals = Refusals::default();
        for source in 0..1000 {
            refusals.add(from(source, "TOKEN_REQUIRED"));
        }
        *bus.silent.lock().unwrap() = true;
        refusals.write_once(&journal).await;
        assert_eq!(refusals.lock().known.len(), 1000);
        refusals.add(from(1, "TOKEN_REQUIRED"));
        *bus.silent.lock().unwrap() = false;
        refusals.write_once(&journal).await;
        assert_eq!((bus.records().len(), bus.records().iter().map(|record| record.count).sum::<u64>()), (1000, 1001));
        assert!(refusals.lock().known.is_empty());
    }

    #[test]
    fn a_sum_says_who_and_from_where() {
        let refused = Refused { agent: Some((None, "alice".to_owned())), ..from(0x7f00_0001, "ROLE_LACKS_PERMISSION") };
        let record = record("hub-0", &refused, 7);
        assert_eq!((record.source.as_str(), record.agent.as_str(), record.count), ("127.0.0.1", "alice", 7));
        assert_eq!((record.operation.as_str(), record.reason.as_str()), ("Heartbeat", "ROLE_LACKS_PERMISSION"));
    }
}
