//! The audit trail in the log: what is there before a call is carried out or answered, and that nothing is where it can't be.

use std::time::Duration;

use acb_hub_core::audit::record::{AuditRecord, Phase};
use acb_operator::plan::AgentRow;
use acb_proto::v1::{
    Address, CreateContextRequest, FollowAuditRecordsRequest, GetContextRequest, GetMessageTraceRequest, HeartbeatRequest,
    ListAuditRecordsRequest, OutgoingMessage, SendMessageRequest, SubscribeRequest, address::To,
    audit_service_client::AuditServiceClient, context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient, trace_service_client::TraceServiceClient,
};
use acb_testbed::{Postgres, TestAgent};
use prost::Message as _;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::hub::{Hub, reason, with};

/// What the log has now, of the calls of these operations.
pub async fn logged(hub: &Hub, operations: &[&str]) -> Vec<AuditRecord> {
    let mut superuser = Postgres::shared().await.superuser().await;
    let values: Vec<Vec<u8>> = sqlx::query_scalar(
        r#"SELECT value FROM acb.bus_record WHERE tenant_id = $1 AND topic LIKE '%.sys.audit' ORDER BY "offset""#,
    )
    .bind(hub.tenant.id_bytes())
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let records = values.iter().filter_map(|value| AuditRecord::decode(value).ok());
    records.filter(|record| operations.contains(&record.operation.as_str())).collect()
}

