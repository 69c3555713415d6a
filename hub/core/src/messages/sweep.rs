//! Finds what expired in mailboxes without a session, and makes dead letters of it: a set of rows is claimed, each partition of the log is read on from one
//! wanted message to the next, what was read is appended together, and the rows of what the log has are removed together.
//!
//! Partitions go on side by side, a few at a time: one whose log can't be read, or whose dead letters are not taken, holds up no other.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    catch_up::{self, Found},
    dead_letters::{self, CLAIM, Reason, forgotten, put_into, release, remove},
    parts::Parts,
    ports::{IndexEntry, MailboxAddress},
    position::{MessagePlace, Position, offset_of},
    record,
    takers::{Takers, cursors},
};
use crate::{
    fault::Fault,
    kit::lag::Lag,
    log::{bus::Partition, partition::partition_of},
};

/// Rows of one look for what expired.
const ROWS: usize = 4096;
/// Partitions that are worked on at the same time.
const PARTITIONS: usize = 4;
/// Records of one read. Its bytes are bounded by the bus: a few mebibytes, which are in memory for each of the partitions.
const READ: u64 = 512;
/// Bytes of dead letters that are on their way into the log together, from each of the partitions: always at least one.
const APPENDED: usize = 2 * 1024 * 1024;
/// Rows of an earlier life of the log that are removed by one statement: short enough that nobody notices.
const FORGET: usize = 5000;

/// Looks for expired rows until stopped.
pub(super) async fn run(parts: Parts) {
    // Only an earlier life of the log has left rows of another epoch, so that none come after the last one is gone.
    let mut earlier = true;
    let mut lag = Lag::default();
    loop {
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = tokio::time::sleep(parts.config.sweep_every) => {}
        }
        earlier = earlier && forget_earlier_lives(&parts).await;
        if let Err(error) = sweep_expired(&parts, &mut lag).await {
            tracing::warn!(%error, "expired messages can't be swept");
            parts.metrics.sweep_lag(lag.now());
        }
    }
}

/// Removes what has expired by now, and makes dead letters of it. What can't be appended is for the next sweep.
async fn sweep_expired(parts: &Parts, lag: &mut Lag) -> Result<(), Fault> {
    let mut found = false;
    // Claimed rows are not found again, so that a full look is followed by the next at once.
    while !parts.lifecycle.stop.is_cancelled() {
        let claimed_at = Instant::now();
        let expired = parts.index.store.claim_expired(parts.log.epoch, CLAIM, ROWS).await?;
        let Some(oldest) = expired.oldest else { break };
        let behind = Duration::try_from(OffsetDateTime::now_utc() - oldest).unwrap_or_default();
        lag.is(behind);
        parts.metrics.sweep_lag(behind);
        let claimed = expired.claimed.len();
        let early = dead_letter_rows(parts, expired.claimed, claimed_at).await?;
        // Those rows are free again soon, and the next ones are early too: the look would never end while the clock of the store is ahead.
        if expired.removed == 0 && early == claimed {
            break;
        }
        found = true;
    }
    if !found {
        lag.is(Duration::ZERO);
        parts.metrics.sweep_lag(Duration::ZERO);
    }
    Ok(())
}

/// Removes rows of the log's earlier lives, some with each sweep. Whether there may be more.
async fn forget_earlier_lives(parts: &Parts) -> bool {
    // The log is asked first: a replica that was left behind on an earlier life would remove what belongs to the present one.
    match parts.log.topic.info().await {
        Ok(info) if info.epoch == parts.log.made => {}
        Ok(_) | Err(_) => return true,
    }
    match parts.index.store.remove_other_epochs(parts.log.epoch, FORGET).await {
        Ok(removed) => removed > 0,
        Err(error) => {
            tracing::warn!(%error, "rows of an earlier life of the log can't be removed yet");
            true
        }
    }
}

/// A row that was claimed, and who took its message.
type Judged = (Takers, IndexEntry);

/// Makes dead letters of rows, which are in the order of their places. How many of them have not expired yet.
async fn dead_letter_rows(parts: &Parts, rows: Vec<IndexEntry>, claimed_at: Instant) -> Result<usize, Fault> {
    let snapshot = parts.directory.snapshot();
    let cursors = match cursors(parts, &snapshot, &rows).await {
        Ok(cursors) => cursors,
        Err(error) => {
            release(parts, &rows, Duration::ZERO).await;
            return Err(error);
        }
    };
    let judged = rows.into_iter().map(|row| (Takers::of(&parts.log, &snapshot, &cursors, &row), row));
    let judged: Vec<Judged> = judged.collect();
    let partitions = match dead_letters::partitions(parts).await {
        Ok(partitions) => partitions,
        Err(error) => {
            release(parts, &rows_of(judged), Duration::ZERO).await;
            return Err(error);
        }
    };
    // Rows whose dead letters would go where the log takes none now are not read for nothing.
    let is_paused = |(takers, row): &Judged| {
        let partition = row.sender.map(|sender| partition_of(sender.0, partitions));
        *takers != Takers::Several && partition.is_some_and(|partition| parts.letters.pauses.pause(partition).is_some())
    };
    let (paused, rest): (Vec<Judged>, Vec<Judged>) = judged.into_iter().partition(is_paused);
    release(parts, &rows_of(paused), parts.config.sweep_every).await;
    let of_one_partition = rest.chunk_by(|(_, row), (_, next)| row.partition == next.partition);
    let of_one_partition: Vec<VecDeque<Judged>> = of_one_partition.map(|rows| rows.iter().cloned().collect()).collect();
    let work = of_one_partition.into_iter().map(|rows| dead_letter_partition(parts, partitions, rows, claimed_at));
    Ok(stream::iter(work).buffer_unordered(PARTITIONS).fold(0, async |early, of_partition| early + of_partition).await)
}

