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
pub mod schema;
mod upload;

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// The tenant's rows in PostgreSQL. Clones share one pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
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
        Self { pool }
    }

    /// The pool, for the ports in this crate and the bus.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}
