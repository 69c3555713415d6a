//! The message service of one replica: what a hub does with the messages log.
//!
//! One task reads the log ([`reader`](super::reader)) and is the only one that judges; another writes the mailbox index behind it ([`indexer`](super::indexer)); a third
//! writes acknowledgements ([`acknowledgements`](super::acknowledgements)), and a fourth removes the index rows of what was acknowledged ([`trimmer`](super::trimmer)). Each session has a task that sends ([`sender`](super::sender)) and, if it receives, one that receives
//! ([`receiver`](super::receiver)). Nothing is handed on before the log has it durably.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::{
    acknowledgements::Acknowledgements,
    catch_up,
    config::MessagesConfig,
    dedup::DedupWindows,
    delivery::DeliveryId,
    demand::Demand,
    filter::MessageFilter,
    indexer, lease, letter_indexer,
    letters::DeadLetters,
    life::{self, Life},
    log::{Log, MessagesTopic},
    logged::{REQUEST, SEND},
    message::{Address, Message, OutgoingMessage, Receipt},
    parts::{Index, Letters, Lifecycle, Memory, MessageStores, Parts, Waiters, stopping},
    pauses::Pauses,
    position::{MessagePlace, Position},
    pull::{PULL_IN_PROGRESS, Pulled, Puller, Pullers},
    pump::{self, Late},
    reader::Reader,
    receiver::{Receiver, Reception},
    replies::Replies,
    scheduled::ScheduledMessages,
    send_queue, sender,
    session::{Session, SessionEvents, SessionInput, SessionOptions},
    start::{self, Start},
    summing,
    sums::Sums,
    sweep,
    trace::{recorder::Recorder, search::Traces},
    trimmer::Trimmer,
    unread::Unread,
    usage::{self, Usage},
    usage_export, usage_rebuild,
    usage_store::Begun,
    usage_sums::UsageSums,
};
use crate::{
    directory::{
        agent::{Agent, Permission},
        caller::lacks,
        limits::{LimitUsage, Whose},
        presence::{PresenceStore, Status},
        snapshot::Directory,
    },
    fault::{Code, Fault},
    kit::{
        budget::{Budget, Room},
        clock::rfc3339,
        quoted::quoted,
        supervisor::Supervisor,
    },
    log::{
        bus::{Bus, BusError, TopicName},
        partition::partition_of,
    },
    metrics::Metrics,
    timers::{alarm::Wake, ports::TimerStore},
};

/// Calls that wait for a reply.
const MAX_REQUESTS: usize = 10_000;
/// Requests of the tenant whose reply can be asked for again.
const MAX_REPLIES: usize = 65_536;
/// The longest that a call may wait for a reply.
const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// The shortest life of a request in the log.
const MIN_LIFETIME: Duration = Duration::from_millis(100);
/// Events that wait for one session's agent to read them.
const SESSION_EVENTS: usize = 64;
/// How long the store may take to say whether an agent was there.
const ABSENCE_WITHIN: Duration = Duration::from_secs(1);
/// Messages that wait in one session to be sent.
const SESSION_MESSAGES: usize = 64;
/// The most unacknowledged messages of a session.
const MAX_UNACKNOWLEDGED: u32 = 1000;

/// The message service of one replica. Clones share it; it stops, as if it crashed, when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Messages {
    parts: Parts,
    /// Says of an agent that did not answer whether it was there.
    presence: Option<Seen>,
    pullers: Arc<Pullers>,
    _stop: Arc<DropGuard>,
}

#[derive(Clone)]
struct Seen(Arc<dyn PresenceStore>);

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

