//! One agent's subscription to the changes of one context type.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    audience::{Access, may_follow},
    change::{Change, Event},
    context::{ContextId, MAX_INLINE_BYTES},
    filter::{ContextFilter, Meaning, yield_after},
    ports::AccessStore,
    tail::{ContextTail, Found, HELD_BYTES, Placed, ReadPosition, epoch_changed},
    versions::Versions,
    visibility::Viewer,
};
use crate::{
    directory::{
        agent::{Agent, AgentId, Role},
        snapshot::{Directory, Snapshot},
    },
    fault::{Code, Fault},
    kit::{budget::Shares, clock::now},
    log::{
        bus::{Bounds, Bus, BusError, Epoch, Logged, Offset, Partition, TopicInfo, TopicName},
        position::LogPosition,
    },
    metrics::contexts::ContextMetrics,
};

/// The most records that are read from the log at a time. Each of them may have [`MAX_INLINE_BYTES`].
pub(crate) const LOG_BATCH: usize = 8;

/// After so many records with nothing that the agent may see, it is told where it stands.
const TELL_AFTER: u64 = 1024;

/// The first and the longest pause until the log is asked again for what it does not show yet, and how long that may last.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// How long a position beyond the end of the log may turn out to be in it.
const END_SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// Subscriptions of one agent that wait for their turn to read from the log.
const MAX_WAITING: usize = 64;

/// How old what is known of the access of contexts may be, and of how many it is asked at once.
const CURRENT_FOR: Duration = Duration::from_secs(1);
const ASKED_AT_ONCE: usize = 64;

/// Why a position is refused.
const INVALID: &str = "POSITION_INVALID";

/// Contexts that a subscription remembers the version of.
const REMEMBERED: usize = 1024;

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// With the next change.
    Now,
    /// With the oldest that the log holds.
    Start,
    /// After the highest of these in each partition. A partition without one begins with the oldest that the log holds.
    After(Vec<LogPosition>),
    /// With the first that the log took at this time, or later. Nothing that it holds is so old: the oldest; nothing so new: the next change.
    At(OffsetDateTime),
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The first: from here on nothing is missed.
    Subscribed {
        /// Where it begins, for [`StartPosition::After`]: the last record before it in each partition that ever had one.
        after: Vec<LogPosition>,
    },
    /// Everything up to here is told: since the last notice there was nothing that the agent may see.
    Bookmark {
        /// The last record in each partition that ever had one.
        after: Vec<LogPosition>,
    },
    /// A change of a context that the agent may see.
    Change {
        /// Where it is.
        position: LogPosition,
        /// What happened.
        event: Box<Event>,
    },
    /// Before an update a context matched the subscription's filter and the agent might see it, and since then one of the two is not so.
    Left {
        /// Where the update is.
        position: LogPosition,
        /// Which context.
        context: ContextId,
        /// Its type.
        kind: String,
        /// The version that does not match.
        version: u64,
    },
}

/// Who subscribes to what, and whether it still may.
pub(crate) struct Subscriber {
    directory: Directory,
    agent: AgentId,
    /// That it was let in with.
    role: Role,
    kind: String,
    /// What it sees, by that snapshot.
    known: Option<(Arc<Snapshot>, Viewer)>,
}

impl Subscriber {
    pub(crate) fn new(directory: Directory, agent: &Agent, kind: &str) -> Self {
        Self { directory, agent: agent.id, role: agent.role, kind: kind.to_owned(), known: None }
    }

    /// What it sees, as the directory knows it now.
    fn viewer(&mut self) -> Result<&Viewer, Fault> {
        let snapshot = self.directory.snapshot();
        let known = match self.known.take() {
            Some((by, viewer)) if Arc::ptr_eq(&by, &snapshot) => (by, viewer),
            _ => {
                let agent = snapshot.acting_as(self.agent, self.role)?;
                may_follow(&agent, &self.kind, snapshot.context_types.contains_key(&self.kind))?;
                let viewer = Viewer::of(&agent);
                (snapshot, viewer)
            }
        };
        Ok(&self.known.insert(known).1)
    }
}

