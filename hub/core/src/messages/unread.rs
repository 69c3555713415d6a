//! What waits in a mailbox, seen without taking it: neither is anything acknowledged or counted as an attempt, nor does it end a session. What is not
//! acknowledged is unread, also where a session has it in hand. Acknowledgements are seen within about a second.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    catch_up,
    cursor::CursorState,
    filter::MessageFilter,
    message::Message,
    parts::Parts,
    ports::{IndexEntry, MailboxAddress},
    position::Position,
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::budget::Room,
    log::bus::{Epoch, Partition},
};

/// Rows of each partition that one look reads.
const ROWS: usize = 256;
/// Looks of one call: a rare sender's messages may be behind many others'.
const LOOKS: usize = 8;
/// Messages that are read from the log before their bytes are looked at.
const RUN: usize = 8;
/// Bytes of a page, which has one message at least.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Messages of a page: where nothing is said, and at most.
const PAGE: (u32, u32) = (32, 100);
/// Looks of one count.
const COUNT_LOOKS: usize = 64;
/// How long the first message of a page waits for room.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
/// How long the index may take to catch up with what was read of the log.
const INDEXED_WITHIN: Duration = Duration::from_secs(5);
/// Messages that are counted at most.
const MAX_COUNT: u64 = 10_000;
/// The longest wait for a message.
pub const MAX_WAIT: Duration = Duration::from_secs(20);
/// Between two looks of a wait that nobody told anything: for a group that was joined meanwhile.
const AGAIN: Duration = Duration::from_secs(5);

/// A page of what is unread.
#[derive(Debug)]
pub struct UnreadPage {
    /// In the order of the log's times.
    pub messages: Vec<Arc<Message>>,
    /// Where the next page begins.
    pub position: String,
    /// Whether there may be more now.
    pub more: bool,
    /// What the messages take in memory.
    pub room: Vec<Room>,
}

/// How much is unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadCount {
    /// In all.
    pub messages: u64,
    /// By the sender's name; empty for senders that are gone.
    pub by_sender: BTreeMap<String, u64>,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// Where a list is: the next place of each partition, in one life of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    epoch: Epoch,
    next: Vec<Position>,
}

impl Progress {
    /// A token of another life of the log begins anew: what it names is not there.
    fn resume(token: &str, epoch: Epoch, partitions: usize) -> Result<Self, Fault> {
        let start = Self { epoch, next: vec![0; partitions] };
        if token.is_empty() {
            return Ok(start);
        }
        let parse = || {
            let (of, next) = token.split_once('-')?;
            let next: Vec<Position> = next.split('.').map(|offset| offset.parse().ok()).collect::<Option<_>>()?;
            Some(Self { epoch: Epoch::from_str_radix(of, 16).ok()?, next })
        };
        let read = parse().ok_or_else(|| Fault::invalid("PAGE_TOKEN_INVALID", "give the token of the page before"))?;
        Ok(if read.epoch == epoch && read.next.len() == partitions { read } else { start })
    }

    fn to_token(&self) -> String {
        let next: Vec<String> = self.next.iter().map(ToString::to_string).collect();
        format!("{:x}-{}", self.epoch, next.join("."))
    }
}

/// The mailboxes of a tenant, to be looked into.
#[derive(Clone, Debug)]
pub struct Unread {
    parts: Parts,
}

impl Unread {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// A page of what is unread: of one sender, and what matches a filter, where these are not empty.
    ///
    /// # Errors
    /// `SENDER_NOT_FOUND`, `FILTER_INVALID`, `PAGE_TOKEN_INVALID`, or where store or log do not answer.
    pub async fn list(&self, agent: &Agent, wanted: (&str, &str), page_size: u32, token: &str) -> Result<UnreadPage, Fault> {
        self.parts.ready()?;
        let size = if page_size == 0 { PAGE.0 } else { page_size.min(PAGE.1) } as usize;
        index_catches_up(&self.parts).await?;
        Look::begin(&self.parts, agent, wanted, token).await?.page(size).await
    }

