//! What an agent may send.

use std::time::Duration;

use acb_operator::plan::AgentRow;
use acb_proto::v1::{
    GetUsageRequest, SendMessageRequest, message_service_client::MessageServiceClient, usage_service_client::UsageServiceClient,
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
