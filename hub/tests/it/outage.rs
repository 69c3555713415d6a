//! PostgreSQL goes away under a hub with agents, and comes back.

use std::collections::BTreeSet;

use acb_proto::v1::{
    SessionRequest, SessionResponse,
    message_service_client::MessageServiceClient,
    session_request::{Frame, Open},
    session_response,
};
use acb_testbed::Postgres;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    bad_input::post,
    hub::{Hub, with},
    messages::to,
};

/// What `grpc.health.v1.Health/Check` says: 1 is SERVING, 2 is NOT_SERVING.
async fn health(hub: &Hub) -> u8 {
    let body =
        post(hub, "/grpc.health.v1.Health/Check", "", &[], 0).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    // A frame's head of 5 bytes, the field's number, its value.
    *body.get(6).unwrap_or(&0)
}

async fn receive(hub: &Hub, token: &str) -> (mpsc::Sender<SessionRequest>, Streaming<SessionResponse>) {
    let (frames, requests) = mpsc::channel(4);
    frames
        .send(SessionRequest { frame: Some(Frame::Open(Open { receive: true, max_unacknowledged: 0, ..Default::default() })) })
        .await
        .unwrap();
    let session = MessageServiceClient::new(hub.channel()).session(with(token, ReceiverStream::new(requests))).await.unwrap();
    (frames, session.into_inner())
}

/// Takes deliveries, from a new session where the old one ended, until all of these have come.
async fn all_come(
    hub: &Hub,
    token: &str,
    session: &mut (mpsc::Sender<SessionRequest>, Streaming<SessionResponse>),
    wanted: &[&'static [u8]],
) {
    let mut missing: BTreeSet<Bytes> = wanted.iter().map(|payload| Bytes::from_static(payload)).collect();
    let come = async {
        while !missing.is_empty() {
            match session.1.message().await {
                Ok(Some(SessionResponse { frame: Some(session_response::Frame::Delivery(delivery)) })) => {
                    missing.remove(&delivery.message.unwrap().payload);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => *session = receive(hub, token).await,
            }
        }
    };
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(60), come).await;
    assert!(outcome.is_ok(), "these never came: {missing:?}\n{}", hub.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_without_its_postgresql_is_not_ready_and_loses_nothing() {
    let postgres = Postgres::lasting().await;
    let hub = Hub::launch(postgres.tenant("acme").await, None);
    hub.until_ready().await;
    let (_, alice) = hub.agent("alice", "agent-full").await;
    let (_, bob) = hub.agent("bob", "agent-full").await;
    assert_eq!(health(&hub).await, 1);
    let mut client = MessageServiceClient::new(hub.channel());
    client.send_message(with(&alice, to("bob", b"to be read before"))).await.unwrap();
    let mut session = receive(&hub, &bob).await;
    all_come(&hub, &bob, &mut session, &[b"to be read before"]).await;
    // Accepted, and nobody has acknowledged either when PostgreSQL goes.
    client.send_message(with(&alice, to("bob", b"on its way"))).await.unwrap();

    let postgres = postgres
        .without(async || {
            // The log is on the same server here; each is asked at its own pace.
            let both = |status, body: &str| status == 503 && body.contains(r#""postgres""#) && body.contains(r#""log""#);
            let body = hub.until("/readyz", both).await;
            let place = format!("PostgreSQL at 127.0.0.1:{}", hub.tenant.connect_options().get_port());
            assert!(body.contains(&place) && !body.contains(hub.tenant.password()), "{body}");
            assert_eq!(hub.operations("/livez").await.unwrap().0, 200, "restarting it would not help");
            assert_eq!(health(&hub).await, 2);
            // Not acknowledged, so that it may be lost.
            client.send_message(with(&alice, to("bob", b"into the void"))).await.unwrap_err();
        })
        .await;

    hub.until_ready().await;
    assert_eq!(health(&hub).await, 1);
    client.send_message(with(&alice, to("bob", b"to be read after"))).await.unwrap();
    all_come(&hub, &bob, &mut session, &[b"on its way", b"to be read after"]).await;
    drop(postgres);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_another_release_makes_it_not_ready_and_named() {
    let postgres = Postgres::start(acb_testbed::Version::Installed).await;
    let tenant = postgres.tenant("acme").await;
    let mut superuser = postgres.superuser().await;
    let mut change = async |to: &'static str| {
        sqlx::query(to).execute(&mut superuser).await.unwrap();
    };
    change("UPDATE acb.schema_version SET version = version + 100").await;
    let hub = Hub::launch(tenant, None);
    let out_of_range = |status, body: &str| status == 503 && body.contains("upgrade the hub");
    let body = hub.until("/readyz", out_of_range).await;
    assert!(body.contains(r#""schema""#), "{body}");
    change("UPDATE acb.schema_version SET version = version - 100").await;
    hub.until_ready().await;
    // The same for one that serves.
    change("UPDATE acb.schema_version SET version = version + 100").await;
    hub.until("/readyz", out_of_range).await;
    change("UPDATE acb.schema_version SET version = version - 100").await;
    hub.until_ready().await;
}
