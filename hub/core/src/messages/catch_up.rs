//! Reads from the index, and then from the log, what an agent has not seen live.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use time::OffsetDateTime;

use super::{
    envelope::Envelope,
    log::Log,
    logged::{Buffered, LoggedMessage},
    parts::Parts,
    ports::{IndexEntry, MailboxAddress},
    position::{Position, number_of, offset_of},
    record,
};
use crate::{
    directory::{
        agent::AgentId,
        membership::{Membership, began_by},
        snapshot::Snapshot,
    },
    fault::Fault,
    kit::budget::Queue,
    log::bus::{Offset, Partition},
};

/// Rows of one page: their messages are in memory together.
const PAGE: usize = 32;
/// Payload bytes of one page: an agent that reads slowly holds no more.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Messages that are read before a page's bytes are looked at.
const RUN: usize = 8;
/// Records that are read together although not all of them are wanted.
const SPAN: u64 = 16;

/// A run of one partition.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) partition: Partition,
    pub(super) messages: Vec<Buffered>,
    /// Nothing else below this is for the agent.
    pub(super) upto: Position,
}

/// Waits until the index covers everything below `positions`.
pub(super) async fn indexed(parts: &Parts, positions: &[Position]) {
    let mut checkpoints = parts.index.checkpoints.clone();
    parts.index.wanted.notify_one();
    // Ends early only where the indexer is gone, and with it this replica.
    let _stopped = checkpoints
        .wait_for(|checkpoints| checkpoints.iter().zip(positions).all(|(checkpoint, position)| checkpoint >= position))
        .await;
}

/// Where a session may have missed messages of a group, since this replica learned of the membership later than the log.
#[derive(Clone, Debug)]
pub(super) struct LateJoin {
    membership: Membership,
    partition: Partition,
    range: Range<Position>,
}

/// What to look at again below `considered`, since `agent` joined a group that `known` does not say.
pub(super) async fn late_joins(
    parts: &Parts,
    agent: AgentId,
    known: &Snapshot,
    snapshot: &Snapshot,
    considered: &[Position],
) -> Result<Vec<LateJoin>, Fault> {
    let mut joins = Vec::new();
    for membership in snapshot.joins_since(known).filter(|membership| membership.agent == agent) {
        let joined_at = parts.log.not_before(snapshot, membership.joined_at);
        let starts = parts.log.topic.positions_at_each(joined_at).await?;
        for ((partition, start), end) in (0..).zip(starts).zip(considered) {
            // Where a partition does not say, all of it: what was logged before the join is not for this member.
            let start = start.unwrap_or_default();
            if start < *end {
                joins.push(LateJoin { membership: membership.clone(), partition, range: start..*end });
            }
        }
    }
    Ok(joins)
}

/// The next messages that were missed, and what is left to look at.
pub(super) async fn missed(parts: &Parts, mut join: LateJoin) -> Result<(Vec<Position>, Option<LateJoin>), Fault> {
    let group = [MailboxAddress::Group(join.membership.group.clone())];
    let rows = parts.index.store.entries(parts.log.epoch, &group, &[(join.partition, join.range.clone())], PAGE).await?;
    let snapshot = parts.directory.snapshot();
    let at = |row: &IndexEntry| parts.log.logged_at(&snapshot, row.partition, row.log_time);
    let covered = rows.iter().filter(|row| join.membership.covers(at(row)));
    let mut positions: Vec<Position> = covered.map(|row| row.position).collect();
    let found = fetch(parts, join.partition, &positions).await?;
    positions.retain(|position| found.get(position).is_some_and(|found| found.envelope.message.from_id != join.membership.agent));
    let last = rows.last().filter(|_| rows.len() == PAGE);
    Ok((
        positions,
        last.map(|last| {
            join.range.start = last.position + 1;
            join
        }),
    ))
}

impl LateJoin {
    pub(super) fn partition(&self) -> Partition {
        self.partition
    }
}