/// What a subscription reads from, and under which bounds.
pub(crate) struct Source {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) tail: Arc<ContextTail>,
    /// Who may read now what the log has from before.
    pub(crate) access: Arc<dyn AccessStore>,
    /// What all subscribers of the replica may be reading from the log at one time.
    pub(crate) reads: Arc<Shares<AgentId>>,
    /// How often a subscriber that sees nothing is told where it stands.
    pub(crate) bookmark_every: Duration,
    pub(crate) metrics: ContextMetrics,
    pub(crate) cancellation: CancellationToken,
}

/// Hands out changes as they are asked for: what is not asked for stays in the log.
pub struct Subscription {
    source: Source,
    subscriber: Subscriber,
    filter: Option<ContextFilter>,
    /// Partitions in which compaction removed something that the subscriber was not told of.
    holes: BTreeSet<Partition>,
    greeting: Option<Notice>,
    place: ReadPosition,
    pending: VecDeque<Arc<Placed>>,
    versions: Versions,
    /// How many records are read from the log next: more of them as long as they are small.
    batch: usize,
    /// The partition that is read next, where several are behind.
    turn: usize,
    /// Since when the log has not shown what it has, and the next pause.
    unshown: Option<(Instant, Duration)>,
    told: Told,
    current: Current,
}

/// Who may read what comes next, as of a moment ago. `None`: it is gone.
struct Current {
    at: Instant,
    asked: HashMap<ContextId, Option<Access>>,
}

/// Where the subscriber was last told that it stands.
struct Told {
    next: Vec<Offset>,
    at: Instant,
}

impl Told {
    fn now(next: &[Offset]) -> Self {
        Self { next: next.to_vec(), at: Instant::now() }
    }

    /// Takes note of a change that was told.
    fn passed(&mut self, partition: Partition, offset: Offset) {
        if let Some(next) = self.next.get_mut(partition as usize) {
            *next = offset + 1;
        }
    }

    /// Records since.
    fn behind(&self, next: &[Offset]) -> u64 {
        let told = self.next.iter().copied().chain(std::iter::repeat(0));
        next.iter().zip(told).map(|(next, told)| next.saturating_sub(told)).sum()
    }
}

impl Subscription {
    pub(crate) async fn open(
        source: Source,
        subscriber: Subscriber,
        filter: Option<ContextFilter>,
        from: &StartPosition,
    ) -> Result<Self, Fault> {
        let topic = &source.tail.topic;
        let info = source.bus.topic(topic).await.map_err(Fault::from)?;
        if info.epoch != source.tail.epoch() {
            return Err(epoch_changed(topic));
        }
        let asked = Instant::now();
        let mut pause = LOOK_AGAIN.0;
        let next = loop {
            // Whoever opens many at once waits in a line of its own, and takes nobody's place among the questions to the log.
            let line = source.reads.wait_in_line(subscriber.agent, MAX_INLINE_BYTES, MAX_WAITING).await;
            let _line = line.ok_or_else(too_many_reads)?;
            let mut bounds = source.bus.bounds_each(topic).await.map_err(Fault::from)?;
            let read = source.tail.ends();
            // A partition whose leader has changed may tell an end that is too early.
            for (bounds, read) in bounds.iter_mut().zip(&read) {
                if let (Ok(bounds), Some(read)) = (bounds, read) {
                    bounds.next = bounds.next.max(*read);
                }
            }
            let at = match from {
                StartPosition::At(time) => source.bus.offsets_at_each(topic, *time).await.map_err(Fault::from)?,
                _ => Vec::new(),
            };
            match begin(topic, info, Partitions { bounds: &bounds, read: &read, at: &at }, from) {
                Err(fault) if fault.code == Code::OutOfRange && fault.reason == INVALID && asked.elapsed() < END_SHOWN_WITHIN => {
                    sleep(pause).await;
                    // Whoever asks for a place that will never be costs the log few questions.
                    pause = (pause * 2).min(LOOK_AGAIN.1);
                }
                next => break next?,
            }
        };
        let greeting = Some(Notice::Subscribed { after: positions(info.epoch, &next) });
        Ok(Self {
            source,
            subscriber,
            filter,
            holes: BTreeSet::new(),
            greeting,
            told: Told::now(&next),
            current: Current { at: Instant::now(), asked: HashMap::new() },
            place: ReadPosition::at(next),
            pending: VecDeque::new(),
            versions: Versions::new(REMEMBERED),
            batch: 1,
            turn: 0,
            unshown: None,
        })
    }

