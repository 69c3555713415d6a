//! A message with its place in the log, and what the reader of the log is told and tells.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::{dedup::Verdict, envelope::Envelope, message::Message, position::Position};
use crate::{
    directory::{agent::AgentId, snapshot::Snapshot},
    kit::budget::Room,
    log::bus::{Offset, Partition},
};

/// Idempotency keys are scoped by method: the same key of a send and of a request names two messages.
pub(super) const SEND: &str = "send";
pub(super) const REQUEST: &str = "request";
/// Of what was scheduled, when it is sent: its key is its own id.
pub(super) const SCHEDULED: &str = "scheduled";

/// A message and its place in the log.
#[derive(Clone, Debug)]
pub(super) struct LoggedMessage {
    pub(super) partition: Partition,
    pub(super) position: Position,
    pub(super) log_time: OffsetDateTime,
    pub(super) message: Arc<Message>,
}

/// What became of an own append.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Seen {
    Judged(Verdict),
    /// It reached the log too late, and every reader dropped it.
    Stale(Box<Envelope>),
}

/// Messages for one session, as they come. Closed by the reader where the session falls behind.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) messages: mpsc::Receiver<Buffered>,
}

/// A message with the room that it takes.
pub(super) type Buffered = (Arc<LoggedMessage>, Room);

impl Live {
    pub(super) async fn next(&mut self) -> Option<Buffered> {
        self.messages.recv().await
    }

    /// Whether the reader let go. What it had handed over before is read again by who attaches anew.
    pub(super) fn is_let_go(&self) -> bool {
        self.messages.is_closed()
    }
}

#[derive(Debug)]
pub(super) struct Attached {
    /// Everything from here on comes live.
    pub(super) positions: Vec<Position>,
    /// Says who is in which group, for what comes live.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) live: Live,
}

#[derive(Debug)]
pub(super) enum Command {
    /// An own append was acknowledged: the record at this offset holds these messages.
    Own {
        partition: Partition,
        offset: Offset,
        log_time: OffsetDateTime,
        envelopes: Vec<Envelope>,
        /// Whose turn it was to wait for each of them.
        turns: Vec<u64>,
    },
    /// A session wants to receive; answered with `None` where the agent has a newer one.
    Attach { agent: AgentId, session_epoch: u64, answer: oneshot::Sender<Option<Attached>> },
}