impl Messages {
    /// Reads epoch and checkpoints, and starts the tasks.
    ///
    /// # Errors
    /// Where bus or store do not answer: trying again may help.
    pub async fn start(
        bus: Arc<dyn Bus>,
        stores: MessageStores,
        directory: Directory,
        metrics: Arc<Metrics>,
        config: MessagesConfig,
        supervisor: &Supervisor,
    ) -> Result<Self, Fault> {
        let MessageStores { mailboxes, cursors, letters, traces, usage } = stores;
        let topic = MessagesTopic::new(bus, &config.tenant);
        let info = topic.info().await?;
        let Life { epoch, indexed } = life::begin(&topic, &*mailboxes, info, config.cut_after).await?;
        let since = usage::month_before_began(OffsetDateTime::now_utc());
        let mut begun = usage.begin(epoch, &indexed, since).await?;
        if usage_rebuild::rebuild(&topic, &config.tenant, &*usage, epoch, &begun.next).await? {
            begun = usage.begin(epoch, &indexed, since).await?;
        }
        let Begun { next: summed, months, gaps } = begun;
        // What is in no sum yet is read again, too.
        let needed: Vec<Position> = indexed.iter().zip(&summed).map(|(indexed, summed)| *indexed.min(summed)).collect();
        metrics.usage().gaps(gaps);
        let sums = Sums::new(usage, &summed);
        // Of partitions that can't be read now nothing is known. The others are served meanwhile.
        let (mut from, mut caught_up_at) = (vec![0; indexed.len()], vec![0; indexed.len()]);
        let mut late = Late { partitions: BTreeSet::new(), indexed: Arc::new(indexed.clone()), needed: Arc::new(needed.clone()) };
        let starts = start::find(&topic, &needed, config.dedup_window).await?;
        if let Some(Err(error)) = starts.iter().find(|_| starts.iter().all(Result::is_err)) {
            return Err(error.clone().into());
        }
        let places = from.iter_mut().zip(&mut caught_up_at).zip(&indexed);
        for ((partition, start), ((from, end), checkpoint)) in (0..).zip(starts).zip(places) {
            match start {
                Ok(Start { from: first, bounds }) => {
                    start::tell_forgotten(&topic, partition, *checkpoint, bounds);
                    sums.begin(partition, bounds);
                    (*from, *end) = (first, bounds.next);
                }
                Err(error) => {
                    tracing::warn!(topic = %topic.name, partition, %error, "a partition can't be read: its senders wait, the others are served");
                    late.partitions.insert(partition);
                }
            }
        }

        let (commands, command_queue) = mpsc::channel(1024);
        // Each of about a mebibyte at most.
        let (batches, batch_queue) = mpsc::channel(4);
        let (index, index_queue) = mpsc::channel(indexer::MAX_WAITING);
        let (published, checkpoints) = watch::channel(indexed.clone());
        let dedup_window = time::Duration::try_from(config.dedup_window).unwrap_or(time::Duration::minutes(10));
        let log = Log::new(topic, &config.tenant, (info.epoch, epoch), &from, directory.snapshot().ahead);
        let replies = Replies::new(dedup_window, MAX_REPLIES);
        let trimmer = Arc::new(Trimmer::new(mailboxes.clone(), epoch, checkpoints.clone()));
        let parts = Parts {
            acknowledgements: Arc::new(Acknowledgements::new(cursors.clone(), epoch, trimmer.clone())),
            index: Arc::new(Index { store: mailboxes, checkpoints, wanted: Notify::new(), arrivals: Arc::default() }),
            letters: Arc::new(Letters { store: letters, appended: Notify::new(), pauses: Pauses::default() }),
            waiters: Arc::new(Waiters::new(replies)),
            windows: Arc::new(DedupWindows::new(from.len(), dedup_window, config.dedup_keys)),
            usage: Arc::new(Usage::new(summed, months)),
            sums: Arc::new(sums),
            trace: Arc::new(Recorder::new(traces, epoch, &config.replica, metrics.clone())),
            memory: Arc::new(Memory {
                sessions: Budget::new(config.replica_bytes),
                inputs: Budget::new(config.replica_bytes),
                kept: Budget::new(config.kept_bytes),
                sending: Budget::new(usize::MAX).queue(config.sending_bytes),
            }),
            lifecycle: Arc::new(Lifecycle::new()),
            log: Arc::new(log),
            config: Arc::new(config),
            cursors,
            directory,
            metrics,
            reader: commands,
        };
        let reader = Reader::new(parts.clone(), command_queue, batch_queue, index, indexed.clone(), caught_up_at, &from);
        let until = || parts.lifecycle.stop.clone();
        supervisor.spawn_until("messages.reader", until(), reader.run());
        supervisor.spawn_until("messages.pump", until(), pump::run(parts.clone(), from, late, batches));
        supervisor.spawn_until("messages.indexer", until(), indexer::run(parts.clone(), index_queue, indexed, published));
        let (acknowledgements, every, stop) = (parts.acknowledgements.clone(), parts.config.flush_every, until());
        supervisor.spawn_until("messages.acknowledgements", until(), async move { acknowledgements.run(every, stop).await });
        let (every, stop) = (parts.config.flush_every, until());
        supervisor.spawn_until("messages.trimmer", until(), async move { trimmer.run(every, stop).await });
        supervisor.spawn_until("messages.life", until(), life::watch(parts.clone()));
        supervisor.spawn_until("messages.sweep", until(), sweep::run(parts.clone()));
        supervisor.spawn_until("messages.lease", until(), lease::keep(parts.clone()));
        let (trace, stop) = (parts.trace.clone(), until());
        supervisor.spawn_until("messages.trace", until(), async move { trace.run(stop).await });
        supervisor.spawn_until("messages.sums", until(), summing::run(parts.clone()));
        supervisor.spawn_until("messages.usage_export", until(), usage_export::run(parts.clone()));
        supervisor.spawn_until("messages.letters", until(), letter_indexer::run(parts.clone()));
        let stop = Arc::new(parts.lifecycle.stop.clone().drop_guard());
        Ok(Self { parts, presence: None, pullers: Arc::default(), _stop: stop })
    }

