//! Changes as the log holds them.

use super::*;
use crate::kit::clock::now;

pub(crate) fn context(payload: Payload) -> Context {
    Context {
        id: ContextId(Uuid::now_v7()),
        kind: "notes".into(),
        creator: AgentId(Uuid::now_v7()),
        creator_name: "writer".into(),
        account: None,
        access: Access { scope: Scope::Group, groups: vec!["red".into()], agents: Vec::new() },
        metadata: BTreeMap::from([("a".into(), "b".into())]),
        version: 3,
        content_type: "text/plain".into(),
        schema: Some(SchemaRef { id: "note".into(), version: "3".into() }),
        payload,
        size: 5,
        sha256: [7; 32],
        created_at: now(),
        updated_at: now(),
        expires_at: Some(now()),
    }
}

#[test]
fn a_change_survives_the_log() {
    for payload in
        [Payload::Inline(Bytes::from_static(b"hello")), Payload::Inline(Bytes::new()), Payload::Chunks(UploadId(Uuid::now_v7()))]
    {
        for change in [Change::Created, Change::Updated] {
            let context = context(payload.clone());
            let record = record(encode(change, &context, None).unwrap()).unwrap();
            assert_eq!(record.key.as_deref(), Some(context.id.0.as_bytes().as_slice()));
            assert!(record.headers.is_empty());
            assert_eq!(decode(&record).unwrap(), Some(Event { change, context, previous: None }));
        }
    }
}

#[test]
fn a_deletion_is_a_tombstone_that_still_says_who_may_know() {
    let context = context(Payload::Inline(Bytes::from_static(b"hello")));
    let record = record(encode(Change::Deleted, &context, None).unwrap()).unwrap();
    assert_eq!(record.value, None);
    let event = decode(&record).unwrap().unwrap();
    assert_eq!((event.change, event.context.id, event.context.access), (Change::Deleted, context.id, context.access));
    // And what a filter may go by.
    assert_eq!((event.context.payload, event.context.metadata), (Payload::Unread, context.metadata));
    assert_eq!(decode(&Record { headers: Vec::new(), ..record }).unwrap(), None, "a bare tombstone says nothing");
}

#[test]
fn what_is_damaged_or_too_large_is_refused() {
    let reason = |result: Result<Bytes, Fault>| result.map(|_| ()).map_err(|fault| fault.reason);
    let large = context(Payload::Inline(vec![0; MAX_INLINE_BYTES].into()));
    assert_eq!(reason(encode(Change::Created, &large, None)), Err("CONTEXT_TOO_LARGE"));
    let garbage = Record { value: Some(Bytes::from_static(b"\xff\xff\xff")), ..Record::default() };
    assert_eq!(decode(&garbage).map_err(|fault| fault.reason), Err("CONTEXT_RECORD_DAMAGED"));
    let small = encode(Change::Created, &context(Payload::Inline(Bytes::from_static(b"hello"))), None).unwrap();
    let stripped = decode(&record(without_payload(small).unwrap()).unwrap()).unwrap().unwrap();
    assert_eq!((stripped.context.payload, stripped.context.size), (Payload::Unread, 5));
}

#[test]
fn an_update_says_what_it_replaced() {
    let before = context(Payload::Inline(Bytes::from_static(b"hello")));
    let after = Context { version: 4, metadata: BTreeMap::new(), ..before.clone() };
    let event = decode(&record(encode(Change::Updated, &after, Some(&before)).unwrap()).unwrap()).unwrap().unwrap();
    let labels = Labels { metadata: before.metadata, content_type: before.content_type, size: 5, access: before.access };
    assert_eq!((event.previous, event.context), (Some(labels), after));
}

#[test]
fn a_record_of_a_newer_hub_is_told_from_a_damaged_one() {
    // Of whatever else it is made.
    let newer = Format { format: FORMAT + 1 }.encode_to_vec();
    let newer = [newer, vec![10, 1, 0]].concat();
    for record in [
        Record { value: Some(newer.clone().into()), ..Record::default() },
        Record { headers: vec![(DELETED.to_owned(), newer.into())], ..Record::default() },
    ] {
        assert_eq!(decode(&record).map_err(|fault| fault.reason), Err(NEWER));
    }
    let without = Record { value: Some(ContextChange::default().encode_to_vec().into()), ..Record::default() };
    assert_eq!(decode(&without).map_err(|fault| fault.reason), Err("CONTEXT_RECORD_DAMAGED"));
}

/// What hubs have written stays readable. These bytes are never made anew: a new format gets files of its own.
#[test]
fn recorded_changes_are_read() {
    let recorded = [
        (Change::Created, include_str!("testdata/context_change_1_created.hex")),
        (Change::Created, include_str!("testdata/context_change_1_streamed.hex")),
        (Change::Updated, include_str!("testdata/context_change_1_updated_audience.hex")),
        (Change::Deleted, include_str!("testdata/context_change_1_deleted.hex")),
    ];
    for ((change, text), written) in recorded.into_iter().zip(written()) {
        let bytes = Bytes::from(hex::decode(text.trim()).unwrap());
        let expected = decode(&record(written.clone()).unwrap()).unwrap().unwrap();
        assert_eq!(decode(&record(bytes.clone()).unwrap()).unwrap(), Some(expected));
        assert_eq!(written, bytes, "{change:?} is written otherwise than before");
    }
}

/// An update did not say for which groups and agents the version before it was while that could not change.
#[test]
fn an_update_of_an_earlier_hub_is_read() {
    let bytes = Bytes::from(hex::decode(include_str!("testdata/context_change_1_updated.hex").trim()).unwrap());
    let [_, _, updated, _] = written();
    let mut expected = decode(&record(updated).unwrap()).unwrap().unwrap();
    expected.previous.as_mut().unwrap().access.groups.clear();
    assert_eq!(decode(&record(bytes).unwrap()).unwrap(), Some(expected));
}

/// The four kinds of change, of contexts that are the same each time.
fn written() -> [Bytes; 4] {
    let time = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let whole = |payload| Context {
        id: ContextId(Uuid::from_u128(1)),
        creator: AgentId(Uuid::from_u128(2)),
        created_at: time,
        updated_at: time,
        expires_at: Some(time),
        ..context(payload)
    };
    let created = whole(Payload::Inline(Bytes::from_static(b"hello")));
    let streamed = Context { schema: None, expires_at: None, ..whole(Payload::Chunks(UploadId(Uuid::from_u128(3)))) };
    let updated = Context {
        version: 4,
        metadata: BTreeMap::from([("b".into(), "c".into())]),
        access: Access { scope: Scope::Shared, groups: Vec::new(), agents: vec!["reader".into()] },
        payload: Payload::Inline(Bytes::new()),
        size: 0,
        ..created.clone()
    };
    [
        encode(Change::Created, &created, None).unwrap(),
        encode(Change::Created, &streamed, None).unwrap(),
        encode(Change::Updated, &updated, Some(&created)).unwrap(),
        encode(Change::Deleted, &updated, None).unwrap(),
    ]
}