/// The next messages for `agent` in these ranges, as `snapshot` says, with one question to the index. All of them together are bounded as one
/// page is, and by so many messages: a partition that has no page was not reached. Where one can't be read, the others are; an error where none could.
pub(super) async fn pages(
    parts: &Parts,
    snapshot: &Snapshot,
    agent: AgentId,
    ranges: &[(Partition, Range<Position>)],
    (room, most): (&Queue, usize),
) -> Result<Vec<Page>, Fault> {
    let addresses = addresses(snapshot, agent);
    let rows = parts.index.store.entries(parts.log.epoch, &addresses, ranges, PAGE).await?;
    let mut reading = Reading { parts, agent, room, most: most.min(PAGE), messages: 0, bytes: 0, full: false };
    let mut pages = Vec::with_capacity(ranges.len());
    let mut failed = None;
    for (partition, range) in ranges {
        let rows: Vec<&IndexEntry> = rows.iter().filter(|row| row.partition == *partition).collect();
        let upto = rows.last().filter(|_| rows.len() >= PAGE).map_or(range.end, |last| last.position + 1);
        let wanted: Vec<&IndexEntry> = rows.into_iter().filter(|row| is_for(&parts.log, snapshot, agent, row)).collect();
        if reading.full && !wanted.is_empty() {
            continue;
        }
        match reading.page(*partition, &wanted, upto).await {
            Ok(page) => pages.push(page),
            Err(fault) => failed = Some(fault),
        }
    }
    match failed {
        Some(fault) if pages.is_empty() => Err(fault),
        Some(_) | None => Ok(pages),
    }
}

/// What one agent's pages hold together.
struct Reading<'a> {
    parts: &'a Parts,
    agent: AgentId,
    room: &'a Queue,
    /// Messages that it may have.
    most: usize,
    messages: usize,
    bytes: usize,
    full: bool,
}

impl Reading<'_> {
    /// The messages of these rows of one partition, up to what there is room for.
    async fn page(&mut self, partition: Partition, wanted: &[&IndexEntry], mut upto: Position) -> Result<Page, Fault> {
        let mut messages = Vec::with_capacity(wanted.len());
        'runs: for (index, run) in wanted.chunks(RUN).enumerate() {
            if self.full {
                upto = wanted.get(index * RUN).map_or(upto, |row| row.position);
                break;
            }
            let positions: Vec<Position> = run.iter().map(|row| row.position).collect();
            let mut found = fetch(self.parts, partition, &positions).await?;
            for row in run {
                let is_direct = matches!(row.address, MailboxAddress::Agent(_));
                match found.remove(&row.position).map(|found| found.logged(partition, row.position)) {
                    Some(logged) if logged.message.from_id == self.agent && !is_direct => {}
                    Some(logged) => {
                        let size = logged.message.cost();
                        let room = if self.messages < self.most { self.room.take(size) } else { None };
                        let Some(room) = room else {
                            self.full = true;
                            upto = row.position;
                            if self.messages == 0 {
                                // Nothing of the run is in memory while it waits: many wait like that.
                                drop((logged, found));
                                messages.push(self.alone(partition, row.position, size).await?);
                                upto = row.position + 1;
                            }
                            break 'runs;
                        };
                        self.bytes += size;
                        self.messages += 1;
                        messages.push((Arc::new(logged), room));
                    }
                    None => {
                        tracing::warn!(partition, row.position, agent = %self.agent, "the log no longer holds a message of the mailbox");
                        if is_direct {
                            self.parts.metrics.forgotten();
                        }
                    }
                }
            }
            self.full = self.bytes >= PAGE_BYTES || self.messages >= self.most;
        }
        Ok(Page { partition, messages, upto })
    }

    /// A message that has to wait for room, and is read when there is some.
    async fn alone(&self, partition: Partition, position: Position, size: usize) -> Result<Buffered, Fault> {
        let room = self.room.wait(size).await;
        let found = one(self.parts, partition, position).await?;
        let found =
            found.ok_or_else(|| Fault::unavailable("LOG_UNAVAILABLE", "a message of the log is gone that was there before"))?;
        Ok((Arc::new(found.logged(partition, position)), room))
    }
}

/// A message that was found in the log.
pub(super) struct Found {
    pub(super) log_time: OffsetDateTime,
    pub(super) envelope: Envelope,
}

impl Found {
    /// The message, where it was found.
    pub(super) fn logged(self, partition: Partition, position: Position) -> LoggedMessage {
        LoggedMessage { partition, position, log_time: self.log_time, message: Arc::new(self.envelope.message) }
    }
}

/// One message of the log. `None`: the log forgot it.
pub(super) async fn one(parts: &Parts, partition: Partition, position: Position) -> Result<Option<Found>, Fault> {
    Ok(fetch(parts, partition, &[position]).await?.remove(&position))
}

