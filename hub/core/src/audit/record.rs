//! How an audit record stands in the log.
//!
//! The value of a record of `acb.<tenant>.sys.audit` is a protobuf message, version 1, and these bytes are a leaf of the tree:
//!
//! | field | | |
//! |---|---|---|
//! | 1 | `uint32 version` | 1; this field keeps its number in every version |
//! | 2 | `bytes call` | UUIDv7, 16 bytes: the same in all records of one call |
//! | 3 | `uint32 phase` | 1 intent, 2 outcome, 3 begin, 4 end, 5 refusals, 6 gap |
//! | 4 | `int64 at` | microseconds since 1970, by the replica's clock |
//! | 5, 6 | `string replica`, `string operation` | the operation's name, such as `GetContext` |
//! | 7–9 | `bytes agent_id`, `string agent`, `string key` | who: the agent's UID and name, and the prefix of its API key, or `serviceaccount:<namespace>/<name>` |
//! | 10, 11 | `string object`, `uint64 object_version` | what it was about, such as `context 0190…`; 0: no version is known |
//! | 12 | `uint64 bytes` | how much was read or written, where that is known |
//! | 13 | `string source` | the caller's address; of refusals, the address or the /64 that they are summed by |
//! | 14, 15 | `string outcome`, `string reason` | `done`, `left`, `ended`, `refused`, or the code of a failure in lower case; its stable reason |
//! | 16 | `string correlation_id` | |
//! | 17 | `uint64 count` | of refusals, how many |
//! | 18 | `string change` | of what the operator did, what changed, such as `role observer to admin` |
//!
//! Fields are only ever added. There is no payload in it, and no secret. A gap is not from the log: the sink makes it where it can't go on from
//! where it was, and `object` says what is missing. What the operator did has the source `operator`, no agent, and as its replica which operator it was.

use bytes::Bytes;
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    directory::agent::AgentId,
    kit::clock::{from_micros, to_micros},
};

const VERSION: u32 = 1;

/// The longest text that a record keeps of what it is about, and of what changed.
const MAX_OBJECT: usize = 4096;

/// Which moment of a call a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A change is about to be made.
    Intent,
    /// A call is over, or is about to answer.
    Outcome,
    /// A stream is about to begin.
    Begin,
    /// A stream is over.
    End,
    /// So many calls were refused.
    Refusals,
    /// Something is missing here.
    Gap,
}

impl Phase {
    const ALL: [Self; 6] = [Self::Intent, Self::Outcome, Self::Begin, Self::End, Self::Refusals, Self::Gap];

    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.number() == number)
    }
}

/// One record of the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// The same in all records of one call.
    pub call: Uuid,
    /// Which moment of the call.
    pub phase: Phase,
    /// When, by the replica's clock.
    pub at: OffsetDateTime,
    /// Which replica saw it.
    pub replica: String,
    /// The operation's name.
    pub operation: String,
    /// Who: the agent's UID, where it is proved.
    pub agent_id: Option<AgentId>,
    /// Its name.
    pub agent: String,
    /// The prefix of its API key, or the ServiceAccount that proved it.
    pub key: String,
    /// What it was about.
    pub object: String,
    /// Which version of that; 0 where none is known.
    pub version: u64,
    /// How much was read or written, where that is known.
    pub bytes: u64,
    /// From where.
    pub source: String,
    /// What became of it; empty where that is not known yet.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// What ties it to other hubs' and agents' logs.
    pub correlation_id: String,
    /// Of refusals, how many.
    pub count: u64,
    /// Of what the operator did, what changed.
    pub change: String,
}

/// The source of what the operator did: no caller has it, whose source is an address.
pub const OPERATOR: &str = "operator";

/// Why bytes are no audit record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditRecordError {
    /// Not protobuf.
    #[error("it is no audit record: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// From a newer hub.
    #[error("the audit record has version {0}, and this hub reads version {VERSION}")]
    Version(u32),
    /// A field does not hold what it must.
    #[error("the audit record's field {0} is invalid")]
    Field(&'static str),
}

impl AuditRecord {
    /// The bytes that are logged, and are a leaf of the tree.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let wire = WireRecord {
            version: VERSION,
            call: Bytes::copy_from_slice(self.call.as_bytes()),
            phase: self.phase.number(),
            at: to_micros(self.at),
            replica: self.replica.clone(),
            operation: self.operation.clone(),
            agent_id: self.agent_id.map(|id| Bytes::copy_from_slice(id.0.as_bytes())).unwrap_or_default(),
            agent: self.agent.clone(),
            key: self.key.clone(),
            object: cut(&self.object).to_owned(),
            object_version: self.version,
            bytes: self.bytes,
            source: self.source.clone(),
            outcome: self.outcome.clone(),
            reason: self.reason.clone(),
            correlation_id: self.correlation_id.clone(),
            count: self.count,
            change: cut(&self.change).to_owned(),
        };
        wire.encode_to_vec().into()
    }

    /// Reads what was logged.
    ///
    /// # Errors
    /// Where it is none that this version reads.
    pub fn decode(bytes: &[u8]) -> Result<Self, AuditRecordError> {
        // First, and alone: a newer version may use the other fields differently.
        let WireVersion { version } = WireVersion::decode(bytes)?;
        if version != VERSION {
            return Err(AuditRecordError::Version(version));
        }
        let wire = WireRecord::decode(bytes)?;
        let agent_id = if wire.agent_id.is_empty() { None } else { Some(AgentId(uuid(&wire.agent_id, "agent_id")?)) };
        Ok(Self {
            call: uuid(&wire.call, "call")?,
            phase: Phase::of(wire.phase).ok_or(AuditRecordError::Field("phase"))?,
            at: from_micros(wire.at).ok_or(AuditRecordError::Field("at"))?,
            replica: wire.replica,
            operation: wire.operation,
            agent_id,
            agent: wire.agent,
            key: wire.key,
            object: wire.object,
            version: wire.object_version,
            bytes: wire.bytes,
            source: wire.source,
            outcome: wire.outcome,
            reason: wire.reason,
            correlation_id: wire.correlation_id,
            count: wire.count,
            change: wire.change,
        })
    }
}

fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, AuditRecordError> {
    Uuid::from_slice(bytes).map_err(|_| AuditRecordError::Field(field))
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_OBJECT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireVersion {
    #[prost(uint32, tag = "1")]
    version: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    call: Bytes,
    #[prost(uint32, tag = "3")]
    phase: u32,
    #[prost(int64, tag = "4")]
    at: i64,
    #[prost(string, tag = "5")]
    replica: String,
    #[prost(string, tag = "6")]
    operation: String,
    #[prost(bytes = "bytes", tag = "7")]
    agent_id: Bytes,
    #[prost(string, tag = "8")]
    agent: String,
    #[prost(string, tag = "9")]
    key: String,
    #[prost(string, tag = "10")]
    object: String,
    #[prost(uint64, tag = "11")]
    object_version: u64,
    #[prost(uint64, tag = "12")]
    bytes: u64,
    #[prost(string, tag = "13")]
    source: String,
    #[prost(string, tag = "14")]
    outcome: String,
    #[prost(string, tag = "15")]
    reason: String,
    #[prost(string, tag = "16")]
    correlation_id: String,
    #[prost(uint64, tag = "17")]
    count: u64,
    #[prost(string, tag = "18")]
    change: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(phase: Phase, operation: &str) -> AuditRecord {
        AuditRecord {
            call: Uuid::from_u128(1),
            phase,
            at: OffsetDateTime::UNIX_EPOCH,
            replica: "hub-0".to_owned(),
            operation: operation.to_owned(),
            agent_id: Some(AgentId(Uuid::from_u128(2))),
            agent: "alice".to_owned(),
            key: "k1".to_owned(),
            object: "context 3".to_owned(),
            version: 4,
            bytes: 5,
            source: "192.0.2.1:4711".to_owned(),
            outcome: "done".to_owned(),
            reason: String::new(),
            correlation_id: "c".to_owned(),
            count: 0,
            change: String::new(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for phase in Phase::ALL {
            let written = record(phase, "GetContext");
            assert_eq!(AuditRecord::decode(&written.encode()).unwrap(), written);
        }
        let changed = AuditRecord { change: "role observer to admin".to_owned(), ..record(Phase::Outcome, "AgentChanged") };
        assert_eq!(AuditRecord::decode(&changed.encode()).unwrap(), changed);
        let stranger = AuditRecord { agent_id: None, ..record(Phase::Refusals, "") };
        assert_eq!(AuditRecord::decode(&stranger.encode()).unwrap(), stranger);
    }

    #[test]
    fn newer_ones_and_noise_are_refused() {
        let newer = WireRecord { version: 2, ..WireRecord::default() }.encode_to_vec();
        assert_eq!(AuditRecord::decode(&newer), Err(AuditRecordError::Version(2)));
        assert!(matches!(AuditRecord::decode(b"\xff\xff"), Err(AuditRecordError::Malformed(_))));
        let wire = |change: fn(&mut WireRecord)| {
            let mut wire = WireRecord::decode(record(Phase::Intent, "x").encode()).unwrap();
            change(&mut wire);
            AuditRecord::decode(&wire.encode_to_vec()).unwrap_err()
        };
        assert_eq!(wire(|wire| wire.phase = 0), AuditRecordError::Field("phase"));
        assert_eq!(wire(|wire| wire.phase = 7), AuditRecordError::Field("phase"));
        assert_eq!(wire(|wire| wire.call = Bytes::new()), AuditRecordError::Field("call"));
        assert_eq!(wire(|wire| wire.agent_id = Bytes::from_static(b"x")), AuditRecordError::Field("agent_id"));
        assert_eq!(wire(|wire| wire.at = i64::MAX), AuditRecordError::Field("at"));
    }

    #[test]
    fn what_a_record_is_about_has_a_bound() {
        let long = AuditRecord { object: "ü".repeat(MAX_OBJECT), ..record(Phase::Outcome, "x") };
        let read = AuditRecord::decode(&long.encode()).unwrap();
        assert_eq!(read.object.len(), MAX_OBJECT);
        let odd = AuditRecord { object: format!("x{}", "ü".repeat(MAX_OBJECT)), ..long };
        assert_eq!(AuditRecord::decode(&odd.encode()).unwrap().object.len(), MAX_OBJECT - 1);
    }
}
