//! Learning that the log has grown: from this bus's own commits at once, from other replicas' by a notification, and by a poll behind
//! it all. A notification is only a hint, since any role may send or withhold one; forged ones are metered.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use acb_hub_core::{
    kit::supervisor::Supervisor,
    log::bus::{Epoch, Offset, TopicName},
};
use acb_hub_pool::Pool;
use futures::FutureExt;
use sqlx::{
    Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long a record of another replica can stay unseen where its notification is lost.
const POLL: Duration = Duration::from_millis(200);
/// Hints that showed nothing new: how many at once, and how many a second after that.
const HINT_BURST: f64 = 32.0;
const HINT_RATE: f64 = 200.0;
/// How long an answer may take, which is never much: a server that is silent for longer is asked in another session.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How far each followed topic goes.
pub(super) type Heads = HashMap<TopicName, Head>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    /// By partition: the offset that the next record will get.
    pub(super) next: Vec<Offset>,
}

pub(super) struct Wake {
    heads: watch::Sender<Heads>,
    followed: Mutex<HashMap<TopicName, usize>>,
    /// Something was committed that the other replicas should look for.
    committed: Notify,
    /// The backend that sends this bus's notifications: what it says is known here.
    notifier: AtomicU32,
}

/// Keeps a topic followed.
pub(super) struct Follow {
    wake: Arc<Wake>,
    topic: TopicName,
}

impl Wake {
    pub(super) fn new() -> Self {
        Self {
            heads: watch::Sender::new(Heads::new()),
            followed: Mutex::default(),
            committed: Notify::new(),
            notifier: AtomicU32::new(0),
        }
    }

    pub(super) fn heads(&self) -> watch::Receiver<Heads> {
        self.heads.subscribe()
    }

    pub(super) fn follow(self: &Arc<Self>, topic: &TopicName) -> Follow {
        *self.followed.lock().unwrap_or_else(PoisonError::into_inner).entry(topic.clone()).or_default() += 1;
        Follow { wake: Arc::clone(self), topic: topic.clone() }
    }

    /// Takes in what a followed topic holds.
    pub(super) fn seen(&self, topic: &TopicName, epoch: Epoch, next: Vec<Offset>) {
        self.heads.send_if_modified(|heads| match heads.get_mut(topic) {
            // An older answer may arrive after a newer one: within an epoch the log only grows.
            Some(head) if head.epoch == epoch => {
                let mut grown = next.len() > head.next.len();
                head.next.resize(head.next.len().max(next.len()), 0);
                for (known, next) in head.next.iter_mut().zip(next) {
                    grown |= next > *known;
                    *known = next.max(*known);
                }
                grown
            }
            _ => {
                heads.insert(topic.clone(), Head { epoch, next });
                true
            }
        });
    }

    /// This bus has committed up to `next` of these partitions.
    pub(super) fn committed(&self, topic: &TopicName, ends: &[(usize, Offset)]) {
        self.heads.send_if_modified(|heads| {
            let Some(head) = heads.get_mut(topic) else { return false };
            for &(partition, next) in ends {
                if let Some(known) = head.next.get_mut(partition) {
                    *known = next.max(*known);
                }
            }
            true
        });
        self.committed.notify_one();
    }

    fn topics(&self) -> Vec<String> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).keys().map(ToString::to_string).collect()
    }

    /// Takes in the answer to a question about `asked`; tells whether it held news.
    fn answered(&self, asked: &[String], mut answer: HashMap<String, Head>) -> bool {
        let before = self.heads.borrow().clone();
        for topic in before.keys().filter(|topic| asked.iter().any(|asked| asked == topic.as_str())) {
            match answer.remove(topic.as_str()) {
                Some(head) => self.seen(topic, head.epoch, head.next),
                None => {
                    self.heads.send_modify(|heads| {
                        heads.remove(topic);
                    });
                }
            }
        }
        *self.heads.borrow() != before
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let mut followed = self.wake.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = followed.get_mut(&self.topic) {
            *count -= 1;
            if *count == 0 {
                followed.remove(&self.topic);
                self.wake.heads.send_if_modified(|heads| heads.remove(&self.topic).is_some());
            }
        }
    }
}

/// Starts the two sessions, which end with `stop`.
pub(super) fn spawn(wake: &Arc<Wake>, pool: &Pool, tenant: [u8; 10], stop: &CancellationToken, supervisor: &Supervisor) {
    let digits: String = tenant.iter().map(|byte| format!("{byte:02x}")).collect();
    let channel = format!("acb_{digits}");
    let listener = listen(Arc::clone(wake), pool.clone(), tenant, channel.clone());
    let notifier = notify(Arc::clone(wake), pool.clone(), channel);
    let until = |task| stop.clone().run_until_cancelled_owned(task).map(drop);
    supervisor.spawn_until("bus.listener", stop.clone(), until(listener.boxed()));
    supervisor.spawn_until("bus.notifier", stop.clone(), until(notifier.boxed()));
}

