//! Following the trail: records as they are logged.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::ports::{AuditFilter, AuditStore, KeptRecord};
use crate::{
    fault::{Code, Fault},
    kit::page,
};

/// How often is looked for new ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Numbers that one look goes through: a filter may match few of them.
const LOOK: u64 = 100_000;
/// How often a follower is told how far the look went, where nothing matches.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Some records, and where the next ones are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// By number.
    pub records: Vec<KeptRecord>,
    /// The number to go on from.
    pub next: u64,
}

/// Follows the trail of one tenant.
pub struct AuditFollowing {
    store: Arc<dyn AuditStore>,
    filter: AuditFilter,
    next: u64,
    told: (u64, Instant),
}

impl fmt::Debug for AuditFollowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditFollowing").field("next", &self.next).finish_non_exhaustive()
    }
}

impl AuditFollowing {
    pub(super) async fn begin(store: Arc<dyn AuditStore>, filter: AuditFilter, first: Option<u64>) -> Result<Self, Fault> {
        let size = store.size().await?;
        let next = first.unwrap_or(size);
        if next > size {
            return Err(smaller(next, size));
        }
        Ok(Self { store, filter, next, told: (next, Instant::now()) })
    }

    /// The number that it goes on from.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The next records that match, once there are any. None now and then, to say how far it is.
    ///
    /// # Errors
    /// `AUDIT_TREE_SMALLER` where the trail went back, or where the store does not answer.
    pub async fn next(&mut self) -> Result<Followed, Fault> {
        loop {
            let size = self.store.size().await?;
            if size < self.next {
                return Err(smaller(self.next, size));
            }
            let behind = size.min(self.next.saturating_add(LOOK));
            if behind > self.next {
                let (page, filter) = (page::size(0), AuditFilter { below: Some(behind), ..self.filter.clone() });
                let mut records = self.store.records(&filter, self.next, page + 1).await?;
                let more = page::cut(&mut records, page, |record| record.record.len() + 64);
                self.next = records.last().filter(|_| more).map_or(behind, |last| last.number + 1);
                if !records.is_empty() {
                    return Ok(self.tell(records));
                }
            }
            if self.told.0 < self.next && self.told.1.elapsed() >= TELL_EVERY {
                return Ok(self.tell(Vec::new()));
            }
            if behind < size {
                continue;
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl AuditFollowing {
    fn tell(&mut self, records: Vec<KeptRecord>) -> Followed {
        self.told = (self.next, Instant::now());
        Followed { records, next: self.next }
    }
}

fn smaller(next: u64, size: u64) -> Fault {
    let why = format!("the audit trail has {size} records, and none to go on from number {next}");
    Fault::new(Code::OutOfRange, "AUDIT_TREE_SMALLER", why)
}
