//! The message service of one replica: what a hub does with the messages log.
//!
//! One task reads the log ([`reader`]) and is the only one that judges; another writes the mailbox index behind it ([`indexer`]); a third
//! writes acknowledgements ([`keeper`]). Each session has a task that sends ([`sender`]) and, if it receives, one that receives
//! ([`receiver`]). Nothing is handed on before the log has it durably.

mod catch_up;
mod dead_letter;
mod indexer;
mod keeper;
mod reader;
mod receiver;
mod sender;
mod start;
mod waiting;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use reader::Late;
use start::Start;

use crate::{
    agent::Agent,
    budget::{Budget, Queue, Room},
    bus::{Bounds, Bus, BusError, Epoch, Offset, TopicName},
    directory::Directory,
    fault::{Code, Fault},
    mailbox::{CursorStore, MailboxStore},
    message::{Address, Message, OutgoingMessage, Receipt},
    metrics::Metrics,
    request::{Place, Replies},
    session::{MessagesConfig, Session, SessionEvents, SessionInput, SessionOptions},
    supervisor::Supervisor,
};

/// Calls that wait for a reply.
const MAX_REQUESTS: usize = 10_000;
/// Requests of the tenant whose reply can be asked for again.
const MAX_REPLIES: usize = 65_536;
/// The longest that a call may wait for a reply.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Events that wait for one session's agent to read them.
const SESSION_EVENTS: usize = 64;
/// Messages that wait in one session to be sent.
const SESSION_MESSAGES: usize = 64;
/// The most unacknowledged messages of a session.
const MAX_UNACKNOWLEDGED: u32 = 1000;

