//! What an agent may send.

use std::time::Duration;

use acb_operator::plan::AgentRow;
use acb_proto::v1::{
    GetUsageRequest, SendMessageRequest, SubscribeRequest, context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient, usage_service_client::UsageServiceClient,
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    hub::{Hub, reason, with},
    messages::to,
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
