//! Envelopes, records and audit records as the first hub of their version wrote them, byte for byte. What is in a log stays there for a week, and the audit for good: whoever changes a format unseen makes hubs
//! misread it. A new version gets new files here; these stay.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use acb_hub_core::{
    audit::record::{AuditRecord, Phase},
    directory::agent::AgentId,
    messages::{
        envelope::Envelope,
        message::{Address, Message, MessageType},
        record,
    },
};
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

const ENVELOPE: &str = include_str!("envelope-1.hex");
const ANSWER: &str = include_str!("envelope-1-answer.hex");
const ON_ACCOUNT: &str = include_str!("envelope-1-account.hex");
const AUDIT: &str = include_str!("audit-1.hex");
const REFUSALS: &str = include_str!("audit-1-refusals.hex");
const OF_OPERATOR: &str = include_str!("audit-1-operator.hex");
const LIST: &str = include_str!("envelope-3.hex");
const RECORD: &str = include_str!("record-2.hex");
const RECORD_WITH_LIST: &str = include_str!("record-3.hex");

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(micros: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::microseconds(micros)
}

/// Every field.
fn envelope() -> Envelope {
    Envelope {
        message: Message {
            id: Uuid::from_u128(1),
            from_id: AgentId(Uuid::from_u128(2)),
            from: "scout".to_owned(),
            to: Address::Agent("worker".to_owned()),
            to_ids: vec![AgentId(Uuid::from_u128(3))],
            topic: "work.new".to_owned(),
            kind: MessageType::Query,
            content_type: "application/json".to_owned(),
            payload: Bytes::from_static(b"{}"),
            context_id: Uuid::from_u128(4).to_string(),
            idempotency_key: "k".to_owned(),
            correlation_id: "c".to_owned(),
            reply_to: Some(Address::Request { agent: "scout".to_owned(), request_id: Uuid::from_u128(5) }),
            metadata: BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]),
            accepted_at: at(1_700_000_000_000_001),
            sent_at: at(1_700_000_000_000_000),
            expires_at: at(1_700_000_030_000_000),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: "x=y".to_owned(),
            replayed_from: Some(Uuid::from_u128(6)),
        },
        digest: [7; 32],
        method: "request".to_owned(),
        account: None,
        original: None,
    }
}

/// The other addresses, and nothing that may be missing.
fn answer() -> Envelope {
    let Envelope { message, .. } = envelope();
    Envelope {
        message: Message {
            to: Address::Request { agent: "scout".to_owned(), request_id: Uuid::from_u128(5) },
            to_ids: vec![],
            kind: MessageType::Response,
            content_type: String::new(),
            context_id: String::new(),
            idempotency_key: String::new(),
            correlation_id: String::new(),
            reply_to: Some(Address::Group("pair".to_owned())),
            metadata: BTreeMap::new(),
            traceparent: String::new(),
            tracestate: String::new(),
            replayed_from: None,
            ..message
        },
        digest: [8; 32],
        method: "send".to_owned(),
        account: None,
        original: None,
    }
}

/// For several agents.
fn list() -> Envelope {
    let Envelope { message, digest, .. } = envelope();
    let to = Address::agents(vec!["worker".to_owned(), "other".to_owned()]).unwrap();
    let to_ids = vec![AgentId(Uuid::from_u128(9)), AgentId(Uuid::from_u128(3))];
    Envelope {
        message: Message { to, to_ids, reply_to: None, ..message },
        digest,
        method: "send".to_owned(),
        account: None,
        original: None,
    }
}

/// Of an agent that another one registered.
fn on_account() -> Envelope {
    Envelope { account: Some(AgentId(Uuid::from_u128(10))), ..envelope() }
}

#[test]
fn an_envelope_of_version_1_is_read_and_written_as_it_was() {
    for (recorded, envelope) in [(ENVELOPE, envelope()), (ANSWER, answer()), (ON_ACCOUNT, on_account())] {
        assert_eq!(hex(&envelope.encode()), hex(&bytes(recorded)));
        assert_eq!(Envelope::decode(&bytes(recorded)).unwrap(), envelope);
    }
}

