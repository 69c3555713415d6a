//! What hangs on the time, or on the life of a log: shown on rows and records as they would be then.

use std::time::Duration;

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    kit::supervisor::Supervisor,
    log::bus::{Bus as _, TopicName},
    messages::envelope::Envelope,
};
use acb_hub_pool::{Limits, Pool};
use acb_proto::v1::{
    AgentStatus, GetAgentRequest, HeartbeatRequest, SessionRequest, SubscribeRequest,
    context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient,
    session_request::{Frame, Open},
    session_response,
};
use acb_testbed::Postgres;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    hub::{Hub, reason, with},
    messages::{next, to},
};

#[tokio::test]
async fn an_agent_that_fell_silent_is_unknown_until_it_is_heard_again() {
    let hub = Hub::start().await;
    let (alice, token) = hub.agent("alice", "agent-full").await;
    let mut agents = hub.agents();
    let mut status = async || {
        let request = GetAgentRequest { name: "alice".to_owned() };
        agents.get_agent(with(&token, request)).await.unwrap().into_inner().status()
    };
    let silent_for = async |seconds: f64| {
        sqlx::query("UPDATE acb.presence SET last_seen_at = now() - make_interval(secs => $2) WHERE agent_id::text = $1")
            .bind(alice.id.to_string())
            .bind(seconds)
            .execute(&mut Postgres::shared().await.superuser().await)
            .await
            .unwrap();
    };
    hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
    assert_eq!(status().await, AgentStatus::Online);
    silent_for(60.0).await;
    assert_eq!(status().await, AgentStatus::Online, "two heartbeats may be lost");
    silent_for(91.0).await;
    assert_eq!(status().await, AgentStatus::Unknown);
    hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
    assert_eq!(status().await, AgentStatus::Online);
}

#[tokio::test]
async fn a_message_that_took_more_than_five_minutes_to_the_log_is_dropped_by_its_reader() {
    let hub = Hub::start().await;
    let (_, alice) = hub.agent("alice", "agent-full").await;
    let (_, bob) = hub.agent("bob", "agent-full").await;
    let (frames, requests) = mpsc::channel(4);
    frames
        .send(SessionRequest { frame: Some(Frame::Open(Open { receive: true, max_unacknowledged: 0, ..Default::default() })) })
        .await
        .unwrap();
    let mut client = MessageServiceClient::new(hub.channel());
    let mut session = client.session(with(&bob, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(_)));
    client.send_message(with(&alice, to("bob", b"in time"))).await.unwrap();

    // As a hub would have appended it that was paused between accepting and appending.
    let (options, id) = (hub.tenant.connect_options(), hub.tenant.id_bytes().try_into().unwrap());
    let bus = PostgresBus::connect(id, Pool::new(options, Limits::default()), &Supervisor::default());
    let topic = TopicName::system(hub.tenant.name(), "messages");
    let mut logged = None;
    for partition in 0..8 {
        logged = logged.or(bus.read(&topic, partition, 0, 1).await.unwrap().pop());
    }
    let logged = logged.unwrap();
    let first = Envelope::decode(&logged.record.value.unwrap()).unwrap();
    for (payload, late) in [(&b"too late"[..], Duration::from_secs(301)), (b"just in time", Duration::from_secs(270))] {
        let mut envelope = first.clone();
        envelope.message.payload = payload.into();
        envelope.message.accepted_at -= late;
        bus.append(&topic, logged.partition, envelope.record()).await.unwrap().await.unwrap();
    }
    for expected in [&b"in time"[..], b"just in time"] {
        let session_response::Frame::Delivery(delivery) = next(&mut session).await else { panic!("no delivery") };
        assert_eq!(delivery.message.unwrap().payload, expected);
    }
    drop(frames);
}

#[tokio::test]
async fn a_subscription_ends_where_its_log_is_made_anew_and_the_hub_goes_on() {
    let hub = Hub::start().await;
    hub.tenant.context_type("notes", 2).await;
    let mut row = hub.tenant.agent_row("bob");
    row.subscribes = vec!["notes".to_owned()];
    let bob = hub.tenant.project(&row).await;
    let token = hub.exchange(&bob.api_key).await.unwrap().access_token;
    let request = SubscribeRequest { r#type: "notes".to_owned(), ..SubscribeRequest::default() };
    let mut changes = ContextServiceClient::new(hub.channel()).subscribe(with(&token, request)).await.unwrap().into_inner();
    let greeting = tokio::time::timeout(Duration::from_secs(20), changes.message()).await.expect("in time").unwrap();
    assert!(greeting.is_some());
    let topic = format!("acb.{}.notes", hub.tenant.name());
    hub.until("/metrics", |_, metrics| metrics.contains(&format!(r#"acb_kafka_lag{{topic="{topic}"}} 0"#))).await;
    sqlx::query("UPDATE acb.bus_topic SET epoch = epoch + 1 WHERE tenant_id = $1 AND topic = $2")
        .bind(hub.tenant.id_bytes().as_slice())
        .bind(&topic)
        .execute(&mut Postgres::shared().await.superuser().await)
        .await
        .unwrap();
    let end = tokio::time::timeout(Duration::from_secs(30), changes.message()).await.expect("in time").unwrap_err();
    assert_eq!(reason(&end), "LOG_EPOCH_CHANGED");
    drop(changes);
    hub.until("/metrics", |_, metrics| !metrics.contains(&format!(r#"topic="{topic}""#))).await;
    assert_eq!(hub.operations("/readyz").await.unwrap().0, 200);
}
