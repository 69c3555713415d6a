//! Which operator may write. A claim makes every transaction of an earlier leader fail.

use std::sync::atomic::{AtomicU32, Ordering};

use acb_hub_pool::{Pool, Session};

/// How many connections the server takes, as it said when it was claimed last: a server that is full can't be asked.
static MAX_CONNECTIONS: AtomicU32 = AtomicU32::new(0);

/// The epoch of a leader, checked within each of its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaderEpoch(pub i64);

impl LeaderEpoch {
    /// Fails with SQLSTATE `ACB01` where there is a newer leader; else nobody can become one until the transaction ends.
    pub(crate) async fn check(self, connection: &mut Session) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT acb_provision.check_epoch($1)").bind(self.0).execute(connection).await.map(drop)
    }
}

/// Becomes the one writer. `holder` says who, for people.
///
/// # Errors
/// Where PostgreSQL does not answer, or was not bootstrapped.
pub async fn claim_leadership(operator: &Pool, holder: &str) -> Result<LeaderEpoch, sqlx::Error> {
    let sql = "SELECT acb_provision.claim_leadership($1), current_setting('max_connections')::integer";
    let (epoch, most): (i64, i32) = sqlx::query_as(sql).bind(holder).fetch_one(operator).await?;
    MAX_CONNECTIONS.store(most.unsigned_abs(), Ordering::Relaxed);
    Ok(LeaderEpoch(epoch))
}

/// How many connections the server takes; `None` where it was not claimed yet.
pub(crate) fn max_connections() -> Option<u32> {
    Some(MAX_CONNECTIONS.load(Ordering::Relaxed)).filter(|most| *most > 0)
}
