//! What the audit log says of calls: who, what about, and how it ended, when it had ended.

use std::time::Duration;

use acb_proto::v1::{
    CreateContextRequest, DeleteContextRequest, HeartbeatRequest, RefreshTokenRequest, SessionRequest, StreamContextRequest,
    SubscribeRequest,
    context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient,
    session_request::{self, Open},
    stream_context_request::{Frame, Start},
    stream_service_client::StreamServiceClient,
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::hub::{Hub, reason, with};

/// Waits for so many records of a method. Each as its outcome, reason, agent, key, object and version.
pub async fn records(hub: &Hub, method: &str, count: usize) -> Vec<[String; 6]> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let log = hub.log();
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter_map(|line| {
            let field = |name: &str| {
                let places = [&line["fields"][name], &line["span"][name], &line[name]];
                let text =
                    |value: &Value| value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|value| value.to_string()));
                places.into_iter().find_map(text).unwrap_or_default()
            };
            let is_one = line["target"] == "acb::audit" && field("method") == method;
            is_one.then(|| ["outcome", "reason", "agent", "key", "object", "version"].map(field))
        });
        let records: Vec<_> = records.collect();
        if records.len() >= count {
            return records;
        }
        assert!(tokio::time::Instant::now() < deadline, "{method}: {records:?}\n{log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_login_names_the_agent_and_the_key() {
    let hub = Hub::start().await;
    let alice = hub.tenant.agent("alice").await;
    let key = alice.api_key.split('_').nth(1).unwrap();
    let tokens = hub.exchange(&alice.api_key).await.unwrap();
    hub.exchange(&format!("{}x", alice.api_key)).await.unwrap_err();
    hub.auth().refresh_token(RefreshTokenRequest { refresh_token: tokens.refresh_token }).await.unwrap();
    let exchanges = records(&hub, "ExchangeToken", 2).await;
    assert_eq!(exchanges[0], ["done", "", "alice", key, "", ""]);
    assert_eq!(
        exchanges[1],
        ["unauthenticated", "CREDENTIAL_REFUSED", "", key, "", ""],
        "the key that was shown, and nobody's name"
    );
    assert_eq!(records(&hub, "RefreshToken", 1).await[0], ["done", "", "alice", key, "", ""]);
}

#[tokio::test]
async fn a_refusal_names_the_caller_as_soon_as_its_token_is_proved() {
    let hub = Hub::start().await;
    let (olaf, token) = hub.agent("olaf", "observer").await;
    let key = olaf.api_key.split('_').nth(1).unwrap();
    hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap_err();
    hub.agents().heartbeat(HeartbeatRequest {}).await.unwrap_err();
    let refused = records(&hub, "Heartbeat", 2).await;
    assert_eq!(refused[0], ["refused", "ROLE_LACKS_PERMISSION", "olaf", key, "", ""]);
    assert_eq!(refused[1], ["refused", "TOKEN_REQUIRED", "", "", "", ""], "of a stranger there is no name");
}

#[tokio::test]
async fn a_stream_is_recorded_at_its_beginning_and_at_its_end_with_what_became_of_it() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let start = Start {
        upload_id: "018f0000-0000-7000-8000-000000000000".to_owned(),
        size: 10,
        r#type: "none".to_owned(),
        ..Start::default()
    };
    let frames = tokio_stream::iter([StreamContextRequest { frame: Some(Frame::Start(start)) }]);
    let mut stream = StreamServiceClient::new(hub.channel()).stream_context(with(&token, frames)).await.unwrap().into_inner();
    let status = stream.message().await.unwrap_err();
    let upload = records(&hub, "StreamContext", 2).await;
    let outcome = |record: &[String; 6]| (record[0].clone(), record[1].clone(), record[2].clone());
    assert_eq!(outcome(&upload[0]), ("begun".to_owned(), String::new(), "alice".to_owned()));
    assert_eq!(outcome(&upload[1]), ("failed_precondition".to_owned(), reason(&status), "alice".to_owned()));
    let failed = r#"acb_errors_total{type="failed_precondition",operation="StreamContext"} 1"#;
    hub.until("/metrics", |_, metrics| metrics.contains(failed)).await;

    let (frames, requests) = mpsc::channel(4);
    let open = session_request::Frame::Open(Open { receive: true, max_unacknowledged: 0, ..Open::default() });
    frames.send(SessionRequest { frame: Some(open) }).await.unwrap();
    let mut client = MessageServiceClient::new(hub.channel());
    let mut session = client.session(with(&token, ReceiverStream::new(requests))).await.unwrap().into_inner();
    session.message().await.unwrap();
    assert_eq!(outcome(&records(&hub, "Session", 1).await[0]).0, "begun");
    frames.send(SessionRequest { frame: None }).await.unwrap();
    session.message().await.unwrap_err();
    let session = records(&hub, "Session", 2).await;
    assert_eq!(outcome(&session[1]), ("invalid_argument".to_owned(), "FRAME_UNEXPECTED".to_owned(), "alice".to_owned()));
    assert!(session[1][4].starts_with("session "), "{session:?}");
}

#[tokio::test]
async fn what_is_done_with_a_context_names_it() {
    let hub = Hub::start().await;
    hub.tenant.context_type("notes", 1).await;
    let mut row = hub.tenant.agent_row("alice");
    row.publishes = vec!["notes".to_owned()];
    row.subscribes = vec!["notes".to_owned()];
    let agent = hub.tenant.project(&row).await;
    let token = hub.exchange(&agent.api_key).await.unwrap().access_token;
    let mut contexts = ContextServiceClient::new(hub.channel());
    let create = CreateContextRequest { r#type: "notes".to_owned(), payload: "x".into(), ..CreateContextRequest::default() };
    let id = contexts.create_context(with(&token, create)).await.unwrap().into_inner().id;
    contexts.delete_context(with(&token, DeleteContextRequest { id: id.clone() })).await.unwrap();
    contexts.delete_context(with(&token, DeleteContextRequest { id: id.clone() })).await.unwrap_err();
    let object = format!("context {id}");
    let created = records(&hub, "CreateContext", 1).await;
    assert_eq!((created[0][0].as_str(), &created[0][4], created[0][5].as_str()), ("done", &object, "1"));
    let deleted = records(&hub, "DeleteContext", 2).await;
    assert_eq!((deleted[0][0].as_str(), &deleted[0][4]), ("done", &object));
    assert_eq!((deleted[1][1].as_str(), &deleted[1][4]), ("CONTEXT_NOT_FOUND", &object));
    let subscribe = SubscribeRequest { r#type: "notes".to_owned(), ..SubscribeRequest::default() };
    let subscription = contexts.subscribe(with(&token, subscribe)).await.unwrap();
    drop(subscription);
    let subscribed = records(&hub, "Subscribe", 2).await;
    assert_eq!(subscribed.iter().map(|record| record[0].as_str()).collect::<Vec<_>>(), ["begun", "left"]);
    assert!(subscribed.iter().all(|record| record[4] == "type notes"), "{subscribed:?}");
}
