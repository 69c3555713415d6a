//! The receiving half of one session: index catch-up, then live, and back where it falls behind; acknowledgements; redelivery.
//!
//! The loop awaits nothing but events. What it has to do to the log or the store is done one step at a time beside it, so that the agent is
//! heard and the session ends at once whatever does not answer.

mod outstanding;
mod progress;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use time::OffsetDateTime;
use tokio::{
    sync::{
        mpsc::{self, Permit},
        oneshot,
    },
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    outstanding::{Due, Outstanding},
    progress::{Considered, Progress},
};
use super::{
    acknowledgements::OpenMailbox,
    catch_up::{self, LateJoin, Page},
    dead_letters::{self, DeadLettering, Reason},
    delivery::{Delivery, DeliveryId},
    demand::Demand,
    filter::MessageFilter,
    logged::{Attached, Buffered, Command, Live, LoggedMessage},
    message::MAX_LIFETIME,
    parts::{DRAIN, Parts},
    ports::OpenedMailbox,
    position::{MessagePlace, Position},
    session::{Feedback, Queued, SessionEvent},
    trace::{event::Happening, spans::Traced},
};
use crate::{
    directory::{agent::Agent, snapshot::Snapshot},
    fault::Fault,
    kit::{
        budget::{Queue, Room},
        spans::SpanKind,
    },
    log::bus::Partition,
    metrics::traffic::ReceiverMetrics,
};

/// The pause before what failed is tried again: a partition that can't be read, a message that can't be delivered again or moved to the dead letters yet.
const RETRY: Duration = Duration::from_secs(1);
/// The pause before a delivery for which the agent has left no room is tried again.
const NO_ROOM: Duration = Duration::from_millis(500);
/// The longest that a new session waits before it is given again what failed in earlier ones.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Acknowledgements that are kept until it is known what they are about.
const MAX_EARLY: usize = 10_000;

/// What catching up came to.
enum CaughtUp {
    Attached(Option<(Attached, Vec<LateJoin>)>),
    Pages(Vec<Page>),
    /// The agent leaves no room for a page.
    NoRoom,
    Missed(Partition, Vec<Position>, Option<LateJoin>),
    NotYetMissed(Fault),
    Unreadable(Partition, Fault),
    Broken(Fault),
}

/// What came of a message that was due.
enum Settled {
    /// It is to be delivered.
    Deliver(Arc<LoggedMessage>),
    /// It is among the dead letters, or the log forgot it.
    Gone,
    /// Nothing yet: it is tried again.
    Later,
}

enum Ready {
    Message(Buffered),
    SkipTo(Partition, Position),
}

impl Ready {
    /// Bytes that it takes of what waits for the agent.
    fn cost(&self) -> usize {
        match self {
            Self::Message((logged, _)) => logged.message.cost(),
            Self::SkipTo(..) => 0,
        }
    }
}

/// A slot in the queue for the agent, and room for the bytes.
type Slot<'a> = (Permit<'a, Queued>, Room);

/// Why a session ends.
enum End {
    /// The agent went, or the hub drains.
    Closed,
    Replaced,
    /// As after a crash: nothing is written.
    Stopped,
}

/// What a session takes, and how much of it.
pub(super) struct Reception {
    /// How many unacknowledged messages may be outstanding.
    pub(super) window: usize,
    /// `None`: everything.
    pub(super) filter: Option<MessageFilter>,
    /// `None`: all that comes is asked for.
    pub(super) demand: Option<Arc<Demand>>,
}