    /// On whose account an agent sends (where the name is empty, the caller): for whoever may see what that uses.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` and `AGENT_NOT_FOUND`.
    pub fn account(&self, caller: &Agent, of: &str) -> Result<Arc<Agent>, Fault> {
        let snapshot = self.parts.directory.snapshot();
        let name = if of.is_empty() { &caller.name } else { of };
        if *name != caller.name && !caller.role.allows(Permission::AllUsage) {
            return Err(lacks(caller, &[Permission::AllUsage]));
        }
        let missing = || Fault::not_found("AGENT_NOT_FOUND", format!("there is no agent {}", quoted(name)));
        snapshot.agent_named(name).and_then(|agent| snapshot.account(agent.id)).cloned().ok_or_else(missing)
    }

    /// The limits of messages of this account and of the tenant, and what was used of them.
    #[must_use]
    pub fn usage(&self, agent: &Agent) -> Vec<LimitUsage> {
        let (parts, snapshot) = (&self.parts, self.parts.directory.snapshot());
        let now = parts.log.clock.there(partition_of(agent.id.0, parts.log.partitions), OffsetDateTime::now_utc());
        let (of_agent, of_tenant) = parts.usage.sent(agent.id, now);
        let own = usage::of_limits(Whose::Agent(&agent.name), agent.limits, of_agent, now);
        let all = usage::of_limits(Whose::Tenant(&parts.config.tenant), snapshot.limits, of_tenant, now);
        own.into_iter().chain(all).collect()
    }

    /// What agents have sent, by hour, day and month.
    #[must_use]
    pub fn usage_sums(&self) -> UsageSums {
        UsageSums::new(self.parts.clone())
    }

    /// Tells the callers of requests without a reply whether the recipient was there.
    #[must_use]
    pub fn with_presence(self, presence: Arc<dyn PresenceStore>) -> Self {
        Self { presence: Some(Seen(presence)), ..self }
    }

    /// What the service waits for before it can serve; `None`: ready.
    #[must_use]
    pub fn waiting_for(&self) -> watch::Receiver<Option<String>> {
        self.parts.lifecycle.waits_for.subscribe()
    }

    /// The log's topic, and how many of its records this replica has not read yet.
    ///
    /// # Errors
    /// Where the bus does not answer.
    pub async fn lag(&self) -> Result<(TopicName, u64), BusError> {
        let log = &self.parts.log;
        Ok((log.topic.name.clone(), log.unread().await?))
    }