async fn listen(wake: Arc<Wake>, shared: Pool, tenant: [u8; 10], channel: String) {
    let mut pause = BACKOFF.0;
    loop {
        // A pool of one is the only way to a listener with options of its own. A new one each time, so that nothing of a broken session
        // is left.
        let options = PgConnectOptions::clone(&shared.connect_options());
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5)).connect_lazy_with(options);
        let started = Instant::now();
        let Err(error) = session(&wake, &pool, tenant, &channel).await;
        if started.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        tracing::warn!(%error, "the session that follows the log was lost, connecting again");
        sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn session(wake: &Wake, pool: &PgPool, tenant: [u8; 10], channel: &str) -> Result<std::convert::Infallible, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    in_time(listener.listen(channel)).await?;
    let mut hints = Meter::new();
    let mut hinted = false;
    loop {
        let topics = wake.topics();
        if !topics.is_empty() {
            let answer = in_time(ask(&mut listener, tenant, &topics)).await?;
            if !wake.answered(&topics, answer) && hinted {
                hints.spend();
            }
        }
        hinted = wait(wake, &mut listener, &mut hints).await?;
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(PATIENCE, answer).await.map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// Until there is a hint that may be followed, or the poll's time has come. True for a hint.
async fn wait(wake: &Wake, listener: &mut PgListener, hints: &mut Meter) -> Result<bool, sqlx::Error> {
    let mut until = Instant::now() + POLL;
    let mut hinted = false;
    loop {
        let Ok(received) = timeout_at(until, listener.try_recv()).await else { return Ok(hinted) };
        let Some(notification) = received? else { return Err(sqlx::Error::WorkerCrashed) };
        if notification.process_id() == wake.notifier.load(Ordering::Relaxed) {
            continue;
        }
        hinted = true;
        while listener.next_buffered().is_some() {}
        until = until.min(hints.earliest());
        if until <= Instant::now() {
            return Ok(true);
        }
    }
}

async fn ask(listener: &mut PgListener, tenant: [u8; 10], topics: &[String]) -> Result<HashMap<String, Head>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT t.topic, t.epoch, array_agg(p.next_offset ORDER BY p.partition)
         FROM acb.bus_topic t JOIN acb.bus_partition p USING (tenant_id, topic)
         WHERE t.tenant_id = $1 AND t.topic = ANY($2) AND p.partition < t.partitions
         GROUP BY t.topic, t.epoch",
    )
    .bind(&tenant[..])
    .bind(topics)
    .fetch_all(listener)
    .await?;
    let head = |row: sqlx::postgres::PgRow| {
        let (topic, epoch): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let next: Vec<i64> = row.try_get(2)?;
        Ok((topic, Head { epoch: epoch.cast_unsigned(), next: next.into_iter().map(i64::cast_unsigned).collect() }))
    };
    rows.into_iter().map(head).collect()
}

/// Sends one notification for however many commits there were since the last.
async fn notify(wake: Arc<Wake>, shared: Pool, channel: String) {
    let mut session: Option<PgConnection> = None;
    let mut pause = BACKOFF.0;
    loop {
        wake.committed.notified().await;
        match in_time(send(&wake, &shared, &channel, session.take())).await {
            Ok(kept) => {
                session = Some(kept);
                pause = BACKOFF.0;
            }
            Err(error) => {
                tracing::warn!(%error, "the session that notifies the other replicas was lost: they see new records by their polls");
                sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
                wake.committed.notify_one();
            }
        }
    }
}

async fn send(wake: &Wake, shared: &Pool, channel: &str, session: Option<PgConnection>) -> Result<PgConnection, sqlx::Error> {
    let mut session = match session {
        Some(session) => session,
        None => {
            // A notification is worth no flush to disk.
            let options = PgConnectOptions::clone(&shared.connect_options()).options([("synchronous_commit", "off")]);
            let mut session = PgConnection::connect_with(&options).await?;
            let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await?;
            wake.notifier.store(pid.cast_unsigned(), Ordering::Relaxed);
            session
        }
    };
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(&mut session).await?;
    Ok(session)
}

/// Hints that may be followed.
struct Meter {
    left: f64,
    at: Instant,
}

impl Meter {
    fn new() -> Self {
        Self { left: HINT_BURST, at: Instant::now() }
    }

    fn spend(&mut self) {
        self.fill();
        self.left = (self.left - 1.0).max(0.0);
    }

    fn earliest(&mut self) -> Instant {
        self.fill();
        self.at + Duration::from_secs_f64((1.0 - self.left).max(0.0) / HINT_RATE)
    }

    fn fill(&mut self) {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * HINT_RATE).min(HINT_BURST);
        self.at = now;
    }
}