pub(super) struct Receiver {
    parts: Parts,
    agent: Arc<Agent>,
    session_epoch: u64,
    mailbox: Arc<OpenMailbox>,
    events: mpsc::Sender<Queued>,
    /// Of what waits in `events`, and of what was read ahead of it.
    bytes: Queue,
    page_bytes: Queue,
    /// Of what is kept for its next delivery.
    kept_bytes: Queue,
    feedback: mpsc::Receiver<Feedback>,
    window: usize,
    filter: Option<MessageFilter>,
    /// `None`: all that comes is asked for.
    demand: Option<Arc<Demand>>,
    progress: Progress,
    outstanding: Outstanding,
    /// Of what is in hand, what its senders collect traces of.
    traced: HashMap<MessagePlace, Traced>,
    /// What the filter does not want: unread, and due when it expires.
    unwanted: Outstanding,
    ready: VecDeque<Ready>,
    live: Option<Live>,
    /// Everything that was considered was judged by this one.
    snapshot: Option<Arc<Snapshot>>,
    late: VecDeque<LateJoin>,
    /// When the first of them may be tried: one that can't be read holds up nothing else.
    late_at: Instant,
    /// Partitions that could not be read, and when they are tried again.
    unreadable: VecDeque<(Instant, Partition)>,
    /// Acknowledged before it was known where the log ended when the session began: until then that may be anything.
    early: Vec<MessagePlace>,
    /// Who waits for those to be written.
    early_settle: Vec<oneshot::Sender<()>>,
    metrics: ReceiverMetrics,
}