    /// How much is unread, of all senders or of one. At most 10,000 are counted.
    ///
    /// # Errors
    /// `SENDER_NOT_FOUND`, or where store or log do not answer.
    pub async fn count(&self, agent: &Agent, from: &str) -> Result<UnreadCount, Fault> {
        self.parts.ready()?;
        index_catches_up(&self.parts).await?;
        let mut look = Look::begin(&self.parts, agent, (from, ""), "").await?;
        let mut count = UnreadCount::default();
        // A rare sender's messages may be behind many others': no count walks through all of them.
        for _ in 0..COUNT_LOOKS {
            let (rows, more) = look.rows().await?;
            for row in &rows {
                look.pass(row);
                if !look.wants(row) {
                    continue;
                }
                if count.messages == MAX_COUNT {
                    count.more = true;
                    return Ok(count);
                }
                count.messages += 1;
                let sender = row.sender.and_then(|sender| look.snapshot.agent(sender));
                *count.by_sender.entry(sender.map(|sender| sender.name.clone()).unwrap_or_default()).or_default() += 1;
            }
            if !more {
                return Ok(count);
            }
        }
        count.more = true;
        Ok(count)
    }

    /// The messages after this place of such a list; where there are none, those that come next, or none within `timeout` (20 s at most).
    ///
    /// # Errors
    /// `TOO_MANY_WAITS`, or as [`list`](Self::list).
    pub async fn wait(&self, agent: &Agent, wanted: (&str, &str), token: &str, timeout: Duration) -> Result<UnreadPage, Fault> {
        self.parts.ready()?;
        let parts = &self.parts;
        let deadline = Instant::now() + timeout.min(MAX_WAIT);
        let addresses = catch_up::addresses(&parts.directory.snapshot(), agent.id);
        let arrival = parts.index.arrivals.wait(addresses).ok_or_else(|| {
            let why = "too many calls of this agent, or of all, wait for messages: end some, or wait on one";
            Fault::new(Code::ResourceExhausted, "TOO_MANY_WAITS", why)
        })?;
        index_catches_up(parts).await?;
        let mut token = token.to_owned();
        loop {
            let page = Look::begin(parts, agent, wanted, &token).await?.page(PAGE.0 as usize).await?;
            if !page.messages.is_empty() || Instant::now() >= deadline {
                return Ok(page);
            }
            token.clone_from(&page.position);
            if page.more {
                continue;
            }
            tokio::select! {
                () = arrival.came() => {}
                () = sleep_until(deadline.min(Instant::now() + AGAIN)) => {}
                // It asks again, and comes to another replica.
                () = parts.lifecycle.draining.cancelled() => return Ok(page),
                () = parts.lifecycle.stop.cancelled() => return Ok(page),
            }
        }
    }
}

/// What was read of the log is in the index a moment later.
async fn index_catches_up(parts: &Parts) -> Result<(), Fault> {
    let read: Vec<Position> = parts.log.read().collect();
    timeout(INDEXED_WITHIN, catch_up::indexed(parts, &read))
        .await
        .map_err(|_| Fault::unavailable("INDEX_BEHIND", "the index of the mailboxes can't be written now: try again shortly"))
}

/// One pass over a mailbox.
struct Look<'a> {
    parts: &'a Parts,
    snapshot: Arc<Snapshot>,
    agent: AgentId,
    from: Option<AgentId>,
    filter: Option<MessageFilter>,
    addresses: Vec<MailboxAddress>,
    cursors: HashMap<Partition, CursorState>,
    position: Progress,
    now: OffsetDateTime,
}

