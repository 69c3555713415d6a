//! The dead letters: messages that nobody took. What expires in a mailbox without a session is found by a sweep of the index, in sets.
//!
//! Two replicas that live never make two dead letters of one message: a row of the index is claimed first, in one statement. It is removed after the log
//! has the dead letter, so that a replica which dies in between loses none. The next one takes what the dead one had not removed again:
//! a few messages may be there twice, with the same `acb-source`.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream};
use time::OffsetDateTime;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{
    catch_up::{self, Found},
    cursor::CursorState,
    envelope::Envelope,
    letter::{self, LetterReason},
    log::Log,
    logged::LoggedMessage,
    parts::Parts,
    ports::{Claim, IndexEntry, MailboxAddress},
    position::{MessagePlace, Position},
    trace::event::Happening,
};
use crate::{
    directory::{agent::AgentId, snapshot::Snapshot},
    fault::Fault,
    log::{
        bus::{Partition, Record},
        partition::partition_of,
    },
};

/// Rows of one look for what expired.
const SWEEP: usize = 2000;
/// Dead letters that are in the log before their rows are removed, in one statement.
const MESSAGES_AT_ONCE: usize = 128;
/// Messages that are read together.
const RUN: usize = 4;
/// Runs at the same time: as many times [`RUN`] appends are on their way.
const RUNS: usize = 4;
/// Rows of an earlier life of the log that are removed by one statement: short enough that nobody notices.
const FORGET: usize = 5000;
/// How long a row is held by who moves its message to the dead letters. Where that replica dies, the next one does after this.
const CLAIM: Duration = Duration::from_secs(300);

/// Why a message went there: the header `acb-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    Attempts(u32),
    /// It was never sent.
    Unsent(LetterReason),
}

impl Reason {
    fn of_letter(self) -> LetterReason {
        match self {
            Self::Expired => LetterReason::Expired,
            Self::Attempts(_) => LetterReason::Attempts,
            Self::Unsent(reason) => reason,
        }
    }
}

/// Which recipients of a message to a group or to all acknowledged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takers {
    Nobody,
    One(AgentId),
    Several,
}

impl Takers {
    fn of(log: &Log, snapshot: &Snapshot, cursors: &Cursors, row: &IndexEntry) -> Self {
        let acknowledged =
            |agent: &AgentId| cursors.get(&(*agent, row.partition)).is_some_and(|cursor| cursor.acknowledged(row.position));
        let mut takers = recipients(log, snapshot, row).into_iter().filter(acknowledged);
        match takers.next() {
            None => Self::Nobody,
            Some(first) if takers.next().is_none() => Self::One(first),
            Some(_) => Self::Several,
        }
    }

    /// A message is taken once anybody but its sender acknowledged it. The sender's own cursor passes it without a delivery.
    fn took(self, sender: AgentId) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(agent) => agent != sender,
            Self::Several => true,
        }
    }
}

type Cursors = HashMap<(AgentId, Partition), CursorState>;

/// For whom a message to a group or to all is. Nobody where it is for one agent: the store says whether that one took it.
fn recipients(log: &Log, snapshot: &Snapshot, row: &IndexEntry) -> BTreeSet<AgentId> {
    let members: Vec<AgentId> = match &row.address {
        MailboxAddress::Agent(_) => Vec::new(),
        MailboxAddress::Group(group) => snapshot.memberships(group).iter().map(|membership| membership.agent).collect(),
        MailboxAddress::All => snapshot.agents().map(|agent| agent.id).collect(),
    };
    members.into_iter().filter(|agent| catch_up::is_for(log, snapshot, *agent, row)).collect()
}

/// The cursors of all for whom these rows are, with one question.
async fn cursors(parts: &Parts, snapshot: &Snapshot, rows: &[IndexEntry]) -> Result<Cursors, Fault> {
    let mut agents = BTreeSet::new();
    let mut partitions = BTreeSet::new();
    for row in rows {
        let recipients = recipients(&parts.log, snapshot, row);
        if !recipients.is_empty() {
            partitions.insert(row.partition);
            agents.extend(recipients);
        }
    }
    if agents.is_empty() {
        return Ok(Cursors::new());
    }
    let (agents, partitions): (Vec<_>, Vec<_>) = (agents.into_iter().collect(), partitions.into_iter().collect());
    let cursors = parts.cursors.cursors(parts.log.epoch, &agents, &partitions).await?;
    Ok(cursors.into_iter().map(|(agent, partition, cursor)| ((agent, partition), cursor)).collect())
}

