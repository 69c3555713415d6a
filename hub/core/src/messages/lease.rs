//! Which program receives for an agent: one at a time. Another one is refused, unless it says that it takes over.

use std::time::Duration;

use super::{
    parts::Parts,
    ports::{CursorFlush, LEASE, Opened, OpenedMailbox, Opening},
    session::SessionOptions,
};
use crate::{
    directory::agent::{Agent, AgentId},
    fault::{Code, Fault},
    kit::labels::check_name,
};

/// How long a program waits for the session of another one to end: of one that was just ended the hub may not know yet.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const AGAIN: Duration = Duration::from_millis(200);

/// Begins a receiving session.
pub(super) async fn open(parts: &Parts, agent: &Agent, options: &SessionOptions) -> Result<OpenedMailbox, Fault> {
    check_name("RECEIVER_INVALID", "the receiver", &options.receiver)?;
    let mut opening = Opening {
        replica: parts.config.replica.clone(),
        lease: parts.lifecycle.lease,
        receiver: options.receiver.clone(),
        take_over: options.take_over,
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut missing = None;
    loop {
        match parts.cursors.open(parts.log.epoch, agent.id, &opening).await? {
            Opened::Begun(opened) => return Ok(opened),
            // It ended here, and the store was not told; or it begins here right now.
            Opened::Held { lease, session_epoch }
                if lease == parts.lifecycle.lease && !parts.acknowledgements.has(agent.id, session_epoch) =>
            {
                opening.take_over = missing == Some(session_epoch);
                missing = Some(session_epoch);
                if !opening.take_over {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Opened::Held { .. } if tokio::time::Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Opened::Held { .. } => {
                let why = format!("another program receives for agent {}: end it, or say that this one takes over", agent.name);
                return Err(Fault::new(Code::FailedPrecondition, "RECEIVER_PRESENT", why));
            }
        }
    }
}

/// Whether no other session of the agent began after this one.
pub(super) async fn is_newest(parts: &Parts, agent: AgentId, session_epoch: Option<u64>) -> Result<bool, Fault> {
    let Some(session_epoch) = session_epoch else { return Ok(false) };
    let asks = CursorFlush { agent, session_epoch, cursors: Vec::new(), attempts: Vec::new(), closing: false, clean: true };
    Ok(parts.cursors.flush(parts.log.epoch, vec![asks]).await?.is_empty())
}

/// Says that this process of the hub lives, until stopped, as long as anybody receives in it. The answer says which of its sessions newer ones have
/// ended: one that has nothing to write hears it from nobody else.
pub(super) async fn keep(parts: Parts) {
    loop {
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = tokio::time::sleep(LEASE / 4) => {}
        }
        let open = parts.acknowledgements.open();
        if open.is_empty() {
            continue;
        }
        match parts.cursors.renew(parts.lifecycle.lease, &open).await {
            Ok(superseded) => parts.acknowledgements.end_superseded(&superseded),
            Err(error) => tracing::warn!(%error, "the lease of this replica's sessions can't be renewed, trying again"),
        }
    }
}
