//! The newest changes of one context type, read from the log once for all subscribers of a hub.
//!
//! A bounded window in memory: a subscriber that falls out of it goes back to reading the log at its own position, so that it holds up
//! nobody and is never buffered for.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::DropGuard;
use tracing::{debug, warn};

use super::{
    change::{self, Event},
    context::Payload,
    versions::Versions,
};
use crate::{
    fault::{Code, Fault},
    kit::supervisor::Supervisor,
    log::{
        bus::{Batch, Bus, BusError, Epoch, Logged, Offset, Partition, TopicInfo, TopicName},
        follower::{Followed, Follower},
    },
};

/// Events that a subscriber takes from the window at a time, and the bytes of them beside the first: the window lets go of them, and the
/// subscriber holds them until its agent takes them.
const WINDOW_BATCH: usize = 64;
pub(crate) const HELD_BYTES: usize = 64 * 1024;

/// How often a partition is asked for its end that could not tell it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that an event costs beside its payload, roughly.
const EVENT_OVERHEAD: usize = 512;

/// A change with its place in the log.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    /// Compaction, or retention, removed records between the change before it and this one.
    pub(crate) after_hole: bool,
    pub(crate) event: Event,
}

impl Placed {
    /// `None` for what is no change of a context: it is passed over, since no repetition would mend it. A fault where a newer hub wrote it:
    /// passed over, it would be missed.
    pub(crate) fn decode(logged: &Logged) -> Result<Option<Self>, Fault> {
        match change::decode(&logged.record) {
            Ok(Some(event)) => Ok(Some(Self { partition: logged.partition, offset: logged.offset, after_hole: false, event })),
            Ok(None) => Ok(None),
            Err(fault) if fault.reason == change::NEWER => Err(fault),
            Err(fault) => {
                warn!(partition = logged.partition, offset = logged.offset, %fault, "passed over");
                Ok(None)
            }
        }
    }

    fn cost(&self) -> usize {
        EVENT_OVERHEAD + if let Payload::Inline(payload) = &self.event.context.payload { payload.len() } else { 0 }
    }
}

/// How large the window may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowSize {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// What a subscriber finds at its place.
pub(crate) enum Found {
    /// These, in order. Never empty.
    Events(Vec<Arc<Placed>>),
    /// Nothing yet.
    Nothing,
    /// The window begins after its place: it reads the log up to these positions.
    Behind(Vec<Offset>),
    /// The topic is not what it was.
    Ended(Fault),
}

/// Where a subscriber is.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadPosition {
    /// The next offset of each partition.
    pub(crate) next: Vec<Offset>,
    /// The next event of the window, while it is in there.
    sequence: Option<u64>,
}

impl ReadPosition {
    pub(crate) fn at(next: Vec<Offset>) -> Self {
        Self { next, sequence: None }
    }

    /// Takes note of what was read from the log. The place in the window is looked up again.
    pub(crate) fn passed(&mut self, partition: Partition, next: Offset) {
        self.sequence = None;
        if let Some(place) = self.next.get_mut(partition as usize) {
            *place = next.max(*place);
        }
    }
}

#[derive(Debug)]
struct Window {
    info: TopicInfo,
    size: WindowSize,
    events: VecDeque<Arc<Placed>>,
    bytes: usize,
    /// Number of the first event.
    first: u64,
    /// For each partition the offset from which on the window has everything.
    start: Vec<Offset>,
    /// How far the log was read.
    read: Vec<Offset>,
    /// Partitions of which it is not known where they end: they have no leader. Until then nothing is read of them, and nobody is behind there.
    late: BTreeSet<Partition>,
    ended: Option<Fault>,
}

impl Window {
    /// A partition says where it ends: it is read from there on. The window begins anew, so that everybody's place is looked up again: who is behind in this
    /// partition reads its log first.
    fn begin(&mut self, partition: Partition, end: Offset) {
        self.late.remove(&partition);
        if let Some(read) = self.read.get_mut(partition as usize) {
            *read = end;
        }
        self.first += self.events.len() as u64 + 1;
        self.events.clear();
        self.bytes = 0;
        // A partition that the topic has got since has a start also before anything of it was read: without one, what the window lets go of there would be
        // missed by who is slow.
        for (start, read) in self.start.iter_mut().zip(&self.read) {
            *start = *read;
        }
    }