impl<'a> Look<'a> {
    async fn begin(parts: &'a Parts, agent: &Agent, (from, filter): (&str, &str), token: &str) -> Result<Self, Fault> {
        let filter = MessageFilter::compile(filter)?;
        let snapshot = parts.directory.snapshot();
        let from = if from.is_empty() {
            None
        } else {
            let why = "there is no agent with the name of this sender: see AgentRegistry.ListAgents";
            Some(snapshot.agent_named(from).ok_or_else(|| Fault::not_found("SENDER_NOT_FOUND", why))?.id)
        };
        let position = Progress::resume(token, parts.log.epoch, parts.log.partitions as usize)?;
        let partitions: Vec<Partition> = (0..parts.log.partitions).collect();
        let cursors = parts.cursors.cursors(parts.log.epoch, &[agent.id], &partitions).await?;
        Ok(Self {
            parts,
            agent: agent.id,
            from,
            filter,
            addresses: catch_up::addresses(&snapshot, agent.id),
            cursors: cursors.into_iter().map(|(_, partition, cursor)| (partition, cursor)).collect(),
            snapshot,
            position,
            now: OffsetDateTime::now_utc(),
        })
    }

    /// The next rows, by their times, and whether others follow them. Without any the position is at the end of the index.
    async fn rows(&mut self) -> Result<(Vec<IndexEntry>, bool), Fault> {
        let ends = self.parts.index.checkpoints.borrow().clone();
        let mut ranges = Vec::with_capacity(ends.len());
        for ((partition, next), end) in (0..).zip(&mut self.position.next).zip(ends) {
            *next = (*next).max(self.cursors.get(&partition).map_or(0, |cursor| cursor.watermark));
            if *next < end {
                ranges.push((partition, *next..end));
            }
        }
        if ranges.is_empty() {
            return Ok((Vec::new(), false));
        }
        let mut rows = self.parts.index.store.entries(self.parts.log.epoch, &self.addresses, &ranges, ROWS).await?;
        never_earlier(&mut rows);
        let key = |row: &IndexEntry| (row.log_time, row.partition, row.position);
        // A partition that has more is known up to its last row. What is later may be behind what was not read of it.
        let mut known_to = None;
        for (partition, range) in ranges {
            let of = rows.iter().filter(|row| row.partition == partition);
            match of.clone().next_back() {
                Some(last) if of.count() >= ROWS => {
                    known_to =
                        Some(known_to.map_or(key(last), |known: (OffsetDateTime, Partition, Position)| known.min(key(last))));
                }
                // Nothing is left behind its last row.
                last => {
                    if last.is_none()
                        && let Some(next) = self.position.next.get_mut(partition as usize)
                    {
                        *next = range.end;
                    }
                }
            }
        }
        if let Some(known_to) = known_to {
            rows.retain(|row| key(row) <= known_to);
        }
        rows.sort_by_key(key);
        Ok((rows, known_to.is_some()))
    }

    /// A row was looked at.
    fn pass(&mut self, row: &IndexEntry) {
        if let Some(next) = self.position.next.get_mut(row.partition as usize) {
            *next = (*next).max(row.position + 1);
        }
    }

    /// Whether a row is unread by the agent, as far as the row says.
    fn wants(&self, row: &IndexEntry) -> bool {
        let acknowledged = self.cursors.get(&row.partition).is_some_and(|cursor| cursor.acknowledged(row.position));
        let from = |from: AgentId| row.sender.is_none_or(|sender| sender == from);
        !acknowledged
            && row.expires_at > self.now
            && catch_up::is_for(&self.parts.log, &self.snapshot, self.agent, row)
            && row.sender.is_none_or(|sender| self.is_to_be_seen(row, sender))
            && self.from.is_none_or(from)
    }

    /// What one sent to a group or to all is not for oneself.
    fn is_to_be_seen(&self, row: &IndexEntry, sender: AgentId) -> bool {
        matches!(row.address, MailboxAddress::Agent(_)) || sender != self.agent
    }