    /// Bytes of messages that wait in the queues of its sessions.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.parts.memory.sessions.used() + self.parts.memory.inputs.used()
    }

    /// What waits for agents that receive, and what they send: who does not take the receipts of a session holds what it sends there.
    #[must_use]
    pub fn memory(&self) -> [Budget; 2] {
        [self.parts.memory.sessions.clone(), self.parts.memory.inputs.clone()]
    }

    /// The dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(self.parts.clone())
    }

    /// Messages that are sent later, kept as these timers. It is for an [`Alarm`](crate::timers::alarm::Alarm) to have them sent, which that wakes.
    #[must_use]
    pub fn scheduled(&self, timers: Arc<dyn TimerStore>, wake: Wake) -> ScheduledMessages {
        ScheduledMessages::new(self.parts.clone(), timers, wake)
    }

    /// What happened to messages.
    #[must_use]
    pub fn traces(&self) -> Traces {
        Traces::new(self.parts.clone())
    }

    /// What is unread, to be looked at.
    #[must_use]
    pub fn unread(&self) -> Unread {
        Unread::new(self.parts.clone())
    }

    /// Sends one message: answers once it is durable and was seen in order.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `RECIPIENT_NOT_FOUND`, `IDEMPOTENCY_KEY_REUSED`, or where the log does not take it.
    pub async fn send(&self, from: &Agent, message: OutgoingMessage) -> Result<Receipt, Fault> {
        self.parts.ready()?;
        let _room = self.room(&message)?;
        sender::send(&self.parts, from, message, SEND).await
    }

    /// Sends a query and waits for its reply; a later one is refused. Whoever has not begun on it by then never sees it. The same query again, within the deduplication window, gets the same
    /// reply, on any replica. A zero `timeout` stands for 30 s; the most is 5 min.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `DEADLINE_EXCEEDED`.
    pub async fn request(&self, from: &Agent, mut message: OutgoingMessage, timeout: Duration) -> Result<Message, Fault> {
        self.parts.ready()?;
        if matches!(message.to, Address::Agents(_)) {
            let why = "a request has one reply: ask one agent, or a group for the first answer, or send a message with reply_to";
            return Err(Fault::invalid("RECIPIENTS_INVALID", why));
        }
        let began = tokio::time::Instant::now();
        let timeout = if timeout.is_zero() { Duration::from_secs(30) } else { timeout.min(MAX_REQUEST_TIMEOUT) };
        // Whose time is over before it is in the log has no reply, and is no bad request.
        let deadline = OffsetDateTime::now_utc() + timeout.max(MIN_LIFETIME);
        message.expires_at = Some(message.expires_at.map_or(deadline, |at| at.min(deadline)));
        let request_id = self.parts.config.request_key.id(from.id, &message.idempotency_key);
        let to = message.to.clone();
        message.reply_to = Some(Address::Request { agent: from.name.clone(), request_id });
        let Some(mut waiter) = self.parts.waiters.requests.wait(request_id, MAX_REQUESTS) else {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_REQUESTS",
                "too many calls wait for replies: ask fewer at once",
            ));
        };
        let exchange = async {
            let room = self.room(&message)?;
            let receipt = sender::send(&self.parts, from, message, REQUEST).await?;
            drop(room);
            let reply = self.parts.waiters.replies().reply(request_id).filter(|_| receipt.deduplicated);
            if let Some(MessagePlace { partition, position }) = reply
                && let Some(found) = catch_up::one(&self.parts, partition, position).await?
            {
                return Ok(found.envelope.message);
            }
            waiter.answered().await.ok_or_else(|| {
                Fault::new(Code::Aborted, "REQUEST_REPEATED", "the same request was sent again, and its reply goes there")
            })
        };
        let reply = tokio::select! {
            reply = tokio::time::timeout(timeout, exchange) => reply,
            () = self.parts.lifecycle.stop.cancelled() => return Err(stopping()),
        };
        let reply = match reply {
            Ok(reply) => reply?,
            Err(_) => {
                let absent = self.absence(&to).await.unwrap_or_default();
                let why = format!(
                    "no reply within {timeout:.1?}{absent}: whoever has not begun on it will not see it. The same request again, with its idempotency \
                     key, waits for whoever has begun; one with a new key asks anew, and may be carried out beside this one. \
                     For replies that take longer send a message with reply_to yourself"
                );
                return Err(Fault::new(Code::DeadlineExceeded, "NO_REPLY", why));
            }
        };
        self.parts.metrics.latency("request", began.elapsed());
        Ok(reply)
    }

    /// That the agent at the address was not there, where that is known.
    async fn absence(&self, to: &Address) -> Option<String> {
        let (Some(Seen(store)), Address::Agent(name)) = (&self.presence, to) else { return None };
        let id = self.parts.directory.snapshot().agent_named(name)?.id;
        // The caller's time is over: it waits for this no longer than for any answer.
        let seen = tokio::time::timeout(ABSENCE_WITHIN, store.presence(&[id])).await.ok()?.ok()?;
        match seen.get(&id) {
            None => Some(format!(", and agent {name} was never there")),
            Some(seen) if seen.status(OffsetDateTime::now_utc()) == Status::Online => None,
            Some(seen) => Some(format!(", and agent {name} is not there (it was last seen at {})", rfc3339(seen.last_seen_at))),
        }
    }

    /// Opens a session of an agent. One that receives ends any older one of the same program, on any replica; one of another program only
    /// where it takes over.
    ///
    /// # Errors
    /// `RECEIVER_PRESENT`; where the agent may not receive and would, where the hub is not ready or drains, or where the store does not answer.
    pub async fn open_session(&self, agent: Arc<Agent>, options: SessionOptions) -> Result<Session, Fault> {
        self.open(agent, options, "", None).await
    }

    /// The same, of one that receives what matches `filter` alone; everything where it is empty. What does not match stays unread: a later
    /// session of the agent finds it. As many as a cursor has exceptions may lie between what was taken; then the partition is held back.
    ///
    /// # Errors
    /// The same, and `FILTER_INVALID`.
    pub async fn open_session_matching(
        &self,
        agent: Arc<Agent>,
        options: SessionOptions,
        filter: &str,
    ) -> Result<Session, Fault> {
        self.open(agent, options, filter, None).await
    }

    /// Takes messages by a call: the next ones within `wait` (20 s at most), and no more than `max` (32 where 0, 1,000 at most). Behind it is a session of
    /// this program, which lasts for five minutes after its last call.
    ///
    /// # Errors
    /// `RECEIVER_INVALID`, `PULL_IN_PROGRESS`, `SESSION_REPLACED`, or as [`open_session`](Self::open_session).
    pub async fn pull(
        &self,
        agent: Arc<Agent>,
        receiver: &str,
        take_over: bool,
        max: u32,
        wait: Duration,
    ) -> Result<Pulled, Fault> {
        self.parts.ready()?;
        let puller = self.puller(&agent, receiver, take_over).await?;
        let pulled = puller.pull(max, wait).await;
        if pulled.as_ref().is_err_and(|fault| fault.reason != PULL_IN_PROGRESS) {
            self.pullers.forget(agent.id, &puller);
        }
        pulled
    }

    /// Acknowledges what [`pull`](Self::pull) gave, at whichever replica, and says of other deliveries that they are still worked at.
    ///
    /// # Errors
    /// Where another program receives meanwhile, or as [`open_session`](Self::open_session).
    pub async fn acknowledge(
        &self,
        agent: Arc<Agent>,
        receiver: &str,
        acknowledged: Vec<DeliveryId>,
        in_progress: Vec<DeliveryId>,
    ) -> Result<(), Fault> {
        self.parts.ready()?;
        let puller = self.puller(&agent, receiver, false).await?;
        match puller.acknowledge(acknowledged.clone(), in_progress.clone()).await {
            // Another session came between: one of this program goes on where it was.
            Err(fault) if fault.code == Code::Aborted => {
                self.pullers.forget(agent.id, &puller);
                self.puller(&agent, receiver, false).await?.acknowledge(acknowledged, in_progress).await
            }
            outcome => outcome,
        }
    }

    /// The session behind the calls of a program.
    async fn puller(&self, agent: &Arc<Agent>, receiver: &str, take_over: bool) -> Result<Arc<Puller>, Fault> {
        if receiver.is_empty() {
            let why = "name the program that receives, such as by a UUID that it makes when it starts";
            return Err(Fault::invalid("RECEIVER_INVALID", why));
        }
        if let Some(puller) = self.pullers.find(agent.id, receiver) {
            // Another replica may have it since a moment ago: what is acknowledged here would be lost.
            if lease::is_newest(&self.parts, agent.id, puller.turn()).await? {
                return Ok(puller);
            }
            self.pullers.forget(agent.id, &puller);
        }
        if !self.pullers.has_room() {
            let why = "too many agents pull from this replica: open sessions, or pull from another one";
            return Err(Fault::new(Code::ResourceExhausted, "TOO_MANY_PULLING", why));
        }
        let demand = Arc::new(Demand::default());
        let receiver = receiver.to_owned();
        let options =
            SessionOptions { receive: true, max_unacknowledged: MAX_UNACKNOWLEDGED, receiver: receiver.clone(), take_over };
        let session = self.open(agent.clone(), options, "", Some(demand.clone())).await?;
        Ok(self.pullers.keep(agent.id, receiver, demand, session))
    }

    async fn open(
        &self,
        agent: Arc<Agent>,
        options: SessionOptions,
        filter: &str,
        demand: Option<Arc<Demand>>,
    ) -> Result<Session, Fault> {
        if options.receive && !agent.role.allows(Permission::Receive) {
            return Err(lacks(&agent, &[Permission::Receive]));
        }
        self.parts.ready()?;
        if options.max_unacknowledged > MAX_UNACKNOWLEDGED {
            let rule = format!("max_unacknowledged is 1 to {MAX_UNACKNOWLEDGED}, or 0 for 100");
            return Err(Fault::invalid("MAX_UNACKNOWLEDGED_INVALID", rule));
        }
        let filter = MessageFilter::compile(filter)?;
        let window = if options.max_unacknowledged == 0 { 100 } else { options.max_unacknowledged as usize };
        let parts = &self.parts;
        let (messages, message_queue) = mpsc::channel(SESSION_MESSAGES);
        let (events, event_queue) = mpsc::channel(SESSION_EVENTS);
        let ended = CancellationToken::new();
        let mut feedback = None;
        let mut receiving = None;
        let mut turn = None;
        if options.receive {
            let opened = lease::open(parts, &agent, &options).await?;
            turn = Some(opened.session_epoch);
            let (feedback_sender, feedback_queue) = mpsc::channel(64);
            feedback = Some(feedback_sender);
            let reception = Reception { window, filter, demand };
            receiving = Some(Receiver::new(parts.clone(), agent.clone(), opened, reception, events.clone(), feedback_queue));
        }
        let open = OpenSession::new(parts.clone());
        // One that receives says by itself that the hub drains. What is not needed would take its place in every session for as long as that lasts.
        let draining =
            receiving.is_none().then(|| Box::pin(send_queue::announce_drain(parts.clone(), events.clone(), ended.clone())));
        let sending = send_queue::serve(parts.clone(), agent.clone(), message_queue, events, ended.clone());
        tokio::spawn(async move {
            match (receiving, draining) {
                (Some(receiving), _) => {
                    tokio::join!(sending, receiving.run(ended));
                }
                (None, Some(draining)) => {
                    let mut sending = std::pin::pin!(sending);
                    tokio::select! {
                        () = &mut sending => {}
                        () = draining => sending.await,
                    }
                }
                (None, None) => sending.await,
            }
            drop(open);
        });
        Ok(Session {
            id: Uuid::now_v7(),
            turn,
            input: SessionInput { agent, messages, feedback, bytes: parts.memory.inputs.queue(parts.config.session_bytes) },
            events: SessionEvents { events: event_queue },
        })
    }

    /// Says `Draining` to every session, lets them acknowledge a little longer, writes what they did and ends them. New ones are
    /// refused. Returns once the last has ended, or after 10 s.
    pub async fn drain(&self) {
        self.parts.lifecycle.draining.cancel();
        let mut sessions = self.parts.lifecycle.sessions.subscribe();
        if tokio::time::timeout(Duration::from_secs(10), sessions.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!("sessions were still open at the end of the drain");
        }
        self.parts.trace.write().await;
        self.parts.lifecycle.stop.cancel();
    }

    /// Stops at once, as if it crashed: nothing more is written or delivered.
    pub fn stop(&self) {
        self.parts.lifecycle.stop.cancel();
    }

    /// Resolves when this replica can't go on, because log or store are not what it remembers of them. Says what it waits for: to be started over.
    pub async fn stopped(&self) -> String {
        self.parts.lifecycle.stop.cancelled().await;
        self.parts.lifecycle.waits_for.borrow().clone().unwrap_or_else(|| "a restart".to_owned())
    }

    /// For a message that nothing else makes wait: its caller hears at once that there is none.
    fn room(&self, message: &OutgoingMessage) -> Result<Room, Fault> {
        self.parts.memory.sending.take(message.cost()).ok_or_else(sender::too_many)
    }
}

/// Counts a session for as long as it lives.
struct OpenSession(Parts);

impl OpenSession {
    fn new(parts: Parts) -> Self {
        parts.lifecycle.sessions.send_modify(|open| *open += 1);
        Self(parts)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.lifecycle.sessions.send_modify(|open| *open -= 1);
    }
}
