//! The store ports on PostgreSQL, as the tenant's own login: row-level security, not this code, keeps tenants apart. The migrations
//! are here too; the operator runs them, a hub never does.

pub mod agent;
mod chunk;
pub mod context;
pub mod credential;
mod cursor;
mod fault;
mod mailbox;
pub mod migrations;
mod number;
mod outbox;
pub mod presence;
mod query_timer;
pub mod schema;
mod upload;

use std::{sync::Arc, time::Duration};

use acb_hub_core::metrics::Metrics;
use query_timer::QueryTimer;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The tenant's rows in PostgreSQL. Clones share one pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    timer: QueryTimer,
}

impl PgStore {
    /// Connects when first asked. None to four connections; idle ones are closed, since an idle tenant should cost PostgreSQL nothing.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        let pool = PgPoolOptions::new()
            .min_connections(0)
            .max_connections(4)
            .idle_timeout(Duration::from_secs(60))
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options);
        Self { pool, timer: QueryTimer::default() }
    }

    /// Tells how long its queries take.
    #[must_use]
    pub fn timed(self, metrics: Arc<Metrics>) -> Self {
        Self { timer: QueryTimer(Some(metrics)), ..self }
    }

    /// The pool, for the ports in this crate and the bus.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