#[test]
fn an_envelope_for_several_agents_is_read_and_written_as_it_was() {
    assert_eq!(hex(&list().encode()), hex(&bytes(LIST)));
    assert_eq!(Envelope::decode(&bytes(LIST)).unwrap(), list());
    assert_eq!(record::decode(&bytes(LIST)).unwrap(), [list()]);
    let messages = [answer(), list()];
    assert_eq!(hex(&record::encode(&messages).value.unwrap()), hex(&bytes(RECORD_WITH_LIST)));
    assert_eq!(record::decode(&bytes(RECORD_WITH_LIST)).unwrap(), messages);
}

#[test]
fn a_record_of_several_messages_is_read_and_written_as_it_was() {
    let messages = [envelope(), answer()];
    assert_eq!(hex(&record::encode(&messages).value.unwrap()), hex(&bytes(RECORD)));
    assert_eq!(record::decode(&bytes(RECORD)).unwrap(), messages);
    assert_eq!(record::decode(&bytes(ENVELOPE)).unwrap(), [envelope()]);
}

#[test]
fn a_time_that_no_date_can_say_is_no_envelope() {
    // `expires_at` is field 19: its last value counts.
    for micros in [i64::MAX, i64::MIN] {
        let mut endless = bytes(ENVELOPE).to_vec();
        endless.extend([0x98, 0x01]);
        prost::encoding::encode_varint(micros.cast_unsigned(), &mut endless);
        assert!(Envelope::decode(&endless.into()).unwrap_err().to_string().contains("expires_at"));
    }
}

/// A read, with every field that a call has.
fn read() -> AuditRecord {
    AuditRecord {
        call: Uuid::from_u128(1),
        phase: Phase::Outcome,
        at: at(1_700_000_000_000_001),
        replica: "hub-0".to_owned(),
        operation: "GetContext".to_owned(),
        agent_id: Some(AgentId(Uuid::from_u128(2))),
        agent: "scout".to_owned(),
        key: "k1".to_owned(),
        object: format!("context {}", Uuid::from_u128(3)),
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

/// A sum, of strangers.
fn refusals() -> AuditRecord {
    AuditRecord {
        call: Uuid::from_u128(6),
        phase: Phase::Refusals,
        at: at(1_700_000_000_000_002),
        replica: "hub-1".to_owned(),
        operation: "Heartbeat".to_owned(),
        agent_id: None,
        agent: String::new(),
        key: String::new(),
        object: String::new(),
        version: 0,
        bytes: 0,
        source: "2001:db8::".to_owned(),
        outcome: "refused".to_owned(),
        reason: "TOKEN_REQUIRED".to_owned(),
        correlation_id: String::new(),
        count: 7,
        change: String::new(),
    }
}

/// Something that the operator did.
fn of_operator() -> AuditRecord {
    AuditRecord {
        call: Uuid::from_u128(7),
        phase: Phase::Outcome,
        at: at(1_700_000_000_000_003),
        replica: "acb-operator-0".to_owned(),
        operation: "AgentChanged".to_owned(),
        agent_id: None,
        agent: String::new(),
        key: String::new(),
        object: "agent scout".to_owned(),
        version: 0,
        bytes: 0,
        source: "operator".to_owned(),
        outcome: "done".to_owned(),
        reason: String::new(),
        correlation_id: String::new(),
        count: 0,
        change: "role observer to admin".to_owned(),
    }
}

#[test]
fn an_audit_record_of_version_1_is_read_and_written_as_it_was() {
    for (recorded, record) in [(AUDIT, read()), (REFUSALS, refusals()), (OF_OPERATOR, of_operator())] {
        assert_eq!(hex(&record.encode()), hex(&bytes(recorded)));
        assert_eq!(AuditRecord::decode(&bytes(recorded)).unwrap(), record);
    }
}
