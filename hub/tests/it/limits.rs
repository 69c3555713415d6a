//! What an agent may send.

use std::time::Duration;

use acb_operator::plan::AgentRow;
use acb_proto::v1::{
    GetUsageRequest, SendMessageRequest, SessionRequest, SubscribeRequest,
    context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient,
    session_request::{Frame, Open, Send},
    session_response::{self, sent::Outcome},
    usage_service_client::UsageServiceClient,
};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    hub::{Hub, reason, with},
    messages::{next, to},
};

/// What the operator projects of an agent with this limit.
fn limited(hub: &Hub, name: &str, id: &str, messages_per_minute: u64) -> AgentRow {
    let mut row = hub.tenant.agent_row(name);
    row.id = id.to_owned();
    row.limits = json!({"messagesPerMinute": messages_per_minute, "storageBytes": 5});
    row
}

fn message() -> SendMessageRequest {
    to("bob", b"x")
}

#[tokio::test]
async fn a_limit_holds_and_changes_within_seconds_on_every_replica() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    hub.agent("bob", "agent-full").await;
    let mut messages = MessageServiceClient::new(hub.channel());
    messages.send_message(with(&token, message())).await.unwrap();

    hub.tenant.project(&limited(&hub, "alice", &alice.id.to_string(), 0)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        match messages.send_message(with(&token, message())).await {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < deadline, "it is still let through"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
    let violations = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!((violations[0].subject.as_str(), violations[0].description.as_str()), ("agent alice", "messagesPerMinute is 0"));
    assert!(refused.get_details_retry_info().is_none(), "a limit of 0 has room at no time");
    assert!(
        hub.operations("/metrics")
            .await
            .unwrap()
            .1
            .contains(r#"acb_limited_total{limit="messagesPerMinute",subject="agent alice"}"#)
    );

    hub.tenant.project(&limited(&hub, "alice", &alice.id.to_string(), 1_000_000)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(refused) = messages.send_message(with(&token, message())).await {
        assert_eq!(reason(&refused), "RATE_LIMIT_EXCEEDED");
        assert!(Instant::now() < deadline, "it is still refused");
        sleep(Duration::from_millis(50)).await;
    }
    let mut usage = UsageServiceClient::new(hub.channel());
    let own = usage.get_usage(with(&token, GetUsageRequest::default())).await.unwrap().into_inner().usage;
    let found = own.iter().find(|usage| usage.subject == "agent alice" && usage.limit == "messagesPerMinute").unwrap();
    assert_eq!(found.most, Some(1_000_000));
    assert!(found.resets_at.is_some());
    let others = usage.get_usage(with(&token, GetUsageRequest { agent: "bob".to_owned() })).await.unwrap_err();
    assert_eq!(others.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_refusal_says_when_there_is_room_again() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    hub.agent("bob", "agent-full").await;
    hub.tenant.project(&limited(&hub, "alice", &alice.id.to_string(), 1)).await;
    // Its exchange reads the generation: this replica knows the limit.
    hub.agent("carol", "agent-full").await;
    let mut messages = MessageServiceClient::new(hub.channel());
    let deadline = Instant::now() + Duration::from_secs(70);
    let refused = loop {
        if let Err(refused) = messages.send_message(with(&token, message())).await {
            break refused;
        }
        assert!(Instant::now() < deadline, "two in a minute are let through");
    };
    let retry = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(retry <= Duration::from_secs(60), "{retry:?}");
    assert!(refused.message().contains("1 messages a minute"), "{}", refused.message());
}

#[tokio::test]
async fn so_many_streams_are_open_at_a_time() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    let mut row = hub.tenant.agent_row("alice");
    row.id = alice.id.to_string();
    row.limits = json!({"concurrentStreams": 1});
    hub.tenant.context_type("notes", 1).await;
    row.subscribes = vec!["notes".to_owned()];
    hub.tenant.project(&row).await;
    hub.agent("bob", "agent-full").await;
    let mut contexts = ContextServiceClient::new(hub.channel());
    let mut subscribe = async || {
        let request = SubscribeRequest { r#type: "notes".to_owned(), ..SubscribeRequest::default() };
        contexts.subscribe(with(&token, request)).await.map(tonic::Response::into_inner)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut open = Vec::new();
    let refused = loop {
        match subscribe().await {
            Ok(stream) => open.push(stream),
            Err(refused) => break refused,
        }
        assert!(Instant::now() < deadline, "{} are let through", open.len());
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    let violations = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!((violations[0].subject.as_str(), violations[0].description.as_str()), ("agent alice", "concurrentStreams is 1"));
    assert!(refused.get_details_retry_info().is_some());
    let mut usage = UsageServiceClient::new(hub.channel());
    let own = usage.get_usage(with(&token, GetUsageRequest::default())).await.unwrap().into_inner().usage;
    let found = own.iter().find(|usage| usage.subject == "agent alice" && usage.limit == "concurrentStreams").unwrap();
    assert_eq!((found.most, found.used, found.resets_at), (Some(1), open.len() as u64, None));
    // Calls that do not last are none of them.
    MessageServiceClient::new(hub.channel()).send_message(with(&token, message())).await.unwrap();
    open.clear();
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(refused) = subscribe().await {
        assert_eq!(reason(&refused), "TOO_MANY_STREAMS");
        assert!(Instant::now() < deadline, "what ended still counts");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_request_has_so_many_bytes_and_a_session_so_many_in_each_message() {
    const LARGE: &[u8] = &[b'x'; 1000];
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    hub.agent("bob", "agent-full").await;
    let limit = async |request_bytes: u64| {
        let mut row = hub.tenant.agent_row("alice");
        row.id = alice.id.to_string();
        row.limits = json!({"requestBytes": request_bytes});
        hub.tenant.project(&row).await;
    };
    let (frames, requests) = mpsc::channel(4);
    let mut messages = MessageServiceClient::new(hub.channel());
    frames.send(SessionRequest { frame: Some(Frame::Open(Open::default())) }).await.unwrap();
    let mut session = messages.session(with(&token, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(_)));
    messages.send_message(with(&token, to("bob", LARGE))).await.unwrap();

    limit(500).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        match messages.send_message(with(&token, to("bob", LARGE))).await {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < deadline, "it is still let through"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "REQUEST_SIZE_LIMIT_EXCEEDED"));
    let violations = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!((violations[0].subject.as_str(), violations[0].description.as_str()), ("agent alice", "requestBytes is 500"));
    assert!(refused.get_details_retry_info().is_none(), "it is as large the next time");
    messages.send_message(with(&token, message())).await.unwrap();

    // A session that is open stays, and goes on after what was refused.
    let mut outcomes = Vec::new();
    for payload in [LARGE, b"x"] {
        let send = Send { sequence: 1, message: to("bob", payload).message };
        frames.send(SessionRequest { frame: Some(Frame::Send(send)) }).await.unwrap();
        let session_response::Frame::Sent(sent) = next(&mut session).await else { panic!("no outcome") };
        outcomes.push(sent.outcome.unwrap());
    }
    let Outcome::Failed(failure) = &outcomes[0] else { panic!("it was sent") };
    assert_eq!((failure.reason.as_str(), failure.retry_after), ("REQUEST_SIZE_LIMIT_EXCEEDED", None));
    assert!(matches!(outcomes[1], Outcome::Accepted(_)));
    let counted = hub.operations("/metrics").await.unwrap().1;
    assert!(counted.contains(r#"acb_limited_total{limit="requestBytes",subject="agent alice"}"#));
    let mut usage = UsageServiceClient::new(hub.channel());
    let own = usage.get_usage(with(&token, GetUsageRequest::default())).await.unwrap().into_inner().usage;
    assert_eq!(own.iter().find(|usage| usage.limit == "requestBytes").unwrap().most, Some(500));

    limit(5000).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(refused) = messages.send_message(with(&token, to("bob", LARGE))).await {
        assert_eq!(reason(&refused), "REQUEST_SIZE_LIMIT_EXCEEDED");
        assert!(Instant::now() < deadline, "it is still refused");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn calls_are_open_on_so_many_connections_at_a_time() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    hub.agent("bob", "agent-full").await;
    let limit = async |connections: u64| {
        let mut row = hub.tenant.agent_row("alice");
        row.id = alice.id.to_string();
        row.limits = json!({"connections": connections});
        hub.tenant.project(&row).await;
    };
    let (mut first, mut second) = (MessageServiceClient::new(hub.channel()), MessageServiceClient::new(hub.channel()));
    let (frames, requests) = mpsc::channel(4);
    frames.send(SessionRequest { frame: Some(Frame::Open(Open::default())) }).await.unwrap();
    let mut session = first.session(with(&token, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(_)));
    second.send_message(with(&token, message())).await.unwrap();

    limit(1).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let refused = loop {
        match second.send_message(with(&token, message())).await {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < deadline, "it is still let through"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_CONNECTIONS"));
    let violations = refused.get_details_quota_failure().unwrap().violations;
    assert_eq!((violations[0].subject.as_str(), violations[0].description.as_str()), ("agent alice", "connections is 1"));
    assert!(refused.get_details_retry_info().is_some());
    let counted = hub.operations("/metrics").await.unwrap().1;
    assert!(counted.contains(r#"acb_limited_total{limit="connections",subject="agent alice"}"#));
    // Over the one that is open calls go on, further ones as well.
    first.send_message(with(&token, message())).await.unwrap();
    let send = Send { sequence: 1, message: message().message };
    frames.send(SessionRequest { frame: Some(Frame::Send(send)) }).await.unwrap();
    assert!(matches!(next(&mut session).await, session_response::Frame::Sent(sent) if sent.sequence == 1));

    limit(2).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(refused) = second.send_message(with(&token, message())).await {
        assert_eq!(reason(&refused), "TOO_MANY_CONNECTIONS");
        assert!(Instant::now() < deadline, "it is still refused");
        sleep(Duration::from_millis(50)).await;
    }
}
