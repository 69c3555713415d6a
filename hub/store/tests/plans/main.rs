//! What the queries that a hub asks all the time read: a few rows, however many there are. PostgreSQL itself says so, of the very statements that
//! the hub sends: `auto_explain` writes the plan of each into the server's log, with the rows that it went through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod explained;

use std::{collections::BTreeMap, time::Duration};

use acb_hub_core::{
    audit::ports::{AuditFilter, AuditStore as _},
    contexts::{
        context::ContextId,
        ports::{AccessStore as _, ContextStore as _, ListFilter},
        visibility::Viewer,
    },
    directory::{
        agent::{Agent, AgentId, Role},
        encryption_keys::EncryptionKeyStore as _,
        limits::Limits,
        presence::PresenceStore as _,
    },
    door::{
        ports::CredentialStore as _,
        refresh_token::{NewFamily, REFRESH_TOKEN_LIFE},
    },
    fault::Fault,
    log::outbox::ports::Outbox as _,
    messages::{
        letter::{LetterFilter, LetterReason, LetterRecipient},
        letter_store::LetterStore as _,
        ports::{Acknowledged, CursorFlush, CursorStore as _, MailboxAddress, MailboxStore as _},
        trace::store::TraceStore as _,
        usage_store::{Period, SumFilter, UsageStore as _, Whose},
    },
    timers::ports::TimerStore,
};
use acb_hub_store::{contexts::context::PgContexts, log::outbox::PgOutbox};
use explained::Explained;
use sha2::Digest as _;
use time::OffsetDateTime;
use uuid::Uuid;

const EPOCH: u64 = 7;

/// Agents number 0 to 99 have a hundred rows each of what agents have many of.
fn agent(number: u128) -> AgentId {
    AgentId(Uuid::from_u128(number))
}

