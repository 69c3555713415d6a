//! A message from one agent to another, as the wire shows it.

use std::time::Duration;

use acb_proto::v1::{
    Address, AgentNames, ListUnreadRequest, OutgoingMessage, SendMessageRequest, SessionRequest, SessionResponse,
    address::To,
    mailbox_service_client::MailboxServiceClient,
    message_service_client::MessageServiceClient,
    session_request::{Ack, Frame, Open, Send},
    session_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::hub::{Hub, reason, terminate, with};

pub async fn next(stream: &mut Streaming<SessionResponse>) -> session_response::Frame {
    tokio::time::timeout(Duration::from_secs(20), stream.message()).await.expect("in time").unwrap().unwrap().frame.unwrap()
}

pub fn to(agent: &str, payload: &'static [u8]) -> SendMessageRequest {
    let to = Some(Address { to: Some(To::Agent(agent.to_owned())) });
    SendMessageRequest { message: Some(OutgoingMessage { to, payload: payload.into(), ..OutgoingMessage::default() }) }
}

#[tokio::test]
async fn a_message_is_delivered_with_its_trace_and_a_stopping_hub_says_so() {
    is_delivered(Hub::start().await).await;
}

#[tokio::test]
async fn a_half_closed_session_settles_what_came_and_ends() {
    let hub = Hub::start().await;
    let (_, alice) = hub.agent("alice", "agent-full").await;
    hub.agent("bob", "agent-full").await;
    let (frames, requests) = mpsc::channel(4);
    frames
        .send(SessionRequest { frame: Some(Frame::Open(Open { receive: true, max_unacknowledged: 0, ..Open::default() })) })
        .await
        .unwrap();
    let mut session =
        MessageServiceClient::new(hub.channel()).session(with(&alice, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(_)));
    let send = Send { sequence: 1, message: to("bob", b"last words").message };
    frames.send(SessionRequest { frame: Some(Frame::Send(send)) }).await.unwrap();
    drop(frames);
    assert!(matches!(next(&mut session).await, session_response::Frame::Sent(sent) if sent.sequence == 1));
    let end = tokio::time::timeout(Duration::from_secs(20), session.message()).await.expect("in time").unwrap();
    assert_eq!(end, None);
}

/// What holds on either log.
pub async fn is_delivered(mut hub: Hub) {
    let (_, bob) = hub.agent("bob", "agent-consumer").await;
    let (_, alice) = hub.agent("alice", "agent-producer").await;
    let (frames, requests) = mpsc::channel(4);
    let open = Open { receive: true, max_unacknowledged: 0, ..Open::default() };
    frames.send(SessionRequest { frame: Some(Frame::Open(open)) }).await.unwrap();
    let mut client = MessageServiceClient::new(hub.channel());
    let mut session = client.session(with(&bob, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(opened) if opened.replica == "hub-0"));

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = with(&alice, to("bob", b"hello"));
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    let sent = client.send_message(request).await.unwrap().into_inner();
    let session_response::Frame::Delivery(delivery) = next(&mut session).await else { panic!("no delivery") };
    let message = delivery.message.unwrap();
    assert_eq!(
        (message.id.as_str(), message.from.as_str(), &message.payload[..]),
        (sent.message_id.as_str(), "alice", &b"hello"[..])
    );
    assert_eq!(message.traceparent, trace);
    frames.send(SessionRequest { frame: Some(Frame::Ack(Ack { delivery_ids: vec![delivery.delivery_id] })) }).await.unwrap();

    // To several: in the log once, and each of them finds it.
    let (_, carol) = hub.agent("carol", "agent-consumer").await;
    let several = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let mut request = to("", b"for two");
        request.message.as_mut().unwrap().to = Some(Address { to: Some(To::Agents(AgentNames { names })) });
        request
    };
    let sent = client.send_message(with(&alice, several(&["carol", "bob"]))).await.unwrap().into_inner();
    let session_response::Frame::Delivery(delivery) = next(&mut session).await else { panic!("no delivery") };
    let message = delivery.message.unwrap();
    assert_eq!((&message.id, message.to), (&sent.message_id, several(&["bob", "carol"]).message.unwrap().to));
    frames.send(SessionRequest { frame: Some(Frame::Ack(Ack { delivery_ids: vec![delivery.delivery_id] })) }).await.unwrap();
    let unread = MailboxServiceClient::new(hub.channel()).list_unread(with(&carol, ListUnreadRequest::default())).await.unwrap();
    assert_eq!(unread.into_inner().messages.iter().map(|message| &message.id).collect::<Vec<_>>(), [&sent.message_id]);
    let status = client.send_message(with(&alice, several(&["bob", "bob"]))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "RECIPIENTS_INVALID"));
    // One alone is that agent.
    client.send_message(with(&alice, several(&["carol"]))).await.unwrap();
    let status = client.send_message(with(&alice, several(&["bob", "nobody"]))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "RECIPIENT_NOT_FOUND"));

    let status = client.send_message(with(&alice, to("nobody", b""))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{}", reason(&status));
    let (_, metrics) = hub.operations("/metrics").await.unwrap();
    assert!(metrics.contains("acb_messages_total{") && metrics.contains("acb_agent_messages_received_total{"), "{metrics}");
    let lag = format!(r#"acb_kafka_lag{{topic="acb.{}.sys.messages"}} 0"#, hub.tenant.name());
    hub.until("/metrics", |_, metrics| metrics.contains(&lag)).await;
    for query in ["cursor.open", "mailbox.index", "directory.load", "schema.version"] {
        let count = format!(r#"acb_db_query_duration_seconds_count{{query="{query}"}} "#);
        let counted = |line: &str| line.strip_prefix(&count).is_some_and(|count| count != "0");
        hub.until("/metrics", |_, metrics| metrics.lines().any(counted)).await;
    }

    terminate(&hub);
    assert!(matches!(next(&mut session).await, session_response::Frame::Draining(_)));
    drop(frames);
    drop(session);
    drop(client);
    assert!(hub.exit().await.success(), "{}", hub.log());
}