    fn push(&mut self, placed: Placed) {
        self.bytes += placed.cost();
        self.events.push_back(Arc::new(placed));
        while self.events.len() > self.size.events || self.bytes > self.size.bytes {
            let Some(gone) = self.events.pop_front() else { break };
            self.bytes -= gone.cost();
            self.first += 1;
            if let Some(start) = self.start.get_mut(gone.partition as usize) {
                *start = gone.offset + 1;
            }
        }
    }

    fn find(&self, place: &mut ReadPosition) -> Found {
        if let Some(fault) = &self.ended {
            return Found::Ended(fault.clone());
        }
        // Partitions that the topic has got since begin at their beginning.
        place.next.resize(self.start.len().max(place.next.len()), 0);
        let mut sequence = match place.sequence {
            Some(sequence) if sequence >= self.first => sequence,
            _ if place.next.iter().zip(&self.start).all(|(next, start)| next >= start) => self.first,
            _ => {
                place.sequence = None;
                return Found::Behind(self.start.clone());
            }
        };
        let (mut found, mut bytes) = (Vec::new(), 0);
        let skip = usize::try_from(sequence - self.first).unwrap_or(usize::MAX);
        for placed in self.events.iter().skip(skip) {
            bytes += placed.cost();
            if found.len() == WINDOW_BATCH || !found.is_empty() && bytes > HELD_BYTES {
                break;
            }
            sequence += 1;
            if let Some(next) = place.next.get_mut(placed.partition as usize)
                && placed.offset >= *next
            {
                *next = placed.offset + 1;
                found.push(placed.clone());
            }
        }
        place.sequence = Some(sequence);
        if sequence == self.first + self.events.len() as u64 {
            // What was read and is not in the window is no change.
            for (next, read) in place.next.iter_mut().zip(&self.read) {
                *next = (*read).max(*next);
            }
        }
        if found.is_empty() { Found::Nothing } else { Found::Events(found) }
    }
}

#[derive(Debug)]
struct Shared {
    window: Mutex<Window>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shared tail of one context type. Ends when its last subscriber drops it.
#[derive(Debug)]
pub(crate) struct ContextTail {
    pub(crate) topic: TopicName,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl ContextTail {
    /// Starts at the end of the log.
    pub(crate) async fn start(
        bus: Arc<dyn Bus>,
        topic: TopicName,
        size: WindowSize,
        supervisor: &Supervisor,
    ) -> Result<Self, BusError> {
        let info = bus.topic(&topic).await?;
        let ends = bus.bounds_each(&topic).await?;
        if let Some(Err(error)) = ends.iter().find(|_| ends.iter().all(Result::is_err)) {
            return Err(error.clone());
        }
        let late: BTreeSet<Partition> =
            (0..).zip(&ends).filter(|(_, end)| end.is_err()).map(|(partition, _)| partition).collect();
        let start: Vec<Offset> = ends.into_iter().map(|end| end.map_or(0, |bounds| bounds.next)).collect();
        let shared = Arc::new(Shared {
            window: Mutex::new(Window {
                info,
                size,
                events: VecDeque::new(),
                bytes: 0,
                first: 0,
                start: start.clone(),
                read: start.clone(),
                late: late.clone(),
                ended: None,
            }),
            changed: watch::Sender::new(()),
        });
        let cancellation = supervisor.stop().child_token();
        let reader = Reader {
            follower: Follower::new(bus.clone(), topic.clone(), info.epoch, start),
            bus,
            late,
            topic: topic.clone(),
            shared: shared.clone(),
            hole: BTreeSet::new(),
            versions: Versions::new(65_536),
        };
        let stop = cancellation.clone();
        supervisor.spawn_finite("contexts.tail", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = reader.run() => {}
            }
        });
        Ok(Self { topic, shared, _stop: cancellation.drop_guard() })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.shared.window().info.epoch
    }

    pub(crate) fn ended(&self) -> bool {
        self.shared.window().ended.is_some()
    }

    /// How far the log was read.
    pub(crate) fn read(&self) -> Vec<Offset> {
        self.shared.window().read.clone()
    }