impl Receiver {
    pub(super) fn new(
        parts: Parts,
        agent: Arc<Agent>,
        opened: OpenedMailbox,
        reception: Reception,
        events: mpsc::Sender<Queued>,
        feedback: mpsc::Receiver<Feedback>,
    ) -> Self {
        let Reception { window, filter, demand } = reception;
        let mailbox = OpenMailbox::new(agent.id, opened.session_epoch);
        parts.acknowledgements.add(&mailbox);
        let progress = Progress::new(&opened, parts.log.partitions, OffsetDateTime::now_utc());
        let mut outstanding = Outstanding::default();
        for (place, attempts) in progress.late() {
            outstanding.take(place, attempts, Instant::now() + backoff(attempts), None);
        }
        Self {
            bytes: parts.memory.sessions.queue(parts.config.session_bytes),
            page_bytes: parts.memory.sessions.queue(parts.config.session_bytes),
            kept_bytes: parts.memory.kept.share(parts.config.session_bytes),
            metrics: ReceiverMetrics::new(&parts.metrics, &agent.name),
            parts,
            agent,
            session_epoch: opened.session_epoch,
            mailbox,
            events,
            feedback,
            window,
            filter,
            demand,
            progress,
            outstanding,
            traced: HashMap::new(),
            unwanted: Outstanding::default(),
            ready: VecDeque::new(),
            live: None,
            snapshot: None,
            late: VecDeque::new(),
            late_at: Instant::now(),
            unreadable: VecDeque::new(),
            early: Vec::new(),
            early_settle: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, ended: CancellationToken) {
        self.parts.metrics.active_agents(1);
        let end = self.serve().await;
        self.parts.metrics.active_agents(-1);
        ended.cancel();
        match end {
            End::Stopped => self.parts.acknowledgements.close(&self.mailbox, false).await,
            End::Replaced => {
                self.parts.acknowledgements.close(&self.mailbox, false).await;
                // An agent that does not read learns it from the end of the stream.
                let _gone = self.events.send_timeout(SessionEvent::Replaced.into(), Duration::from_secs(1)).await;
            }
            End::Closed => {
                // What the agent said before it went.
                while let Ok(feedback) = self.feedback.try_recv() {
                    self.hear(feedback);
                }
                // The next session flags it as delivered before.
                for (place, attempts) in self.outstanding.handed_back() {
                    self.progress.count(place, attempts);
                }
                self.push();
                if self.progress.in_doubt(OffsetDateTime::now_utc()) {
                    self.mailbox.leave_in_doubt();
                }
                self.parts.acknowledgements.close(&self.mailbox, true).await;
            }
        }
    }

    async fn serve(&mut self) -> End {
        let mut catching_up: Option<BoxFuture<'static, CaughtUp>> = Some(self.attach(Duration::ZERO));
        let mut settling: Option<(MessagePlace, BoxFuture<'static, Settled>)> = None;
        // Only where there is anything to hand on: a thousand idle sessions wake nobody.
        let mut push_at: Option<Instant> = None;
        let (mut draining, mut announce) = (false, false);
        let drained = sleep(Duration::MAX);
        tokio::pin!(drained);
        let parts = self.parts.clone();
        let events = self.events.clone();
        let replaced = self.mailbox.replaced.clone();
        loop {
            if self.progress.take_released() || (catching_up.is_none() && self.ready.is_empty() && self.live.is_none()) {
                self.live = None;
                self.ready.clear();
                catching_up = Some(self.attach(Duration::ZERO));
            }
            while let Some(due) = self.unwanted.overdue(Instant::now()) {
                self.unwanted.remove(due.place);
                self.outstanding.take(due.place, due.attempts, Instant::now(), None);
            }
            let asked = self.demand.as_ref().is_none_or(|demand| demand.is_asked());
            if settling.is_none()
                && !draining
                && asked
                && let Some(due) = self.outstanding.overdue(Instant::now())
            {
                // An agent that does not read must not have the log read for it again and again.
                let room = events.capacity() > 0 && self.bytes.fits(1);
                if !room && due.attempts < parts.config.max_attempts {
                    self.outstanding.postpone(due.place, Instant::now() + NO_ROOM);
                    continue;
                }
                settling = Some((due.place, settle(parts.clone(), self.agent.clone(), due).boxed()));
            }
            let room = self.outstanding.len() < self.window && !draining;
            let (bytes, cost) = (self.bytes.clone(), self.ready.front().map_or(0, Ready::cost));
            let next_due = self.outstanding.next_due().filter(|_| settling.is_none() && !draining && asked);
            let next_due = next_due.into_iter().chain(self.unwanted.next_due()).min();
            // What is only passed over is nothing that was asked for.
            let room = room && (asked || matches!(self.ready.front(), Some(Ready::SkipTo(..)) | None));
            let demand = self.demand.clone().filter(|_| !asked);
            if push_at.is_none() && self.progress.has_changes() {
                push_at = Some(Instant::now() + self.parts.config.flush_every);
            }
            let late_at = Some(self.late_at).filter(|at| !self.late.is_empty() && *at > Instant::now());
            let next_try = self.unreadable.front().map(|(at, _)| *at).into_iter().chain(late_at).min();
            tokio::select! {
                biased;
                () = parts.lifecycle.stop.cancelled() => return End::Stopped,
                () = replaced.cancelled() => return End::Replaced,
                () = events.closed() => return End::Closed,
                () = parts.lifecycle.draining.cancelled(), if !draining => {
                    (draining, announce) = (true, true);
                    drained.as_mut().reset(Instant::now() + DRAIN);
                }
                () = &mut drained, if draining => return End::Closed,
                feedback = self.feedback.recv() => match feedback {
                    None => return End::Closed,
                    Some(feedback) => self.hear(feedback),
                },
                () = sleep_until(push_at.unwrap_or_else(Instant::now)), if push_at.is_some() => {
                    push_at = None;
                    self.push();
                }
                permit = events.reserve(), if announce => match permit {
                    Ok(permit) => {
                        permit.send(SessionEvent::Draining.into());
                        announce = false;
                    }
                    Err(_) => return End::Closed,
                },
                settled = async { match &mut settling { Some((_, step)) => step.await, None => std::future::pending().await } } => {
                    if let Some((place, _)) = settling.take() {
                        self.settled(place, settled);
                    }
                }
                () = async { match &demand { Some(demand) => demand.more().await, None => std::future::pending().await } } => {}
                // What is due is seen at the top of the loop.
                () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => {}
                () = sleep_until(next_try.unwrap_or_else(Instant::now)), if next_try.is_some() => {
                    // Where it is a late join's turn, that is seen at the end of the loop.
                    if let Some((_, partition)) = self.unreadable.pop_front_if(|(at, _)| *at <= Instant::now()) {
                        self.progress.try_again(partition);
                    }
                }
                // Room in all there is it has already: who holds some must not wait for more of it.
                permit = async { bytes.wait_for_place(cost).await; events.reserve().await }, if room && !self.ready.is_empty() => {
                    match permit {
                        Ok(permit) => self.deliver_next(permit),
                        Err(_) => return End::Closed,
                    }
                }
                caught_up = async { match &mut catching_up { Some(step) => step.await, None => std::future::pending().await } },
                    if self.ready.is_empty() => match caught_up {
                        CaughtUp::Attached(None) => return End::Replaced,
                        other => catching_up = self.caught_up(other),
                    },
                message = async { match &mut self.live { Some(live) => live.next().await, None => std::future::pending().await } },
                    if room && self.ready.is_empty() && catching_up.is_none() => match message {
                        Some(message) => self.ready.push_back(Ready::Message(message)),
                        // The reader let go: too far behind, or a newer session.
                        None => self.live = None,
                    },
            }
            if catching_up.is_none() && self.ready.is_empty() && self.live.is_some() {
                catching_up = self.next_page();
            }
        }
    }

    fn attach(&self, after: Duration) -> BoxFuture<'static, CaughtUp> {
        let (parts, agent, session_epoch) = (self.parts.clone(), self.agent.id, self.session_epoch);
        let known = self.snapshot.clone();
        let considered = self.progress.considered();
        async move {
            sleep(after).await;
            let stopping = || CaughtUp::Broken(Fault::unavailable("HUB_STOPPING", "the hub stops"));
            let (answer, attached) = oneshot::channel();
            if parts.reader.send(Command::Attach { agent, session_epoch, answer }).await.is_err() {
                return stopping();
            }
            match attached.await {
                Ok(Some(attached)) => {
                    catch_up::indexed(&parts, &attached.positions).await;
                    let known = known.as_ref().unwrap_or(&attached.snapshot);
                    match catch_up::late_joins(&parts, agent, known, &attached.snapshot, &considered).await {
                        Ok(late) => CaughtUp::Attached(Some((attached, late))),
                        Err(fault) => CaughtUp::Broken(fault),
                    }
                }
                Ok(None) => CaughtUp::Attached(None),
                Err(_) => stopping(),
            }
        }
        .boxed()
    }

    /// Takes what catching up came to, and says what comes next of it.
    fn caught_up(&mut self, caught_up: CaughtUp) -> Option<BoxFuture<'static, CaughtUp>> {
        match caught_up {
            CaughtUp::Attached(None) => {}
            CaughtUp::Attached(Some((attached, late))) => {
                self.late.extend(late);
                self.snapshot = Some(attached.snapshot);
                self.progress.attached(attached.positions);
                for place in std::mem::take(&mut self.early) {
                    self.acknowledge(place);
                }
                for written in std::mem::take(&mut self.early_settle) {
                    self.settle(written);
                }
                self.live = Some(attached.live);
                return self.next_page();
            }
            CaughtUp::Pages(pages) => {
                for page in pages {
                    self.ready.extend(page.messages.into_iter().map(Ready::Message));
                    self.ready.push_back(Ready::SkipTo(page.partition, page.upto));
                }
            }
            // Who is in which group may have changed meanwhile: then the mailbox is another one, whether its agent reads or not.
            CaughtUp::NoRoom => {
                if self.live.as_ref().is_some_and(Live::is_let_go) {
                    self.live = None;
                }
            }
            CaughtUp::Missed(partition, positions, rest) => {
                self.late.pop_front();
                self.late.extend(rest);
                for position in positions {
                    let place = MessagePlace { partition, position };
                    if self.progress.reconsider(place) {
                        self.outstanding.take(place, 0, Instant::now(), None);
                    }
                }
            }
            CaughtUp::NotYetMissed(fault) => {
                tracing::warn!(agent = %self.agent.name, %fault, "messages from before a group was joined can't be read, trying again");
                self.late.rotate_left(1);
                self.late_at = Instant::now() + RETRY;
            }
            // The others are read meanwhile. What comes live in this one would hide what was not read, and waits with it.
            CaughtUp::Unreadable(partition, fault) => {
                tracing::warn!(agent = %self.agent.name, partition, %fault, "a part of a mailbox can't be read, trying again");
                if self.progress.hold(partition) {
                    self.unreadable.push_back((Instant::now() + RETRY, partition));
                }
            }
            CaughtUp::Broken(fault) => {
                tracing::warn!(agent = %self.agent.name, %fault, "a mailbox can't be read, trying again");
                self.live = None;
                return Some(self.attach(Duration::from_millis(250)));
            }
        }
        None
    }

