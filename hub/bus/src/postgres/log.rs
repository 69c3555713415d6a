//! What the parts of the bus share.

use std::sync::Arc;

use acb_hub_core::log::bus::BusError;
use acb_hub_pool::Pool;
use tokio_util::sync::CancellationToken;

use super::{session::Own, wake::Wake};

/// What every part of the bus needs: whose log, where, and how it learns of changes.
#[derive(Clone)]
pub(crate) struct Log {
    pub(super) pool: Pool,
    pub(super) tenant: [u8; 10],
    pub(super) own: Arc<Own>,
    pub(super) wake: Arc<Wake>,
    pub(super) stop: CancellationToken,
}

/// The message that a caller of the bus sees: never more than what failed, and why.
pub(super) fn unavailable(what: &str, error: &sqlx::Error) -> BusError {
    BusError::Unavailable(format!("PostgreSQL did not {what}: {error}"))
}