    /// The next change, when there is one. After a fault nothing more comes.
    pub async fn next(&mut self) -> Result<Notice, Fault> {
        if let Some(greeting) = self.greeting.take() {
            return Ok(greeting);
        }
        let cancellation = self.source.cancellation.clone();
        let mut changes = self.source.tail.changes();
        let mut directory = self.subscriber.directory.changes();
        self.subscriber.viewer()?;
        loop {
            if let Some(notice) = self.pop().await? {
                return Ok(notice);
            }
            changes.mark_unchanged();
            let bookmark_at = self.told.at + self.source.bookmark_every;
            let is_due = |behind: u64| behind >= TELL_AFTER || behind > 0 && bookmark_at <= Instant::now();
            // Nothing is pending: also where there always is more, which a filter drops, the subscriber hears where it stands.
            if is_due(self.told.behind(&self.place.next)) {
                return Ok(self.bookmark());
            }
            let found = self.source.tail.find(&mut self.place);
            let behind = self.told.behind(&self.place.next);
            match found {
                Found::Events(events) => self.pending.extend(events),
                Found::Ended(fault) => return Err(fault),
                Found::Behind(_) | Found::Nothing if is_due(behind) => return Ok(self.bookmark()),
                Found::Behind(start) => match cancellation.run_until_cancelled(self.catch_up(&start)).await {
                    Some(read) => read?,
                    None => return self.end(behind),
                },
                Found::Nothing => {
                    tokio::select! {
                        biased;
                        () = cancellation.cancelled() => return self.end(behind),
                        _ = changes.changed() => {}
                        // A subscription that has nothing to say ends with the right to it, too.
                        Ok(()) = directory.changed() => { self.subscriber.viewer()?; }
                        () = sleep_until(bookmark_at), if behind > 0 => {}
                    }
                }
            }
        }
    }

    /// Where the subscriber stands. To be called only while nothing is pending: what is pending it was not told.
    fn bookmark(&mut self) -> Notice {
        self.told = Told::now(&self.place.next);
        Notice::Bookmark { after: positions(self.source.tail.epoch(), &self.place.next) }
    }

    /// The replica stops. A subscriber that knows where it stands goes on from there at another one.
    fn end(&mut self, behind: u64) -> Result<Notice, Fault> {
        if behind > 0 {
            return Ok(self.bookmark());
        }
        Err(Fault::unavailable("HUB_STOPPING", "this replica stops: subscribe again after the last position"))
    }

    /// The next pending change that the agent may see now, and asked for.
    async fn pop(&mut self) -> Result<Option<Notice>, Fault> {
        while let Some(placed) = self.pending.pop_front() {
            let Placed { partition, offset, after_hole, event } = &*placed;
            let context = &event.context;
            if *after_hole {
                self.holes.insert(*partition);
            }
            let position = LogPosition { epoch: self.source.tail.epoch(), partition: *partition, offset: *offset };
            let viewer = self.subscriber.viewer()?;
            if !context.seen_by(viewer) {
                // A version that the agent may not see is one that it was not told of: the next one comes after a gap. But of what was withdrawn
                // from it, it hears, and has nothing of it then. Where compaction removed the change that did, what it was told of before counts.
                let had = event.withdrawn_from(viewer) || self.versions.last(context.id).is_some();
                if !had || !self.versions.advance(context.id, context.version) {
                    continue;
                }
                self.versions.forget(context.id);
                if self.filter.as_ref().is_some_and(|filter| !filter.matched(event)) {
                    continue;
                }
                self.told.passed(*partition, *offset);
                let (kind, version) = (context.kind.clone(), context.version);
                return Ok(Some(Notice::Left { position, context: context.id, kind, version }));
            }
            if self.is_withheld(event).await? {
                continue;
            }
            let last = self.versions.last(context.id);
            if !self.versions.advance(context.id, context.version) {
                continue;
            }
            let is_whole = last.map_or(!self.holes.contains(partition), |last| last + 1 == context.version);
            let evaluation = Instant::now();
            let meaning = self.filter.as_ref().map_or(Meaning::Change, |filter| filter.meaning(event, is_whole));
            yield_after(evaluation).await;
            let notice = match meaning {
                // Also of what has expired, as far as this hub's clock shows: its deletion is told by who keeps contexts, and that clock may be off.
                Meaning::Change => Notice::Change { position, event: Box::new(event.clone()) },
                Meaning::Left => {
                    let (kind, version) = (context.kind.clone(), context.version);
                    Notice::Left { position, context: context.id, kind, version }
                }
                Meaning::Nothing => {
                    self.source.metrics.filtered_out();
                    continue;
                }
            };
            self.told.passed(*partition, *offset);
            return Ok(Some(notice));
        }
        Ok(None)
    }

