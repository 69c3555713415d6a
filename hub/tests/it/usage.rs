//! What agents have sent, summed: over gRPC, on both logs.

use std::time::Duration;

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    kit::supervisor::Supervisor,
    log::bus::{Bus, TopicName},
    messages::usage_event::UsageEvent,
};
use acb_hub_pool::{Limits, Pool};
use acb_proto::v1::{
    ListUsageRequest, ListUsageResponse, UsagePeriod, message_service_client::MessageServiceClient,
    usage_service_client::UsageServiceClient,
};
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::{
    hub::{Hub, reason, with},
    messages::to,
    trail::listed,
};

async fn list(hub: &Hub, token: &str, by: UsagePeriod) -> ListUsageResponse {
    let request = ListUsageRequest { by: by.into(), ..ListUsageRequest::default() };
    UsageServiceClient::new(hub.channel()).list_usage(with(token, request)).await.unwrap().into_inner()
}

/// An hour that was over before.
async fn sent_earlier(hub: &Hub) {
    let earlier = "INSERT INTO acb.usage_sum (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
        SELECT acb.current_tenant(), 'hour', date_trunc('hour', now(), 'UTC') - interval '2 hours', gen_random_uuid(), 'earlier', 3, 15";
    sqlx::query(earlier).execute(&mut hub.tenant.connect().await).await.unwrap();
}

/// It is told to the topic of usage.
async fn is_told(hub: &Hub, bus: &dyn Bus) {
    let (tenant, deadline) = (hub.tenant.name(), Instant::now() + Duration::from_secs(90));
    let record = loop {
        if let Some(logged) = bus.read(&TopicName::system(tenant, "usage"), 0, 0, 1).await.unwrap().pop() {
            break logged.record;
        }
        assert!(Instant::now() < deadline, "{}", hub.log());
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(record.headers, [("content-type".to_owned(), "application/cloudevents+json".into())]);
    let event = UsageEvent::decode(tenant, &record).unwrap();
    assert_eq!((event.sum.name.as_str(), event.sum.sent.messages, event.sum.sent.bytes), ("earlier", 3, 15));
    assert!(event.complete.is_some());
    let metrics = hub.operations("/metrics").await.unwrap().1;
    for metric in ["acb_usage_exported_total 1", "acb_usage_export_failures_total 0"] {
        assert!(metrics.contains(metric), "{metric}");
    }
}

/// What two agents send is in the sums of each soon, and what was sent in an hour that is over is in the topic of usage.
pub async fn is_summed(hub: &Hub, bus: &dyn Bus) {
    sent_earlier(hub).await;
    let (eve, token) = hub.agent("eve", "agent-full").await;
    let (_, frank) = hub.agent("frank", "agent-full").await;
    let (_, auditor) = hub.agent("auditor", "auditor").await;
    let mut messages = MessageServiceClient::new(hub.channel());
    for _ in 0..3 {
        messages.send_message(with(&token, to("frank", b"12345"))).await.unwrap();
    }
    messages.send_message(with(&frank, to("eve", b"1"))).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let found = loop {
        let page = list(hub, &auditor, UsagePeriod::Hour).await;
        let of = |name: &str| page.sums.iter().filter(|sum| sum.agent == name).map(|sum| sum.messages).sum::<u64>();
        if (of("eve"), of("frank")) == (3, 1) {
            break page;
        }
        assert!(Instant::now() < deadline, "{page:?}");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found.gaps, []);
    for by in [UsagePeriod::Day, UsagePeriod::Month] {
        let own = list(hub, &token, by).await.sums;
        assert_eq!(own.iter().map(|sum| (sum.agent_id.as_str(), sum.bytes)).collect::<Vec<_>>(), [(&*eve.id.to_string(), 15)]);
    }
    is_told(hub, bus).await;
}

#[tokio::test]
async fn usage_is_summed_and_listed_by_whoever_may() {
    let hub = Hub::start().await;
    let id = hub.tenant.id_bytes().try_into().unwrap();
    let bus = PostgresBus::connect(id, Pool::new(hub.tenant.connect_options(), Limits::default()), &Supervisor::default());
    is_summed(&hub, &bus).await;
    let (_, root) = hub.agent("root", "admin").await;
    let (_, token) = hub.agent("grace", "agent-full").await;
    let mut usage = UsageServiceClient::new(hub.channel());
    let of = |agent: &str, page_token: &str| ListUsageRequest {
        agent: agent.to_owned(),
        page_token: page_token.to_owned(),
        ..ListUsageRequest::default()
    };
    let others = usage.list_usage(with(&token, of("eve", ""))).await.unwrap_err();
    assert_eq!((others.code(), reason(&others).as_str()), (Code::PermissionDenied, "ROLE_LACKS_PERMISSION"));
    assert_eq!(reason(&usage.list_usage(with(&root, of("", "noise"))).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    let far = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
    let request = ListUsageRequest { from: Some(far), ..of("", "") };
    assert_eq!(reason(&usage.list_usage(with(&root, request)).await.unwrap_err()), "FILTER_INVALID");
    assert_eq!(usage.list_usage(with(&root, of("nobody\0", ""))).await.unwrap_err().code(), Code::NotFound);
    // Who read it is in the trail.
    assert!(
        listed(&hub, &root, "ListUsage", "auditor").await.iter().any(|record| record.object == "usage of everybody it may see")
    );
    let metrics = hub.operations("/metrics").await.unwrap().1;
    for metric in ["acb_usage_unsummed 0", "acb_usage_gaps 0", "acb_usage_sum_failures_total 0"] {
        assert!(metrics.contains(metric), "{metric}");
    }
}