/// The messages at these places, without those that the log forgot.
pub(super) async fn fetch(
    parts: &Parts,
    partition: Partition,
    positions: &[Position],
) -> Result<BTreeMap<Position, Found>, Fault> {
    let mut wanted = positions.to_vec();
    wanted.sort_unstable();
    let (mut messages, mut rest) = (BTreeMap::new(), wanted.as_slice());
    while !rest.is_empty() {
        let (found, passed) = read_on(parts, partition, rest, SPAN).await?;
        messages.extend(found);
        rest = rest.get(passed..).unwrap_or_default();
    }
    Ok(messages)
}

/// What one read of so many records at most shows of these places, which are in order: the messages that are there, and how many of the places it has
/// passed, at least one. Of what it has passed, what it does not show the log forgot. It ends before a record of a newer hub.
///
/// # Errors
/// `RECORD_NEWER` where such a record has the first of the places.
pub(super) async fn read_on(
    parts: &Parts,
    partition: Partition,
    positions: &[Position],
    most: u64,
) -> Result<(BTreeMap<Position, Found>, usize), Fault> {
    let Some(first) = positions.first().copied().map(offset_of) else { return Ok((BTreeMap::new(), 0)) };
    // As far as what is wanted lies close together: what lies between is read, too.
    let mut end = first + 1;
    for offset in positions.iter().copied().map(offset_of) {
        if offset >= end + SPAN || offset >= first + most {
            break;
        }
        end = offset + 1;
    }
    let records = parts.log.topic.read(partition, first, usize::try_from(end - first).unwrap_or(1)).await?;
    let mut passed = match records.last() {
        Some(last) => last.offset + 1,
        None => first_shown(parts, partition, first).await?,
    };
    let mut messages = BTreeMap::new();
    let mut wanted = positions.iter().copied().take_while(|position| offset_of(*position) < passed).peekable();
    for logged in records {
        while wanted.next_if(|position| offset_of(*position) < logged.offset).is_some() {}
        if wanted.peek().is_none_or(|position| offset_of(*position) > logged.offset) {
            continue;
        }
        let envelopes = match record::messages(&logged) {
            Ok(envelopes) => envelopes,
            // What lies before it does not fail with it.
            Err(_) if logged.offset > first => {
                passed = logged.offset;
                break;
            }
            Err(newer) => return Err(newer),
        };
        let mut envelopes: Vec<_> = envelopes.into_iter().map(Some).collect();
        while let Some(position) = wanted.next_if(|position| offset_of(*position) == logged.offset) {
            // A place that is asked for twice is one message.
            if let Some(envelope) = envelopes.get_mut(number_of(position)).and_then(Option::take) {
                messages.insert(position, Found { log_time: logged.log_time, envelope });
            }
        }
    }
    Ok((messages, positions.iter().filter(|position| offset_of(**position) < passed).count()))
}

/// Where a partition begins that shows nothing at an offset at which it has had a message. It may not show its end for a moment: what is taken for forgotten
/// then is lost.
async fn first_shown(parts: &Parts, partition: Partition, offset: Offset) -> Result<Offset, Fault> {
    let topic = &parts.log.topic;
    let bounds = topic.bounds_each().await?;
    let first = bounds.get(partition as usize).and_then(|bounds| bounds.as_ref().ok()).map(|bounds| offset_of(bounds.first));
    first.filter(|first| *first > offset).ok_or_else(|| {
        let name = &topic.name;
        let why = format!("{name} does not show partition {partition} at {offset}, where it has a message");
        Fault::unavailable("LOG_UNAVAILABLE", why)
    })
}

/// All addresses whose messages may be for the agent; its own is the first.
pub(super) fn addresses(snapshot: &Snapshot, agent: AgentId) -> Vec<MailboxAddress> {
    let mut groups: Vec<String> = snapshot.memberships_of(agent).map(|membership| membership.group.clone()).collect();
    groups.sort();
    groups.dedup();
    let own = [MailboxAddress::Agent(agent), MailboxAddress::All];
    own.into_iter().chain(groups.into_iter().map(MailboxAddress::Group)).collect()
}

/// Whether a row of one of its addresses is for the agent: it was there when the log took the message.
pub(super) fn is_for(log: &Log, snapshot: &Snapshot, agent: AgentId, row: &IndexEntry) -> bool {
    let at = log.logged_at(snapshot, row.partition, row.log_time);
    match &row.address {
        MailboxAddress::Agent(recipient) => *recipient == agent,
        MailboxAddress::Group(group) => {
            snapshot.memberships(group).iter().any(|member| member.agent == agent && member.covers(at))
        }
        MailboxAddress::All => snapshot.agent(agent).is_some_and(|agent| began_by(agent.created_at, at)),
    }
}
