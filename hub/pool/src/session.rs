//! One session with PostgreSQL, as long as somebody has it to themselves.

use std::{io, time::Duration};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
    postgres::{PgDatabaseError, PgQueryResult, PgRow, PgSeverity, PgStatement, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    time::{error::Elapsed, timeout},
};

use crate::connections::Held;

/// How long a session may take to become free for the next user: what is still running in it has this long to end.
const RETURN: Duration = Duration::from_secs(5);

/// A session with the server.
#[derive(Debug)]
pub struct Session {
    /// None once it is closed.
    held: Option<Held>,
    patience: Duration,
    /// A query was sent, and not all of its answer has come.
    asked: bool,
    in_transaction: bool,
}

impl Session {
    pub(crate) fn new(held: Held, patience: Duration) -> Self {
        Self { held: Some(held), patience, asked: false, in_transaction: false }
    }

    /// Closes it at once, whatever the server makes of that.
    pub fn close(&mut self) {
        self.held = None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.held.is_none()
    }

    /// Whether a transaction must be rolled back before somebody else has the session.
    pub(crate) fn in_transaction(&mut self, open: bool) {
        self.in_transaction = open;
    }

    /// The connection, for one query: until [`settle`](Self::settle) it counts as one that is in the middle of something.
    fn ask(&mut self) -> Result<&mut PgConnection, Error> {
        let held = self.held.as_mut().ok_or_else(|| Error::from(io::Error::from(io::ErrorKind::NotConnected)))?;
        self.asked = true;
        Ok(held.connection())
    }

    /// What became of a query. After a silence, or an error that ended the connection, nothing more is expected of this session, nor of
    /// those that wait in the pool: they lead to the same server.
    fn settle<T>(&mut self, answer: Result<Result<T, Error>, Elapsed>) -> Result<T, Error> {
        self.asked = false;
        let answer = answer.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.patience)).into())
        });
        if let Err(error) = &answer
            && ends_the_connection(error)
            && let Some(held) = self.held.take()
        {
            held.forget_idle();
        }
        answer
    }
}

fn ends_the_connection(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => true,
        // Another connection may lead to a server that takes writes: the next one after a failover, or after the setting is undone.
        Error::Database(error) if error.code().as_deref() == Some("25006") => true,
        Error::Database(error) => {
            let error = error.try_downcast_ref::<PgDatabaseError>();
            error.is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
        }
        _ => false,
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        if !self.asked && !self.in_transaction {
            held.give_back();
        } else if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(clean(held, self.in_transaction));
        }
    }
}

/// Waits for what is still running in a session, and undoes it. A session that does not get there in time is closed.
async fn clean(mut held: Held, in_transaction: bool) {
    let connection = held.connection();
    let cleaned = async {
        match in_transaction {
            true => connection.execute("ROLLBACK").await.map(drop),
            false => connection.ping().await,
        }
    };
    if matches!(timeout(RETURN, cleaned).await, Ok(Ok(()))) {
        held.give_back();
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
            let answer = timeout(patience, self.ask()?.fetch_many(query).try_collect::<Vec<_>>()).await;
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
            let answer = timeout(patience, self.ask()?.fetch_optional(query)).await;
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
            let answer = timeout(patience, self.ask()?.prepare_with(sql, parameters)).await;
            self.settle(answer)
        }
        .boxed()
    }
}