/// Puts a message into the dead letters, durably. One that was never sent has no place in the log.
pub(super) async fn put(
    parts: &Parts,
    source: Option<MessagePlace>,
    envelope: &Envelope,
    recipient: Option<AgentId>,
    reason: Reason,
) -> Result<(), Fault> {
    let message = &envelope.message;
    // The caller of a request that expired was told that there is no reply. Nobody should be asked again by what lies there.
    if reason == Reason::Expired && message.is_request() {
        return Ok(());
    }
    let text = match reason {
        Reason::Expired | Reason::Unsent(_) => reason.of_letter().as_str().to_owned(),
        Reason::Attempts(attempts) => format!("not acknowledged after {attempts} attempts"),
    };
    let mut record = envelope.record();
    let headers = &mut record.headers;
    headers.push((letter::REASON.to_owned(), Bytes::from(text)));
    if let Some(MessagePlace { partition, position }) = source {
        headers.push((letter::SOURCE.to_owned(), Bytes::from(format!("{partition}-{position}"))));
    }
    if let Reason::Attempts(attempts) = reason {
        headers.push((letter::ATTEMPTS.to_owned(), Bytes::from(attempts.to_string())));
    }
    if let Some(recipient) = recipient {
        headers.push((letter::RECIPIENT.to_owned(), Bytes::from(recipient.to_string())));
    }
    append(parts, message.from_id, record).await?;
    parts.metrics.dead_letter(reason.of_letter().as_str());
    if let Some(place) = source {
        parts.trace.note(place, Happening::Dead(reason.of_letter()), recipient.unwrap_or(AgentId(Uuid::nil())));
    }
    Ok(())
}

/// Appends a dead letter from this sender. A partition that takes nothing holds up none of the others.
async fn append(parts: &Parts, sender: AgentId, record: Record) -> Result<(), Fault> {
    let failed = |why: &dyn fmt::Display| Fault::unavailable("LOG_UNAVAILABLE", format!("no dead letter was written: {why}"));
    let (bus, pauses) = (&parts.log.topic.bus, &parts.letters.pauses);
    let partition = partition_of(sender.0, bus.topic(&parts.log.dead_letters).await?.partitions);
    let patience = pauses.begin(partition).map_err(|_| failed(&"the log took none a moment ago"))?;
    let appended = timeout(patience, async { bus.append(&parts.log.dead_letters, partition, record).await?.await }).await;
    // Also where that is not known: it may be there.
    parts.letters.appended.notify_one();
    let appended = match appended {
        Ok(appended) => appended.map_err(|error| failed(&error)),
        Err(_) => Err(failed(&"the log did not answer")),
    };
    pauses.ended(partition, appended.is_ok());
    appended.map(drop)
}

/// What became of a message that a session gives up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeadLettering {
    /// It is among the dead letters, by this call or by another, or somebody took it.
    Done,
    /// Somebody else is about to, or it can't be done now: ask again.
    Later,
}

/// Makes a dead letter of a message that a session of `recipient` has in hand.
pub(super) async fn dead_letter(parts: &Parts, logged: &LoggedMessage, recipient: AgentId, reason: Reason) -> DeadLettering {
    match try_dead_letter(parts, logged, recipient, reason).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(message = %logged.message.id, %error, "a message can't be put into the dead letters yet");
            DeadLettering::Later
        }
    }
}

async fn try_dead_letter(
    parts: &Parts,
    logged: &LoggedMessage,
    recipient: AgentId,
    reason: Reason,
) -> Result<DeadLettering, Fault> {
    // A row of one agent's mailbox is there until its message is done with, and so is one that expired for everybody. What one member of
    // a group did not take the others may still: that row is not the session's to claim.
    let address = MailboxAddress::of(&logged.message, recipient)
        .filter(|address| reason == Reason::Expired || matches!(address, MailboxAddress::Agent(_)));
    let Some(address) = address else {
        dead_letter_one(parts, logged, recipient, reason).await?;
        return Ok(DeadLettering::Done);
    };
    let (partition, position) = (logged.partition, logged.position);
    match parts.index.store.claim(parts.log.epoch, &address, partition, position, CLAIM).await? {
        Claim::Claimed => {}
        Claim::Gone if is_indexed(parts, partition, position) => return Ok(DeadLettering::Done),
        Claim::Held | Claim::Gone => return Ok(DeadLettering::Later),
    }
    let (log_time, expires_at, sender) = (logged.log_time, logged.message.expires_at, Some(logged.message.from_id));
    let row = [IndexEntry { address, partition, position, log_time, expires_at, sender }];
    let snapshot = parts.directory.snapshot();
    let appended = async {
        let cursors = cursors(parts, &snapshot, &row).await?;
        let taken = row.iter().any(|row| Takers::of(&parts.log, &snapshot, &cursors, row).took(logged.message.from_id));
        if taken { Ok(()) } else { dead_letter_one(parts, logged, recipient, reason).await }
    };
    if let Err(error) = appended.await {
        release(parts, &row, Duration::ZERO).await;
        return Err(error);
    }
    remove(parts, &row).await;
    Ok(DeadLettering::Done)
}

