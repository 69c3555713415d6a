//! Runs the migrations of the hub's store, as `acb_owner`. Hubs never do.

use std::time::Duration;

use acb_hub_pool::Pool;
use acb_hub_store::{
    migrations::{LATEST, MIGRATIONS},
    readiness::schema::SUPPORTED,
};

use super::LeaderEpoch;

/// How long one statement of a migration may take: it may have to write large tables anew.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Why the schema is not at the newest version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration failed, and left nothing behind.
    #[error("migration {version} ({name}): {source}")]
    Failed {
        /// Which.
        version: u32,
        /// Its name.
        name: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A much newer operator was here.
    #[error("the schema is at version {found}, and this operator works with up to {}: upgrade the operator", SUPPORTED.end())]
    Newer {
        /// The version found.
        found: i32,
    },
    /// The version could not be read.
    #[error("reading the schema's version: {0} (was `acb bootstrap` run?)")]
    Unreadable(sqlx::Error),
}

/// Brings the schema to the newest version that this operator knows, and says at which it is, one transaction for each migration. Several may run at once: the row's lock lets one through.
///
/// # Errors
/// Which migration failed, and why.
pub async fn migrate(operator: &Pool, epoch: LeaderEpoch) -> Result<u32, MigrateError> {
    let found: i32 = sqlx::query_scalar("SELECT version FROM acb.schema_version")
        .fetch_one(operator)
        .await
        .map_err(MigrateError::Unreadable)?;
    // The next two versions only expand, for the operator's statements as for hubs': a release can be rolled back.
    if found > SUPPORTED.end().cast_signed() {
        return Err(MigrateError::Newer { found });
    }
    for (version, name, sql) in MIGRATIONS.iter().map(|migration| (migration.version, migration.name, migration.sql)) {
        if version.cast_signed() <= found {
            continue;
        }
        apply(operator, epoch, version, sql).await.map_err(|source| MigrateError::Failed { version, name, source })?;
    }
    Ok(LATEST.max(found.unsigned_abs()))
}

async fn apply(operator: &Pool, epoch: LeaderEpoch, version: u32, sql: &'static str) -> Result<(), sqlx::Error> {
    let mut transaction = operator.clone().patient(PATIENCE).begin().await?;
    epoch.check(&mut transaction).await?;
    sqlx::raw_sql("SET LOCAL ROLE acb_owner").execute(&mut *transaction).await?;
    let at: i32 = sqlx::query_scalar("SELECT version FROM acb.schema_version FOR UPDATE").fetch_one(&mut *transaction).await?;
    if at < version.cast_signed() {
        sqlx::raw_sql(sql).execute(&mut *transaction).await?;
        sqlx::query("UPDATE acb.schema_version SET version = $1, changed_at = now()")
            .bind(version.cast_signed())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
