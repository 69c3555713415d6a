//! Sessions with PostgreSQL whose every use ends. The server ends a query after its `statement_timeout`; but a server that vanishes (a
//! lost node, a cut network) says nothing any more, and TCP alone would wait for it for a quarter of an hour.

use std::{io, ops, sync::Arc, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    time::{error::Elapsed, timeout},
};

/// How long an answer may take: a little more than the `statement_timeout` of a tenant's login, so that a server that lives says itself why.
const PATIENCE: Duration = Duration::from_secs(35);
/// How long a session may take to become free for the next user: what is still running in it has this long to end.
const RETURN: Duration = Duration::from_secs(5);

/// Sessions that are shared. Clones share the same ones.
#[derive(Clone, Debug)]
pub struct Pool {
    pool: PgPool,
    patience: Duration,
}

impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self { pool, patience: PATIENCE }
    }
}

impl Pool {
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
        Ok(Session { connection: Some(self.pool.acquire().await?), patience: self.patience, in_transaction: false })
    }

    /// A transaction, in a session of its own.
    ///
    /// # Errors
    /// As any query.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let mut session = self.acquire().await?;
        // Rolled back also where it is not known whether it was begun.
        session.in_transaction = true;
        session.execute("BEGIN").await?;
        Ok(Transaction(session))
    }

    /// How sessions are opened.
    #[must_use]
    pub fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.pool.connect_options()
    }

    /// Sessions that are opened from now on are opened like this.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        self.pool.set_connect_options(options);
    }
}

/// A session with the server.
#[derive(Debug)]
pub struct Session {
    /// None once it is closed.
    connection: Option<PoolConnection<Postgres>>,
    patience: Duration,
    in_transaction: bool,
}

impl Session {
    /// Closes it at once, whatever the server makes of that.
    pub fn close(&mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }

    fn connection(&mut self) -> Result<&mut PgConnection, Error> {
        self.connection.as_deref_mut().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    }

    /// What became of a query. After a silence nothing more is expected of this session.
    fn settle<T>(&mut self, answer: Result<Result<T, Error>, Elapsed>) -> Result<T, Error> {
        answer.unwrap_or_else(|_| {
            self.close();
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.patience)).into())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The pool asks the server first whether the session is well, and would wait for that for as long as TCP does.
        if let Some(connection) = self.connection.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(give_back(connection, self.in_transaction));
        }
    }
}

async fn give_back(mut connection: PoolConnection<Postgres>, in_transaction: bool) {
    if in_transaction && !matches!(timeout(RETURN, connection.execute("ROLLBACK")).await, Ok(Ok(_))) {
        drop(connection.detach());
    } else {
        // What is not back by then is closed.
        let _ = timeout(RETURN, connection.return_to_pool()).await;
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    /// All at once, so that the bound is one on the whole.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let whole = async move {
            let patience = self.patience;
            let answer = timeout(patience, self.connection()?.fetch_many(query).try_collect::<Vec<_>>()).await;
            self.settle(answer)
        };
        whole.map_ok(|steps| stream::iter(steps).map(Ok)).try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        async move {
            let patience = self.patience;
            let answer = timeout(patience, self.connection()?.fetch_optional(query)).await;
            self.settle(answer)
        }
        .boxed()
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        async move {
            let patience = self.patience;
            let answer = timeout(patience, self.connection()?.prepare_with(sql, parameters)).await;
            self.settle(answer)
        }
        .boxed()
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

/// A transaction. Rolled back where it is dropped.
#[derive(Debug)]
pub struct Transaction(Session);

impl Transaction {
    /// Makes it durable.
    ///
    /// # Errors
    /// As any query: whether it was committed is not known then.
    pub async fn commit(self) -> Result<(), Error> {
        self.end("COMMIT").await
    }

    /// Undoes it.
    ///
    /// # Errors
    /// As any query.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), Error> {
        self.0.execute(how).await?;
        self.0.in_transaction = false;
        Ok(())
    }
}

impl ops::Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl ops::DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}