/// Sees what is public, and there is nothing.
fn stranger() -> Agent {
    Agent {
        id: agent(1 << 64),
        name: "stranger".to_owned(),
        kind: String::new(),
        capabilities: Vec::new(),
        groups: Vec::new(),
        location: String::new(),
        metadata: BTreeMap::new(),
        role: Role::Full,
        publishes: Vec::new(),
        subscribes: vec!["notes".to_owned()],
        limits: Limits::default(),
        suspended: false,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

/// Ten thousand rows of each. `$n` is the number of the row, `$a` that of one of a hundred agents, `$t` the tenant.
const ROWS: [&str; 12] = [
    "INSERT INTO acb.agent (tenant_id, agent_id, name, role) SELECT $t, $n, 'agent-' || n, 'agent-full' FROM $rows",
    "INSERT INTO acb.api_key (tenant_id, prefix, agent_id, hmac) SELECT $t, 'key' || n, $n, $32 FROM $rows",
    "INSERT INTO acb.presence (tenant_id, agent_id, session_epoch, receiving) SELECT $t, $n, 1, true FROM $rows",
    "INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, position, log_time, expires_at)
     SELECT $t, 'a:' || $a, 7, 0, n, now(), now() + CASE WHEN n < 5 THEN -1 ELSE 1 END * interval '1 hour' FROM $rows",
    "INSERT INTO acb.cursor (tenant_id, agent_id, epoch, partition, acknowledged_below) SELECT $t, $n, 7, 0, 0 FROM $rows",
    "INSERT INTO acb.timer (tenant_id, timer_id, kind, subject, key, digest, content, made_at, due_at, try_at, settled_at)
     SELECT $t, $n, 'send', $a, '', $32, '', now(), now() + d, now() + d, CASE WHEN n >= 1000 THEN now() END
     FROM $rows, LATERAL (SELECT CASE WHEN n < 5 THEN -1 ELSE 1 END * interval '1 hour' AS d) AS due",
    "INSERT INTO acb.upload (tenant_id, upload_id, agent_id, request, size, chunk_size, context_id) SELECT $t, $n, $a, '{}', 1, 1, $n FROM $rows",
    "INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, upload_id, size, sha256, expires_at)
     SELECT $t, $n, 'notes', $a, 'agent', 'private', $n, 1, $32, now() + CASE WHEN n < 5 THEN -1 ELSE 1 END * interval '1 hour' + n * interval '1 ms' FROM $rows",
    "INSERT INTO acb.outbox (tenant_id, noun, instance, topic, content) SELECT $t, 'context', $a, 'notes', '' FROM $rows",
    "INSERT INTO acb.dead_letter (tenant_id, letter_id, message_id, reason, attempts, sender, sender_name, recipient, recipient_name, topic,
                                  type, size, sent_at, expires_at, dead_at, epoch, partition, \"offset\")
     SELECT $t, $n, $n, 'expired', 0, $a, 'agent-' || n % 100, 'a:' || $a, 'agent-' || n % 100, '', 'event', 1, now(), now(), now(), 7, 0, n FROM $rows",
    "INSERT INTO acb.audit_record (tenant_id, number, record, at, agent, operation) SELECT $t, n, '', now(), 'agent-' || n % 100, 'Send' FROM $rows",
    "INSERT INTO acb.usage_sum (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
     SELECT $t, 'hour', '2026-11-01'::timestamptz + n / 100 * interval '1 hour', $a, 'agent-' || n % 100, 1, 1 FROM $rows",
];

const TRACES: &str = "INSERT INTO acb.message_trace (tenant_id, epoch, partition, section, replica, events) SELECT $t, 7, 0, n, 'r', 'x' FROM $rows";
const TOKENS: &str = "INSERT INTO acb.refresh_token (tenant_id, token_hash, family, agent_id, key_prefix, expires_at)
    SELECT $t, sha256(n::text::bytea), $n, $a, 'key1', now() + interval '1 day' FROM $rows";
const KEYS: &str = "INSERT INTO acb.encryption_key (tenant_id, agent_id, key_id, suite, public_key)
    SELECT $t, $a, sha256(n::text::bytea), 'suite', 'k' FROM $rows";

/// The statement for these ten thousand rows.
fn filled(statement: &str, tenant: &str) -> String {
    let uuid = |number: &str| format!("lpad(to_hex({number}), 32, '0')::uuid");
    statement
        .replace("$rows", "generate_series(0, 9999) AS n")
        .replace("$t", &format!("'\\x{tenant}'::bytea"))
        .replace("$n", &uuid("n"))
        .replace("$a", &uuid("n % 100"))
        .replace("$32", "sha256('x')")
}

async fn world() -> Explained {
    let world = Explained::start().await;
    world.store.checkpoints(EPOCH, 1).await.unwrap();
    for statement in ROWS.iter().chain([&TOKENS, &KEYS, &TRACES]) {
        world.execute(&filled(statement, world.tenant.id_hex())).await;
    }
    world
        .execute(&format!(
            "UPDATE acb.mailbox_checkpoint SET next_position = 10000 WHERE tenant_id = '\\x{}'",
            world.tenant.id_hex()
        ))
        .await;
    world.execute("ANALYZE").await;
    world
}

/// How many rows a hub may read of each table that it asks, each time that it does so.
macro_rules! reads {
    ($world:ident, $what:literal, $asked:expr, $($table:literal <= $most:literal),+) => {
        $world.reads($what, &[$(($table, $most)),+], async || -> Result<(), Fault> { let _answer = $asked; Ok(()) }).await;
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn what_agents_ask_for_reads_what_is_theirs() {
    let world = world().await;
    let store = &world.store;
    let contexts = PgContexts::new(store);
    let mailbox = [MailboxAddress::Agent(agent(3)), MailboxAddress::All];
    let asks = |number| CursorFlush {
        agent: agent(number),
        session_epoch: 1,
        cursors: Vec::new(),
        attempts: Vec::new(),
        closing: false,
        clean: true,
    };
    reads!(world, "GetAgent", store.presence(&[agent(3)]).await?, "presence" <= 1);
    reads!(world, "an API key", store.api_key("key77").await?, "api_key" <= 1);
    reads!(world, "public keys", store.keys(&[agent(3)]).await?, "encryption_key" <= 100);
    reads!(world, "a session that asks", store.flush(EPOCH, vec![asks(3), asks(5000)]).await?, "presence" <= 2);
    reads!(world, "cursors", store.cursors(EPOCH, &[agent(3)], &[0]).await?, "cursor" <= 1);
    reads!(world, "a page of unread messages", store.entries(EPOCH, &mailbox, &[(0, 0..10_000)], 10).await?, "mailbox" <= 10);
    reads!(world, "a context", contexts.get(ContextId(Uuid::from_u128(77))).await?, "context" <= 1);
    reads!(world, "access", contexts.access(&[ContextId(Uuid::from_u128(77))]).await?, "context" <= 1);
    reads!(world, "what an account keeps", contexts.kept(Some(&[agent(3)])).await?, "context" <= 100, "upload" <= 0);
    // Behind the rows that the caller sees there are none: the look goes on up to its end. Where that is, an index says.
    let (nobody, all) = (Viewer::of(&stranger()), ListFilter::default());
    reads!(world, "contexts of one who sees none", contexts.list(&nobody, all, 64).await?, "context" <= 2048);
    reads!(
        world,
        "the same of one type",
        contexts.list(&nobody, ListFilter { kind: Some("notes"), after: None }, 64).await?,
        "context" <= 2048
    );
    let own = LetterFilter { own: Some(agent(3)), ..LetterFilter::default() };
    reads!(world, "a page of own letters", store.letters(&own, None, 10).await?, "dead_letter" <= 10);
    let of = LetterFilter { sender: Some("agent-3".to_owned()), ..LetterFilter::default() };
    reads!(world, "a page of a sender's letters", store.letters(&of, None, 10).await?, "dead_letter" <= 10);
    let to = LetterFilter { recipient: Some(LetterRecipient::Own(agent(3))), ..LetterFilter::default() };
    reads!(world, "a page of a mailbox's letters", store.letters(&to, None, 10).await?, "dead_letter" <= 10);
    let why = LetterFilter { reason: Some(LetterReason::Expired), ..LetterFilter::default() };
    reads!(world, "a page of expired letters", store.letters(&why, None, 10).await?, "dead_letter" <= 10);
    let records = AuditFilter { agent: Some("agent-3".to_owned()), ..AuditFilter::default() };
    reads!(world, "an agent's audit records", store.records(&records, 0, 10).await?, "audit_record" <= 10, "audit_node" <= 0);
    let sums = SumFilter { whose: Whose::Agent(agent(3)), by: Period::Hour, from: None, to: None, after: None };
    reads!(world, "an agent's usage", store.sums(&sums, 10).await?, "usage_sum" <= 10);
    let token = |number: u128| <[u8; 32]>::from(sha2::Sha256::digest(number.to_string()));
    reads!(world, "an unknown refresh token", store.rotate_refresh([0; 32], [1; 32]).await?, "refresh_token" <= 0);
    reads!(world, "a refresh token to revoke", store.revoke_refresh(token(9)).await?, "refresh_token" <= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_does_by_itself_reads_what_is_to_be_done() {
    let world = world().await;
    let store = &world.store;
    let (contexts, outbox) = (PgContexts::new(store), PgOutbox::new(store));
    // Nobody holds them longer than the question takes.
    reads!(world, "expired rows", store.claim_expired(EPOCH, Duration::from_micros(1), 100).await?, "mailbox" <= 20);
    reads!(world, "due timers", TimerStore::claim(store, &["send"], &[]).await?, "timer" <= 10);
    reads!(world, "timers that wait", store.waiting(&["send"]).await?, "timer" <= 1000);
    let family = |id| NewFamily { id, agent: agent(101), key: "key1".to_owned(), life: REFRESH_TOKEN_LIFE };
    reads!(
        world,
        "a login",
        store.insert_refresh(sha2::Sha256::digest(Uuid::new_v4()).into(), &family(Uuid::new_v4())).await?,
        "refresh_token" <= 200
    );
    reads!(world, "traces to forget", store.forget_traces(Duration::from_secs(3600), 1 << 40).await?, "message_trace" <= 10_010);
    let earlier = OffsetDateTime::UNIX_EPOCH;
    reads!(world, "hours to forget", store.forget_hours(earlier, 100).await?, "usage_sum" <= 0);
    reads!(world, "expired contexts", contexts.expired(None, 100).await?, "context" <= 5);
    // The place itself is looked at again: an index leads to the time of it.
    let page = contexts.expired(None, 4).await.unwrap();
    assert_eq!(contexts.expired(page.next, 4).await.unwrap().contexts.len(), 1);
    reads!(world, "a further page of expired contexts", contexts.expired(page.next, 100).await?, "context" <= 2);
    reads!(world, "the outbox", outbox.claim(&["context"], None, &[]).await?, "outbox" <= 100);
    reads!(world, "letters that the log forgot", store.forget_letters(EPOCH, &[(0, 0)], 100).await?, "dead_letter" <= 0);
    let range = [Acknowledged { agent: agent(3), partition: 0, range: 0..1 }];
    reads!(world, "acknowledged rows", store.remove_acknowledged(EPOCH, &range, 100).await?, "mailbox" <= 0);
    // With its upload goes the look whether another context has it.
    let mut next = 9000;
    for _ in 0..Explained::TIMES {
        next += 1;
        let id = ContextId(Uuid::from_u128(next));
        let (_, plans) = world.explained(async { contexts.delete(id, 1, bytes::Bytes::new()).await.unwrap() }).await;
        for (table, most) in [("context", 2.0), ("upload", 2.0), ("chunk", 1.0)] {
            let read = explained::rows_read(&plans, table);
            assert!(read <= most, "a deleted context: {read} rows of {table}, in {plans:#?}");
        }
        assert!(
            plans.iter().any(|plan| plan.text.contains("ONLY \"acb\".\"context\"")),
            "the reference is looked at: {plans:#?}"
        );
    }
}
