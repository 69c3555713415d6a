//! The tenant's rows, and how they are asked for.

use std::{sync::Arc, time::Duration};

use acb_hub_core::metrics::Metrics;
use acb_hub_pool::{Limits, Pool};
use sqlx::postgres::PgConnectOptions;

use crate::kit::query_timer::QueryTimer;

/// The tenant's rows in PostgreSQL. Clones share one pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: Pool,
    pub(crate) timer: QueryTimer,
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
