//! Filters of contexts, as the wire shows them.

use std::time::{Duration, SystemTime};

use acb_proto::v1::{
    Context, ContextEvent, CreateContextRequest, ListContextsRequest, SubscribeRequest, UpdateContextRequest,
    context_event::Kind, context_service_client::ContextServiceClient, subscribe_request::From,
};
use prost_types::Timestamp;
use tonic::{Code, Streaming};

use crate::hub::{Hub, reason, with};

const HIGH: &str = r#"context.metadata["priority"] == "high""#;

async fn next(events: &mut Streaming<ContextEvent>) -> (Kind, Context) {
    let event = tokio::time::timeout(Duration::from_secs(30), events.message()).await.expect("in time").unwrap().unwrap();
    (event.kind(), event.context.unwrap_or_default())
}

#[tokio::test]
async fn what_is_followed_by_a_filter_and_what_leaves_it() {
    let hub = Hub::start().await;
    hub.tenant.context_type("notes", 2).await;
    is_followed(&hub).await;
}

/// What holds on either log, for a tenant with context type `notes`.
pub async fn is_followed(hub: &Hub) {
    let mut row = hub.tenant.agent_row("alice");
    row.publishes = vec!["notes".to_owned()];
    row.subscribes = vec!["notes".to_owned()];
    let agent = hub.tenant.project(&row).await;
    let token = hub.exchange(&agent.api_key).await.unwrap().access_token;
    let mut contexts = ContextServiceClient::new(hub.channel());
    let begun = SystemTime::now() - Duration::from_secs(1);
    let subscribe = |from| SubscribeRequest { r#type: "notes".to_owned(), filter: HIGH.to_owned(), from };
    let mut events = contexts.subscribe(with(&token, subscribe(None))).await.unwrap().into_inner();
    assert_eq!(next(&mut events).await.0, Kind::Subscribed);

    let mut made = Vec::new();
    for priority in ["low", "high"] {
        let metadata = [("priority".to_owned(), priority.to_owned())].into();
        let create = CreateContextRequest { r#type: "notes".into(), payload: "x".into(), metadata, ..Default::default() };
        made.push(contexts.create_context(with(&token, create)).await.unwrap().into_inner());
    }
    assert_eq!(next(&mut events).await, (Kind::Created, Context { payload: "x".into(), ..made[1].clone() }));
    let update = UpdateContextRequest { id: made[1].id.clone(), version: 1, payload: "y".into(), ..Default::default() };
    contexts.update_context(with(&token, update)).await.unwrap();
    let left = Context { id: made[1].id.clone(), r#type: "notes".into(), version: 2, ..Context::default() };
    assert_eq!(next(&mut events).await, (Kind::Left, left.clone()));

    let mut since = contexts.subscribe(with(&token, subscribe(Some(From::Time(begun.into()))))).await.unwrap().into_inner();
    let kinds = [next(&mut since).await.0, next(&mut since).await.0, next(&mut since).await.0];
    assert_eq!(kinds, [Kind::Subscribed, Kind::Created, Kind::Left]);

    let list = |filter: &str| ListContextsRequest { filter: filter.to_owned(), ..ListContextsRequest::default() };
    let listed = contexts.list_contexts(with(&token, list("context.metadata.priority == 'low'"))).await.unwrap().into_inner();
    assert_eq!(listed.contexts.iter().map(|context| &context.id).collect::<Vec<_>>(), [&made[0].id]);
    hub.until("/metrics", |_, metrics| metrics.contains("acb_context_changes_filtered_total 2")).await;
}

#[tokio::test]
async fn what_is_no_filter_or_no_time_is_refused_and_counted() {
    let hub = Hub::start().await;
    hub.tenant.context_type("notes", 1).await;
    let mut row = hub.tenant.agent_row("alice");
    row.subscribes = vec!["notes".to_owned()];
    let agent = hub.tenant.project(&row).await;
    let token = hub.exchange(&agent.api_key).await.unwrap().access_token;
    let mut contexts = ContextServiceClient::new(hub.channel());
    for filter in ["context.sise == 1".to_owned(), "(".repeat(100), "context.size ==".to_owned(), "\u{202e}\u{1b}".to_owned()] {
        let list = ListContextsRequest { filter: filter.clone(), ..ListContextsRequest::default() };
        let status = contexts.list_contexts(with(&token, list)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "FILTER_INVALID"));
        assert!(status.message().contains("column ") && status.message().ends_with('^'), "{}", status.message());
        assert!(!status.message().contains(['\u{202e}', '\u{1b}']), "{}", status.message());
        let subscribe = SubscribeRequest { r#type: "notes".to_owned(), filter, ..SubscribeRequest::default() };
        let status = contexts.subscribe(with(&token, subscribe)).await.unwrap_err();
        assert_eq!(reason(&status), "FILTER_INVALID");
    }
    for (cause, count) in [("type", 2), ("limit", 2), ("syntax", 4)] {
        let counted = format!(r#"acb_context_filters_refused_total{{cause="{cause}"}} {count}"#);
        hub.until("/metrics", |_, metrics| metrics.contains(&counted)).await;
    }
    for (seconds, nanos) in [(i64::MAX, 0), (0, 1_000_000_000), (0, -1), (i64::MIN, i32::MIN)] {
        let from = Some(From::Time(Timestamp { seconds, nanos }));
        let subscribe = SubscribeRequest { r#type: "notes".to_owned(), from, ..SubscribeRequest::default() };
        let status = contexts.subscribe(with(&token, subscribe)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "TIME_INVALID"));
    }
}
