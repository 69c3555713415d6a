//! The store ports on PostgreSQL, as the tenant's own login: row-level security, not this code, keeps tenants apart. The migrations
//! are here too; the operator runs them, a hub never does.

pub mod agent;
mod audit;
mod checkpoint;
mod chunk;
pub mod context;
mod counts;
pub mod credential;
mod cursor;
mod encryption_key;
pub mod fault;
mod keys;
mod letter;
mod life;
pub mod login;
mod mailbox;
pub mod migrations;
mod number;
pub mod outbox;
pub mod presence;
mod query_timer;
mod registration;
pub mod schema;
mod server_clock;
mod timer;
mod trace;
mod upload;
mod usage;
mod usage_export;
mod visibility;

use std::{sync::Arc, time::Duration};

use acb_hub_core::metrics::Metrics;
use acb_hub_pool::{Limits, Pool};
use query_timer::QueryTimer;
use sqlx::postgres::PgConnectOptions;

/// The tenant's rows in PostgreSQL. Clones share one pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: Pool,
    timer: QueryTimer,
}

impl PgStore {
    /// Connects when first asked. None to four connections; idle ones are closed, since an idle tenant should cost PostgreSQL nothing.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self { pool: Pool::new(options, Limits::default()), timer: QueryTimer::default() }
    }

    /// Tells how long its queries take.
    #[must_use]
    pub fn timed(self, metrics: Arc<Metrics>) -> Self {
        Self { timer: QueryTimer(Some(metrics)), ..self }
    }

    /// With another bound on how long PostgreSQL may take for an answer.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { pool: self.pool.patient(patience), ..self }
    }

    /// The pool, for the ports in this crate and the bus.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}
