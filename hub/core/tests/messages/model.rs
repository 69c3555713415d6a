//! The ports in memory.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{
        AppendError, Appended, Batch, Bounds, Bus, BusError, Epoch, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo,
        TopicName,
    },
    messages::{
        cursor::CursorState,
        delivery::DeliveryId,
        letter::{DeadLetter, LetterFilter, LetterId, LetterRecipient, LetterState},
        letter_store::{After, LetterStore},
        ports::{
            Acknowledged, Advance, Attempts, ClaimOutcome, CursorFlush, CursorStore, Expired, IndexEntry, LEASE, LogLives,
            MailboxAddress, MailboxStore, Moved, Opened, OpenedMailbox, Opening, index_went_back,
        },
    },
};
use async_trait::async_trait;
use futures::stream;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{model_timers::ModelTimers, model_traces::ModelTraces, model_usage::ModelUsage};

type Partitions = Vec<Vec<Logged>>;

/// A log in memory. Every append is durable at once; acknowledgements and tails take their time.
pub(crate) struct ModelBus {
    topics: Arc<Mutex<HashMap<TopicName, Partitions>>>,
    changed: watch::Sender<u64>,
    appends: AtomicU64,
    /// Below these offsets of the messages nothing is left.
    first: Arc<Mutex<Vec<Offset>>>,
    /// By how many seconds its clock is ahead.
    ahead: AtomicI64,
}

impl ModelBus {
    pub(crate) fn new(tenant: &str, partitions: usize) -> Self {
        Self::with_letters(tenant, partitions, 1)
    }

    /// With so many partitions of dead letters.
    pub(crate) fn with_letters(tenant: &str, partitions: usize, letters: usize) -> Self {
        let topics = HashMap::from([
            (TopicName::system(tenant, "messages"), vec![Vec::new(); partitions]),
            (TopicName::system(tenant, "dlq"), vec![Vec::new(); letters]),
            (TopicName::system(tenant, "usage"), vec![Vec::new()]),
        ]);
        Self {
            topics: Arc::new(Mutex::new(topics)),
            changed: watch::Sender::new(0),
            appends: AtomicU64::new(0),
            first: Arc::new(Mutex::new(vec![0; partitions])),
            ahead: AtomicI64::new(0),
        }
    }

    /// Its clock is set.
    pub(crate) fn set_clock(&self, ahead: time::Duration) {
        self.ahead.store(ahead.whole_seconds(), Ordering::Relaxed);
    }

    /// It has so many partitions from now on.
    pub(crate) fn grow(&self, tenant: &str, partitions: usize) {
        self.first.lock().unwrap().resize(partitions, 0);
        self.with(&TopicName::system(tenant, "messages"), |all| all.resize(partitions, Vec::new())).unwrap();
    }

    /// The last records of every partition are lost, as with a disk: this many of its messages are left.
    pub(crate) fn cut(&self, tenant: &str, left: usize) {
        let topic = TopicName::system(tenant, "messages");
        self.with(&topic, |partitions| partitions.iter_mut().for_each(|log| log.truncate(left))).unwrap();
        self.changed.send_modify(|version| *version += 1);
    }

    /// A record of the messages is another one, as if another hub had written it.
    pub(crate) fn rewrite(&self, tenant: &str, partition: Partition, offset: usize, record: Record) {
        let topic = TopicName::system(tenant, "messages");
        self.with(&topic, |partitions| partitions[partition as usize][offset].record = record).unwrap();
    }

    /// Retention: every message so far is gone.
    pub(crate) fn forget(&self, tenant: &str) {
        let ends = self.with(&TopicName::system(tenant, "messages"), |partitions| {
            partitions.iter().map(|log| log.len() as Offset).collect()
        });
        *self.first.lock().unwrap() = ends.unwrap();
    }

    /// The same of what comes to a partition of the messages now: nobody has read it.
    pub(crate) fn lose(&self, tenant: &str, partition: Partition, records: usize) {
        let topic = TopicName::system(tenant, "messages");
        let mut first = self.first.lock().unwrap();
        let lost = self.with(&topic, |partitions| {
            let log = &mut partitions[partition as usize];
            for _ in 0..records {
                let (offset, log_time) = (log.len() as Offset, OffsetDateTime::now_utc());
                log.push(Logged { partition, offset, log_time, record: Record::default() });
            }
            log.len() as Offset
        });
        first[partition as usize] = lost.unwrap();
    }

