//! The dead letters: messages that nobody took. What expires in a mailbox without a session is found by a sweep of the index.

use std::sync::Arc;

use bytes::Bytes;

use super::{Inner, catch_up, reader::LoggedMessage};
use crate::{
    agent::AgentId,
    bus::Record,
    mailbox::{IndexEntry, MailboxAddress},
    message::partition_of,
};

/// Rows of one round.
const SWEEP: usize = 100;

/// Why a message went there: the header `acb-reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Expired,
    Attempts(u32),
}

/// Puts a message into the dead letters, durably. Whether that worked.
pub(super) async fn put(inner: &Inner, logged: &LoggedMessage, recipient: Option<AgentId>, reason: Reason) -> bool {
    match try_put(inner, logged, recipient, reason).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(message = %logged.message.id, %error, "a message can't be put into the dead letters yet");
            false
        }
    }
}

async fn try_put(inner: &Inner, logged: &LoggedMessage, recipient: Option<AgentId>, reason: Reason) -> Result<(), String> {
    let records = inner.bus.read(&inner.topic, logged.partition, logged.offset, 1).await.map_err(|error| error.to_string())?;
    let Some(source) = records.into_iter().find(|record| record.offset == logged.offset) else {
        return Ok(());
    };
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
    let info = inner.bus.topic(&inner.dead_letters).await.map_err(|error| error.to_string())?;
    let partition = partition_of(logged.message.from_id.0, info.partitions);
    let pending = inner.bus.append(&inner.dead_letters, partition, record).await.map_err(|error| error.to_string())?;
    pending.await.map(|_| ()).map_err(|error| error.to_string())
}

/// Looks for expired rows until stopped.
pub(super) async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(inner.config.sweep_every) => {}
        }
        let now = time::OffsetDateTime::now_utc();
        match inner.mailboxes.expired(inner.epoch, now, SWEEP).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => bury(&inner, rows).await,
            Err(error) => tracing::warn!(%error, "expired messages can't be looked for"),
        }
    }
}

async fn bury(inner: &Inner, rows: Vec<IndexEntry>) {
    let mut done = Vec::new();
    for row in rows {
        match taken(inner, &row).await {
            Ok(true) => done.push(row),
            Ok(false) => {
                let recipient = match &row.address {
                    MailboxAddress::Agent(agent) => Some(*agent),
                    MailboxAddress::Group(_) | MailboxAddress::All => None,
                };
                match catch_up::one(inner, row.partition, row.offset).await {
                    Ok(Some(logged)) if !put(inner, &logged, recipient, Reason::Expired).await => {}
                    Ok(_) => done.push(row),
                    Err(error) => tracing::warn!(%error, "an expired message can't be read"),
                }
            }
            Err(error) => tracing::warn!(%error, "cursors can't be read"),
        }
    }
    if let Err(error) = inner.mailboxes.remove(inner.epoch, &done).await {
        tracing::warn!(%error, "expired rows can't be removed");
    }
}

/// Whether anybody acknowledged the message.
async fn taken(inner: &Inner, row: &IndexEntry) -> Result<bool, crate::fault::Fault> {
    let snapshot = inner.directory.snapshot();
    let recipients: Vec<AgentId> = match &row.address {
        MailboxAddress::Agent(agent) => vec![*agent],
        MailboxAddress::Group(_) | MailboxAddress::All => {
            snapshot.agents().map(|agent| agent.id).filter(|agent| catch_up::is_for(&snapshot, *agent, row)).collect()
        }
    };
    let cursors = inner.cursors.cursors(inner.epoch, &recipients, row.partition).await?;
    Ok(cursors.iter().any(|(_, cursor)| cursor.acknowledged(row.offset)))
}
