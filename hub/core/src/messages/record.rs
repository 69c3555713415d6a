//! What a record of the messages log holds: one message, or several that one session sent one after another.
//!
//! One message is its envelope, version 1 (see [`super::envelope`]). Several are a protobuf message of version 2:
//!
//! | field | | |
//! |---|---|---|
//! | 1 | `uint32 version` | 2; see the envelope's |
//! | 30 | `repeated bytes messages` | 1 to 64 envelopes of version 1, in the order in which they were sent |
//!
//! A record is in the log as a whole or not at all. So a message never stands behind one that was sent before it and failed.

use bytes::Bytes;
use prost::Message as _;

use super::{
    envelope::{Envelope, EnvelopeError, version},
    position::MAX_MESSAGES,
};
use crate::log::bus::Record;

const VERSION: u32 = 2;

/// The record of these messages, of one sender.
#[must_use]
pub fn encode(envelopes: &[Envelope]) -> Record {
    match envelopes {
        [] => Record::default(),
        [one] => one.record(),
        [first, ..] => {
            let messages = envelopes.iter().map(Envelope::encode).collect();
            let mut record = first.described();
            record.value = Some(WireRecord { version: VERSION, messages }.encode_to_vec().into());
            record
        }
    }
}

/// The messages of a record, from its value.
///
/// # Errors
/// Where it is none that this version reads.
pub fn decode(value: &Bytes) -> Result<Vec<Envelope>, EnvelopeError> {
    if version(value)? != VERSION {
        return Ok(vec![Envelope::decode(value)?]);
    }
    let wire = WireRecord::decode(value.clone())?;
    if wire.messages.is_empty() || wire.messages.len() > MAX_MESSAGES {
        return Err(EnvelopeError::Field("messages"));
    }
    // From copies: a payload must not keep the whole record in memory, which nobody counts.
    wire.messages.iter().map(|message| Envelope::decode(&Bytes::copy_from_slice(message))).collect()
}

/// The version of a record that only a newer hub can read.
#[must_use]
pub fn newer(value: &Bytes) -> Option<u32> {
    version(value).ok().filter(|version| *version > VERSION)
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
    use crate::messages::envelope::tests::envelope;

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
    fn too_many_none_newer_ones_and_noise_are_refused() {
        assert_eq!(decode(&several(MAX_MESSAGES)).unwrap().len(), MAX_MESSAGES);
        for count in [0, MAX_MESSAGES + 1] {
            assert_eq!(decode(&several(count)), Err(EnvelopeError::Field("messages")));
        }
        let newer_one = Bytes::from(WireRecord { version: 3, messages: Vec::new() }.encode_to_vec());
        assert_eq!((newer(&newer_one), decode(&newer_one)), (Some(3), Err(EnvelopeError::Version(3))));
        assert_eq!((newer(&several(2)), newer(&envelope().encode())), (None, None));
        let inner = Bytes::from_static(&[8, 3]);
        let nested = Bytes::from(WireRecord { version: VERSION, messages: vec![inner] }.encode_to_vec());
        assert_eq!(decode(&nested), Err(EnvelopeError::Version(3)));
        assert!(matches!(decode(&Bytes::from_static(b"\xff\xff")), Err(EnvelopeError::Malformed(_))));
    }
}
