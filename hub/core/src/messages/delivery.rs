//! A message on its way to an agent, and how such a delivery is named.

use std::sync::Arc;

use super::message::Message;
use crate::{
    fault::Fault,
    log::bus::{Offset, Partition},
};

/// Names a delivery within the agent's mailbox: it stays the same when the message is delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// Where the message is.
    pub partition: Partition,
    /// Where the message is.
    pub offset: Offset,
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for DeliveryId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        text.split_once('-')
            .and_then(|(partition, offset)| Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? }))
            .ok_or_else(|| Fault::invalid("DELIVERY_ID_INVALID", "acknowledge with the delivery_id of a delivery"))
    }
}

/// A message on its way to the session's agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// What to acknowledge.
    pub id: DeliveryId,
    /// The message.
    pub message: Arc<Message>,
    /// Whether it may have been delivered before. Such are outside of the order.
    pub redelivered: bool,
    /// Which delivery of the message it is, from 1.
    pub attempt: u32,
}