    fn first(&self, topic: &TopicName, partition: usize) -> Offset {
        if topic.to_string().ends_with(".messages") { self.first.lock().unwrap()[partition] } else { 0 }
    }

    fn with<T>(&self, topic: &TopicName, read: impl FnOnce(&mut Partitions) -> T) -> Result<T, BusError> {
        let mut topics = self.topics.lock().unwrap();
        topics.get_mut(topic).map(read).ok_or_else(|| BusError::NoSuchTopic(topic.clone()))
    }
}

#[async_trait]
impl Bus for ModelBus {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.with(topic, |partitions| TopicInfo { epoch: 1, partitions: partitions.len() as u32 })
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        let now = OffsetDateTime::now_utc() + time::Duration::seconds(self.ahead.load(Ordering::Relaxed));
        let (offset, log_time) = self
            .with(topic, |partitions| {
                let log = &mut partitions[partition as usize];
                let log_time = log.last().map_or(now, |last| last.log_time.max(now));
                let offset = log.len() as Offset;
                log.push(Logged { partition, offset, log_time, record });
                (offset, log_time)
            })
            .map_err(|error| AppendError::Refused(error.to_string()))?;
        self.changed.send_modify(|version| *version += 1);
        let turn = self.appends.fetch_add(1, Ordering::Relaxed);
        Ok(Box::pin(async move {
            if turn.is_multiple_of(3) {
                tokio::time::sleep(Duration::from_millis(turn % 4)).await;
            }
            Ok(if turn % 7 == 6 { Appended::Unknown } else { Appended::At { offset, log_time } })
        }))
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        let topic = topic.clone();
        let state = (from.to_vec(), self.changed.subscribe(), 0usize);
        assert_eq!(self.with(&topic, |partitions| partitions.len())?, from.len());
        let (topics, first) = (self.topics.clone(), self.first.clone());
        Ok(Box::pin(stream::unfold(state, move |(mut next, mut changed, mut turn)| {
            let (topic, topics, first) = (topic.clone(), topics.clone(), first.clone());
            async move {
                loop {
                    changed.borrow_and_update();
                    let count = next.len();
                    for step in 0..count {
                        let partition = (turn + step) % count;
                        let first = first.lock().unwrap()[partition];
                        if next[partition] > topics.lock().unwrap()[&topic][partition].len() as Offset {
                            let error = BusError::Unavailable("the log has lost records".to_owned());
                            return Some((Err(error), (next, changed, turn)));
                        }
                        if next[partition] < first {
                            next[partition] = first;
                            let batch = Batch { partition: partition as Partition, next: first, records: Vec::new() };
                            return Some((Ok(batch), (next, changed, turn)));
                        }
                        let records: Vec<Logged> = topics.lock().unwrap()[&topic][partition]
                            .iter()
                            .skip(next[partition] as usize)
                            .take(50)
                            .cloned()
                            .collect();
                        if let Some(last) = records.last() {
                            next[partition] = last.offset + 1;
                            turn += 1;
                            let batch = Batch { partition: partition as Partition, next: next[partition], records };
                            return Some((Ok(batch), (next, changed, turn)));
                        }
                    }
                    if changed.changed().await.is_err() {
                        return None;
                    }
                }
            }
        })))
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        let offset = offset.max(self.first(topic, partition as usize));
        self.with(topic, |partitions| partitions[partition as usize].iter().skip(offset as usize).take(limit).cloned().collect())
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.with(topic, |partitions| {
            let bounds = |(partition, log): (usize, &Vec<Logged>)| Bounds {
                first: self.first(topic, partition),
                next: log.len() as Offset,
            };
            partitions.iter().enumerate().map(bounds).collect()
        })
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.with(topic, |partitions| {
            partitions.iter().map(|log| log.partition_point(|logged| logged.log_time < time) as Offset).collect()
        })
    }
}

/// A message that is for several agents has a row for each of them.
type RowKey = (Partition, Offset, MailboxAddress);

