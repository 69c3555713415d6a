//! The sink: makes rows of the log of audit records, in its order, a tree over them, and checkpoints of the tree. One replica does it at a time; where
//! two think that they do, the store lets one of them grow the tree from one size.

use std::{fmt, sync::Arc, time::Duration};

use acb_tlog::{
    checkpoint::Checkpoint,
    note::Signing,
    tree::{Hash, Tree, leaf_hash},
};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use uuid::Uuid;

use super::{
    journal::PATIENCE,
    ports::{AuditFilter, AuditStore, Growth, KeptRecord, Leaf, SignedCheckpoint, TreePosition},
    record::{AuditRecord, OPERATOR, Phase},
};
use crate::{
    directory::refresher::jittered,
    fault::Fault,
    kit::clock::{now, truncated},
    log::{
        bus::{AppendError, Batch, Bounds, Bus, Logged, Offset, Record, TopicName},
        follower::{Followed, Follower},
    },
    metrics::audit::AuditMetrics,
};

/// Says that a record of the log is a checkpoint of what is before it, and no leaf.
const CHECKPOINT: &str = "acb-checkpoint";

/// A log that has brought nothing for so long may have been cut short meanwhile: what was read last is looked at again before the next record is
/// taken.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Earlier sizes of the tree that are asked for at one time.
const SIZES: usize = 100;

/// What is added to the tree at one time at most, beyond the first record.
const LEAVES: usize = 500;
const BYTES: usize = 4 * 1024 * 1024;

/// Records that are forgotten at one time, and the pause before more are: the tree grows meanwhile.
const FORGET: usize = 5000;
const FORGET_PAUSE: Duration = Duration::from_secs(1);

/// Acts of the operator that are appended at one time.
const ACTS: usize = 100;

/// Characters of an agent's name and of an operation that a record is found by.
const FOUND_BY: usize = 256;

/// Times of the sink.
#[derive(Clone, Copy, Debug)]
pub struct SinkTimes {
    /// How often it says that it lives, and others ask whether one does.
    pub hold_every: Duration,
    /// How long nobody else begins after it said so.
    pub hold_for: Duration,
    /// How often a tree that has grown is signed.
    pub sign_every: Duration,
    /// How long a log must end before what was read of it until that is believed: who leads it anew may say too early an end.
    pub cut_after: Duration,
    /// How often records whose retention is over are looked for.
    pub forget_every: Duration,
}

impl Default for SinkTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            hold_every: seconds(10),
            hold_for: seconds(30),
            sign_every: seconds(60),
            cut_after: seconds(30),
            forget_every: seconds(3600),
        }
    }
}

/// The key that signs now, where there is one.
pub type SigningKey = Arc<dyn Fn() -> Option<Signing> + Send + Sync>;

/// The sink of one replica.
pub struct Sink {
    bus: Arc<dyn Bus>,
    topic: TopicName,
    store: Arc<dyn AuditStore>,
    key: SigningKey,
    replica: String,
    metrics: AuditMetrics,
    times: SinkTimes,
    holder: Uuid,
    /// Since when the log seems to end before what was read of it.
    short_since: Option<Instant>,
    /// Until when the log may still take an act that it did not answer about.
    late_until: Option<Instant>,
    /// The latest checkpoint, while this replica builds the tree.
    signed: watch::Sender<Option<SignedCheckpoint>>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What the tree has, and where it goes on.
struct Growing {
    tree: Tree,
    place: TreePosition,
    /// The size that was signed last, and when it may be signed again.
    signed: u64,
    sign_at: Instant,
    /// The record of the log that the last leaf is. `None` where it is none of the log, as a gap is.
    last: Option<(Offset, Hash)>,
    /// When the log brought it.
    read_at: Instant,
    /// The end of the log when this replica began to build the tree: only who has read up to there knows which acts of the operator the log has.
    acts_known_at: Offset,
    /// Acts that it appended since, and has not read again.
    appended: Vec<Uuid>,
    /// There may be more acts than these.
    more_acts: bool,
}

impl Sink {
    /// Of this replica.
    #[must_use]
    pub fn new(
        bus: Arc<dyn Bus>,
        store: Arc<dyn AuditStore>,
        key: SigningKey,
        (tenant, replica): (&str, &str),
        metrics: AuditMetrics,
        times: SinkTimes,
    ) -> Self {
        let topic = TopicName::system(tenant, "audit");
        Self {
            bus,
            topic,
            store,
            key,
            replica: replica.to_owned(),
            metrics,
            times,
            holder: Uuid::new_v4(),
            short_since: None,
            late_until: None,
            signed: watch::Sender::new(None),
        }
    }

