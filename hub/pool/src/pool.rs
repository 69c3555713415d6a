//! Connections that are shared.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    ConnectOptions as _, Connection as _, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

use crate::{session::Session, transaction::Transaction};

/// How long an answer may take: a little more than the `statement_timeout` of a tenant's login, so that a server that lives says itself why.
const PATIENCE: Duration = Duration::from_secs(35);
/// A connection that was in use so short a time ago is taken for well. One that waited longer is asked first, so that a server that was
/// started again costs nobody a failed call.
const FRESH: Duration = Duration::from_millis(500);
/// How long that question may take.
const PING: Duration = Duration::from_secs(2);
/// Between two attempts to connect to a server that refuses connections, or starts: doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What a pool may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections.
    pub connections: usize,
    /// How long a caller waits for one that becomes free, or is opened.
    pub acquire: Duration,
    /// A connection that nobody has used for this long is closed.
    pub idle: Duration,
    /// A connection is used for at most this long: what a server's process has gathered in memory goes with it.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 4, acquire: Duration::from_secs(5), idle: Duration::from_secs(60), age: Duration::from_secs(30 * 60) }
    }
}

/// Connections that are shared. Clones share the same ones.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    patience: Duration,
}

#[derive(Debug)]
struct Shared {
    options: RwLock<Arc<PgConnectOptions>>,
    limits: Limits,
    places: Arc<Semaphore>,
    /// The one that was used last is used first, so that the others can be closed.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    opened_at: Instant,
    since: Instant,
}

/// A connection that somebody has, and its place among those that there may be.
#[derive(Debug)]
pub(crate) struct Held {
    connection: PgConnection,
    opened_at: Instant,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    /// Connects when first asked.
    #[must_use]
    pub fn new(options: PgConnectOptions, limits: Limits) -> Self {
        let shared = Arc::new(Shared {
            options: RwLock::new(Arc::new(options)),
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            idle: Mutex::default(),
        });
        // Without a runtime there are no connections either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(close_unused(Arc::downgrade(&shared), limits.idle));
        }
        Self { shared, patience: PATIENCE }
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
        let held = timeout(self.shared.limits.acquire, self.shared.clone().acquire());
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
            Err((true, _)) if began.elapsed() < self.shared.limits.acquire => self.begin_once().await.map_err(|(_, error)| error),
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

    /// How sessions are opened.
    #[must_use]
    pub fn connect_options(&self) -> Arc<PgConnectOptions> {
        self.shared.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sessions that are opened from now on are opened like this.
    pub fn set_connect_options(&self, options: PgConnectOptions) {
        *self.shared.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(self: Arc<Self>) -> Result<Held, Error> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        loop {
            let Some(mut idle) = self.idle().pop() else { break };
            if idle.opened_at.elapsed() >= self.limits.age {
                continue;
            }
            if idle.since.elapsed() < FRESH || matches!(timeout(PING, idle.connection.ping()).await, Ok(Ok(()))) {
                return Ok(Held { connection: idle.connection, opened_at: idle.opened_at, shared: self, _place: place });
            }
            // The others waited as long, and lead to the same server.
            self.idle().clear();
        }
        let connection = self.connect().await?;
        Ok(Held { connection, opened_at: Instant::now(), shared: self, _place: place })
    }

    /// A server that starts, or has no connection left, is waited for. Who calls has a bound on the whole.
    async fn connect(&self) -> Result<PgConnection, Error> {
        let (mut pause, longest) = RETRY;
        loop {
            let options = self.options.read().unwrap_or_else(PoisonError::into_inner).clone();
            match options.connect().await {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(Error::Database(error)) if error.is_transient_in_connect_phase() => {}
                outcome => return outcome,
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }
}

impl Held {
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// For the next who asks.
    pub(crate) fn give_back(self) {
        let Self { connection, opened_at, shared, _place } = self;
        // Before its place is free: who gets that place must find it.
        shared.idle().push(Idle { connection, opened_at, since: Instant::now() });
    }

    /// Closes it and all that nobody uses.
    pub(crate) fn forget_idle(self) {
        self.shared.idle().clear();
    }
}

/// Closes what nobody has used for long, as long as there is the pool.
async fn close_unused(pool: Weak<Shared>, after: Duration) {
    loop {
        sleep(after / 4).await;
        let Some(shared) = pool.upgrade() else { return };
        let unused: Vec<Idle> = {
            let mut idle = shared.idle();
            let kept = idle.iter().position(|idle| idle.since.elapsed() < after).unwrap_or(idle.len());
            idle.drain(..kept).collect()
        };
        drop(shared);
        for idle in unused {
            // A server that does not take the farewell notices the end of the connection.
            let _ = timeout(PING, idle.connection.close()).await;
        }
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