fn key(row: &IndexEntry) -> RowKey {
    (row.partition, row.position, row.address.clone())
}

#[derive(Clone, Default)]
pub(crate) struct Rows {
    /// Which one ended, and which one came after it.
    pub(crate) cuts: HashMap<Epoch, Epoch>,
    checkpoints: Vec<Offset>,
    index: BTreeMap<RowKey, IndexEntry>,
    sessions: HashMap<AgentId, (u64, bool)>,
    cursors: BTreeMap<(AgentId, Partition), CursorState>,
    attempts: BTreeMap<(AgentId, Partition, Offset), u32>,
    claims: BTreeMap<RowKey, Instant>,
    receivers: HashMap<AgentId, (String, Uuid)>,
    leases: HashMap<Uuid, Instant>,
    letters: BTreeMap<LetterId, DeadLetter>,
    letters_indexed: BTreeMap<(Epoch, Partition), Offset>,
    pub(crate) usage: ModelUsage,
    /// By how much the store's clock is ahead.
    pub(crate) ahead: time::Duration,
    /// How often it was asked for what expired.
    pub(crate) looks: u64,
}

impl Rows {
    fn present(&self, mut epoch: Epoch) -> Epoch {
        while let Some(next) = self.cuts.get(&epoch) {
            epoch = *next;
        }
        epoch
    }

    fn is_claimed(&self, key: &RowKey) -> bool {
        self.claims.get(key).is_some_and(|until| Instant::now() < *until)
    }
}

/// Mailboxes and cursors in memory.
#[derive(Default)]
pub(crate) struct ModelStore {
    rows: Arc<Mutex<Rows>>,
    pub(crate) timers: ModelTimers,
    pub(crate) traces: ModelTraces,
}

impl ModelStore {
    pub(crate) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    pub(crate) fn shared(&self) -> Arc<Mutex<Rows>> {
        self.rows.clone()
    }

    pub(crate) fn checkpoints_now(&self) -> Vec<Offset> {
        self.rows().checkpoints.clone()
    }

    /// A copy, as a backup or a standby has it.
    pub(crate) fn copy(&self) -> Self {
        Self { rows: Arc::new(Mutex::new(self.rows().clone())), timers: ModelTimers::default(), traces: ModelTraces::default() }
    }

    /// PostgreSQL goes back to what it was when this copy was made.
    pub(crate) fn go_back(&self, copy: &Self) {
        *self.rows() = copy.rows().clone();
    }

    pub(crate) fn attempts(&self, agent: AgentId, id: DeliveryId) -> Option<u32> {
        self.rows().attempts.get(&(agent, id.place.partition, id.place.position)).copied()
    }
}

#[async_trait]
impl LogLives for ModelStore {
    async fn epoch(&self, log: Epoch) -> Result<Epoch, Fault> {
        Ok(self.rows().present(log))
    }

    async fn reached(&self, _epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        let rows = self.rows();
        let mut reached = rows.checkpoints.clone();
        reached.resize(partitions as usize, 0);
        let cursors = rows
            .cursors
            .iter()
            .map(|((_, partition), state)| (*partition, state.exceptions.last().map_or(0, |last| last + 1).max(state.watermark)));
        let attempts = rows.attempts.keys().map(|(_, partition, position)| (*partition, position + 1));
        let summed = (0..).zip(rows.usage.next.iter().copied());
        for (partition, next) in cursors.chain(attempts).chain(summed) {
            reached[partition as usize] = reached[partition as usize].max(next);
        }
        Ok(reached)
    }

    async fn cut(&self, ended: Epoch, epoch: Epoch, ends: &[(Partition, Offset)]) -> Result<bool, Fault> {
        let mut rows = self.rows();
        if rows.cuts.contains_key(&ended) {
            return Ok(false);
        }
        rows.cuts.insert(ended, epoch);
        rows.usage.cut(ends);
        for (partition, end) in ends {
            let checkpoint = &mut rows.checkpoints[*partition as usize];
            *checkpoint = (*checkpoint).min(*end);
            rows.index.retain(|(of, position, _), _| of != partition || position < end);
            rows.attempts.retain(|(_, of, position), _| of != partition || position < end);
            for ((_, of), state) in &mut rows.cursors {
                if of == partition {
                    state.watermark = state.watermark.min(*end);
                    state.exceptions.retain(|position| position < end);
                }
            }
        }
        Ok(true)
    }
}