    /// Whether the agent may not see any more what it might see when the log took it. Of what is gone the end is told, and what was before it.
    async fn is_withheld(&mut self, event: &Event) -> Result<bool, Fault> {
        let id = event.context.id;
        let is_recent = (now() - event.context.updated_at).abs() < CURRENT_FOR;
        if event.change == Change::Deleted || event.context.creator == self.subscriber.agent || is_recent {
            return Ok(false);
        }
        if self.current.at.elapsed() >= CURRENT_FOR || !self.current.asked.contains_key(&id) {
            let others = self.pending.iter().map(|placed| placed.event.context.id).take(ASKED_AT_ONCE);
            let mut asked: HashMap<_, _> = others.chain([id]).map(|id| (id, None)).collect();
            let ids: Vec<_> = asked.keys().copied().collect();
            for (id, access) in self.source.access.access(&ids).await? {
                asked.insert(id, Some(access));
            }
            self.current = Current { at: Instant::now(), asked };
        }
        let Some(Some(access)) = self.current.asked.get(&id) else { return Ok(false) };
        let viewer = self.subscriber.viewer()?;
        Ok(!viewer.sees(&event.context.kind, event.context.creator, access))
    }

    /// Reads a little of the log in one partition that is behind the window, or waits where the log does not show it yet.
    async fn catch_up(&mut self, start: &[Offset]) -> Result<(), Fault> {
        let place = |partition: usize| self.place.next.get(partition).copied().unwrap_or(0);
        let partitions = (self.turn..start.len()).chain(0..self.turn.min(start.len()));
        let behind =
            partitions.map(|partition| (partition, place(partition))).find(|(partition, next)| *next < start[*partition]);
        let Some((partition, next)) = behind else { return Ok(()) };
        self.turn = partition + 1;
        let number = Partition::try_from(partition).unwrap_or(Partition::MAX);
        let Source { bus, tail, reads, .. } = &self.source;
        let records = {
            // Held for the time of the read only, so that a subscriber that takes nothing keeps nobody from reading.
            let room = reads.wait_in_line(self.subscriber.agent, self.batch * MAX_INLINE_BYTES, MAX_WAITING).await;
            let _room = room.ok_or_else(too_many_reads)?;
            bus.read(&tail.topic, number, next, self.batch).await.map_err(Fault::from)?
        };
        if records.first().is_none_or(|first| first.offset != next) {
            // A hole: compaction makes them, and so does retention, which would be a loss.
            let bounds = bus.bounds_each(&tail.topic).await?;
            let bounds = bounds.into_iter().nth(partition).transpose()?;
            if bounds.is_some_and(|bounds| bounds.first > next) {
                return Err(expired(&tail.topic, number, next));
            }
        }
        if records.is_empty() {
            return self.look_again(number).await;
        }
        self.unshown = None;
        let kept = keep(&records);
        self.batch = if kept == records.len() { (self.batch * 2).min(LOG_BATCH) } else { kept };
        for logged in records.iter().take(kept) {
            if logged.offset > self.place.next.get(partition).copied().unwrap_or(0) {
                self.holes.insert(number);
            }
            self.pending.extend(Placed::decode(logged)?.map(Arc::new));
            self.place.passed(number, logged.offset + 1);
        }
        Ok(())
    }

    /// The partition had records where it shows none. After a change of its leader it may show them late: they must not be skipped.
    async fn look_again(&mut self, partition: Partition) -> Result<(), Fault> {
        let (since, pause) = self.unshown.unwrap_or((Instant::now(), LOOK_AGAIN.0));
        if since.elapsed() >= SHOWN_WITHIN {
            let why = format!("partition {partition} of {} does not show what it has had", self.source.tail.topic);
            return Err(BusError::Unavailable(why).into());
        }
        self.unshown = Some((since, (pause * 2).min(LOOK_AGAIN.1)));
        sleep(pause).await;
        Ok(())
    }
}