    /// The same where it is known, for each partition: one without a leader may not have been read at all.
    pub(crate) fn ends(&self) -> Vec<Option<Offset>> {
        let window = self.shared.window();
        (0..).zip(&window.read).map(|(partition, read)| (!window.late.contains(&partition)).then_some(*read)).collect()
    }

    pub(crate) fn find(&self, place: &mut ReadPosition) -> Found {
        self.shared.window().find(place)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }
}

/// Fills the window.
struct Reader {
    bus: Arc<dyn Bus>,
    follower: Follower,
    /// Partitions whose end is not known yet.
    late: BTreeSet<Partition>,
    topic: TopicName,
    shared: Arc<Shared>,
    /// Partitions with a hole that the next change comes after.
    hole: BTreeSet<Partition>,
    versions: Versions,
}

impl Reader {
    async fn run(mut self) {
        let mut ends = self.find_ends();
        loop {
            let followed = tokio::select! {
                followed = self.follower.next() => followed,
                found = async { match &mut ends { Some(ends) => ends.await, None => std::future::pending().await } } => {
                    for (partition, end) in found {
                        self.late.remove(&partition);
                        self.follower.seek(partition, end);
                        self.shared.window().begin(partition, end);
                    }
                    self.shared.changed.send_replace(());
                    ends = self.find_ends();
                    continue;
                }
            };
            let fault = match followed {
                // It is read from its end on, and that is not known.
                Followed::Batch(batch) if self.late.contains(&batch.partition) => None,
                Followed::Batch(batch) => self.take(batch),
                Followed::Grown(info) => {
                    debug!(topic = %self.topic, info.partitions, "the topic has more partitions");
                    let mut window = self.shared.window();
                    window.start.resize(info.partitions as usize, 0);
                    window.info = info;
                    None
                }
                Followed::MadeAnew => Some(epoch_changed(&self.topic)),
                Followed::Gone(topic) => Some(Fault::new(
                    Code::Aborted,
                    "CONTEXT_TYPE_GONE",
                    format!("{topic} is gone: the Tenant does not list its type"),
                )),
            };
            if let Some(fault) = fault {
                self.shared.window().ended = Some(fault);
                self.shared.changed.send_replace(());
                return;
            }
        }
    }

    /// A moment later, the ends of those partitions that tell theirs by then. `None`: all are known.
    fn find_ends(&self) -> Option<BoxFuture<'static, Vec<(Partition, Offset)>>> {
        if self.late.is_empty() {
            return None;
        }
        let (bus, topic, late) = (self.bus.clone(), self.topic.clone(), self.late.clone());
        let find = async move {
            sleep(LOOK_AGAIN).await;
            let ends = bus.bounds_each(&topic).await.unwrap_or_default();
            let known = (0..).zip(ends).filter_map(|(partition, end)| Some((partition, end.ok()?.next)));
            known.filter(|(partition, _)| late.contains(partition)).collect()
        };
        Some(find.boxed())
    }

    /// A fault where there is something that must not be passed over.
    fn take(&mut self, batch: Batch) -> Option<Fault> {
        let read = self.shared.window().read.get(batch.partition as usize).copied().unwrap_or(0);
        let mut changes = Vec::with_capacity(batch.records.len());
        let mut fault = None;
        let mut expected = read;
        // Before the lock, which every subscriber takes.
        for logged in batch.records.iter().filter(|logged| logged.offset >= read) {
            if logged.offset > expected {
                self.hole.insert(batch.partition);
            }
            expected = logged.offset + 1;
            match Placed::decode(logged) {
                Ok(Some(placed)) if self.versions.advance(placed.event.context.id, placed.event.context.version) => {
                    changes.push(Placed { after_hole: self.hole.remove(&batch.partition), ..placed });
                }
                Ok(_) => {}
                Err(newer) => {
                    fault = Some(newer);
                    break;
                }
            }
        }
        let mut window = self.shared.window();
        changes.into_iter().for_each(|placed| window.push(placed));
        if fault.is_none() {
            let late = std::mem::take(&mut window.late);
            window.read.clear();
            window.read.extend(
                (0..).zip(self.follower.positions()).map(|(partition, read)| if late.contains(&partition) { 0 } else { *read }),
            );
            window.late = late;
        }
        drop(window);
        self.shared.changed.send_replace(());
        fault
    }
}

