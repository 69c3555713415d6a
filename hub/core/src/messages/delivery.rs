//! A message on its way to an agent, and how such a delivery is named.

use std::sync::Arc;

use super::{message::Message, position::MessagePlace};
use crate::{fault::Fault, log::bus::Epoch};

/// Names a delivery within the agent's mailbox, in one life of the log. It stays the same when the message is delivered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The life of the log: after that was made anew the same place is another message.
    pub epoch: Epoch,
    /// Where the message is.
    pub place: MessagePlace,
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}-{}", self.epoch, self.place.partition, self.place.position)
    }
}

impl std::str::FromStr for DeliveryId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parse = || {
            let (epoch, rest) = text.split_once('-')?;
            let (partition, position) = rest.split_once('-')?;
            let place = MessagePlace { partition: partition.parse().ok()?, position: position.parse().ok()? };
            Some(Self { epoch: Epoch::from_str_radix(epoch, 16).ok()?, place })
        };
        parse().ok_or_else(|| Fault::invalid("DELIVERY_ID_INVALID", "acknowledge with the delivery_id of a delivery"))
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
    /// Which attempt at the message it is, from 1. What was handed back before the agent had begun with it was none.
    pub attempt: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_text_and_nothing_else_is_one() {
        let id = DeliveryId { epoch: u64::MAX, place: MessagePlace { partition: 7, position: 12 } };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "-", "--", "7-12", "x-7-12", "1-7-12-3", "1-7-", "1-4294967296-1", "10000000000000000-1-1", "1-+1-1\n"] {
            assert_eq!(bad.parse::<DeliveryId>().map_err(|fault| fault.reason), Err("DELIVERY_ID_INVALID"), "{bad:?}");
        }
    }
}