/// Puts a message that a session has in hand into the dead letters.
async fn dead_letter_one(parts: &Parts, logged: &LoggedMessage, recipient: AgentId, reason: Reason) -> Result<(), Fault> {
    let place = MessagePlace { partition: logged.partition, position: logged.position };
    match catch_up::one(parts, logged.partition, logged.position).await? {
        Some(found) => put(parts, Some(place), &found.envelope, Some(recipient), reason).await,
        None => {
            forgotten(parts, logged.partition, logged.position);
            Ok(())
        }
    }
}

fn forgotten(parts: &Parts, partition: Partition, position: Position) {
    tracing::warn!(partition, position, "the log forgot a message before it was a dead letter");
    parts.metrics.forgotten();
}

/// Removes the rows of what is done with. Where that fails they are looked at again after their claim.
async fn remove(parts: &Parts, rows: &[IndexEntry]) {
    if !rows.is_empty()
        && let Err(error) = parts.index.store.remove(parts.log.epoch, rows).await
    {
        tracing::warn!(%error, rows = rows.len(), "rows of the mailbox index can't be removed");
    }
}

/// Gives up claims, so that whoever tries next need not wait for their end.
async fn release(parts: &Parts, rows: &[IndexEntry], rest: Duration) {
    if !rows.is_empty()
        && let Err(error) = parts.index.store.release(parts.log.epoch, rows, rest).await
    {
        tracing::warn!(%error, rows = rows.len(), "claims of messages that could not be moved to the dead letters are still held");
    }
}

/// Whether a row that is not there was there before.
fn is_indexed(parts: &Parts, partition: Partition, position: Position) -> bool {
    parts.index.checkpoints.borrow().get(partition as usize).is_some_and(|checkpoint| position < *checkpoint)
}

/// Looks for expired rows until stopped.
pub(super) async fn sweep(parts: Parts) {
    // Only an earlier life of the log has left rows of another epoch, so that none come after the last one is gone.
    let mut earlier = true;
    loop {
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = tokio::time::sleep(parts.config.sweep_every) => {}
        }
        earlier = earlier && forget_earlier_lives(&parts).await;
        if let Err(error) = sweep_expired(&parts).await {
            tracing::warn!(%error, "expired messages can't be swept");
        }
    }
}

