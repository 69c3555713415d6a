//! Whether a hub can work with the schema that is there. It only looks: the operator alone migrates.

use std::ops::RangeInclusive;

use acb_hub_core::fault::{Code, Fault};

use crate::{kit::store::PgStore, migrations::LATEST};

/// The reason where the schema is of another version.
pub const OUT_OF_RANGE: &str = "SCHEMA_OUT_OF_RANGE";

/// The schema versions that this hub works with: the next two only expand, so that hub and operator need not change at once.
pub const SUPPORTED: RangeInclusive<u32> = LATEST..=LATEST + 2;

impl PgStore {
    /// Whether this hub works with the schema that is there.
    pub async fn check_schema(&self) -> Result<(), Fault> {
        let query = self.timer.start("schema.version");
        let version: Option<i32> = sqlx::query_scalar("SELECT version FROM acb.schema_version")
            .fetch_optional(self.pool())
            .await
            .map_err(|error| query.fault(error))?;
        let version = version.unwrap_or_default().cast_unsigned();
        if SUPPORTED.contains(&version) {
            return Ok(());
        }
        Err(Fault::new(
            Code::FailedPrecondition,
            OUT_OF_RANGE,
            format!(
                "the schema is at version {version}, and this hub works with {} to {}: upgrade the {}",
                SUPPORTED.start(),
                SUPPORTED.end(),
                if version < *SUPPORTED.start() { "operator, which migrates it" } else { "hub" }
            ),
        ))
    }
}