#[async_trait]
impl MailboxStore for ModelStore {
    async fn checkpoints(&self, _epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        let mut rows = self.rows();
        if rows.checkpoints.is_empty() {
            rows.checkpoints.resize(partitions as usize, 0);
        }
        Ok(rows.checkpoints.clone())
    }

    async fn index(&self, epoch: Epoch, advances: Vec<Advance>) -> Result<Vec<Moved>, Fault> {
        let mut rows = self.rows();
        let mut moved = Vec::new();
        for advance in advances {
            let partition = advance.partition as usize;
            if rows.cuts.contains_key(&epoch) {
                moved.push(Moved::Gone);
            } else if rows.checkpoints[partition] == advance.from {
                rows.checkpoints[partition] = advance.to;
                for row in advance.rows {
                    let passed = match row.address {
                        MailboxAddress::Agent(agent) => rows.cursors.get(&(agent, row.partition)),
                        MailboxAddress::Group(_) | MailboxAddress::All => None,
                    };
                    if passed.is_none_or(|cursor| row.position >= cursor.watermark) {
                        rows.index.insert(key(&row), row);
                    }
                }
                moved.push(Moved::Won);
            } else {
                moved.push(Moved::Lost(rows.checkpoints[partition]));
            }
        }
        Ok(moved)
    }

    async fn entries(
        &self,
        epoch: Epoch,
        addresses: &[MailboxAddress],
        ranges: &[(Partition, Range<Offset>)],
        limit: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        let rows = self.rows();
        let reaches = |(partition, range): &(Partition, Range<Offset>)| rows.checkpoints[*partition as usize] >= range.end;
        if rows.cuts.contains_key(&epoch) || !ranges.iter().all(reaches) {
            return Err(index_went_back());
        }
        let of = |(partition, range): &(Partition, Range<Offset>)| {
            let from = |position| (*partition, position, MailboxAddress::Agent(AgentId(Uuid::nil())));
            let found = rows.index.range(from(range.start)..from(range.end)).map(|(_, row)| row);
            found.filter(|row| addresses.contains(&row.address)).take(limit).cloned().collect::<Vec<_>>()
        };
        Ok(ranges.iter().flat_map(of).collect())
    }

    async fn claim_expired(&self, _epoch: Epoch, lease: Duration, limit: usize) -> Result<Expired, Fault> {
        let mut rows = self.rows();
        rows.looks += 1;
        let now = OffsetDateTime::now_utc() + rows.ahead;
        let free = rows.index.values().filter(|row| row.expires_at <= now && !rows.is_claimed(&key(row)));
        let due: Vec<IndexEntry> = free.take(limit).cloned().collect();
        let mut expired = Expired { oldest: due.iter().map(|row| row.expires_at).min(), ..Expired::default() };
        for row in due {
            let taken = match row.address {
                MailboxAddress::Agent(agent) => rows.cursors.get(&(agent, row.partition)),
                MailboxAddress::Group(_) | MailboxAddress::All => None,
            };
            if taken.is_some_and(|cursor| cursor.acknowledged(row.position)) {
                rows.index.remove(&key(&row));
                expired.removed += 1;
            } else {
                rows.claims.insert(key(&row), Instant::now() + lease);
                expired.claimed.push(row);
            }
        }
        Ok(expired)
    }

    async fn claim(
        &self,
        _epoch: Epoch,
        address: &MailboxAddress,
        partition: Partition,
        position: Offset,
        lease: Duration,
    ) -> Result<ClaimOutcome, Fault> {
        let mut rows = self.rows();
        let key = (partition, position, address.clone());
        if !rows.index.contains_key(&key) {
            return Ok(ClaimOutcome::Gone);
        }
        if rows.is_claimed(&key) {
            return Ok(ClaimOutcome::Held);
        }
        rows.claims.insert(key, Instant::now() + lease);
        Ok(ClaimOutcome::Claimed)
    }