struct Inner {
    bus: Arc<dyn Bus>,
    mailboxes: Arc<dyn MailboxStore>,
    cursors: Arc<dyn CursorStore>,
    directory: Directory,
    metrics: Arc<Metrics>,
    config: MessagesConfig,
    topic: TopicName,
    dead_letters: TopicName,
    epoch: Epoch,
    partitions: u32,
    reader: mpsc::Sender<reader::Command>,
    waiting: waiting::Desk<reader::Seen>,
    requests: waiting::Desk<Message>,
    replies: Mutex<Replies>,
    /// How far the index goes, as this replica knows.
    checkpoints: watch::Receiver<Vec<Offset>>,
    /// How far the log was read, by partition.
    read: Vec<AtomicU64>,
    /// Somebody waits for the index.
    nudge: Notify,
    slots: keeper::Slots,
    status: watch::Sender<Option<String>>,
    /// Of all queues of all sessions.
    bytes: Budget,
    /// Of messages that are sent one at a time.
    sending: Queue,
    /// Open sessions.
    sessions: watch::Sender<usize>,
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Inner {
    fn replies(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The message service of one replica. Clones share it; it stops, as if it crashed, when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Messages {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

impl Messages {
    /// Reads epoch and checkpoints, and starts the tasks.
    ///
    /// # Errors
    /// Where bus or store do not answer: trying again may help.
    pub async fn start(
        bus: Arc<dyn Bus>,
        mailboxes: Arc<dyn MailboxStore>,
        cursors: Arc<dyn CursorStore>,
        directory: Directory,
        metrics: Arc<Metrics>,
        config: MessagesConfig,
        supervisor: &Supervisor,
    ) -> Result<Self, Fault> {
        let topic = TopicName::system(&config.tenant, "messages");
        let info = bus.topic(&topic).await.map_err(bus_fault)?;
        let mut indexed = mailboxes.checkpoints(info.epoch, info.partitions).await?;
        // Of partitions that can't be read now nothing is known. The others are served meanwhile.
        let (mut from, mut caught_up_at) = (vec![0; indexed.len()], vec![0; indexed.len()]);
        let mut late = Late { partitions: BTreeSet::new(), indexed: indexed.clone() };
        let starts = start::find(&*bus, &topic, &indexed, config.dedup_window).await.map_err(bus_fault)?;
        if let Some(Err(error)) = starts.iter().find(|_| starts.iter().all(Result::is_err)) {
            return Err(bus_fault(error.clone()));
        }
        let places = from.iter_mut().zip(&mut caught_up_at).zip(&mut indexed);
        for ((partition, start), ((from, end), checkpoint)) in (0..).zip(starts).zip(places) {
            match start {
                Ok(Start { from: first, bounds }) => {
                    *checkpoint = (*checkpoint).min(bounds.next);
                    start::tell_forgotten(&topic, partition, *checkpoint, bounds);
                    (*from, *end) = (first.min(*checkpoint), bounds.next);
                }
                Err(error) => {
                    tracing::warn!(%topic, partition, %error, "a partition can't be read: its senders wait, the others are served");
                    late.partitions.insert(partition);
                }
            }
        }

        let (commands, command_queue) = mpsc::channel(1024);
        // Each of about a mebibyte at most.
        let (batches, batch_queue) = mpsc::channel(4);
        let (index, index_queue) = mpsc::channel(indexer::MAX_WAITING);
        let (published, checkpoints) = watch::channel(indexed.clone());
        let dead_letters = TopicName::system(&config.tenant, "dlq");
        let dedup_window = time::Duration::try_from(config.dedup_window).unwrap_or(time::Duration::minutes(10));
        let inner = Arc::new(Inner {
            bytes: Budget::new(config.replica_bytes),
            sending: Budget::new(usize::MAX).queue(config.sending_bytes),
            bus,
            mailboxes,
            cursors,
            directory,
            metrics,
            config,
            topic,
            dead_letters,
            epoch: info.epoch,
            partitions: info.partitions,
            reader: commands,
            waiting: waiting::Desk::default(),
            requests: waiting::Desk::default(),
            replies: Mutex::new(Replies::new(dedup_window, MAX_REPLIES)),
            checkpoints,
            read: from.iter().map(|offset| AtomicU64::new(*offset)).collect(),
            nudge: Notify::new(),
            slots: keeper::Slots::default(),
            status: watch::Sender::new(Some("the messages log".to_owned())),
            sessions: watch::Sender::new(0),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let reader = reader::Reader::new(inner.clone(), command_queue, batch_queue, index, indexed.clone(), caught_up_at, &from);
        let until = || inner.stop.clone();
        supervisor.spawn_until("messages.reader", until(), reader.run());
        supervisor.spawn_until("messages.pump", until(), reader::pump(inner.clone(), from, late, batches));
        supervisor.spawn_until("messages.indexer", until(), indexer::run(inner.clone(), index_queue, indexed, published));
        supervisor.spawn_until("messages.keeper", until(), keeper::run(inner.clone()));
        supervisor.spawn_until("messages.sweep", until(), dead_letter::sweep(inner.clone()));
        let stop = Arc::new(inner.stop.clone().drop_guard());
        Ok(Self { inner, _stop: stop })
    }

    /// What the service waits for before it can serve; `None`: ready.
    #[must_use]
    pub fn waiting_for(&self) -> watch::Receiver<Option<String>> {
        self.inner.status.subscribe()
    }

    /// The log's topic, and how many of its records this replica has not read yet.
    ///
    /// # Errors
    /// Where the bus does not answer.
    pub async fn lag(&self) -> Result<(TopicName, u64), BusError> {
        let inner = &self.inner;
        let bounds = inner.bus.bounds_each(&inner.topic).await?;
        let read = inner.read.iter().map(|read| read.load(Ordering::Relaxed));
        Ok((inner.topic.clone(), unread(&bounds, read)))
    }

    /// Bytes of messages that wait in the queues of its sessions.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.inner.bytes.used()
    }

    /// Sends one message: answers once it is durable and was seen in order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `RECIPIENT_NOT_FOUND`, `IDEMPOTENCY_KEY_REUSED`, or where the log does not take it.
    pub async fn send(&self, from: &Agent, message: OutgoingMessage) -> Result<Receipt, Fault> {
        self.ready()?;
        let _room = self.room(&message)?;
        sender::send(&self.inner, from, message, sender::SEND).await
    }

    /// Sends a query and waits for its reply; a later one is dropped. The same query again, within the deduplication window, gets the same
    /// reply, on any replica. A zero `timeout` stands for 30 s; the most is 5 min.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `DEADLINE_EXCEEDED`.
    pub async fn request(&self, from: &Agent, mut message: OutgoingMessage, timeout: Duration) -> Result<Message, Fault> {
        self.ready()?;
        let began = tokio::time::Instant::now();
        let timeout = if timeout.is_zero() { Duration::from_secs(30) } else { timeout.min(MAX_REQUEST_TIMEOUT) };
        let request_id = self.inner.config.request_key.id(from.id, &message.idempotency_key);
        message.reply_to = Some(Address::Request { agent: from.name.clone(), request_id });
        let Some(mut ticket) = self.inner.requests.wait(request_id, MAX_REQUESTS) else {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_REQUESTS",
                "too many calls wait for replies: ask fewer at once",
            ));
        };
        let exchange = async {
            let room = self.room(&message)?;
            let receipt = sender::send(&self.inner, from, message, sender::REQUEST).await?;
            drop(room);
            let reply = self.inner.replies().reply(request_id).filter(|_| receipt.deduplicated);
            if let Some(Place { partition, offset }) = reply
                && let Some(reply) = catch_up::one(&self.inner, partition, offset).await?
            {
                return Ok((*reply.message).clone());
            }
            ticket.answered().await.ok_or_else(|| {
                Fault::new(Code::Aborted, "REQUEST_REPEATED", "the same request was sent again, and its reply goes there")
            })
        };
        let reply = tokio::select! {
            reply = tokio::time::timeout(timeout, exchange) => reply.map_err(|_| {
                let why = format!("no reply within {timeout:?}: ask again, or send with reply_to yourself and take the reply later");
                Fault::new(Code::DeadlineExceeded, "NO_REPLY", why)
            })??,
            () = self.inner.stop.cancelled() => return Err(stopping()),
        };
        self.inner.metrics.latency("request", began.elapsed());
        Ok(reply)
    }

    /// Opens a session of an agent. One that receives ends any older one that does, on any replica.
    ///
    /// # Errors
    /// Where the hub is not ready or drains, or the store does not answer.
    pub async fn open_session(&self, agent: Arc<Agent>, options: SessionOptions) -> Result<Session, Fault> {
        self.ready()?;
        if options.max_unacknowledged > MAX_UNACKNOWLEDGED {
            let rule = format!("max_unacknowledged is 1 to {MAX_UNACKNOWLEDGED}, or 0 for 100");
            return Err(Fault::invalid("MAX_UNACKNOWLEDGED_INVALID", rule));
        }
        let window = if options.max_unacknowledged == 0 { 100 } else { options.max_unacknowledged as usize };
        let inner = &self.inner;
        let (messages, message_queue) = mpsc::channel(SESSION_MESSAGES);
        let (events, event_queue) = mpsc::channel(SESSION_EVENTS);
        let ended = CancellationToken::new();
        let mut words = None;
        let mut receiving = None;
        if options.receive {
            let opened = inner.cursors.open(inner.epoch, agent.id, &inner.config.replica).await?;
            let (word_sender, word_queue) = mpsc::channel(64);
            words = Some(word_sender);
            receiving = Some(receiver::Receiver::new(inner.clone(), agent.clone(), opened, window, events.clone(), word_queue));
        }
        let open = OpenSession::new(inner.clone());
        let draining = sender::announce_drain(inner.clone(), events.clone(), ended.clone());
        let sending = sender::serve(inner.clone(), agent, message_queue, events, ended.clone());
        tokio::spawn(async move {
            match receiving {
                Some(receiving) => {
                    tokio::join!(sending, receiving.run(ended));
                }
                None => {
                    let mut sending = std::pin::pin!(sending);
                    tokio::select! {
                        () = &mut sending => {}
                        () = draining => sending.await,
                    }
                }
            }
            drop(open);
        });
        Ok(Session {
            id: Uuid::now_v7(),
            input: SessionInput { messages, words, bytes: inner.bytes.queue(inner.config.session_bytes) },
            events: SessionEvents { events: event_queue },
        })
    }

    /// Says `Draining` to every session, lets them acknowledge a little longer, writes what they did and ends them. New ones are
    /// refused. Returns once the last has ended, or after 10 s.
    pub async fn drain(&self) {
        self.inner.draining.cancel();
        let mut sessions = self.inner.sessions.subscribe();
        if tokio::time::timeout(Duration::from_secs(10), sessions.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!("sessions were still open at the end of the drain");
        }
        self.inner.stop.cancel();
    }

    /// Stops at once, as if it crashed: nothing more is written or delivered.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Resolves when this replica can't go on with its log, because that was made anew: all that it remembers of it means nothing.
    pub async fn stopped(&self) {
        self.inner.stop.cancelled().await;
    }

    /// For a message that nothing else makes wait: its caller hears at once that there is none.
    fn room(&self, message: &OutgoingMessage) -> Result<Room, Fault> {
        self.inner.sending.take(message.cost()).ok_or_else(sender::too_many)
    }

    fn ready(&self) -> Result<(), Fault> {
        if self.inner.stop.is_cancelled() || self.inner.draining.is_cancelled() {
            return Err(stopping());
        }
        match &*self.inner.status.borrow() {
            None => Ok(()),
            Some(waits) => Err(Fault::unavailable("NOT_READY", format!("the hub waits for {waits}: try again shortly"))),
        }
    }
}

/// Records between a reader's positions and the ends of the log, as far as that says where it ends.
pub(crate) fn unread(bounds: &[Result<Bounds, BusError>], read: impl Iterator<Item = Offset>) -> u64 {
    let known = bounds.iter().zip(read).filter_map(|(bounds, read)| Some((bounds.as_ref().ok()?, read)));
    // What the log no longer holds can't be read any more.
    known.map(|(bounds, read)| bounds.next.saturating_sub(read.max(bounds.first))).sum()
}

/// Counts a session for as long as it lives.
struct OpenSession(Arc<Inner>);

impl OpenSession {
    fn new(inner: Arc<Inner>) -> Self {
        inner.sessions.send_modify(|open| *open += 1);
        Self(inner)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|open| *open -= 1);
    }
}

fn bus_fault(error: BusError) -> Fault {
    Fault::unavailable("LOG_UNAVAILABLE", error.to_string())
}

fn stopping() -> Fault {
    Fault::unavailable("STOPPING", "this hub replica stops: connect again, to any replica")
}