    async fn page(mut self, size: usize) -> Result<UnreadPage, Fault> {
        let (mut messages, mut room, mut bytes, mut more) = (Vec::new(), Vec::new(), 0, true);
        let queue = self.parts.memory.sessions.queue(self.parts.config.session_bytes);
        'looks: for _ in 0..LOOKS {
            let (rows, follows) = self.rows().await?;
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let mut run = Vec::with_capacity(RUN);
                while let Some(row) = rows.next_if(|_| run.len() < RUN.min(size - messages.len())) {
                    run.push(row);
                }
                let mut contents = self.contents(&run).await?;
                for row in run {
                    // What is not wanted has no content.
                    if let Some(message) = contents.remove(&(row.partition, row.position))
                        && self.is_to_be_seen(&row, message.from_id)
                        && self.from.is_none_or(|from| message.from_id == from)
                        && self.filter.as_ref().is_none_or(|filter| filter.matches(&message))
                    {
                        let cost = message.cost();
                        let taken = match queue.take(cost) {
                            None if messages.is_empty() => timeout(ROOM_WITHIN, queue.wait(cost)).await.map_err(|_| no_room())?,
                            Some(taken) if messages.is_empty() || bytes + cost <= PAGE_BYTES => taken,
                            _ => break 'looks,
                        };
                        bytes += cost;
                        room.push(taken);
                        messages.push(message);
                    }
                    self.pass(&row);
                }
                if messages.len() >= size {
                    break 'looks;
                }
            }
            if !follows {
                more = false;
                break;
            }
            if !messages.is_empty() {
                break;
            }
        }
        Ok(UnreadPage { messages, position: self.position.to_token(), more, room })
    }

    /// The messages of these rows, without those that the log forgot.
    async fn contents(&self, rows: &[IndexEntry]) -> Result<HashMap<(Partition, Position), Arc<Message>>, Fault> {
        let mut positions: BTreeMap<Partition, Vec<Position>> = BTreeMap::new();
        for row in rows.iter().filter(|row| self.wants(row)) {
            positions.entry(row.partition).or_default().push(row.position);
        }
        let mut contents = HashMap::new();
        for (partition, positions) in positions {
            for (position, found) in catch_up::fetch(self.parts, partition, &positions).await? {
                contents.insert((partition, position), Arc::new(found.envelope.message));
            }
        }
        Ok(contents)
    }
}

/// Within a partition no row is earlier than the one in front of it, although the log's time may fall where another broker leads the partition. By
/// that time the later row could come first, and whoever goes on behind it would never see the one in front.
fn no_room() -> Fault {
    let why = "agents that do not take what there is for them hold the memory of this replica: try again in a few seconds";
    Fault::new(Code::ResourceExhausted, "TOO_MANY_ANSWER_BYTES", why)
}

fn never_earlier(rows: &mut [IndexEntry]) {
    let mut latest: HashMap<Partition, OffsetDateTime> = HashMap::new();
    for row in rows {
        let latest = latest.entry(row.partition).or_insert(row.log_time);
        *latest = (*latest).max(row.log_time);
        row.log_time = *latest;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_row_comes_before_one_in_front_of_it() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
        let row = |(partition, position, seconds)| IndexEntry {
            address: MailboxAddress::All,
            partition,
            position,
            log_time: at(seconds),
            expires_at: at(9999),
            sender: None,
        };
        let mut rows: Vec<IndexEntry> = [(0, 1, 50), (0, 2, 10), (0, 3, 60), (1, 1, 20)].map(row).into();
        never_earlier(&mut rows);
        let times: Vec<_> = rows.iter().map(|row| (row.partition, row.position, row.log_time)).collect();
        assert_eq!(times, [(0, 1, at(50)), (0, 2, at(50)), (0, 3, at(60)), (1, 1, at(20))]);
    }

    #[test]
    fn a_position_is_of_one_life_of_the_log() {
        let position = Progress { epoch: 0xfe, next: vec![3, 0] };
        assert_eq!(position.to_token(), "fe-3.0");
        assert_eq!(Progress::resume("fe-3.0", 0xfe, 2).unwrap(), position);
        let start = Progress { epoch: 9, next: vec![0, 0] };
        for token in ["", "fe-3.0", "9-1.2.3"] {
            assert_eq!(Progress::resume(token, 9, 2).unwrap(), start, "{token}");
        }
        for noise in ["-", "x", "9", "9-", "9-1.", "9--1.2", "10000000000000000-1.2"] {
            assert_eq!(Progress::resume(noise, 9, 2).unwrap_err().reason, "PAGE_TOKEN_INVALID", "{noise}");
        }
    }
}