    async fn release(&self, _epoch: Epoch, held: &[IndexEntry], rest: Duration) -> Result<(), Fault> {
        let mut rows = self.rows();
        for row in held {
            rows.claims.insert(key(row), Instant::now() + rest);
        }
        Ok(())
    }

    async fn remove_acknowledged(&self, _epoch: Epoch, ranges: &[Acknowledged], _limit: usize) -> Result<u64, Fault> {
        let mut rows = self.rows();
        let before = rows.index.len();
        for Acknowledged { agent, partition, range } in ranges {
            let acknowledged = |row: &IndexEntry| {
                row.address == MailboxAddress::Agent(*agent) && row.partition == *partition && range.contains(&row.position)
            };
            rows.index.retain(|_, row| !acknowledged(row));
        }
        Ok((before - rows.index.len()) as u64)
    }

    async fn remove(&self, _epoch: Epoch, gone: &[IndexEntry]) -> Result<(), Fault> {
        let mut rows = self.rows();
        for row in gone {
            rows.index.remove(&key(row));
        }
        Ok(())
    }

    /// It keeps one epoch.
    async fn remove_other_epochs(&self, _epoch: Epoch, _limit: usize) -> Result<u64, Fault> {
        Ok(0)
    }
}

#[async_trait]
impl CursorStore for ModelStore {
    async fn open(&self, _epoch: Epoch, agent: AgentId, opening: &Opening) -> Result<Opened, Fault> {
        let mut rows = self.rows();
        if let Some((receiver, lease)) = rows.receivers.get(&agent).cloned() {
            let own = !opening.receiver.is_empty() && receiver == opening.receiver;
            let lives = rows.leases.get(&lease).is_some_and(|until| Instant::now() < *until);
            if lives && !own && !opening.take_over {
                return Ok(Opened::Held { lease, session_epoch: rows.sessions[&agent].0 });
            }
        }
        rows.leases.insert(opening.lease, Instant::now() + LEASE);
        rows.receivers.insert(agent, (opening.receiver.clone(), opening.lease));
        let session = rows.sessions.entry(agent).or_default();
        let clean = !session.1;
        *session = (session.0 + 1, true);
        let session_epoch = session.0;
        let cursors = rows.cursors.iter().filter(|((whose, _), _)| *whose == agent);
        let attempts = rows.attempts.iter().filter(|((whose, ..), _)| *whose == agent);
        Ok(Opened::Begun(OpenedMailbox {
            session_epoch,
            clean,
            cursors: cursors.map(|((_, partition), state)| (*partition, state.clone())).collect(),
            attempts: attempts
                .map(|((_, partition, position), attempts)| Attempts {
                    partition: *partition,
                    position: *position,
                    attempts: Some(*attempts),
                })
                .collect(),
        }))
    }

    async fn renew(&self, lease: Uuid, open: &[(AgentId, u64)]) -> Result<Vec<(AgentId, u64)>, Fault> {
        let mut rows = self.rows();
        rows.leases.insert(lease, Instant::now() + LEASE);
        let is_over =
            |(agent, session_epoch): &&(AgentId, u64)| rows.sessions.get(agent).map(|session| session.0) != Some(*session_epoch);
        Ok(open.iter().filter(is_over).copied().collect())
    }

    async fn flush(&self, epoch: Epoch, flushes: Vec<CursorFlush>) -> Result<Vec<(AgentId, u64)>, Fault> {
        let mut rows = self.rows();
        let mut superseded = Vec::new();
        for flush in flushes {
            if rows.sessions.get(&flush.agent).map(|session| session.0) != Some(flush.session_epoch) {
                superseded.push((flush.agent, flush.session_epoch));
                continue;
            }
            if rows.cuts.contains_key(&epoch) {
                continue;
            }
            for (partition, state) in flush.cursors {
                rows.cursors.insert((flush.agent, partition), state);
            }
            for row in flush.attempts {
                let key = (flush.agent, row.partition, row.position);
                match row.attempts {
                    Some(attempts) => rows.attempts.insert(key, attempts),
                    None => rows.attempts.remove(&key),
                };
            }
            if flush.closing {
                rows.sessions.insert(flush.agent, (flush.session_epoch, !flush.clean));
                rows.receivers.remove(&flush.agent);
            }
        }
        Ok(superseded)
    }

