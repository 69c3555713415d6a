//! The bus's own session with PostgreSQL for appends.

use std::{sync::Arc, time::Duration};

use acb_hub_pool::Pool;
use sqlx::{Connection as _, Executor, PgConnection, Postgres};
use time::OffsetDateTime;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

/// A session that appended so lately is used at once. Another is asked first whether it lives, before anything is sent whose answer could
/// be lost: only where appends follow each other closely that would cost each of them a round trip.
const TRUSTED: Duration = Duration::from_millis(10);

/// Which session it is, to the server.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    pub(super) pid: i32,
    pub(super) seen_at: OffsetDateTime,
}

/// The bus's own session for appends. One topic has it at a time; another that appends meanwhile borrows from the pool, so that none waits
/// for a topic that stands still.
#[derive(Default)]
pub(super) struct Own(Arc<Mutex<Option<Kept>>>);

impl Own {
    /// `None` where another topic has it.
    pub(super) fn try_take(&self) -> Option<OwnedMutexGuard<Option<Kept>>> {
        Arc::clone(&self.0).try_lock_owned().ok()
    }
}

/// Known and in use: an append over it is one round trip.
pub(super) struct Kept {
    pub(super) connection: PgConnection,
    pub(super) identity: Identity,
    pub(super) used: Instant,
}

impl Kept {
    /// The one that was kept, if it lives, or a new one.
    pub(super) async fn of(kept: Option<Self>, pool: &Pool) -> Result<Self, sqlx::Error> {
        if let Some(mut kept) = kept
            && (kept.used.elapsed() < TRUSTED || kept.connection.ping().await.is_ok())
        {
            return Ok(kept);
        }
        let mut connection = PgConnection::connect_with(&pool.connect_options()).await?;
        let identity = identify(&mut connection).await?;
        Ok(Self { connection, identity, used: Instant::now() })
    }
}

pub(super) async fn identify(session: impl Executor<'_, Database = Postgres>) -> Result<Identity, sqlx::Error> {
    let (pid, seen_at) = sqlx::query_as("SELECT pg_backend_pid(), clock_timestamp()").fetch_one(session).await?;
    Ok(Identity { pid, seen_at })
}