fn rows_of(judged: impl IntoIterator<Item = Judged>) -> Vec<IndexEntry> {
    judged.into_iter().map(|(_, row)| row).collect()
}

/// Makes dead letters of rows of one partition, as its log is read on. How many of them have not expired yet.
async fn dead_letter_partition(parts: &Parts, partitions: u32, mut rows: VecDeque<Judged>, claimed_at: Instant) -> usize {
    let mut early = 0;
    while let Some((_, first)) = rows.front() {
        // Long before the claim ends: what is begun must be done by then.
        if claimed_at.elapsed() > CLAIM / 2 || parts.lifecycle.stop.is_cancelled() {
            release(parts, &rows_of(rows), Duration::ZERO).await;
            break;
        }
        let (partition, offset) = (first.partition, offset_of(first.position));
        // Of a message to several agents each has a row.
        let mut positions: Vec<Position> = rows.iter().map(|(_, row)| row.position).collect();
        positions.dedup();
        let (found, passed) = match catch_up::read_on(parts, partition, &positions, READ).await {
            Ok(read) => read,
            // Only this record can't be read, and what lies behind it can. A newer hub, which knows what it holds, finds its rows free first.
            Err(error) if error.reason == record::NEWER => {
                let behind = rows.iter().position(|(_, row)| offset_of(row.position) != offset).unwrap_or(rows.len());
                tracing::warn!(%error, partition, rows = behind, "expired messages can't be read yet");
                release(parts, &rows_of(rows.drain(..behind)), parts.config.sweep_every / 2).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, partition, rows = rows.len(), "expired messages can't be read yet");
                // This sweep passes over them: one partition that can't be read must not keep it from the others.
                release(parts, &rows_of(rows), parts.config.sweep_every).await;
                break;
            }
        };
        let passed = positions.get(passed).copied().unwrap_or(Position::MAX);
        while rows.front().is_some_and(|(_, row)| row.position < passed) {
            early += dead_letter_some(parts, partitions, &mut rows, (passed, &found)).await;
        }
    }
    early
}

/// What became of a row that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It can go.
    Done,
    /// It expires later, as far as this replica knows: the clock of the store was set since the row was written.
    NotYet,
}

/// Makes dead letters of the first rows, below `passed`, whose messages were read: as many as may be on their way together. How many of them have not
/// expired yet.
async fn dead_letter_some(
    parts: &Parts,
    partitions: u32,
    rows: &mut VecDeque<Judged>,
    (passed, found): (Position, &BTreeMap<Position, Found>),
) -> usize {
    let mut bytes = 0;
    let mut letters = Vec::new();
    while let Some((takers, row)) = rows.pop_front_if(|(_, row)| row.position < passed && bytes < APPENDED) {
        let message = found.get(&row.position);
        bytes += message.map_or(0, |found| found.envelope.message.cost());
        letters.push(dead_letter_row(parts, partitions, takers, row, message));
    }
    let (mut done, mut early, mut failed) = (Vec::with_capacity(letters.len()), Vec::new(), Vec::new());
    let mut why = None;
    for (row, outcome) in join_all(letters).await {
        match outcome {
            Ok(Outcome::Done) => done.push(row),
            Ok(Outcome::NotYet) => early.push(row),
            Err(error) => {
                failed.push(row);
                why = Some(error);
            }
        }
    }
    remove(parts, &done).await;
    // Less, so that another replica, whose clock may be right, finds them free.
    release(parts, &early, parts.config.sweep_every / 2).await;
    // This sweep passes over them.
    release(parts, &failed, parts.config.sweep_every).await;
    if let Some(error) = why {
        tracing::warn!(%error, rows = failed.len(), "expired messages can't be put into the dead letters yet");
    }
    early.len()
}

async fn dead_letter_row(
    parts: &Parts,
    partitions: u32,
    takers: Takers,
    row: IndexEntry,
    found: Option<&Found>,
) -> (IndexEntry, Result<Outcome, Fault>) {
    let (partition, position): (Partition, Position) = (row.partition, row.position);
    let Some(Found { log_time, envelope }) = found else {
        // What several took is not lost with the log's record.
        if takers != Takers::Several {
            forgotten(parts, partition, position);
        }
        return (row, Ok(Outcome::Done));
    };
    if parts.log.expires_at(partition, *log_time, &envelope.message) > OffsetDateTime::now_utc() {
        return (row, Ok(Outcome::NotYet));
    }
    let recipient = match &row.address {
        MailboxAddress::Agent(agent) => Some(*agent),
        MailboxAddress::Group(_) | MailboxAddress::All => None,
    };
    let outcome = if takers.took(envelope.message.from_id) {
        Ok(())
    } else {
        put_into(parts, partitions, Some(MessagePlace { partition, position }), envelope, recipient, Reason::Expired).await
    };
    (row, outcome.map(|()| Outcome::Done))
}