/// Waits until the log has so many.
pub async fn logged_so_many(hub: &Hub, operations: &[&str], count: usize) -> Vec<AuditRecord> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let records = logged(hub, operations).await;
        if records.len() >= count {
            return records;
        }
        assert!(Instant::now() < deadline, "{records:?}\n{}", hub.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// An agent that shares notes, and its token.
pub async fn alice(hub: &Hub) -> (TestAgent, String) {
    hub.tenant.context_type("notes", 1).await;
    let mut row = hub.tenant.agent_row("alice");
    row.publishes = vec!["notes".to_owned()];
    row.subscribes = vec!["notes".to_owned()];
    let agent = hub.tenant.project(&row).await;
    let token = hub.exchange(&agent.api_key).await.unwrap().access_token;
    (agent, token)
}

pub fn note() -> CreateContextRequest {
    CreateContextRequest { r#type: "notes".to_owned(), payload: "12345".into(), ..CreateContextRequest::default() }
}

pub fn contexts(hub: &Hub) -> ContextServiceClient<Channel> {
    ContextServiceClient::new(hub.channel())
}

#[tokio::test]
async fn a_change_has_its_intent_and_its_outcome_in_the_log() {
    let hub = Hub::start().await;
    let (alice, token) = alice(&hub).await;
    let mut create = with(&token, note());
    create.metadata_mut().insert("x-correlation-id", "case-7".parse().unwrap());
    let created = contexts(&hub).create_context(create).await.unwrap();
    assert_eq!(created.metadata().get("x-correlation-id").unwrap(), "case-7", "its caller is told");
    let id = created.into_inner().id;
    assert_eq!(logged(&hub, &["CreateContext"]).await[0].phase, Phase::Intent, "before it is answered");
    let records = logged_so_many(&hub, &["CreateContext"], 2).await;
    let [intent, outcome] = &records[..] else { panic!("{records:?}") };
    assert_eq!((intent.phase, outcome.phase), (Phase::Intent, Phase::Outcome));
    assert_eq!((intent.call, intent.outcome.as_str()), (outcome.call, ""));
    for record in [intent, outcome] {
        assert_eq!((record.agent_id.unwrap().0, record.agent.as_str()), (alice.id, "alice"));
        assert_eq!((record.key.as_str(), record.replica.as_str()), (alice.api_key.split('_').nth(1).unwrap(), "hub-0"));
        assert!(record.source.starts_with("127.0.0.1:") && record.correlation_id == "case-7", "{record:?}");
    }
    assert_eq!((&outcome.object, outcome.version, outcome.bytes), (&format!("context {id}"), 1, 5));
    assert_eq!((outcome.outcome.as_str(), outcome.reason.as_str()), ("done", ""));
}

#[tokio::test]
async fn what_the_operator_did_is_listed_once_with_what_changed() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("auditor", "auditor").await;
    let row = hub.tenant.agent_row("planner");
    hub.tenant.project(&row).await;
    hub.tenant.project(&AgentRow { role: "observer".to_owned(), suspended: true, ..row }).await;
    let mut trail = AuditServiceClient::new(hub.channel());
    let deadline = Instant::now() + Duration::from_secs(60);
    let records = loop {
        let request = ListAuditRecordsRequest { page_size: 1000, ..ListAuditRecordsRequest::default() };
        let listed = trail.list_audit_records(with(&token, request)).await.unwrap().into_inner().records;
        let read = listed.iter().map(|logged| acb_proto::v1::AuditRecord::decode(logged.record.clone()).unwrap());
        let records: Vec<_> = read.filter(|read| read.source == "operator" && read.object == "agent planner").collect();
        if records.len() >= 4 {
            break records;
        }
        assert!(Instant::now() < deadline, "{records:?}\n{}", hub.log());
        sleep(Duration::from_millis(200)).await;
    };
    let told: Vec<_> = records.iter().map(|read| (read.operation.as_str(), read.change.as_str())).collect();
    assert_eq!(told[2..], [("AgentChanged", "role agent-full to observer"), ("AgentSuspended", "")]);
    assert_eq!((told.len(), told[0].0, told[1].0), (4, "AgentAdded", "ApiKeyIssued"));
    assert!(records.iter().all(|read| read.agent.is_empty() && read.key.is_empty() && read.outcome == "done"), "{records:?}");
}

#[tokio::test]
async fn what_is_read_is_in_the_log_before_its_reader_has_it() {
    let hub = Hub::start().await;
    let (_, token) = alice(&hub).await;
    let id = contexts(&hub).create_context(with(&token, note())).await.unwrap().into_inner().id;
    for read in 1..=5 {
        contexts(&hub).get_context(with(&token, GetContextRequest { id: id.clone() })).await.unwrap();
        let records = logged(&hub, &["GetContext"]).await;
        let last = records.last().unwrap();
        assert_eq!((records.len(), last.phase, last.outcome.as_str()), (read, Phase::Outcome, "done"));
        assert_eq!((&last.object, last.version, last.bytes), (&format!("context {id}"), 1, 5));
    }
    let subscribe = SubscribeRequest { r#type: "notes".to_owned(), ..SubscribeRequest::default() };
    let mut subscription = contexts(&hub).subscribe(with(&token, subscribe)).await.unwrap().into_inner();
    subscription.message().await.unwrap();
    let begun = logged(&hub, &["Subscribe"]).await;
    assert_eq!(begun.iter().map(|record| record.phase).collect::<Vec<_>>(), [Phase::Begin]);
    drop(subscription);
    let records = logged_so_many(&hub, &["Subscribe"], 2).await;
    let end = &records[1];
    assert_eq!((end.phase, end.call, end.outcome.as_str()), (Phase::End, begun[0].call, "left"));
    assert!(end.bytes > 0, "{end:?}");
}

#[tokio::test]
async fn nothing_is_done_that_the_log_does_not_know_of() {
    let hub = Hub::start().await;
    let (alice, token) = alice(&hub).await;
    let id = contexts(&hub).create_context(with(&token, note())).await.unwrap().into_inner().id;
    let mut superuser = Postgres::shared().await.superuser().await;
    sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
    let mut execute = async |sql: &'static str| {
        sqlx::query(sql).bind(hub.tenant.id_bytes()).execute(&mut superuser).await.unwrap();
    };
    execute("UPDATE acb.bus_partition SET partition = 1000 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'").await;
    let created = contexts(&hub).create_context(with(&token, note())).await.unwrap_err();
    let read = contexts(&hub).get_context(with(&token, GetContextRequest { id: id.clone() })).await.unwrap_err();
    let subscribed = SubscribeRequest { r#type: "notes".to_owned(), ..SubscribeRequest::default() };
    let subscribed = contexts(&hub).subscribe(with(&token, subscribed)).await.unwrap_err();
    let login = hub.exchange(&alice.api_key).await.unwrap_err();
    for status in [created, read, subscribed, login] {
        assert_eq!((status.code(), reason(&status).as_str()), (tonic::Code::Unavailable, "AUDIT_UNAVAILABLE"));
    }
    hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.expect("it is not audited");
    let mut rows = Postgres::shared().await.superuser().await;
    let count = "SELECT count(*) FROM acb.context WHERE tenant_id = $1";
    let contexts_there: i64 = sqlx::query_scalar(count).bind(hub.tenant.id_bytes()).fetch_one(&mut rows).await.unwrap();
    assert_eq!(contexts_there, 1, "nothing was created");
    hub.until("/metrics", |_, metrics| metrics.contains("acb_audit_unavailable_total 4")).await;

    execute("UPDATE acb.bus_partition SET partition = 0 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'").await;
    contexts(&hub).get_context(with(&token, GetContextRequest { id })).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_strangers_makes_few_records() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("olaf", "observer").await;
    for _ in 0..40 {
        hub.agents().heartbeat(HeartbeatRequest {}).await.unwrap_err();
    }
    for _ in 0..3 {
        hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap_err();
        hub.exchange("acb_nobody_at-all").await.unwrap_err();
    }
    let is_there = |records: &[AuditRecord]| records.iter().map(|record| record.count).sum::<u64>() == 46;
    let deadline = Instant::now() + Duration::from_secs(30);
    let sums = loop {
        let mut records = logged(&hub, &["Heartbeat", "ExchangeToken"]).await;
        records.retain(|record| record.phase == Phase::Refusals);
        if is_there(&records) {
            break records;
        }
        assert!(Instant::now() < deadline, "{records:?}");
        sleep(Duration::from_millis(50)).await;
    };
    // They may be of two times of ten seconds.
    assert!(sums.len() <= 6, "{sums:?}");
    for record in &sums {
        assert_eq!((record.source.as_str(), record.outcome.as_str()), ("127.0.0.1", "refused"));
        let expected = match (record.operation.as_str(), record.agent.as_str()) {
            ("Heartbeat", "") => "TOKEN_REQUIRED",
            ("Heartbeat", "olaf") => "ROLE_LACKS_PERMISSION",
            ("ExchangeToken", "") => "CREDENTIAL_REFUSED",
            other => panic!("{other:?}"),
        };
        assert_eq!(record.reason, expected);
    }
}

/// What this agent did, as an administrator reads it once the trail has it.
pub async fn listed(hub: &Hub, token: &str, operation: &str, agent: &str) -> Vec<AuditRecord> {
    let mut audit = AuditServiceClient::new(hub.channel());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (operation, agent) = (operation.to_owned(), agent.to_owned());
        let request = ListAuditRecordsRequest { operation, agent, ..ListAuditRecordsRequest::default() };
        let page = audit.list_audit_records(with(token, request)).await.unwrap().into_inner();
        if !page.records.is_empty() {
            return page.records.iter().map(|logged| AuditRecord::decode(&logged.record).unwrap()).collect();
        }
        assert!(Instant::now() < deadline, "{}", hub.log());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_trail_is_read_by_administrators_alone_and_that_is_in_it() {
    let hub = Hub::start().await;
    let (_, root) = hub.agent("root", "admin").await;
    let (_, full) = hub.agent("full", "agent-full").await;
    let refused =
        AuditServiceClient::new(hub.channel()).list_audit_records(with(&full, ListAuditRecordsRequest::default())).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
    let logins = listed(&hub, &root, "ExchangeToken", "root").await;
    assert_eq!((logins[0].agent.as_str(), logins[0].outcome.as_str()), ("root", "done"));
    let reads = listed(&hub, &root, "ListAuditRecords", "root").await;
    assert_eq!(reads[0].agent, "root");
    hub.until("/metrics", |_, metrics| !metrics.contains("acb_audit_tree_size 0")).await;
}

#[tokio::test]
async fn who_follows_the_trail_is_told_what_is_logged_from_then_on_and_from_where_it_was() {
    let hub = Hub::start().await;
    let (_, root) = hub.agent("root", "admin").await;
    let (_, token) = alice(&hub).await;
    listed(&hub, &root, "ExchangeToken", "alice").await;
    let mut audit = AuditServiceClient::new(hub.channel());
    let of_alice = |first| FollowAuditRecordsRequest { agent: "alice".to_owned(), operation: "CreateContext".to_owned(), first };
    let mut follow = audit.follow_audit_records(with(&root, of_alice(None))).await.unwrap().into_inner();
    let stands = follow.message().await.unwrap().unwrap();
    assert!(stands.records.is_empty() && stands.next > 0, "{stands:?}");
    assert_eq!(logged(&hub, &["FollowAuditRecords"]).await[0].phase, Phase::Begin, "before its first answer");

    contexts(&hub).create_context(with(&token, note())).await.unwrap();
    let (mut phases, mut last) = (Vec::new(), stands.next);
    while phases.len() < 2 {
        let told = follow.message().await.unwrap().unwrap();
        for logged in &told.records {
            assert!((last..told.next).contains(&logged.number), "{last} {told:?}");
            let record = AuditRecord::decode(&logged.record).unwrap();
            assert_eq!((record.agent.as_str(), record.operation.as_str()), ("alice", "CreateContext"));
            phases.push(record.phase);
        }
        last = told.next;
    }
    assert_eq!(phases, [Phase::Intent, Phase::Outcome]);

    // From where it was: nothing twice, nothing left out.
    contexts(&hub).create_context(with(&token, note())).await.unwrap();
    let mut again = audit.follow_audit_records(with(&root, of_alice(Some(last)))).await.unwrap().into_inner();
    assert_eq!(again.message().await.unwrap().unwrap().next, last);
    let told = again.message().await.unwrap().unwrap();
    assert!(told.records.first().unwrap().number >= last);
    assert_eq!(AuditRecord::decode(&told.records[0].record).unwrap().phase, Phase::Intent);

    let beyond = audit.follow_audit_records(with(&root, of_alice(Some(1_000_000)))).await.unwrap_err();
    assert_eq!((beyond.code(), reason(&beyond).as_str()), (tonic::Code::OutOfRange, "AUDIT_TREE_SMALLER"));
    let refused = audit.follow_audit_records(with(&token, of_alice(None))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_call_that_names_no_correlation_has_one_and_so_has_what_it_sends() {
    let hub = Hub::start().await;
    hub.tenant.project(&hub.tenant.agent_row("bob")).await;
    let (_, token) = alice(&hub).await;
    let mut messages = MessageServiceClient::new(hub.channel());
    let address = |name: &str| Some(Address { to: Some(To::Agent(name.to_owned())) });
    let send = |name: &str| SendMessageRequest {
        message: Some(OutgoingMessage { to: address(name), topic: "t".into(), ..OutgoingMessage::default() }),
    };
    let sent = messages.send_message(with(&token, send("bob"))).await.unwrap();
    let named = sent.metadata().get("x-correlation-id").unwrap().to_str().unwrap().to_owned();
    let id = sent.into_inner().message_id;
    let trace = TraceServiceClient::new(hub.channel())
        .get_message_trace(with(&token, GetMessageTraceRequest { message_id: id }))
        .await
        .unwrap();
    assert_eq!(trace.into_inner().trace.unwrap().correlation_id, named);
    let mut refused = with(&token, send("nobody"));
    refused.metadata_mut().insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    let status = messages.send_message(refused).await.unwrap_err();
    assert_eq!(status.metadata().get("x-correlation-id").unwrap(), "0af7651916cd43dd8448eb211c80319c", "a refusal, too");
}
