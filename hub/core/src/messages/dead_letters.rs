//! The dead letters: messages that nobody took. What expires in a mailbox without a session is found by a sweep of the index.
//!
//! Nothing is buried twice by replicas that live: a row of the index is claimed first, in one statement. It is removed after the log has
//! the dead letter, so that a replica which dies in between loses none; such a one may be there twice, with the same `acb-source`.

use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    catch_up,
    logged::LoggedMessage,
    parts::Parts,
    ports::{Claim, IndexEntry, MailboxAddress},
};
use crate::{
    directory::agent::AgentId,
    log::{
        bus::{Offset, Partition, Record},
        partition::partition_of,
    },
};

/// Rows of one round.
const SWEEP: usize = 100;
/// Rows of an earlier life of the log that are removed by one statement: short enough that nobody notices.
const FORGET: usize = 5000;
/// How long a row is held by who buries it. Where that replica dies, the next one does after this.
const CLAIM: Duration = Duration::from_secs(300);

/// Why a message went there: the header `acb-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    Attempts(u32),
}

/// Puts a message into the dead letters, durably. Whether that worked.
async fn put(parts: &Parts, logged: &LoggedMessage, recipient: Option<AgentId>, reason: Reason) -> bool {
    // Its caller was told that there is no reply. Nobody should be asked again by what lies there.
    if reason == Reason::Expired && logged.message.is_request() {
        return true;
    }
    match try_put(parts, logged, recipient, reason).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(message = %logged.message.id, %error, "a message can't be put into the dead letters yet");
            false
        }
    }
}

async fn try_put(parts: &Parts, logged: &LoggedMessage, recipient: Option<AgentId>, reason: Reason) -> Result<(), String> {
    let source = catch_up::record(parts, logged.partition, logged.offset).await.map_err(|fault| fault.to_string())?;
    let Some(source) = source else { return Ok(()) };
    let text = match reason {
        Reason::Expired => "expired".to_owned(),
        Reason::Attempts(attempts) => format!("not acknowledged after {attempts} deliveries"),
    };
    let mut headers = source.record.headers;
    headers.push(("acb-reason".to_owned(), Bytes::from(text)));
    headers.push(("acb-source".to_owned(), Bytes::from(format!("{}-{}", logged.partition, logged.offset))));
    if let Some(recipient) = recipient {
        headers.push(("acb-recipient".to_owned(), Bytes::from(recipient.to_string())));
    }
    let record = Record { headers, ..source.record };
    let info = parts.log.bus.topic(&parts.log.dead_letters).await.map_err(|error| error.to_string())?;
    let partition = partition_of(logged.message.from_id.0, info.partitions);
    let pending = parts.log.bus.append(&parts.log.dead_letters, partition, record).await.map_err(|error| error.to_string())?;
    pending.await.map(|_| ()).map_err(|error| error.to_string())
}

/// What became of a message that a session gives up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burial {
    /// It is among the dead letters, by this call or by another.
    Done,
    /// Somebody else is about to, or it can't be done now: ask again.
    Later,
}

/// Buries a message that a session of `recipient` has in hand.
pub(super) async fn bury(parts: &Parts, logged: &LoggedMessage, recipient: AgentId, reason: Reason) -> Burial {
    // A row of one agent's mailbox is there until its message is done with, and so is one that expired for everybody. What one member of
    // a group did not take the others may still: that row is not the session's to claim.
    let address = MailboxAddress::of(&logged.message)
        .filter(|address| reason == Reason::Expired || matches!(address, MailboxAddress::Agent(_)));
    let Some(address) = address else {
        return if put(parts, logged, Some(recipient), reason).await { Burial::Done } else { Burial::Later };
    };
    let (partition, offset) = (logged.partition, logged.offset);
    match parts.index.store.claim(parts.log.epoch, &address, partition, offset, CLAIM).await {
        Ok(Claim::Claimed) if put(parts, logged, Some(recipient), reason).await => {
            let row = IndexEntry { address, partition, offset, log_time: logged.log_time, expires_at: logged.message.expires_at };
            if let Err(error) = parts.index.store.remove(parts.log.epoch, &[row]).await {
                tracing::warn!(%error, "the row of a buried message can't be removed");
            }
            Burial::Done
        }
        Ok(Claim::Gone) if is_indexed(parts, partition, offset) => Burial::Done,
        Ok(Claim::Claimed | Claim::Held | Claim::Gone) => Burial::Later,
        Err(error) => {
            tracing::warn!(message = %logged.message.id, %error, "a message can't be claimed for the dead letters yet");
            Burial::Later
        }
    }
}

/// Whether a row that is not there was there before.
fn is_indexed(parts: &Parts, partition: Partition, offset: Offset) -> bool {
    parts.index.checkpoints.borrow().get(partition as usize).is_some_and(|checkpoint| offset < *checkpoint)
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
        // Claimed rows are not found again, so that a full round is followed by the next at once.
        while !parts.lifecycle.stop.is_cancelled() {
            let claimed_at = Instant::now();
            match parts.index.store.claim_expired(parts.log.epoch, OffsetDateTime::now_utc(), CLAIM, SWEEP).await {
                Ok(rows) if rows.is_empty() => break,
                Ok(rows) => bury_rows(&parts, rows, claimed_at).await,
                Err(error) => {
                    tracing::warn!(%error, "expired messages can't be looked for");
                    break;
                }
            }
        }
    }
}

/// Removes rows of the log's earlier lives, some with each sweep. Whether there may be more.
async fn forget_earlier_lives(parts: &Parts) -> bool {
    // The log is asked first: a replica that was left behind on an earlier life would remove what belongs to the present one.
    match parts.log.bus.topic(&parts.log.topic).await {
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

async fn bury_rows(parts: &Parts, rows: Vec<IndexEntry>, claimed_at: Instant) {
    for row in rows {
        // Long before the claim ends: what is begun must be done by then. The rest is claimed again after it.
        if claimed_at.elapsed() > CLAIM / 2 {
            return;
        }
        let done = match taken(parts, &row).await {
            Ok(true) => true,
            Ok(false) => {
                let recipient = match &row.address {
                    MailboxAddress::Agent(agent) => Some(*agent),
                    MailboxAddress::Group(_) | MailboxAddress::All => None,
                };
                match catch_up::one(parts, row.partition, row.offset).await {
                    Ok(Some(logged)) => put(parts, &logged, recipient, Reason::Expired).await,
                    // The log forgot it.
                    Ok(None) => true,
                    Err(error) => {
                        tracing::warn!(%error, "an expired message can't be read");
                        false
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cursors can't be read");
                false
            }
        };
        // One by one: a replica that dies here has one message at the most in the dead letters whose row is still there.
        if done && let Err(error) = parts.index.store.remove(parts.log.epoch, &[row]).await {
            tracing::warn!(%error, "an expired row can't be removed");
        }
    }
}

/// Whether anybody acknowledged the message.
async fn taken(parts: &Parts, row: &IndexEntry) -> Result<bool, crate::fault::Fault> {
    let snapshot = parts.directory.snapshot();
    let recipients: Vec<AgentId> = match &row.address {
        MailboxAddress::Agent(agent) => vec![*agent],
        MailboxAddress::Group(_) | MailboxAddress::All => {
            snapshot.agents().map(|agent| agent.id).filter(|agent| catch_up::is_for(&snapshot, *agent, row)).collect()
        }
    };
    let cursors = parts.cursors.cursors(parts.log.epoch, &recipients, row.partition).await?;
    Ok(cursors.iter().any(|(_, cursor)| cursor.acknowledged(row.offset)))
}
