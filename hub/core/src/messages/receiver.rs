//! The receiving half of one session: index catch-up, then live, and back where it falls behind; acknowledgements; redelivery.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
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
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    acknowledgements::OpenMailbox,
    catch_up::{self, LateJoin, Page},
    cursor::Cursor,
    dead_letters::{self, Burial, Reason},
    delivery::{Delivery, DeliveryId},
    logged::{Attached, Command, Live, LoggedMessage, Waiting},
    parts::{DRAIN, Parts},
    ports::{Attempts, OpenedMailbox},
    session::{Queued, SessionEvent, Word},
};
use crate::{
    directory::{agent::Agent, snapshot::Snapshot},
    fault::Fault,
    kit::budget::{Queue, Room},
    log::bus::{Offset, Partition},
};

/// How long a takeover may take until the older session is surely over.
const TAKEOVER: time::Duration = time::Duration::seconds(2);

enum Done {
    Attached(Option<(Attached, Vec<LateJoin>)>),
    Page(Page),
    Missed(Partition, Vec<Offset>, Option<LateJoin>),
    Broken(Fault),
}

enum Ready {
    Message(Waiting),
    SkipTo(Partition, Offset),
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

/// A place in the queue for the agent, and room for the bytes.
type Slot<'a> = (Permit<'a, Queued>, Room);

struct Outstanding {
    due: Instant,
    attempt: u32,
    /// Whether the last delivery was one of several, and the agent has not said since that it is still at work on an earlier one.
    again: bool,
}

/// Why a session ends.
enum End {
    /// The agent went, or the hub drains.
    Closed,
    Replaced,
    /// As after a crash: nothing is written.
    Stopped,
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
    words: mpsc::Receiver<Word>,
    window: usize,
    cursors: Vec<Cursor>,
    /// Deliveries before this session, where they are known.
    attempts: HashMap<DeliveryId, u32>,
    clean: bool,
    opened_at: OffsetDateTime,
    /// Where the log ended when the session began.
    began_at: Option<Vec<Offset>>,
    targets: Vec<Offset>,
    outstanding: HashMap<DeliveryId, Outstanding>,
    due: BTreeSet<(Instant, DeliveryId)>,
    dirty: HashSet<Partition>,
    held: HashSet<Partition>,
    ready: VecDeque<Ready>,
    live: Option<Live>,
    /// Everything that was considered was judged by this one.
    snapshot: Option<Arc<Snapshot>>,
    late: VecDeque<LateJoin>,
}