/// Removes what has expired by now, and makes dead letters of it. What can't be appended is for the next sweep.
async fn sweep_expired(parts: &Parts) -> Result<(), Fault> {
    let mut lag = None;
    // Claimed rows are not found again, so that a full look is followed by the next at once.
    while !parts.lifecycle.stop.is_cancelled() {
        let claimed_at = Instant::now();
        let expired = parts.index.store.claim_expired(parts.log.epoch, CLAIM, SWEEP).await?;
        let Some(oldest) = expired.oldest else { break };
        let behind = Duration::try_from(OffsetDateTime::now_utc() - oldest).unwrap_or_default();
        lag = Some(behind);
        parts.metrics.sweep_lag(behind);
        dead_letter_rows(parts, expired.claimed, claimed_at).await?;
    }
    if lag.is_none() {
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

async fn dead_letter_rows(parts: &Parts, rows: Vec<IndexEntry>, claimed_at: Instant) -> Result<(), Fault> {
    let snapshot = parts.directory.snapshot();
    let cursors = match cursors(parts, &snapshot, &rows).await {
        Ok(cursors) => cursors,
        Err(error) => {
            release(parts, &rows, Duration::ZERO).await;
            return Err(error);
        }
    };
    let judged = rows.into_iter().map(|row| (Takers::of(&parts.log, &snapshot, &cursors, &row), row));
    let (taken, rest): (Vec<_>, Vec<_>) = judged.partition(|(takers, _)| *takers == Takers::Several);
    remove(parts, &taken.into_iter().map(|(_, row)| row).collect::<Vec<_>>()).await;
    let (paused, rest) = paused(parts, rest).await;
    release(parts, &paused, parts.config.sweep_every).await;
    let mut batches = rest.chunks(MESSAGES_AT_ONCE);
    while let Some(batch) = batches.next() {
        // Long before the claim ends: what is begun must be done by then.
        if claimed_at.elapsed() > CLAIM / 2 {
            let left: Vec<IndexEntry> = batch.iter().chain(batches.flatten()).map(|(_, row)| row.clone()).collect();
            release(parts, &left, Duration::ZERO).await;
            return Ok(());
        }
        let runs: Vec<_> = runs(batch).into_iter().map(|run| dead_letter_run(parts, run)).collect();
        let outcomes: Vec<_> = stream::iter(runs).buffer_unordered(RUNS).concat().await;
        let (mut failed, mut early) = (Vec::new(), Vec::new());
        let mut why = None;
        let mut done = Vec::with_capacity(batch.len());
        for (row, outcome) in outcomes {
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
        // This sweep passes over them: one partition that can't be read must not keep it from the others.
        release(parts, &failed, parts.config.sweep_every).await;
        // Less, so that another replica, whose clock may be right, finds them free.
        release(parts, &early, parts.config.sweep_every / 2).await;
        if let Some(error) = why {
            tracing::warn!(%error, rows = failed.len(), "expired messages can't be put into the dead letters yet");
        }
    }
    Ok(())
}

/// Rows whose dead letters would go where the log takes none now, and the others. The first are not read for nothing.
async fn paused(parts: &Parts, rows: Vec<(Takers, IndexEntry)>) -> (Vec<IndexEntry>, Vec<(Takers, IndexEntry)>) {
    let Ok(info) = parts.log.topic.bus.topic(&parts.log.dead_letters).await else { return (Vec::new(), rows) };
    let (mut paused, mut rest) = (Vec::new(), Vec::with_capacity(rows.len()));
    for (takers, row) in rows {
        let partition = row.sender.map(|sender| partition_of(sender.0, info.partitions));
        match partition.and_then(|partition| parts.letters.pauses.pause(partition)) {
            Some(_) => paused.push(row),
            None => rest.push((takers, row)),
        }
    }
    (paused, rest)
}

/// Rows of one partition each, which are read together.
fn runs(rows: &[(Takers, IndexEntry)]) -> Vec<Vec<(Takers, IndexEntry)>> {
    let of_one_partition = rows.chunk_by(|(_, row), (_, next)| row.partition == next.partition);
    of_one_partition.flat_map(|rows| rows.chunks(RUN)).map(<[_]>::to_vec).collect()
}

/// What became of a row that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It can go.
    Done,
    /// It expires later, as far as this replica knows: the clock of the store was set since the row was written.
    NotYet,
}

/// Makes dead letters of a few messages of one partition.
async fn dead_letter_run(parts: &Parts, run: Vec<(Takers, IndexEntry)>) -> Vec<(IndexEntry, Result<Outcome, Fault>)> {
    let Some((_, first)) = run.first() else { return Vec::new() };
    let positions: Vec<Position> = run.iter().map(|(_, row)| row.position).collect();
    match catch_up::fetch(parts, first.partition, &positions).await {
        Ok(mut messages) => {
            let dead_letters: Vec<_> = run
                .into_iter()
                .map(|(takers, row)| {
                    let found = messages.remove(&row.position);
                    dead_letter_row(parts, takers, row, found)
                })
                .collect();
            join_all(dead_letters).await
        }
        Err(error) => run.into_iter().map(|(_, row)| (row, Err(error.clone()))).collect(),
    }
}

async fn dead_letter_row(
    parts: &Parts,
    takers: Takers,
    row: IndexEntry,
    found: Option<Found>,
) -> (IndexEntry, Result<Outcome, Fault>) {
    let Some(Found { log_time, envelope }) = found else {
        forgotten(parts, row.partition, row.position);
        return (row, Ok(Outcome::Done));
    };
    if parts.log.expires_at(row.partition, log_time, &envelope.message) > OffsetDateTime::now_utc() {
        return (row, Ok(Outcome::NotYet));
    }
    let recipient = match &row.address {
        MailboxAddress::Agent(agent) => Some(*agent),
        MailboxAddress::Group(_) | MailboxAddress::All => None,
    };
    let outcome = if takers.took(envelope.message.from_id) {
        Ok(())
    } else {
        let place = MessagePlace { partition: row.partition, position: row.position };
        put(parts, Some(place), &envelope, recipient, Reason::Expired).await
    };
    (row, outcome.map(|()| Outcome::Done))
}
