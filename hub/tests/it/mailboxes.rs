//! Mailboxes without sessions, and dead letters, as the wire shows them.

use std::time::Duration;

use acb_proto::v1::{
    AcknowledgeMessagesRequest, CountUnreadRequest, DeadLetterSelection, DropDeadLettersRequest, GetDeadLetterRequest,
    ListDeadLettersRequest, ListUnreadRequest, PullMessagesRequest, SessionRequest, WaitForUnreadRequest,
    dead_letter_service_client::DeadLetterServiceClient,
    mailbox_service_client::MailboxServiceClient,
    message_service_client::MessageServiceClient,
    session_request::{Frame, Open},
    session_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    hub::{Hub, reason, with},
    messages::{next, to},
};

#[tokio::test]
async fn messages_are_looked_at_pulled_and_acknowledged() {
    let hub = Hub::start().await;
    let (_, alice) = hub.agent("alice", "agent-producer").await;
    let (_, bob) = hub.agent("bob", "agent-consumer").await;
    let mut mailbox = MailboxServiceClient::new(hub.channel());
    let mut messages = MessageServiceClient::new(hub.channel());
    for payload in [&b"one"[..], b"two"] {
        messages.send_message(with(&alice, to("bob", payload))).await.unwrap();
    }
    let listed = mailbox.list_unread(with(&bob, ListUnreadRequest::default())).await.unwrap().into_inner();
    assert_eq!(listed.messages.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
    assert_eq!(listed.next_page_token, "");
    let counted = mailbox.count_unread(with(&bob, CountUnreadRequest::default())).await.unwrap().into_inner();
    assert_eq!((counted.messages, counted.by_sender["alice"], counted.more), (2, 2, false));
    let found = mailbox.wait_for_unread(with(&bob, WaitForUnreadRequest::default())).await.unwrap().into_inner();
    assert_eq!(found.messages.len(), 2);
    let after = WaitForUnreadRequest { after: found.position, timeout: Some(Default::default()), ..Default::default() };
    assert!(mailbox.wait_for_unread(with(&bob, after)).await.unwrap().into_inner().messages.is_empty());
    let mut late = WaitForUnreadRequest { timeout: Some(Default::default()), ..Default::default() };
    late.timeout.as_mut().unwrap().seconds = 21;
    assert_eq!(reason(&mailbox.wait_for_unread(with(&bob, late)).await.unwrap_err()), "TIMEOUT_INVALID");

    let pull = |receiver: &str, take_over| PullMessagesRequest {
        receiver: receiver.to_owned(),
        take_over,
        max_messages: 1,
        ..Default::default()
    };
    let pulled = mailbox.pull_messages(with(&bob, pull("program", false))).await.unwrap().into_inner().deliveries;
    assert_eq!((&pulled[0].message.as_ref().unwrap().payload[..], pulled[0].attempt), (&b"one"[..], 1));
    let acknowledge = AcknowledgeMessagesRequest {
        delivery_ids: vec![pulled[0].delivery_id.clone()],
        receiver: "program".to_owned(),
        ..Default::default()
    };
    mailbox.acknowledge_messages(with(&bob, acknowledge)).await.unwrap();
    // A session of another program is refused, and takes over where it says so.
    let (frames, requests) = mpsc::channel(4);
    let open = Open { receive: true, receiver: "another".to_owned(), ..Default::default() };
    frames.send(SessionRequest { frame: Some(Frame::Open(open.clone())) }).await.unwrap();
    let mut session = messages.session(with(&bob, ReceiverStream::new(requests))).await.unwrap().into_inner();
    let refused = tokio::time::timeout(Duration::from_secs(20), session.message()).await.unwrap().unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "RECEIVER_PRESENT"));
    let (frames, requests) = mpsc::channel(4);
    frames.send(SessionRequest { frame: Some(Frame::Open(Open { take_over: true, ..open })) }).await.unwrap();
    let mut session = messages.session(with(&bob, ReceiverStream::new(requests))).await.unwrap().into_inner();
    assert!(matches!(next(&mut session).await, session_response::Frame::Opened(_)));
    assert!(
        matches!(next(&mut session).await, session_response::Frame::Delivery(delivery) if delivery.message.as_ref().unwrap().payload == "two")
    );
    let refused = mailbox.pull_messages(with(&bob, pull("program", false))).await.unwrap_err();
    assert!(["RECEIVER_PRESENT", "SESSION_REPLACED"].contains(&reason(&refused).as_str()), "{refused}");
    let nameless = mailbox.pull_messages(with(&bob, pull("", false))).await.unwrap_err();
    assert_eq!(reason(&nameless), "RECEIVER_INVALID");
    let denied = mailbox.list_unread(with(&alice, ListUnreadRequest::default())).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::PermissionDenied, "ROLE_LACKS_PERMISSION"));
}

#[tokio::test]
async fn bad_questions_for_dead_letters_say_so() {
    let hub = Hub::start().await;
    let (_, alice) = hub.agent("alice", "agent-producer").await;
    let (_, bob) = hub.agent("bob", "agent-consumer").await;
    let mut letters = DeadLetterServiceClient::new(hub.channel());
    let denied = letters.list_dead_letters(with(&alice, ListDeadLettersRequest::default())).await.unwrap_err();
    assert_eq!(reason(&denied), "ROLE_LACKS_PERMISSION");
    let none = letters.list_dead_letters(with(&bob, ListDeadLettersRequest::default())).await.unwrap().into_inner();
    assert!(none.dead_letters.is_empty() && none.next_page_token.is_empty());
    let missing = letters.get_dead_letter(with(&bob, GetDeadLetterRequest { id: "x".to_owned() })).await.unwrap_err();
    assert_eq!(reason(&missing), "DEAD_LETTER_ID_INVALID");
    let unnamed = letters.drop_dead_letters(with(&bob, DropDeadLettersRequest::default())).await.unwrap_err();
    assert_eq!(reason(&unnamed), "DEAD_LETTERS_UNNAMED");
    let many = DeadLetterSelection { ids: vec![uuid(1); 101], ..Default::default() };
    let many = letters.drop_dead_letters(with(&bob, DropDeadLettersRequest { selection: Some(many) })).await.unwrap_err();
    assert_eq!(reason(&many), "DEAD_LETTERS_UNNAMED");
    let unknown = DeadLetterSelection { ids: vec![uuid(1), uuid(2)], ..Default::default() };
    let outcomes = letters.drop_dead_letters(with(&bob, DropDeadLettersRequest { selection: Some(unknown) })).await.unwrap();
    let failures: Vec<String> =
        outcomes.into_inner().outcomes.into_iter().map(|outcome| outcome.failure.unwrap().reason).collect();
    assert_eq!(failures, ["DEAD_LETTER_NOT_FOUND", "DEAD_LETTER_NOT_FOUND"]);
    let text = hub.until("/metrics", |status, _| status == 200).await;
    let none = format!("acb_dead_letters_total{{reason=\"expired\",tenant_id=\"{}\"}} 0", hub.tenant.name());
    assert!(text.contains(&none), "{text}");
    assert!(hub.log().contains("DropDeadLetters"), "what touches dead letters is in the audit log");
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-8000-8000-0000000000{number:02}")
}