    /// Reads on where a partition is not caught up. `None`: all are, or are held back.
    fn next_page(&self) -> Option<BoxFuture<'static, CaughtUp>> {
        let parts = self.parts.clone();
        let may = self.outstanding.len() < self.window && Instant::now() >= self.late_at;
        if let Some(join) = self.late.front().filter(|_| may) {
            let join = join.clone();
            let read = async move {
                let partition = join.partition();
                match catch_up::missed(&parts, join).await {
                    Ok((positions, rest)) => CaughtUp::Missed(partition, positions, rest),
                    Err(fault) => CaughtUp::NotYetMissed(fault),
                }
            };
            return Some(read.boxed());
        }
        let asked = self.demand.as_ref().is_none_or(|demand| demand.is_asked());
        // What can't be delivered yet would lie in memory for as long as the agent works on what it has.
        let most = self.window.saturating_sub(self.outstanding.len()).min(if asked { usize::MAX } else { 1 });
        if most == 0 {
            return None;
        }
        let snapshot = self.snapshot.clone()?;
        let unread = self.progress.unread();
        let first = unread.first()?.0;
        let (agent, room, bytes) = (self.agent.id, self.page_bytes.clone(), self.bytes.clone());
        let read = async move {
            // What its agent does not take now waits in the log, and not in memory.
            let Ok(room_for_one) = timeout(NO_ROOM, bytes.wait(1)).await else { return CaughtUp::NoRoom };
            drop(room_for_one);
            let pages = catch_up::pages(&parts, &snapshot, agent, &unread, (&room, most)).await;
            pages.map_or_else(|fault| CaughtUp::Unreadable(first, fault), CaughtUp::Pages)
        };
        Some(read.boxed())
    }

    fn deliver_next(&mut self, permit: Permit<'_, Queued>) {
        match self.ready.pop_front() {
            None => {}
            Some(Ready::SkipTo(partition, upto)) => {
                let (outstanding, unwanted) = (&self.outstanding, &self.unwanted);
                self.progress.skip_to(partition, upto, |place| outstanding.contains(place) || unwanted.contains(place));
            }
            Some(Ready::Message((logged, room))) => self.deliver(&logged, (permit, room.move_to(&self.bytes))),
        }
    }

    fn deliver(&mut self, logged: &Arc<LoggedMessage>, slot: Slot<'_>) {
        let place = MessagePlace { partition: logged.partition, position: logged.position };
        let (attempts, delivered_before) =
            match self.progress.consider(place, self.parts.log.clock.here(place.partition, logged.log_time)) {
                Considered::Deliver { attempts, delivered_before } => (attempts, delivered_before),
                Considered::Pass => return,
                Considered::HoldBack { unacknowledged } => {
                    let unacknowledged = u32::try_from(unacknowledged).unwrap_or(u32::MAX);
                    return slot.0.send(SessionEvent::HeldBack { partition: place.partition, unacknowledged }.into());
                }
            };
        if !self.wants(logged) {
            if delivered_before {
                // The next session flags it.
                self.progress.count(place, attempts);
            }
            return self.unwanted.take(place, attempts, expiry(&self.parts, logged), None);
        }
        let kept = self.kept_bytes.take(logged.message.cost()).map(|room| (logged.clone(), room));
        self.outstanding.take(place, attempts, Instant::now() + backoff(attempts), kept);
        // The rest is settled when it is due: at once, or after a pause where it failed before.
        if attempts == 0 && given_up(&self.parts, logged, attempts).is_none() {
            self.hand_over(place, logged, delivered_before, slot);
        }
    }

    /// Takes what came of a message that was due.
    fn settled(&mut self, place: MessagePlace, settled: Settled) {
        let now = Instant::now();
        match settled {
            // It was acknowledged meanwhile.
            _ if !self.outstanding.contains(place) => {}
            Settled::Gone => {
                self.done(place);
            }
            Settled::Later => self.outstanding.postpone(place, now + RETRY),
            // One that an earlier session had, or that expires by another clock a little later.
            Settled::Deliver(logged) if !self.wants(&logged) => {
                let attempts = self.outstanding.attempts(place);
                self.outstanding.remove(place);
                self.traced.remove(&place);
                self.unwanted.take(place, attempts, expiry(&self.parts, &logged).max(now + RETRY), None);
            }
            Settled::Deliver(logged) => {
                let events = self.events.clone();
                let asked = self.demand.as_ref().is_none_or(|demand| demand.is_asked());
                let slot = events.try_reserve().ok().filter(|_| asked).zip(self.bytes.take(logged.message.cost()));
                match slot {
                    Some(slot) => self.hand_over(place, &logged, true, slot),
                    None => self.outstanding.postpone(place, now + NO_ROOM),
                }
                if let Some(room) = self.kept_bytes.take(logged.message.cost()) {
                    self.outstanding.keep(place, (logged, room));
                }
            }
        }
    }

    fn hand_over(&mut self, place: MessagePlace, logged: &LoggedMessage, redelivered: bool, (permit, room): Slot<'_>) {
        if let Some(demand) = &self.demand {
            demand.none();
        }
        let due = Instant::now() + self.parts.config.redeliver_after;
        if let Some(attempts) = self.outstanding.hand_over(place, due) {
            self.progress.count(place, attempts);
        }
        let now = OffsetDateTime::now_utc();
        let took = self.parts.log.clock.there(place.partition, now) - logged.message.accepted_at;
        if let Some(traced) = Traced::of(&self.parts.config.spans, &logged.message, now - took) {
            let handed_over = traced.clone().since(now);
            traced.tell(&self.parts, "deliver", SpanKind::Producer, &self.agent.name, now);
            self.traced.insert(place, handed_over);
        }
        self.metrics.received(logged.message.payload.len());
        let id = DeliveryId { epoch: self.parts.log.epoch, place };
        let attempt = self.outstanding.attempts(place).saturating_add(1);
        let what = if redelivered { Happening::Redelivered } else { Happening::Delivered };
        self.parts.trace.note_attempt(place, what, self.agent.id, attempt);
        let event = SessionEvent::Delivery(Delivery { id, message: logged.message.clone(), redelivered, attempt });
        permit.send(Queued { event, room: Some(room) });
    }

    /// What an agent says of deliveries in another life of the log means nothing in this one.
    fn hear(&mut self, feedback: Feedback) {
        let epoch = self.parts.log.epoch;
        let places = |ids: Vec<DeliveryId>| ids.into_iter().filter(move |id| id.epoch == epoch).map(|id| id.place);
        match feedback {
            Feedback::Acknowledged(ids) => {
                let early = !self.progress.has_begun();
                for place in places(ids) {
                    if !early || self.outstanding.contains(place) {
                        self.acknowledge(place);
                    } else if self.early.len() < MAX_EARLY {
                        self.early.push(place);
                    }
                }
            }
            Feedback::Settle(written) if self.progress.has_begun() => self.settle(written),
            // Dropped, it is said again.
            Feedback::Settle(written) if self.early_settle.len() < MAX_EARLY => self.early_settle.push(written),
            Feedback::Settle(_) => {}
            Feedback::Started(ids) => {
                for place in places(ids) {
                    if let Some(attempts) = self.outstanding.start(place) {
                        self.progress.count(place, attempts);
                    }
                }
            }
            Feedback::InProgress(ids) => {
                let due = Instant::now() + self.parts.config.redeliver_after;
                for place in places(ids) {
                    if let Some(attempts) = self.outstanding.in_progress(place, due) {
                        self.progress.count(place, attempts);
                    }
                }
            }
        }
    }

    /// Has what there is written at once.
    fn settle(&mut self, written: oneshot::Sender<()>) {
        self.push();
        self.parts.acknowledgements.urge(&self.mailbox, written);
    }

    fn wants(&self, logged: &LoggedMessage) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(&logged.message))
    }

    /// Its agent has handled it.
    fn acknowledge(&mut self, place: MessagePlace) {
        let traced = self.traced.remove(&place);
        // Also what an earlier session handed over, and this one has not come to yet.
        if self.done(place) {
            self.parts.trace.note(place, Happening::Acknowledged, self.agent.id);
        }
        if let Some(traced) = traced {
            traced.tell(&self.parts, "settle", SpanKind::Consumer, &self.agent.name, OffsetDateTime::now_utc());
        }
    }

    /// It is no longer this agent's, whatever became of it. Whether it was until now.
    fn done(&mut self, place: MessagePlace) -> bool {
        self.outstanding.remove(place);
        self.unwanted.remove(place);
        self.traced.remove(&place);
        self.progress.acknowledge(place)
    }

    /// Hands what changed to the writer of acknowledgements.
    fn push(&mut self) {
        let (cursors, attempts) = self.progress.take_changes();
        let mut unwritten = self.mailbox.unwritten();
        unwritten.cursors.extend(cursors);
        unwritten.attempts.extend(attempts);
    }
}