/// What a subscriber hears whose positions mean nothing any more.
pub(crate) fn epoch_changed(topic: &TopicName) -> Fault {
    Fault::new(
        Code::OutOfRange,
        "LOG_EPOCH_CHANGED",
        format!(
            "{topic} was made anew, and positions of its earlier life mean nothing: list the contexts, then subscribe from now"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::change::{Change, tests::context};

    fn placed(partition: Partition, offset: Offset) -> Placed {
        Placed {
            partition,
            offset,
            after_hole: false,
            event: Event { change: Change::Created, context: context(Payload::Unread), previous: None },
        }
    }

    fn window(events: usize, start: Vec<Offset>) -> Window {
        let info = TopicInfo { epoch: 1, partitions: 2 };
        let size = WindowSize { events, bytes: usize::MAX };
        Window {
            info,
            size,
            events: VecDeque::new(),
            bytes: 0,
            first: 0,
            read: start.clone(),
            start,
            late: BTreeSet::new(),
            ended: None,
        }
    }

    fn offsets(found: Found) -> Option<Vec<(Partition, Offset)>> {
        match found {
            Found::Events(events) => Some(events.iter().map(|placed| (placed.partition, placed.offset)).collect()),
            Found::Nothing => Some(Vec::new()),
            Found::Behind(_) | Found::Ended(_) => None,
        }
    }

    #[test]
    fn a_subscriber_sees_everything_from_its_place_on_once() {
        let mut window = window(100, vec![5, 7]);
        window.read = vec![8, 9];
        let mut place = ReadPosition::at(vec![6, 7]);
        for (partition, offset) in [(0, 5), (1, 7), (0, 6), (1, 8)] {
            window.push(placed(partition, offset));
        }
        assert_eq!(offsets(window.find(&mut place)), Some(vec![(1, 7), (0, 6), (1, 8)]));
        assert_eq!(offsets(window.find(&mut place)), Some(vec![]));
        window.push(placed(0, 8));
        assert_eq!(offsets(window.find(&mut place)), Some(vec![(0, 8)]));
        assert_eq!(place.next, [9, 9], "offset 7 was read, and is no change");
    }

    #[test]
    fn a_slow_one_is_sent_to_the_log_and_comes_back() {
        let mut window = window(2, vec![0, 0]);
        let mut place = ReadPosition::at(vec![0, 0]);
        for offset in 0..4 {
            window.push(placed(0, offset));
        }
        let Found::Behind(start) = window.find(&mut place) else { panic!("it is behind") };
        assert_eq!(start, [2, 0]);
        place.passed(0, 2);
        assert_eq!(offsets(window.find(&mut place)), Some(vec![(0, 2), (0, 3)]));
    }

    #[test]
    fn a_slow_one_misses_nothing_of_a_partition_that_came_while_another_had_no_leader() {
        let mut window = window(2, vec![0]);
        window.late = BTreeSet::from([0]);
        window.start.resize(2, 0);
        window.begin(0, 5);
        for offset in 0..4 {
            window.push(placed(1, offset));
        }
        let mut place = ReadPosition::at(vec![5, 0]);
        let Found::Behind(start) = window.find(&mut place) else { panic!("it is behind") };
        assert_eq!(start, [5, 2]);
    }

    #[test]
    fn a_subscriber_takes_few_large_events_at_a_time() {
        let mut window = window(100, vec![0, 0]);
        for offset in 0..3 {
            let mut large = placed(0, offset);
            large.event.context.payload = Payload::Inline(vec![0; HELD_BYTES].into());
            window.push(large);
        }
        let mut place = ReadPosition::at(vec![0, 0]);
        for offset in 0..3 {
            assert_eq!(offsets(window.find(&mut place)), Some(vec![(0, offset)]));
        }
    }

    #[test]
    fn the_window_is_bounded_by_bytes_too() {
        let mut window = window(100, vec![0, 0]);
        window.size.bytes = 3 * EVENT_OVERHEAD;
        for offset in 0..10 {
            window.push(placed(1, offset));
        }
        assert_eq!((window.events.len(), window.first, window.start[1]), (3, 7, 7));
    }
}
