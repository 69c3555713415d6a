//! Which kind of bus the tenants of a database are on. It is written down once: with another kind every tenant would be planned onto empty
//! topics, and every hub rolled onto an empty log.

use acb_hub_pool::Pool;

use super::LeaderEpoch;

/// The kind that this database is kept with: `mine`, where none was written down before.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn keep_bus(operator: &Pool, epoch: LeaderEpoch, mine: &str) -> Result<String, sqlx::Error> {
    let mut transaction = operator.begin().await?;
    epoch.check(&mut transaction).await?;
    sqlx::raw_sql("SET LOCAL ROLE acb_owner").execute(&mut *transaction).await?;
    let kept = sqlx::query_scalar("UPDATE acb.schema_version SET bus_kind = coalesce(bus_kind, $1) RETURNING bus_kind")
        .bind(mine)
        .fetch_one(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(kept)
}
