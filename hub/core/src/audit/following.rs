//! Following the trail: records as they are logged.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::ports::{AuditFilter, AuditStore, KeptRecord};
use crate::{
    fault::{Code, Fault},
    kit::page,
};

/// How often is looked for new ones.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        Ok(Self { store, filter, next })
    }

    /// The number that it goes on from.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The next records that match, once there are any.
    ///
    /// # Errors
    /// `AUDIT_TREE_SMALLER` where the trail went back, or where the store does not answer.
    pub async fn next(&mut self) -> Result<Followed, Fault> {
        loop {
            let size = self.store.size().await?;
            if size < self.next {
                return Err(smaller(self.next, size));
            }
            if size > self.next {
                let page = page::size(0);
                let mut records = self.store.records(&self.filter, self.next, page + 1).await?;
                let more = page::cut(&mut records, page, |record| record.record.len() + 64);
                // What matches and is not among them comes behind the last one; what does not match needs no second look.
                let behind = records.last().map_or(0, |last| last.number + 1);
                self.next = if more { behind } else { size.max(behind) };
                if !records.is_empty() {
                    return Ok(Followed { records, next: self.next });
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn smaller(next: u64, size: u64) -> Fault {
    let why = format!("the audit trail has {size} records, and none to go on from number {next}");
    Fault::new(Code::OutOfRange, "AUDIT_TREE_SMALLER", why)
}
