//! Which operator may write. A claim makes every transaction of an earlier leader fail.

use acb_hub_pool::{Pool, Session};

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
    sqlx::query_scalar("SELECT acb_provision.claim_leadership($1)").bind(holder).fetch_one(operator).await.map(LeaderEpoch)
}
