//! What a session of one agent takes and gives. The work is done by the tasks behind it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::{
    delivery::{Delivery, DeliveryId},
    message::{OutgoingMessage, Receipt},
};
use crate::{
    directory::{
        agent::{Agent, Permission},
        caller::lacks,
    },
    fault::Fault,
    kit::budget::Queue,
    log::bus::Partition,
};

pub use crate::kit::budget::Room;

/// How a session begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Whether to receive. A session that only sends takes nothing from the mailbox and ends no other session.
    pub receive: bool,
    /// How many unacknowledged messages may be outstanding: 1 to 1,000; 0 stands for 100.
    pub max_unacknowledged: u32,
    /// Names the program that receives: its older session it always ends. Empty: none that is known again.
    pub receiver: String,
    /// Whether to end the session of another program. Otherwise that one stays, and this one is refused.
    pub take_over: bool,
}

/// What a session gives.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// What became of a message that was sent on this session.
    Sent {
        /// The caller's number.
        sequence: u64,
        /// The receipt, or why not.
        outcome: Result<Receipt, Fault>,
    },
    /// A message.
    Delivery(Delivery),
    /// The mailbox of one partition is held back until older messages are acknowledged.
    HeldBack {
        /// Which.
        partition: Partition,
        /// How many messages wait for their acknowledgement.
        unacknowledged: u32,
    },
    /// A newer session of the agent ended this one. The last event.
    Replaced,
    /// The hub is about to stop: reconnect, to any replica.
    Draining,
    /// The session can't go on. The last event.
    Failed(Fault),
}

/// A session: what goes in, and what comes out. Dropping either half ends it.
#[derive(Debug)]
pub struct Session {
    /// Its name.
    pub id: Uuid,
    /// The number of its turn at the mailbox; `None` where it does not receive.
    pub(crate) turn: Option<u64>,
    /// What the agent sends.
    pub input: SessionInput,
    /// What the agent gets.
    pub events: SessionEvents,
}

/// A message with the caller's number for it.
#[derive(Debug)]
pub(crate) struct NumberedMessage {
    pub(crate) sequence: u64,
    /// Apart: a queue has places for 32 from the start, in every session, also in an idle one.
    pub(crate) message: Box<OutgoingMessage>,
    /// Held until it was sent.
    pub(crate) room: Room,
}

/// What an agent says of its deliveries.
#[derive(Debug)]
pub(crate) enum Feedback {
    Acknowledged(Vec<DeliveryId>),
    Started(Vec<DeliveryId>),
    InProgress(Vec<DeliveryId>),
    /// Answered once everything before is written; dropped where it never will be.
    Settle(oneshot::Sender<()>),
}

/// The half that sends and acknowledges.
#[derive(Debug)]
pub struct SessionInput {
    pub(crate) agent: Arc<Agent>,
    pub(crate) messages: mpsc::Sender<NumberedMessage>,
    pub(crate) feedback: Option<mpsc::Sender<Feedback>>,
    pub(crate) bytes: Queue,
}

impl SessionInput {
    /// Sends a message behind those before it, and waits for room to do so (64 messages, 8 MiB); what became of it is a [`SessionEvent::Sent`].
    ///
    /// When one fails, everything with a higher number fails with `ABORTED` until that number is sent again, with the same message
    /// or another: only then is it known that the sender saw the failure.
    ///
    /// # Errors
    /// Where the agent may not send, or the session is over.
    pub async fn send(&self, sequence: u64, message: OutgoingMessage) -> Result<(), Fault> {
        if !self.agent.role.allows(Permission::Send) {
            return Err(lacks(&self.agent, &[Permission::Send]));
        }
        let room = tokio::select! {
            room = self.bytes.wait(message.cost()) => room,
            () = self.messages.closed() => return Err(over()),
        };
        self.messages.send(NumberedMessage { sequence, message: Box::new(message), room }).await.map_err(|_| over())
    }

    /// Acknowledges deliveries. Unknown ones are ignored.
    ///
    /// # Errors
    /// Where the session is over, or does not receive.
    pub async fn ack(&self, deliveries: Vec<DeliveryId>) -> Result<(), Fault> {
        self.say(Feedback::Acknowledged(deliveries)).await
    }

    /// Says that the agent begins with deliveries. Each counts as an attempt from now on, also where the session ends before it is
    /// acknowledged. Unknown ones are ignored.
    ///
    /// # Errors
    /// Where the session is over, or does not receive.
    pub async fn started(&self, deliveries: Vec<DeliveryId>) -> Result<(), Fault> {
        self.say(Feedback::Started(deliveries)).await
    }

    /// Says that the agent is still at work on what it was now given again. Such a delivery does not count as an attempt, and
    /// the next one is put off. Unknown ones are ignored.
    ///
    /// # Errors
    /// Where the session is over, or does not receive.
    pub async fn in_progress(&self, deliveries: Vec<DeliveryId>) -> Result<(), Fault> {
        self.say(Feedback::InProgress(deliveries)).await
    }

    /// Waits until what was said is written, so that a session that takes over from this one knows of it.
    pub(crate) async fn settled(&self) -> Result<(), Fault> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let (written, answer) = oneshot::channel();
        self.say(Feedback::Settle(written)).await?;
        match timeout(PATIENCE, answer).await {
            Ok(written) => written.map_err(|_| over()),
            Err(_) => {
                let why = "it is not known whether the acknowledgement was written: say it again";
                Err(Fault::unavailable("ACKNOWLEDGEMENT_UNKNOWN", why))
            }
        }
    }

    /// Whether the session has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.messages.is_closed()
    }

    async fn say(&self, feedback: Feedback) -> Result<(), Fault> {
        let Some(queue) = &self.feedback else {
            return Err(Fault::invalid("SESSION_DOES_NOT_RECEIVE", "open the session with `receive` to acknowledge messages"));
        };
        queue.send(feedback).await.map_err(|_| over())
    }
}

/// The half that gives events.
#[derive(Debug)]
pub struct SessionEvents {
    pub(crate) events: mpsc::Receiver<Queued>,
}

/// An event on its way, with the room that it takes.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) event: SessionEvent,
    pub(crate) room: Option<Room>,
}

impl From<SessionEvent> for Queued {
    /// One without a payload.
    fn from(event: SessionEvent) -> Self {
        Self { event, room: None }
    }
}

impl SessionEvents {
    /// The next event; `None` once the session is over.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        self.take().await.map(|(event, _)| event)
    }

    /// An event that waits, with its room.
    pub(crate) fn waiting(&mut self) -> Option<(SessionEvent, Option<Room>)> {
        self.events.try_recv().ok().map(|queued| (queued.event, queued.room))
    }

    /// The same, with the room that it takes in memory: whoever keeps the event for longer keeps that as long. While 8 MiB of a session
    /// wait for its agent (less where all sessions of the replica hold much), the session gives nothing more: what is
    /// for the agent stays in the log.
    pub async fn take(&mut self) -> Option<(SessionEvent, Option<Room>)> {
        self.events.recv().await.map(|queued| (queued.event, queued.room))
    }
}

pub(crate) fn over() -> Fault {
    Fault::new(crate::fault::Code::Aborted, "SESSION_OVER", "the session is over: open a new one")
}
