//! What happens to a message, and how that is kept. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    directory::agent::AgentId,
    messages::{letter::LetterReason, position::Position},
};

/// Bytes of one event in a part: what happened, the attempt, the time in microseconds, the message's position, and the agent's id; numbers are
/// big-endian. What can't be read, such as what a newer hub wrote, is passed over.
const BYTES: usize = 1 + 1 + 8 + 8 + 16;

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A replica took it from its sender, and the log has it.
    Accepted,
    /// It was handed to an agent.
    Delivered,
    /// It was handed to an agent that may have had it before.
    Redelivered,
    /// An agent has acknowledged it.
    Acknowledged,
    /// It is among the dead letters.
    Dead(LetterReason),
}

const REASONS: [LetterReason; 4] =
    [LetterReason::Expired, LetterReason::Attempts, LetterReason::SenderRefused, LetterReason::RecipientGone];
/// The first number of those that stand for a dead letter.
const DEAD: u8 = 16;

impl Happening {
    /// As it is kept, and in the order in which it happens.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Accepted => 1,
            Self::Delivered => 2,
            Self::Redelivered => 3,
            Self::Acknowledged => 4,
            Self::Dead(reason) => (DEAD..).zip(REASONS).find(|(_, known)| *known == reason).map_or(DEAD, |(number, _)| number),
        }
    }

    fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Accepted),
            2 => Some(Self::Delivered),
            3 => Some(Self::Redelivered),
            4 => Some(Self::Acknowledged),
            dead => REASONS.get(usize::from(dead.checked_sub(DEAD)?)).copied().map(Self::Dead),
        }
    }
}

/// Something that happened to the message at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) at: OffsetDateTime,
    pub(super) position: Position,
    pub(super) what: Happening,
    /// The number of the attempt, of a delivery; 0 of all else.
    pub(super) attempt: u8,
    /// The sender of what was accepted; the recipient of all else, where there is one.
    pub(super) agent: AgentId,
}

/// As it is kept.
pub(super) fn encode(events: &[Noted]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(events.len() * BYTES);
    for event in events {
        bytes.put_u8(event.what.number());
        bytes.put_u8(event.attempt);
        bytes.put_i64(i64::try_from(event.at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX));
        bytes.put_u64(event.position);
        bytes.put_slice(event.agent.0.as_bytes());
    }
    bytes.freeze()
}

/// What is there of the message at this position.
pub(super) fn of_position(mut bytes: &[u8], position: Position) -> Vec<Noted> {
    let mut events = Vec::new();
    while bytes.len() >= BYTES {
        let (what, attempt) = (Happening::of(bytes.get_u8()), bytes.get_u8());
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(bytes.get_i64()) * 1000);
        let of = bytes.get_u64();
        let mut agent = [0; 16];
        bytes.copy_to_slice(&mut agent);
        if let (true, Some(what), Ok(at)) = (of == position, what, at) {
            events.push(Noted { at, position, what, attempt, agent: AgentId(Uuid::from_bytes(agent)) });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noted(position: Position, what: Happening) -> Noted {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(1_700_000_000_123_456);
        Noted { at, position, what, attempt: 3, agent: AgentId(Uuid::from_u128(7)) }
    }

    #[test]
    fn what_was_kept_is_read() {
        let happened = [Happening::Accepted, Happening::Delivered, Happening::Redelivered, Happening::Acknowledged];
        let events: Vec<Noted> =
            happened.into_iter().chain(REASONS.map(Happening::Dead)).map(|what| noted(u64::MAX, what)).collect();
        let bytes = encode(&[&events[..], &[noted(5, Happening::Accepted)]].concat());
        assert_eq!((bytes.len(), of_position(&bytes, u64::MAX)), (9 * BYTES, events));
        assert_eq!(of_position(&bytes, 5), [noted(5, Happening::Accepted)]);
        assert_eq!(of_position(&bytes, 6), []);
    }

    #[test]
    fn what_a_newer_hub_wrote_is_passed_over() {
        let mut bytes = encode(&[noted(1, Happening::Accepted), noted(1, Happening::Acknowledged)]).to_vec();
        bytes[0] = 99;
        assert_eq!(of_position(&bytes, 1), [noted(1, Happening::Acknowledged)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(of_position(&bytes, 0).len() <= bytes.len() / BYTES);
        }
    }
}