impl Receiver {
    pub(super) fn new(
        parts: Parts,
        agent: Arc<Agent>,
        opened: OpenedMailbox,
        window: usize,
        events: mpsc::Sender<Queued>,
        words: mpsc::Receiver<Word>,
    ) -> Self {
        let mut cursors = vec![Cursor::default(); parts.log.partitions as usize];
        for (partition, state) in &opened.cursors {
            if let Some(cursor) = cursors.get_mut(*partition as usize) {
                *cursor = Cursor::resume(state);
            }
        }
        let attempts = opened
            .attempts
            .iter()
            .map(|row| (DeliveryId { partition: row.partition, offset: row.offset }, row.attempts))
            .collect();
        let mailbox = OpenMailbox::new(agent.id, opened.session_epoch);
        parts.acknowledgements.add(&mailbox);
        let mut receiver = Self {
            targets: vec![0; cursors.len()],
            bytes: parts.memory.sessions.queue(parts.config.session_bytes),
            page_bytes: parts.memory.sessions.queue(parts.config.session_bytes),
            parts,
            agent,
            session_epoch: opened.session_epoch,
            mailbox,
            events,
            words,
            window,
            cursors,
            attempts,
            clean: opened.clean,
            opened_at: OffsetDateTime::now_utc(),
            began_at: None,
            outstanding: HashMap::new(),
            due: BTreeSet::new(),
            dirty: HashSet::new(),
            held: HashSet::new(),
            ready: VecDeque::new(),
            live: None,
            snapshot: None,
            late: VecDeque::new(),
        };
        // What came too late for the cursor is remembered by its deliveries alone.
        for Attempts { partition, offset, attempts } in opened.attempts {
            if receiver.cursors.get(partition as usize).is_some_and(|cursor| offset < cursor.considered()) {
                receiver.expect_ack(DeliveryId { partition, offset }, attempts, Duration::ZERO);
            }
        }
        receiver
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
                while let Ok(word) = self.words.try_recv() {
                    self.hear(word);
                }
                self.push();
                self.push_outstanding();
                if self.in_doubt() {
                    self.mailbox.leave_in_doubt();
                }
                self.parts.acknowledgements.close(&self.mailbox, true).await;
            }
        }
    }

    async fn serve(&mut self) -> End {
        let mut work: Option<BoxFuture<'static, Done>> = Some(self.attach(Duration::ZERO));
        let mut flush = tokio::time::interval(self.parts.config.flush_every);
        let mut draining = false;
        let drained = sleep(Duration::MAX);
        tokio::pin!(drained);
        let parts = self.parts.clone();
        let events = self.events.clone();
        let replaced = self.mailbox.replaced.clone();
        loop {
            if work.is_none() && self.ready.is_empty() && self.live.is_none() {
                work = Some(self.attach(Duration::ZERO));
            }
            let room = self.outstanding.len() < self.window && !draining;
            let (bytes, cost) = (self.bytes.clone(), self.ready.front().map_or(0, Ready::cost));
            let next_due = self.due.first().map(|(due, _)| *due);
            tokio::select! {
                biased;
                () = parts.lifecycle.stop.cancelled() => return End::Stopped,
                () = replaced.cancelled() => return End::Replaced,
                () = events.closed() => return End::Closed,
                () = parts.lifecycle.draining.cancelled(), if !draining => {
                    draining = true;
                    drained.as_mut().reset(Instant::now() + DRAIN);
                    let _full = events.send_timeout(SessionEvent::Draining.into(), DRAIN).await;
                }
                () = &mut drained, if draining => return End::Closed,
                word = self.words.recv() => match word {
                    None => return End::Closed,
                    Some(word) => {
                        self.hear(word);
                        if self.released() {
                            self.live = None;
                            self.ready.clear();
                            work = Some(self.attach(Duration::ZERO));
                        }
                    }
                },
                _ = flush.tick() => self.push(),
                () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() && !draining => self.redeliver().await,
                (room, permit) = async { (bytes.wait(cost).await, events.reserve().await) }, if room && !self.ready.is_empty() => {
                    match permit {
                        Ok(permit) => self.deliver_next((permit, room)).await,
                        Err(_) => return End::Closed,
                    }
                }
                done = async { match &mut work { Some(work) => work.await, None => std::future::pending().await } },
                    if self.ready.is_empty() && work.is_some() =>
                {
                    work = None;
                    match done {
                        Done::Attached(None) => return End::Replaced,
                        Done::Attached(Some((attached, late))) => {
                            self.late.extend(late);
                            self.snapshot = Some(attached.snapshot);
                            self.began_at.get_or_insert_with(|| attached.positions.clone());
                            self.targets = attached.positions;
                            self.live = Some(attached.live);
                            work = self.next_page();
                        }
                        Done::Page(page) => {
                            self.ready.extend(page.messages.into_iter().map(Ready::Message));
                            self.ready.push_back(Ready::SkipTo(page.partition, page.upto));
                        }
                        Done::Missed(partition, offsets, rest) => {
                            self.late.pop_front();
                            self.late.extend(rest);
                            for offset in offsets {
                                self.deliver_late(DeliveryId { partition, offset });
                            }
                        }
                        Done::Broken(fault) => {
                            tracing::warn!(agent = %self.agent.name, %fault, "a mailbox can't be read, trying again");
                            self.live = None;
                            work = Some(self.attach(Duration::from_millis(250)));
                        }
                    }
                }
                message = async { match &mut self.live { Some(live) => live.next().await, None => std::future::pending().await } },
                    if room && self.ready.is_empty() && work.is_none() => match message {
                        Some(message) => self.ready.push_back(Ready::Message(message)),
                        // The reader let go: too far behind, or a newer session.
                        None => self.live = None,
                    },
            }
            if work.is_none() && self.ready.is_empty() && self.live.is_some() {
                work = self.next_page();
            }
        }
    }

    fn attach(&self, after: Duration) -> BoxFuture<'static, Done> {
        let (parts, agent, session_epoch) = (self.parts.clone(), self.agent.id, self.session_epoch);
        let known = self.snapshot.clone();
        let considered: Vec<Offset> = self.cursors.iter().map(Cursor::considered).collect();
        async move {
            sleep(after).await;
            let (answer, attached) = oneshot::channel();
            if parts.reader.send(Command::Attach { agent, session_epoch, answer }).await.is_err() {
                return Done::Broken(Fault::unavailable("HUB_STOPPING", "the hub stops"));
            }
            match attached.await {
                Ok(Some(attached)) => {
                    catch_up::indexed(&parts, &attached.positions).await;
                    let known = known.as_ref().unwrap_or(&attached.snapshot);
                    match catch_up::late_joins(&parts, agent, known, &attached.snapshot, &considered).await {
                        Ok(late) => Done::Attached(Some((attached, late))),
                        Err(fault) => Done::Broken(fault),
                    }
                }
                Ok(None) => Done::Attached(None),
                Err(_) => Done::Broken(Fault::unavailable("HUB_STOPPING", "the hub stops")),
            }
        }
        .boxed()
    }

    /// Reads on where a partition is not caught up. `None`: all are, or are held back.
    fn next_page(&self) -> Option<BoxFuture<'static, Done>> {
        if let Some(join) = self.late.front().filter(|_| self.outstanding.len() < self.window) {
            let (parts, join) = (self.parts.clone(), join.clone());
            let read = async move {
                let partition = join.partition();
                match catch_up::missed(&parts, join).await {
                    Ok((offsets, rest)) => Done::Missed(partition, offsets, rest),
                    Err(fault) => Done::Broken(fault),
                }
            };
            return Some(read.boxed());
        }
        let snapshot = self.snapshot.clone()?;
        let (partition, cursor, target) = (0..)
            .zip(&self.cursors)
            .zip(&self.targets)
            .map(|((partition, cursor), target)| (partition, cursor, *target))
            .find(|(partition, cursor, target)| cursor.considered() < *target && !self.held.contains(partition))?;
        let (parts, agent, from) = (self.parts.clone(), self.agent.id, cursor.considered());
        let room = self.page_bytes.clone();
        let read = async move {
            match catch_up::page(&parts, &snapshot, agent, partition, from..target, &room).await {
                Ok(page) => Done::Page(page),
                Err(fault) => Done::Broken(fault),
            }
        };
        Some(read.boxed())
    }

    async fn deliver_next(&mut self, place: Slot<'_>) {
        match self.ready.pop_front() {
            None => {}
            Some(Ready::SkipTo(partition, upto)) => {
                if !self.held.contains(&partition)
                    && let Some(cursor) = self.cursors.get_mut(partition as usize)
                {
                    cursor.skip_to(upto);
                    self.dirty.insert(partition);
                    self.forget_attempts(partition, upto);
                }
            }
            Some(Ready::Message((logged, _room))) => self.deliver(logged, place).await,
        }
    }

    /// Has a message delivered that its partition's cursor has passed. Its count of deliveries keeps it until it is acknowledged.
    fn deliver_late(&mut self, id: DeliveryId) {
        if !self.cursors.get_mut(id.partition as usize).is_some_and(|cursor| cursor.reconsider(id.offset)) {
            return;
        }
        self.attempts.insert(id, 1);
        self.mailbox.unwritten().attempts.insert(id, 1);
        self.expect_ack(id, 0, Duration::ZERO);
    }

    /// Deliveries of what is for the agent no more, such as what expired meanwhile.
    fn forget_attempts(&mut self, partition: Partition, below: Offset) {
        let (outstanding, mailbox) = (&self.outstanding, &self.mailbox);
        self.attempts.retain(|id, _| {
            let keep = id.partition != partition || id.offset >= below || outstanding.contains_key(id);
            if !keep {
                mailbox.unwritten().attempts.insert(*id, 0);
            }
            keep
        });
    }

    async fn deliver(&mut self, logged: Arc<LoggedMessage>, place: Slot<'_>) {
        let id = DeliveryId { partition: logged.partition, offset: logged.offset };
        if self.held.contains(&id.partition) {
            return;
        }
        let Some(cursor) = self.cursors.get_mut(id.partition as usize) else { return };
        if cursor.full() {
            self.held.insert(id.partition);
            let unacknowledged = u32::try_from(cursor.outstanding()).unwrap_or(u32::MAX);
            place.0.send(SessionEvent::HeldBack { partition: id.partition, unacknowledged }.into());
            return;
        }
        if !cursor.consider(id.offset) {
            return;
        }
        self.dirty.insert(id.partition);
        let known = self.attempts.get(&id).copied();
        let began = self.began_at.as_ref().and_then(|began| began.get(id.partition as usize)).copied().unwrap_or(0);
        let unsure = !self.clean && (id.offset < began || logged.log_time < self.opened_at + TAKEOVER);
        let attempt = known.unwrap_or(u32::from(unsure)) + 1;
        self.expect_ack(id, attempt, self.parts.config.redeliver_after);
        if !self.bury(id, &logged, attempt).await {
            self.hand_over(id, &logged, attempt, known.is_some() || unsure, place);
        }
    }

    /// Delivers again what was not acknowledged in time, oldest first.
    async fn redeliver(&mut self) {
        let (events, bytes) = (self.events.clone(), self.bytes.clone());
        while let Some((due, id)) = self.due.first().copied() {
            if due > Instant::now() {
                return;
            }
            let Some(place) = events.try_reserve().ok().filter(|_| bytes.fits(1)) else {
                self.postpone(id, Duration::from_millis(500));
                continue;
            };
            match catch_up::one(&self.parts, id.partition, id.offset).await {
                Ok(Some(logged)) => {
                    let Some(room) = bytes.take(logged.message.cost()) else {
                        self.postpone(id, Duration::from_millis(500));
                        continue;
                    };
                    let attempt = self.outstanding.get(&id).map_or(1, |outstanding| outstanding.attempt) + 1;
                    if !self.bury(id, &logged, attempt).await {
                        self.attempts.insert(id, attempt);
                        self.mailbox.unwritten().attempts.insert(id, attempt);
                        self.expect_ack(id, attempt, self.parts.config.redeliver_after);
                        self.hand_over(id, &logged, attempt, true, (place, room));
                    }
                }
                // The log forgot it: there is nothing left to deliver.
                Ok(None) => self.acknowledge(id),
                Err(fault) => {
                    tracing::warn!(agent = %self.agent.name, %fault, "a message can't be delivered again yet");
                    self.postpone(id, Duration::from_secs(1));
                }
            }
        }
    }

    /// Whether a message is to be delivered no more: it expired, or was delivered too often.
    async fn bury(&mut self, id: DeliveryId, logged: &LoggedMessage, attempt: u32) -> bool {
        let reason = if logged.message.expires_at <= OffsetDateTime::now_utc() {
            Reason::Expired
        } else if attempt > self.parts.config.max_attempts {
            Reason::Attempts(attempt - 1)
        } else {
            return false;
        };
        match dead_letters::bury(&self.parts, logged, self.agent.id, reason).await {
            Burial::Done => self.acknowledge(id),
            Burial::Later => self.postpone(id, Duration::from_secs(1)),
        }
        true
    }

    fn hand_over(&mut self, id: DeliveryId, logged: &LoggedMessage, attempt: u32, redelivered: bool, (place, room): Slot<'_>) {
        let took = OffsetDateTime::now_utc() - logged.message.accepted_at;
        self.parts.metrics.received(&self.agent.name, logged.message.payload.len());
        self.parts.metrics.latency("deliver", took.try_into().unwrap_or_default());
        if let Some(outstanding) = self.outstanding.get_mut(&id) {
            outstanding.again = redelivered;
        }
        let event = SessionEvent::Delivery(Delivery { id, message: logged.message.clone(), redelivered, attempt });
        place.send(Queued { event, room: Some(room) });
    }

    fn expect_ack(&mut self, id: DeliveryId, attempt: u32, within: Duration) {
        let due = Instant::now() + within;
        let again = self.outstanding.get(&id).is_some_and(|outstanding| outstanding.again);
        if let Some(before) = self.outstanding.insert(id, Outstanding { due, attempt, again }) {
            self.due.remove(&(before.due, id));
        }
        self.due.insert((due, id));
    }

    fn postpone(&mut self, id: DeliveryId, by: Duration) {
        let attempt = self.outstanding.get(&id).map_or(1, |outstanding| outstanding.attempt);
        self.expect_ack(id, attempt, by);
    }

    fn hear(&mut self, word: Word) {
        match word {
            Word::Acknowledged(ids) => ids.into_iter().for_each(|id| self.acknowledge(id)),
            Word::InProgress(ids) => ids.into_iter().for_each(|id| self.go_on_with(id)),
        }
    }

    /// The agent is still at work on it: the delivery that said so was no attempt.
    fn go_on_with(&mut self, id: DeliveryId) {
        let Some(outstanding) = self.outstanding.get_mut(&id) else { return };
        if std::mem::take(&mut outstanding.again) {
            outstanding.attempt = outstanding.attempt.saturating_sub(1).max(1);
            if let Some(known) = self.attempts.get_mut(&id) {
                *known = outstanding.attempt;
                self.mailbox.unwritten().attempts.insert(id, *known);
            }
        }
        self.postpone(id, self.parts.config.redeliver_after);
    }

    fn acknowledge(&mut self, id: DeliveryId) {
        let known_below = self.began_at.as_ref().and_then(|began| began.get(id.partition as usize)).copied().unwrap_or(0);
        let Some(cursor) = self.cursors.get_mut(id.partition as usize) else { return };
        if cursor.acknowledge(id.offset, known_below) {
            self.dirty.insert(id.partition);
        }
        if let Some(outstanding) = self.outstanding.remove(&id) {
            self.due.remove(&(outstanding.due, id));
        }
        if self.attempts.remove(&id).is_some() {
            self.mailbox.unwritten().attempts.insert(id, 0);
        }
    }

    /// Whether a partition that was held back is free again.
    fn released(&mut self) -> bool {
        let cursors = &self.cursors;
        let before = self.held.len();
        self.held.retain(|partition| cursors.get(*partition as usize).is_some_and(Cursor::full));
        self.held.len() < before
    }

    /// Whether the session before this one may have delivered what this one has not come to.
    fn in_doubt(&self) -> bool {
        let all = |began: &Vec<Offset>| self.cursors.iter().zip(began).all(|(cursor, began)| cursor.considered() >= *began);
        let takes_over = OffsetDateTime::now_utc() < self.opened_at + TAKEOVER;
        !self.clean && (takes_over || !self.began_at.as_ref().is_some_and(all))
    }

    /// What the next session must flag as delivered before. A late message that was not delivered yet has no other trace: it counts as
    /// delivered once.
    fn push_outstanding(&self) {
        let mut unwritten = self.mailbox.unwritten();
        for (id, outstanding) in &self.outstanding {
            unwritten.attempts.insert(*id, outstanding.attempt.max(1));
        }
    }

    /// Hands what changed to the keeper.
    fn push(&mut self) {
        let mut unwritten = self.mailbox.unwritten();
        for partition in self.dirty.drain() {
            if let Some(cursor) = self.cursors.get(partition as usize) {
                unwritten.cursors.insert(partition, cursor.state());
            }
        }
    }
}