    /// The checkpoints that this replica has to show: `None` while another one builds the tree.
    #[must_use]
    pub fn checkpoints(&self) -> watch::Receiver<Option<SignedCheckpoint>> {
        self.signed.subscribe()
    }

    /// Builds the tree whenever nobody else does, for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            let turn = self.turn().await;
            self.signed.send_replace(None);
            match turn {
                Ok(()) => {
                    self.metrics.lag(0);
                    self.metrics.size(0);
                }
                // The lag stays as it was: one that is stuck must not look as if nothing waited for it.
                Err(fault) => {
                    self.metrics.failed();
                    tracing::warn!(topic = %self.topic, %fault, "the audit trail waits");
                }
            }
            sleep(self.times.hold_every).await;
        }
    }

    async fn holds(&self) -> Result<bool, Fault> {
        self.store.hold_sink(self.holder, self.times.hold_for).await
    }

    /// Builds it until somebody else does, or the log is another one.
    async fn turn(&mut self) -> Result<(), Fault> {
        if !self.holds().await? {
            return Ok(());
        }
        let Some(mut growing) = self.begin().await? else { return Ok(()) };
        let TreePosition { epoch, next } = growing.place;
        let mut follower = Follower::new(self.bus.clone(), self.topic.clone(), epoch, vec![next]);
        let mut hold = interval(self.times.hold_every);
        hold.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // All tenants' hubs start at about the same time, and PostgreSQL is one.
        let mut forget_at = Instant::now() + jittered(self.times.forget_every);
        loop {
            tokio::select! {
                followed = follower.next() => match followed {
                    Followed::Batch(batch) if batch.partition == 0 => {
                        if growing.read_at.elapsed() >= TRUSTED_FOR && !self.has(growing.last).await? {
                            return Ok(());
                        }
                        growing.read_at = Instant::now();
                        if !self.take(&mut growing, batch).await? {
                            return Ok(());
                        }
                        if growing.more_acts {
                            self.append_acts(&mut growing).await?;
                        }
                    }
                    // It has one partition: no record is in another.
                    Followed::Batch(_) | Followed::Grown(_) => {}
                    Followed::MadeAnew | Followed::Gone(_) => return Ok(()),
                },
                _ = hold.tick() => {
                    if !self.holds().await? {
                        return Ok(());
                    }
                    let bounds = self.bus.bounds(&self.topic).await?.first().copied();
                    // Cut short: what is appended next would be taken for what was read.
                    let Some(bounds) = bounds.filter(|bounds| bounds.next >= growing.place.next) else { return Ok(()) };
                    if !self.has(growing.last).await? {
                        return Ok(());
                    }
                    self.behind(bounds, growing.place);
                    self.metrics.size(growing.tree.size());
                    if self.late_until.take_if(|until| *until <= Instant::now()).is_some() {
                        growing.acts_known_at = bounds.next;
                    }
                    self.append_acts(&mut growing).await?;
                }
                () = tokio::time::sleep_until(growing.sign_at), if growing.tree.size() > growing.signed => {
                    growing.sign_at = Instant::now() + self.times.sign_every;
                    if !self.sign(&mut growing).await? {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(forget_at) => {
                    let forgotten = self.store.forget(FORGET).await?;
                    let pause = if forgotten < FORGET as u64 { jittered(self.times.forget_every) } else { FORGET_PAUSE };
                    forget_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Whether the log still has this record at this offset. What it has no more for its age was there.
    async fn has(&self, record: Option<(Offset, Hash)>) -> Result<bool, Fault> {
        let Some((offset, hash)) = record else { return Ok(true) };
        let read = self.bus.read(&self.topic, 0, offset, 1).await?;
        let there = read.first().filter(|logged| logged.offset == offset);
        Ok(there.is_none_or(|logged| leaf(logged).is_some_and(|leaf| leaf_hash(&leaf.record) == hash)))
    }

    /// The record of the log that the last leaf of a tree of this size is.
    async fn last(&self, size: u64, place: TreePosition) -> Result<Option<(Offset, Hash)>, Fault> {
        let (Some(number), Some(offset)) = (size.checked_sub(1), place.next.checked_sub(1)) else { return Ok(None) };
        let kept = self.store.records(&AuditFilter::default(), number, 1).await?.pop().filter(|kept| kept.number == number);
        let is_of_log = |kept: &KeptRecord| AuditRecord::decode(&kept.record).map_or(true, |read| read.phase != Phase::Gap);
        Ok(kept.filter(is_of_log).and_then(|kept| Some((offset, kept.leaf?))))
    }

    /// Up to where the log is still the one that the tree was made of.
    async fn cut(&self, mut size: u64, TreePosition { epoch, .. }: TreePosition, first: Offset) -> Result<Offset, Fault> {
        loop {
            let sizes = self.store.sizes_before(size, SIZES).await?;
            let Some((smallest, _)) = sizes.last() else { return Ok(first) };
            size = *smallest;
            for (size, place) in sizes {
                if place.epoch != epoch || place.next <= first {
                    return Ok(first);
                }
                let last = self.last(size, place).await?;
                if last.is_some() && self.has(last).await? {
                    return Ok(place.next);
                }
            }
        }
    }

    /// Appends what the operator did and the log does not have, in its order. What may have come into the log without an answer is looked for there before it is
    /// appended again: by the next turn, or by whoever builds the tree next.
    async fn append_acts(&mut self, growing: &mut Growing) -> Result<(), Fault> {
        if self.late_until.is_some() || growing.place.next < growing.acts_known_at || !growing.appended.is_empty() {
            return Ok(());
        }
        let acts = self.store.acts(ACTS).await?;
        growing.more_acts = acts.len() == ACTS;
        let began = Instant::now();
        for act in acts {
            // Nobody else must begin with the same ones: it has to be said again who builds the tree.
            if began.elapsed() >= self.times.hold_every {
                growing.more_acts = true;
                break;
            }
            growing.appended.push(act.call);
            let record = Record { key: None, headers: Vec::new(), value: Some(act.record().encode()) };
            let appended = async { self.bus.append(&self.topic, 0, record).await?.await };
            let silent = || AppendError::Unknown(format!("the log did not answer within {PATIENCE:?}"));
            if let Err(error) = timeout(PATIENCE, appended).await.unwrap_or_else(|_| Err(silent())) {
                if matches!(error, AppendError::Unknown(_)) {
                    self.late_until = Some(Instant::now() + self.times.hold_for);
                }
                return Err(Fault::unavailable(
                    "AUDIT_UNAVAILABLE",
                    format!("an act of the operator waits for the log: {error}"),
                ));
            }
            self.metrics.written();
            self.metrics.act();
        }
        Ok(())
    }

    fn behind(&self, bounds: Bounds, place: TreePosition) {
        self.metrics.lag(Bounds::unread(&[Ok(bounds)], std::iter::once(place.next)));
    }

    /// Where it goes on. `None` where that is not known for a while.
    async fn begin(&mut self) -> Result<Option<Growing>, Fault> {
        let head = self.store.head().await?;
        let info = self.bus.topic(&self.topic).await?;
        let bounds = self.bus.bounds(&self.topic).await?;
        let Some(bounds) = bounds.first() else { return Ok(None) };
        let signed = self.store.checkpoint().await?;
        self.signed.send_replace(signed.clone());
        let since = signed.as_ref().map(|signed| OffsetDateTime::now_utc() - signed.at);
        let wait = since.and_then(|since| self.times.sign_every.checked_sub(since.try_into().ok()?)).unwrap_or_default();
        let from = |place| Growing {
            tree: head.tree.clone(),
            place,
            signed: signed.as_ref().map_or(0, |signed| signed.size),
            sign_at: Instant::now() + wait,
            last: None,
            read_at: Instant::now(),
            // An empty log has nothing to be read first: what it had is forgotten.
            acts_known_at: if bounds.first < bounds.next { bounds.next } else { 0 },
            appended: Vec::new(),
            more_acts: false,
        };
        let (epoch, first) = (info.epoch, TreePosition { epoch: info.epoch, next: bounds.first });
        let (mut growing, missing) = match head.place {
            // What was before the first record that anybody could read is no one's loss but where there was something.
            None if bounds.first == 0 => (from(first), None),
            None => {
                (from(first), Some(format!("records 0 to {} of the log: they were gone before they were read", bounds.first - 1)))
            }
            Some(place) if place.epoch != epoch => {
                (from(first), Some(format!("what the log had from record {} on: it was made anew", place.next)))
            }
            Some(place) if bounds.next < place.next => {
                let since = *self.short_since.get_or_insert_with(Instant::now);
                if since.elapsed() < self.times.cut_after {
                    return Ok(None);
                }
                let (was, is) = (place.next, bounds.next);
                (
                    from(TreePosition { epoch, next: is }),
                    Some(format!("records of the log before {is}: it had {was}, and was cut short")),
                )
            }
            Some(place) => {
                let last = self.last(head.tree.size(), place).await?;
                if self.has(last).await? {
                    // What of it is gone shows itself with the first record that is there.
                    (Growing { last, ..from(place) }, None)
                } else {
                    // It was cut short, and has grown again since.
                    let next = self.cut(head.tree.size(), place, bounds.first).await?;
                    let was = place.next;
                    let missing =
                        format!("records {next} to {} of the log: it was cut short, and other ones came in their place", was - 1);
                    (from(TreePosition { epoch, next }), Some(missing))
                }
            }
        };
        self.behind(*bounds, growing.place);
        self.short_since = None;
        let Some(missing) = missing else { return Ok(Some(growing)) };
        let place = growing.place;
        let gap = self.gap(&missing);
        Ok(self.grow(&mut growing, vec![gap], place).await?.then_some(growing))
    }

    /// Makes leaves of what comes. False where somebody else has grown the tree.
    async fn take(&self, growing: &mut Growing, batch: Batch) -> Result<bool, Fault> {
        let (epoch, mut leaves, mut bytes) = (growing.place.epoch, Vec::new(), 0);
        let mut next = growing.place.next;
        // Behind the last leaf, so that whoever goes on from there finds its record just before.
        let mut place = growing.place;
        for logged in batch.records {
            if logged.offset < next {
                continue;
            }
            if logged.offset > next {
                leaves.push(
                    self.gap(&format!(
                        "records {next} to {} of the log: they were gone before they were read",
                        logged.offset - 1
                    )),
                );
                place = TreePosition { epoch, next: logged.offset };
            }
            next = logged.offset + 1;
            if let Some(leaf) = leaf(&logged) {
                bytes += leaf.record.len();
                growing.last = Some((logged.offset, leaf_hash(&leaf.record)));
                place = TreePosition { epoch, next };
                leaves.push(leaf);
            }
            if leaves.len() >= LEAVES || bytes >= BYTES {
                bytes = 0;
                if !self.grow(growing, std::mem::take(&mut leaves), place).await? {
                    return Ok(false);
                }
            }
        }
        if !leaves.is_empty() && !self.grow(growing, leaves, place).await? {
            return Ok(false);
        }
        growing.place.next = next.max(growing.place.next);
        Ok(true)
    }

    async fn grow(&self, growing: &mut Growing, leaves: Vec<Leaf>, place: TreePosition) -> Result<bool, Fault> {
        let (first, mut tree, mut nodes) = (growing.tree.size(), growing.tree.clone(), Vec::with_capacity(2 * leaves.len()));
        for leaf in &leaves {
            nodes.extend(tree.push(leaf_hash(&leaf.record)));
        }
        let acts: Vec<Uuid> = leaves.iter().filter_map(act).collect();
        growing.appended.retain(|call| !acts.contains(call));
        let growth = Growth { first, leaves, nodes, place, acts };
        if !self.store.grow(&growth).await? {
            tracing::info!(topic = %self.topic, first, "another replica builds the audit trail");
            return Ok(false);
        }
        (growing.tree, growing.place) = (tree, place);
        self.metrics.size(growing.tree.size());
        Ok(true)
    }

    /// The leaf that says that something is missing.
    fn gap(&self, missing: &str) -> Leaf {
        tracing::error!(topic = %self.topic, missing, "the audit trail has a gap");
        self.metrics.gap();
        let record = AuditRecord {
            call: Uuid::now_v7(),
            phase: Phase::Gap,
            at: now(),
            replica: self.replica.clone(),
            operation: String::new(),
            agent_id: None,
            agent: String::new(),
            key: String::new(),
            object: missing.to_owned(),
            version: 0,
            bytes: 0,
            source: String::new(),
            outcome: "missing".to_owned(),
            reason: String::new(),
            correlation_id: String::new(),
            count: 0,
            change: String::new(),
        };
        Leaf { record: record.encode(), at: record.at, agent: String::new(), operation: String::new() }
    }

    /// Signs the tree as it is now, keeps that, and tells the log. False where the tree that is kept is another one.
    async fn sign(&self, growing: &mut Growing) -> Result<bool, Fault> {
        let Some(key) = (self.key)() else {
            tracing::warn!("the audit trail is not signed: the Secret of the hub's keys has no audit.key");
            return Ok(true);
        };
        let (size, root) = (growing.tree.size(), growing.tree.root());
        let note = Checkpoint { origin: key.verifier().name().to_owned(), size, root }.sign(&key);
        let checkpoint = SignedCheckpoint { size, verifier: key.verifier().to_string(), note: note.clone(), at: now() };
        if !self.store.keep_checkpoint(&checkpoint).await? {
            tracing::info!(topic = %self.topic, size, "the audit trail is not as this replica left it");
            return Ok(false);
        }
        growing.signed = size;
        self.signed.send_replace(Some(checkpoint));
        let record = Record { key: None, headers: vec![(CHECKPOINT.to_owned(), Bytes::new())], value: Some(note.into()) };
        let appended = async { self.bus.append(&self.topic, 0, record).await?.await };
        if let Err(error) = appended.await {
            // The next one is of a larger tree, which says all that this one did.
            tracing::warn!(topic = %self.topic, %error, "a checkpoint of the audit trail is not in the log");
        }
        Ok(true)
    }
}

/// The call of a leaf that tells of something that the operator did.
fn act(leaf: &Leaf) -> Option<Uuid> {
    AuditRecord::decode(&leaf.record).ok().filter(|read| read.source == OPERATOR).map(|read| read.call)
}

/// The leaf of a record. `None`: it is none.
fn leaf(logged: &Logged) -> Option<Leaf> {
    if logged.record.headers.iter().any(|(name, _)| name == CHECKPOINT) {
        return None;
    }
    let record = logged.record.value.clone()?;
    let log_time = truncated(logged.log_time);
    // Also what this version can't read is a leaf: it must not be possible to hide something by writing it wrongly.
    let (at, agent, operation) = match AuditRecord::decode(&record) {
        Ok(read) => (read.at, read.agent, read.operation),
        Err(_) => (log_time, String::new(), String::new()),
    };
    // PostgreSQL takes no NUL, a date of its own range, and in an index no more than a third of a page: who writes one record that it does not take
    // must not stop the trail for good.
    let text = |text: String| text.chars().filter(|c| *c != '\0').take(FOUND_BY).collect();
    let at = if (1970..=9999).contains(&at.year()) { at } else { log_time };
    Some(Leaf { record, at, agent: text(agent), operation: text(operation) })
}
