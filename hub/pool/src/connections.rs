//! The connections of a pool: those that somebody has, and those that wait for the next who asks.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, Error, PgConnection, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

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

/// The connections of a pool.
#[derive(Debug)]
pub(crate) struct Connections {
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
    shared: Arc<Connections>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(options: PgConnectOptions, limits: Limits) -> Arc<Self> {
        let connections = Arc::new(Self {
            options: RwLock::new(Arc::new(options)),
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            idle: Mutex::default(),
        });
        // Without a runtime there are no connections either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(close_unused(Arc::downgrade(&connections), limits.idle));
        }
        connections
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How they are opened.
    pub(crate) fn options(&self) -> Arc<PgConnectOptions> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_options(&self, options: PgConnectOptions) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn acquire(self: Arc<Self>) -> Result<Held, Error> {
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

    pub(crate) async fn close(&self) {
        self.places.close();
        let idle: Vec<Idle> = self.idle().drain(..).collect();
        for idle in idle {
            let _ = timeout(PING, idle.connection.close()).await;
        }
    }

    /// A server that starts, or has no connection left, is waited for. Who calls has a bound on the whole.
    async fn connect(&self) -> Result<PgConnection, Error> {
        let (mut pause, longest) = RETRY;
        loop {
            match self.options().connect().await {
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
async fn close_unused(pool: Weak<Connections>, after: Duration) {
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
