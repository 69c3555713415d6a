//! What a record of the messages log holds: one message, or several that one session sent one after another.
//!
//! One message is its envelope (see [`super::envelope`]), of version 1, or 3 where it is for several agents. Several messages are a protobuf message
//! of version 2, or 3 where one of them is for several agents: a hub that reads up to version 2 stops at the record, and does not pass over it.
//!
//! | field | | |
//! |---|---|---|
//! | 1 | `uint32 version` | 2 or 3; see the envelope's |
//! | 30 | `repeated bytes messages` | 1 to 64 envelopes, in the order in which they were sent; no envelope has this field |
//!
//! A record is in the log as a whole or not at all. So a message never stands behind one that was sent before it and failed.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use uuid::Uuid;

use super::{
    envelope::{Envelope, EnvelopeError, LIST, version},
    message::Message,
    position::MAX_MESSAGES,
};
use crate::{
    fault::Fault,
    log::bus::{Logged, Record},
};

const VERSION: u32 = 2;

/// Why a record is not read: a newer hub wrote it.
pub(super) const NEWER: &str = "RECORD_NEWER";

/// The record of these messages, of one sender.
#[must_use]
pub fn encode(envelopes: &[Envelope]) -> Record {
    match envelopes {
        [] => Record::default(),
        [one] => one.record(),
        [first, ..] => {
            let messages = envelopes.iter().map(Envelope::encode).collect();
            let mut record = first.described();
            let version = envelopes.iter().map(Envelope::version).max().unwrap_or_default().max(VERSION);
            record.value = Some(WireRecord { version, messages }.encode_to_vec().into());
            record
        }
    }
}

/// The messages of a record, from its value.
///
/// # Errors
/// Where it is none that this version reads.
pub fn decode(value: &Bytes) -> Result<Vec<Envelope>, EnvelopeError> {
    let version = version(value)?;
    if ![VERSION, LIST].contains(&version) {
        return Ok(vec![Envelope::decode(value)?]);
    }
    let wire = WireRecord::decode(value.clone())?;
    if version == LIST && wire.messages.is_empty() {
        return Ok(vec![Envelope::decode(value)?]);
    }
    if wire.messages.is_empty() || wire.messages.len() > MAX_MESSAGES {
        return Err(EnvelopeError::Field("messages"));
    }
    // From copies: a payload must not keep the whole record in memory, which nobody counts.
    wire.messages.iter().map(|message| Envelope::decode(&Bytes::copy_from_slice(message))).collect()
}

/// The messages of a record of the log. Nothing where it holds none that can be read.
///
/// # Errors
/// `RECORD_NEWER`: what this hub can't read is not nothing, and a newer one knows it.
pub(super) fn messages(logged: &Logged) -> Result<Vec<Envelope>, Fault> {
    let Some(value) = &logged.record.value else { return Ok(Vec::new()) };
    if newer(value).is_some() {
        let message = format!("the record {}-{} is of a newer hub: use that one", logged.partition, logged.offset);
        return Err(Fault::unavailable(NEWER, message));
    }
    Ok(decode(value).unwrap_or_default())
}

/// The message with this id and its number in the record, where the record has it and readers take it for one: what was longer on its way into the log
/// than `max_delay` they drop.
///
/// # Errors
/// As [`messages`].
pub(super) fn find(logged: &Logged, id: Uuid, max_delay: Duration) -> Result<Option<(usize, Message)>, Fault> {
    let numbered = messages(logged)?.into_iter().map(|envelope| envelope.message).enumerate();
    let is_taken = |message: &Message| message.id == id && logged.log_time - message.accepted_at <= max_delay;
    Ok(numbered.into_iter().find(|(_, message)| is_taken(message)))
}

/// The version of a record that only a newer hub can read.
#[must_use]
pub fn newer(value: &Bytes) -> Option<u32> {
    version(value).ok().filter(|version| *version > LIST)
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", repeated, tag = "30")]
    messages: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        directory::agent::AgentId,
        messages::{envelope::tests::envelope, message::Address},
    };

    fn several(count: usize) -> Bytes {
        let messages = vec![envelope().encode(); count];
        WireRecord { version: VERSION, messages }.encode_to_vec().into()
    }

    #[test]
    fn what_is_written_is_read() {
        let one = encode(&[envelope()]);
        assert_eq!(one, envelope().record(), "one message has no record around it");
        let two = [envelope(), Envelope { method: "request".to_owned(), ..envelope() }];
        let record = encode(&two);
        assert_eq!(decode(record.value.as_ref().unwrap()).unwrap(), two);
        assert_eq!(decode(one.value.as_ref().unwrap()).unwrap(), [envelope()]);
        assert_eq!(record.key, one.key);
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["acb-sender"], "the messages of a record differ in the rest");
    }

    #[test]
    fn what_is_for_several_agents_has_a_version_that_a_reader_of_others_stops_at() {
        let list = || {
            let mut list = envelope();
            list.message.to = Address::agents(vec!["worker".to_owned(), "other".to_owned()]).unwrap();
            list.message.to_ids = vec![AgentId(Uuid::from_u128(3)), AgentId(Uuid::from_u128(4))];
            list
        };
        for messages in
            [vec![list()], vec![envelope(), list()], vec![list(), list()], vec![envelope()], vec![envelope(), envelope()]]
        {
            let value = encode(&messages).value.unwrap();
            let expected = match (messages.contains(&list()), messages.len()) {
                (true, _) => 3,
                (false, 1) => 1,
                (false, _) => 2,
            };
            assert_eq!(version(&value).unwrap(), expected);
            assert_eq!(decode(&value).unwrap(), messages);
        }
    }

    #[test]
    fn too_many_none_newer_ones_and_noise_are_refused() {
        assert_eq!(decode(&several(MAX_MESSAGES)).unwrap().len(), MAX_MESSAGES);
        for count in [0, MAX_MESSAGES + 1] {
            assert_eq!(decode(&several(count)), Err(EnvelopeError::Field("messages")));
        }
        let newer_one = Bytes::from(WireRecord { version: 4, messages: Vec::new() }.encode_to_vec());
        assert_eq!((newer(&newer_one), decode(&newer_one)), (Some(4), Err(EnvelopeError::Version(4))));
        assert_eq!((newer(&several(2)), newer(&envelope().encode())), (None, None));
        let inner = Bytes::from_static(&[8, 4]);
        let nested = Bytes::from(WireRecord { version: VERSION, messages: vec![inner] }.encode_to_vec());
        assert_eq!(decode(&nested), Err(EnvelopeError::Version(4)));
        assert!(matches!(decode(&Bytes::from_static(b"\xff\xff")), Err(EnvelopeError::Malformed(_))));
    }
}