/// How many of these a subscription may hold until its agent takes them: at least one.
fn keep(records: &[Logged]) -> usize {
    let mut bytes = 0;
    let fits = records.iter().take_while(|logged| {
        bytes += logged.record.value.as_ref().map_or(0, Bytes::len);
        bytes <= HELD_BYTES
    });
    fits.count().max(1)
}

fn positions(epoch: Epoch, next: &[Offset]) -> Vec<LogPosition> {
    let last = (0..).zip(next).filter_map(|(partition, next)| Some((partition, next.checked_sub(1)?)));
    last.map(|(partition, offset)| LogPosition { epoch, partition, offset }).collect()
}

/// What is known of each partition. One without a leader does not say what it holds.
#[derive(Clone, Copy)]
struct Partitions<'a> {
    bounds: &'a [Result<Bounds, BusError>],
    /// How far this replica has read it: not behind its end. `None`: nothing of it.
    read: &'a [Option<Offset>],
    /// For [`StartPosition::At`], what the log said.
    at: &'a [Result<Offset, BusError>],
}

/// The first offset of each partition. Where one does not say what is needed of it the subscription is refused: it would miss something.
fn begin(topic: &TopicName, info: TopicInfo, partitions: Partitions<'_>, from: &StartPosition) -> Result<Vec<Offset>, Fault> {
    let Partitions { bounds, read, at } = partitions;
    let mut after: Vec<Option<Offset>> = vec![None; bounds.len()];
    if let StartPosition::After(positions) = from {
        for position in positions {
            let offset = position.offset.saturating_add(1);
            if position.epoch != info.epoch {
                return Err(epoch_changed(topic));
            }
            match after.get_mut(position.partition as usize) {
                Some(slot) => *slot = Some(slot.map_or(offset, |other| other.max(offset))),
                None => return Err(Fault::invalid(INVALID, format!("{topic} has no partition {}", position.partition))),
            }
        }
    }
    let begin_in = |partition: usize, bounds: &Result<Bounds, BusError>| {
        let known = || bounds.clone().map_err(Fault::from);
        let number = Partition::try_from(partition).unwrap_or(Partition::MAX);
        match (from, after.get(partition).copied().flatten()) {
            // What it has had since is told, too: nothing is missed.
            (StartPosition::Now, _) => match read.get(partition).copied().flatten() {
                Some(read) => Ok(bounds.as_ref().map_or(read, |bounds| bounds.next)),
                None => Ok(known()?.next),
            },
            (StartPosition::Start, _) | (StartPosition::After(_), None) => Ok(known()?.first),
            (StartPosition::At(_), _) => {
                let bounds = known()?;
                // A partition that the log has got since has nothing older.
                let at = at.get(partition).cloned().unwrap_or(Ok(0))?;
                Ok(at.max(bounds.first).min(bounds.next))
            }
            // A partition without a leader can't say whether it has a record there: the position is taken. Where the leader comes back with a shorter log,
            // what comes below the position is not told.
            (StartPosition::After(_), Some(next)) => match bounds {
                Ok(bounds) if next < bounds.first => Err(expired(topic, number, next)),
                Ok(bounds) if next > bounds.next => {
                    let why = format!("partition {partition} of {topic} ends before offset {next}");
                    Err(Fault::new(Code::OutOfRange, INVALID, why))
                }
                Ok(_) | Err(_) => Ok(next),
            },
        }
    };
    bounds.iter().enumerate().map(|(partition, bounds)| begin_in(partition, bounds)).collect()
}

fn expired(topic: &TopicName, partition: Partition, offset: Offset) -> Fault {
    Fault::new(
        Code::OutOfRange,
        "POSITION_EXPIRED",
        format!("{topic} no longer holds offset {offset} of partition {partition}: list the contexts, then subscribe from now"),
    )
}

fn too_many_reads() -> Fault {
    let why = format!(
        "{MAX_WAITING} subscriptions of this agent wait for their turn to read from the log: subscribe again after the last position, a little later"
    );
    Fault::new(Code::ResourceExhausted, "TOO_MANY_READS", why)
}

#[cfg(test)]
mod tests;