    async fn cursors(
        &self,
        _epoch: Epoch,
        agents: &[AgentId],
        partitions: &[Partition],
    ) -> Result<Vec<(AgentId, Partition, CursorState)>, Fault> {
        let rows = self.rows();
        let cursor =
            |agent: &AgentId, partition: &Partition| Some((*agent, *partition, rows.cursors.get(&(*agent, *partition))?.clone()));
        Ok(agents.iter().flat_map(|agent| partitions.iter().filter_map(move |partition| cursor(agent, partition))).collect())
    }
}

#[async_trait]
impl LetterStore for ModelStore {
    async fn letters_indexed(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        let rows = self.rows();
        let indexed = |partition| rows.letters_indexed.get(&(epoch, partition)).copied().unwrap_or(0);
        Ok((0..partitions).map(indexed).collect())
    }

    async fn index_letters(&self, epoch: Epoch, partition: Partition, next: Offset, letters: &[DeadLetter]) -> Result<(), Fault> {
        let mut rows = self.rows();
        for letter in letters {
            rows.letters.entry(letter.id).and_modify(|known| known.place = letter.place).or_insert_with(|| letter.clone());
        }
        let indexed = rows.letters_indexed.entry((epoch, partition)).or_default();
        *indexed = (*indexed).max(next);
        Ok(())
    }

    async fn unindex_letters(&self, epoch: Epoch, partition: Partition, next: Offset) -> Result<(), Fault> {
        let mut rows = self.rows();
        let indexed = rows.letters_indexed.entry((epoch, partition)).or_default();
        *indexed = (*indexed).min(next);
        Ok(())
    }

    async fn letters(&self, filter: &LetterFilter, after: Option<After>, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
        let is_for = |letter: &DeadLetter, recipient: &LetterRecipient| match (recipient, &letter.recipient) {
            (LetterRecipient::Own(agent), MailboxAddress::Agent(of)) => agent == of,
            (LetterRecipient::Agent(name), MailboxAddress::Agent(_))
            | (LetterRecipient::Group(name), MailboxAddress::Group(_)) => *name == letter.recipient_name,
            (LetterRecipient::All, MailboxAddress::All) => true,
            _ => false,
        };
        let matches = |letter: &&DeadLetter| {
            filter.own.is_none_or(|own| letter.is_own(own))
                && filter.reason.is_none_or(|reason| letter.reason == reason)
                && filter.recipient.as_ref().is_none_or(|recipient| is_for(letter, recipient))
                && filter.sender.as_ref().is_none_or(|sender| letter.sender_name == *sender)
                && filter.since.is_none_or(|since| letter.dead_at >= since)
                && filter.until.is_none_or(|until| letter.dead_at < until)
                && (filter.settled || letter.settled_at.is_none())
                && after.is_none_or(|after| (letter.message_id, letter.id) > after)
        };
        let mut found: Vec<DeadLetter> = self.rows().letters.values().filter(matches).cloned().collect();
        found.sort_by_key(|letter| (letter.message_id, letter.id));
        found.truncate(limit);
        Ok(found)
    }

    async fn letter(&self, id: LetterId) -> Result<Option<DeadLetter>, Fault> {
        Ok(self.rows().letters.get(&id).cloned())
    }

    async fn settle_letter(&self, id: LetterId, state: LetterState) -> Result<Option<LetterState>, Fault> {
        let mut rows = self.rows();
        let Some(letter) = rows.letters.get_mut(&id) else { return Ok(None) };
        if !matches!(letter.state, LetterState::Replayed(_)) {
            letter.state = state;
            letter.settled_at.get_or_insert_with(OffsetDateTime::now_utc);
        }
        Ok(Some(letter.state))
    }

    async fn forget_letters(&self, epoch: Epoch, first: &[(Partition, Offset)], _limit: usize) -> Result<u64, Fault> {
        let mut rows = self.rows();
        let before = rows.letters.len();
        let first: HashMap<Partition, Offset> = first.iter().copied().collect();
        rows.letters.retain(|_, letter| {
            let place = letter.place;
            place.epoch == epoch && first.get(&place.partition).is_none_or(|first| place.offset >= *first)
        });
        Ok((before - rows.letters.len()) as u64)
    }
}
