//! The dead letters: messages that nobody took. What expires in a mailbox without a session is found by the [`sweep`](super::sweep).
//!
//! Two replicas that live never make two dead letters of one message: a row of the index is claimed first, in one statement. It is removed after the log
//! has the dead letter, so that a replica which dies in between loses none. The next one takes what the dead one had not removed again:
//! a few messages may be there twice, with the same `acb-source`.

use std::{fmt, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    catch_up,
    envelope::Envelope,
    letter::{self, LetterReason},
    logged::LoggedMessage,
    parts::Parts,
    ports::{ClaimOutcome, IndexEntry, MailboxAddress},
    position::{MessagePlace, Position},
    takers::{Takers, cursors},
    trace::event::Happening,
};
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    log::{
        bus::{Partition, Record},
        partition::partition_of,
    },
};

/// How long a row is held by who moves its message to the dead letters. Where that replica dies, the next one does after this.
pub(super) const CLAIM: Duration = Duration::from_secs(300);

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

/// How many partitions the log of the dead letters has. It asks the log, so that whoever has many letters asks once for all of them.
pub(super) async fn partitions(parts: &Parts) -> Result<u32, Fault> {
    Ok(parts.log.topic.bus.topic(&parts.log.dead_letters).await?.partitions)
}

/// Puts a message into the dead letters, durably. One that was never sent has no place in the log.
pub(super) async fn put(
    parts: &Parts,
    source: Option<MessagePlace>,
    envelope: &Envelope,
    recipient: Option<AgentId>,
    reason: Reason,
) -> Result<(), Fault> {
    put_into(parts, partitions(parts).await?, source, envelope, recipient, reason).await
}

/// The same, where it is known how many partitions there are.
pub(super) async fn put_into(
    parts: &Parts,
    partitions: u32,
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
    append(parts, partition_of(message.from_id.0, partitions), record).await?;
    parts.metrics.dead_letter(reason.of_letter().as_str());
    if let Some(place) = source {
        parts.trace.note(place, Happening::Dead(reason.of_letter()), recipient.unwrap_or(AgentId(Uuid::nil())));
    }
    Ok(())
}

/// Appends a dead letter. A partition that takes nothing holds up none of the others.
async fn append(parts: &Parts, partition: Partition, record: Record) -> Result<(), Fault> {
    let failed = |why: &dyn fmt::Display| Fault::unavailable("LOG_UNAVAILABLE", format!("no dead letter was written: {why}"));
    let (bus, pauses) = (&parts.log.topic.bus, &parts.letters.pauses);
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
        ClaimOutcome::Claimed => {}
        ClaimOutcome::Gone if is_indexed(parts, partition, position) => return Ok(DeadLettering::Done),
        ClaimOutcome::Held | ClaimOutcome::Gone => return Ok(DeadLettering::Later),
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

pub(super) fn forgotten(parts: &Parts, partition: Partition, position: Position) {
    tracing::warn!(partition, position, "the log forgot a message before it was a dead letter");
    parts.metrics.forgotten();
}

/// Removes the rows of what is done with. Where that fails they are looked at again after their claim.
pub(super) async fn remove(parts: &Parts, rows: &[IndexEntry]) {
    if !rows.is_empty()
        && let Err(error) = parts.index.store.remove(parts.log.epoch, rows).await
    {
        tracing::warn!(%error, rows = rows.len(), "rows of the mailbox index can't be removed");
    }
}

/// Gives up claims, so that whoever tries next need not wait for their end.
pub(super) async fn release(parts: &Parts, rows: &[IndexEntry], rest: Duration) {
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
