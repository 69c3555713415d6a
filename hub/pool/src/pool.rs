//! Connections that are shared.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Error, Execute, Executor, Postgres, SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::{Instant, timeout};

use crate::{
    connections::{Connections, Limits},
    session::Session,
    transaction::Transaction,
};

/// How long an answer may take: a little more than the `statement_timeout` of a tenant's login, so that a server that lives says itself why.
const PATIENCE: Duration = Duration::from_secs(35);

/// Connections that are shared. Clones share the same ones.
#[derive(Clone, Debug)]
pub struct Pool {
    connections: Arc<Connections>,
    patience: Duration,
}

impl Pool {
    /// Connects when first asked.
    #[must_use]
    pub fn new(options: PgConnectOptions, limits: Limits) -> Self {
        Self { connections: Connections::new(options, limits), patience: PATIENCE }
    }

    /// With another bound on how long an answer may take.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A session that is nobody else's until it is dropped.
    ///
    /// # Errors
    /// Where none becomes free, or can be opened.
    pub async fn acquire(&self) -> Result<Session, Error> {
        let held = timeout(self.connections.limits().acquire, self.connections.clone().acquire());
        Ok(Session::new(held.await.map_err(|_| Error::PoolTimedOut)??, self.patience))
    }

    /// A transaction, in a session of its own.
    ///
    /// # Errors
    /// As any query.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let began = Instant::now();
        match self.begin_once().await {
            // Nothing was done in that session yet, so that another one is as good: but only while that keeps nobody waiting.
            Err((true, _)) if began.elapsed() < self.connections.limits().acquire => {
                self.begin_once().await.map_err(|(_, error)| error)
            }
            outcome => outcome.map_err(|(_, error)| error),
        }
    }

    /// Fails with whether it was a session that turned out to be broken.
    async fn begin_once(&self) -> Result<Transaction, (bool, Error)> {
        let mut session = self.acquire().await.map_err(|error| (false, error))?;
        // Rolled back also where it is not known whether it was begun.
        session.in_transaction(true);
        match session.execute("BEGIN").await {
            Ok(_) => Ok(Transaction(session)),
            Err(error) => Err((session.is_closed(), error)),
        }
    }

    /// Closes what nobody uses, with a farewell to the server. Nobody is given a session any more; who has one keeps it.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// How sessions are opened.
    #[must_use]
    pub fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.connections.options()
    }

    /// Sessions that are opened from now on are opened like this.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        self.connections.set_options(options);
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let whole = async move { self.acquire().await?.fetch_many(query).try_collect::<Vec<_>>().await };
        whole.map_ok(|steps| stream::iter(steps).map(Ok)).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move { self.acquire().await?.fetch_optional(query).await }.boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        async move { self.acquire().await?.prepare_with(sql, parameters).await }.boxed()
    }
}