/// Finds out what is to become of a message that is due.
async fn settle(parts: Parts, agent: Arc<Agent>, due: Due) -> Settled {
    let Due { place: MessagePlace { partition, position }, attempts, message } = due;
    let logged = match message {
        Some(logged) => logged,
        None => match catch_up::one(&parts, partition, position).await {
            Ok(Some(found)) => Arc::new(found.logged(partition, position)),
            // The log forgot it: there is nothing left to deliver.
            Ok(None) => return Settled::Gone,
            Err(fault) => {
                tracing::warn!(agent = %agent.name, %fault, "a message can't be delivered again yet");
                return Settled::Later;
            }
        },
    };
    let Some(reason) = given_up(&parts, &logged, attempts) else { return Settled::Deliver(logged) };
    match dead_letters::dead_letter(&parts, &logged, agent.id, reason).await {
        DeadLettering::Done => Settled::Gone,
        DeadLettering::Later => Settled::Later,
    }
}

/// When a message expires.
fn expiry(parts: &Parts, logged: &LoggedMessage) -> Instant {
    Instant::now() + time_left(parts, logged).clamp(time::Duration::ZERO, MAX_LIFETIME).unsigned_abs()
}

fn time_left(parts: &Parts, logged: &LoggedMessage) -> time::Duration {
    parts.log.expires_at(logged.partition, logged.log_time, &logged.message) - OffsetDateTime::now_utc()
}

/// Why a message is to be delivered no more: it expired, or was tried too often.
fn given_up(parts: &Parts, logged: &LoggedMessage, attempts: u32) -> Option<Reason> {
    if time_left(parts, logged) <= time::Duration::ZERO {
        return Some(Reason::Expired);
    }
    (attempts >= parts.config.max_attempts).then_some(Reason::Attempts(attempts))
}

/// How long a new session waits before it is given again what was tried so often before: an agent that fails at once and starts anew must not
/// use up all attempts within seconds.
fn backoff(attempts: u32) -> Duration {
    match attempts.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => Duration::from_secs(1_u64.checked_shl(doublings).unwrap_or(u64::MAX)).min(MAX_BACKOFF),
    }
}
