//! Messages, sessions and subscriptions over broken connections.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acb_sdk::{Code, Error, Message, Since};

use crate::hub::{Break, Hub};

#[tokio::test]
async fn a_send_is_tried_again_on_another_replica_under_the_same_key() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    let first = client.endpoint().await.unwrap();
    hub.break_at(Break::Logged(0));
    let sent = client.send(Message::to_agent("worker").topic("t").text("x")).await.unwrap();
    assert_eq!((sent.message_id.as_str(), sent.deduplicated, hub.state().log.len()), ("m0", true, 1));
    assert_ne!(client.endpoint().await.unwrap(), first);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_not_sent_without_a_timeout() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let error = client.request(Message::to_agent("worker").topic("t"), Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn a_session_sends_again_what_was_not_acknowledged_in_order() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    let session = client.session().receive(false).open().await.unwrap();
    let before = session.replica();
    hub.break_at(Break::Logged(20));
    let sender = session.sender();
    let mut receipts = Vec::new();
    for number in 0..300 {
        receipts.push(sender.enqueue(Message::to_agent("worker").topic(number.to_string())).await.unwrap());
    }
    for (number, receipt) in receipts.into_iter().enumerate() {
        assert_eq!(receipt.await.unwrap().message_id, format!("m{number}"));
    }
    let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
    assert_eq!(topics, (0..300).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_ne!(session.replica(), before);
}

/// What took over in the meantime would be ended by a program that is over.
#[tokio::test]
async fn a_session_that_connects_again_takes_nothing_over() {
    let hub = Hub::start(2).await;
    let session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    hub.break_at(Break::Logged(0));
    session.send(Message::to_agent("worker").topic("t")).await.unwrap();
    assert_eq!(hub.state().sessions, [true, false]);
}

#[tokio::test]
async fn who_was_in_its_place_before_an_outage_may_be_gone_after_it() {
    let hub = Hub::start(2).await;
    let session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    let refuse = async |code, reason| {
        hub.state().turns_away = Some((code, reason));
        let before = hub.state().turned_away;
        hub.until("it is refused", |state| state.turned_away > before).await;
    };
    hub.state().turns_away = Some((Code::FailedPrecondition, "RECEIVER_PRESENT"));
    hub.break_at(Break::Logged(0));
    let _sent = session.sender().enqueue(Message::to_agent("worker").topic("t")).await.unwrap();
    refuse(Code::FailedPrecondition, "RECEIVER_PRESENT").await;
    let began = Instant::now();
    // For longer than another program may be in its place.
    while began.elapsed() < Duration::from_secs(16) {
        refuse(Code::Unavailable, "HUB_STOPPING").await;
    }
    refuse(Code::FailedPrecondition, "RECEIVER_PRESENT").await;
    hub.state().turns_away = None;
    hub.until("it is open again", |state| state.sessions.len() == 2).await;
}

#[tokio::test]
async fn a_session_reconnects_also_when_it_is_older_than_it_may_take() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    let patience = Duration::from_secs(1);
    let session = client.session().receive(false).reconnect_for(patience).open().await.unwrap();
    // Its age is what matters.
    tokio::time::sleep(patience + Duration::from_millis(100)).await;
    hub.break_at(Break::Logged(0));
    session.send(Message::to_agent("worker").topic("t")).await.unwrap();
}

#[tokio::test]
async fn what_a_hub_may_have_forgotten_is_not_sent_again() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    let session = client.session().receive(false).reconnect_for(Duration::from_secs(3600)).open().await.unwrap();
    let other = usize::from(session.replica() == "hub-0");
    hub.gates[other].held.send_replace(true);
    hub.break_at(Break::Logged(0));
    let old = session.sender().enqueue(Message::to_agent("worker").topic("old")).await.unwrap();
    hub.until("the message is in the log", |state| state.log.len() == 1).await;
    // By then a hub has forgotten it.
    hub.state().log[0].idempotency_key.clear();
    let new = session.sender().enqueue(Message::to_agent("worker").topic("new")).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
    hub.gates[other].held.send_replace(false);
    let error = old.await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().starts_with("it is not known whether the message arrived"), "{error}");
    // What was never sent is sent.
    new.await.unwrap();
    let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
    assert_eq!(topics, ["old", "new"]);
}

/// Lets a time pass that is longer than a message is sent again for, and longer than a limit's.
async fn pass() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(301)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn what_a_limit_kept_back_for_long_is_sent_all_the_same() {
    let hub = Hub::start(2).await;
    let client = hub.client().connect().await.unwrap();
    let mut session = client.session().reconnect_for(Duration::from_secs(3600)).open().await.unwrap();
    let here = usize::from(session.replica() == "hub-1");
    hub.state().limited = vec![Some(Duration::from_secs(60))];
    hub.state().late = vec![mail("a", "t", "1")];
    let sender = session.sender();
    // The second one fails only because the first one did.
    let first = sender.enqueue(Message::to_agent("worker").topic("first")).await.unwrap();
    let second = sender.enqueue(Message::to_agent("worker").topic("again")).await.unwrap();
    // Behind both answers.
    let received = session.next().await.unwrap();
    hub.gates[1 - here].held.send_replace(true);
    hub.gates[here].slam();
    pass().await;
    hub.gates[1 - here].held.send_replace(false);
    first.await.unwrap();
    second.await.unwrap();
    let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
    assert_eq!(topics, ["first", "again"]);
    received.ack();
}

#[tokio::test]
async fn what_an_earlier_connection_may_have_brought_into_the_log_is_in_doubt_whatever_a_limit_says() {
    let hub = Hub::start(3).await;
    let client = hub.client().connect().await.unwrap();
    let mut session = client.session().reconnect_for(Duration::from_secs(3600)).open().await.unwrap();
    for gate in &hub.gates {
        gate.held.send_replace(true);
    }
    hub.break_at(Break::Logged(0));
    let sent = session.sender().enqueue(Message::to_agent("worker").topic("again")).await.unwrap();
    hub.until("the message is in the log", |state| state.log.len() == 1).await;
    // By then a hub has forgotten it.
    hub.state().log[0].idempotency_key.clear();
    // The next replica refuses it for now, and that says nothing of the one before.
    hub.state().limited = vec![Some(Duration::from_secs(60))];
    hub.state().late = vec![mail("a", "t", "1")];
    for gate in &hub.gates {
        gate.held.send_replace(false);
    }
    // Behind its answer.
    let received = session.next().await.unwrap();
    for gate in &hub.gates {
        gate.held.send_replace(true);
    }
    let here: usize = session.replica().trim_start_matches("hub-").parse().unwrap();
    hub.gates[here].slam();
    pass().await;
    for gate in &hub.gates {
        gate.held.send_replace(false);
    }
    let error = sent.await.unwrap_err();
    assert!(error.message().starts_with("it is not known whether the message arrived"), "{error}");
    assert_eq!(hub.state().log.len(), 1, "it is not there twice");
    received.ack();
}

#[tokio::test]
async fn a_refused_message_says_why_and_the_session_goes_on() {
    let hub = Hub::start(1).await;
    let session = hub.client().connect().await.unwrap().session().receive(false).open().await.unwrap();
    let error = session.send(Message::to_agent("nobody").topic("refused")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, "RECIPIENT_NOT_FOUND"));
    session.send(Message::to_agent("worker").topic("t")).await.unwrap();
}

#[tokio::test]
async fn what_was_sent_behind_a_refused_message_arrives_in_order() {
    let hub = Hub::start(2).await;
    let session = hub.client().connect().await.unwrap().session().receive(false).open().await.unwrap();
    // Also where the connection breaks in the midst of it.
    hub.break_at(Break::Logged(150));
    let sender = session.sender();
    let refused = |number: u32| number % 7 == 3;
    let mut receipts = Vec::new();
    for number in 0..300 {
        let topic = if refused(number) { "refused".to_owned() } else { number.to_string() };
        receipts.push(sender.enqueue(Message::to_agent("worker").topic(topic)).await.unwrap());
    }
    for (number, receipt) in (0..).zip(receipts) {
        let code = receipt.await.map_err(|error| error.code()).err();
        assert_eq!(code, refused(number).then_some(Code::NotFound), "{number}");
    }
    let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
    let expected: Vec<String> = (0..300).filter(|number| !refused(*number)).map(|number| number.to_string()).collect();
    assert_eq!(topics, expected);
}

#[tokio::test]
async fn what_a_limit_keeps_back_is_sent_when_there_is_room_again_and_in_order() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let session = client.session().receive(false).open().await.unwrap();
    let (after, start) = (Duration::from_millis(300), Instant::now());
    hub.state().limited = vec![Some(after)];
    let mut receipts = Vec::new();
    for number in 0..20 {
        receipts.push(session.sender().enqueue(Message::to_agent("worker").topic(number.to_string())).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert!(start.elapsed() >= after);
    let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
    assert_eq!(topics, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    // Without a session, too.
    hub.state().limited = vec![Some(after)];
    let start = Instant::now();
    client.send(Message::to_agent("worker").topic("t")).await.unwrap();
    assert!(start.elapsed() >= after);
}

#[tokio::test]
async fn a_limit_that_waiting_does_not_help_against_fails_at_once() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let session = client.session().receive(false).open().await.unwrap();
    // The rest of a month is as good as never.
    for never in [None, Some(Duration::from_secs(86_400))] {
        hub.state().limited = vec![never, never];
        let errors = [
            session.send(Message::to_agent("worker").topic("t")).await.unwrap_err(),
            client.send(Message::to_agent("worker").topic("t")).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
            assert_eq!(error.retry_after(), never);
        }
        session.send(Message::to_agent("worker").topic("t")).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_waits_for_a_limit_no_longer_than_for_its_reply() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    hub.state().limited = vec![Some(Duration::from_secs(30))];
    let start = Instant::now();
    let error = client.request(Message::to_agent("worker").topic("t"), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.reason(), "RATE_LIMIT_EXCEEDED");
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn mail(id: &str, topic: &str, payload: &str) -> acb_proto::v1::Message {
    acb_proto::v1::Message { id: id.into(), topic: topic.into(), payload: payload.to_owned().into(), ..Default::default() }
}

#[tokio::test]
async fn a_handled_message_is_handled_once_although_its_acknowledgement_was_lost() {
    let hub = Hub::start(2).await;
    hub.state().mailbox = vec![mail("a", "number", "1"), mail("b", "number", "2")];
    hub.break_at(Break::Acked);
    let mut session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    session.on("number", move |number: u32, _| {
        noted.lock().unwrap().push(number);
        async { Ok(()) }
    });
    let running = tokio::spawn(session.run());
    hub.until("both are acknowledged", |state| state.acked.len() == 2).await;
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    running.abort();
}

#[tokio::test]
async fn a_failed_handler_and_a_wrong_payload_are_not_acknowledged() {
    let hub = Hub::start(1).await;
    hub.state().mailbox =
        vec![mail("a", "number", "1"), mail("b", "number", "\"text\""), mail("c", "other", ""), mail("d", "number", "4")];
    let mut session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    session.on("number", |number: u32, _| async move { if number == 1 { Err("no".into()) } else { Ok(()) } });
    let running = tokio::spawn(session.run());
    hub.until("the last is acknowledged", |state| state.acked.contains("d")).await;
    assert_eq!(hub.state().acked.len(), 1);
    running.abort();
}

#[tokio::test]
async fn what_comes_again_while_it_is_in_hand_is_said_to_be_in_progress() {
    let hub = Hub::start(1).await;
    hub.state().mailbox = vec![mail("a", "t", "1"), mail("b", "t", "2")];
    let mut session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    let (first, second) = (session.next().await.unwrap(), session.next().await.unwrap());
    drop(second);
    session.send(Message::to_agent("worker").topic("again")).await.unwrap();
    let second = session.next().await.unwrap();
    assert_eq!((second.message().id.as_str(), second.attempt()), ("b", 2));
    hub.until("it is said", |state| state.in_progress == ["hub-0/a"]).await;
    // What came for the first time is not: that would be a frame for each message.
    hub.until("its beginning is said", |state| state.started == ["hub-0/b"]).await;
    first.ack();
    second.ack();
    hub.until("both are acknowledged", |state| state.acked.len() == 2).await;
    session.send(Message::to_agent("worker").topic("again")).await.unwrap();
    assert_eq!(hub.state().in_progress.len(), 1);
}

#[tokio::test]
async fn a_hub_that_opens_sessions_and_fails_each_message_is_not_tried_again_at_once() {
    let hub = Hub::start(1).await;
    let session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    let sending = session.sender().enqueue(Message::to_agent("worker").topic("stale")).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(2), sending).await.is_err());
    let sessions = hub.state().sessions.len();
    assert!((2..=10).contains(&sessions), "{sessions} sessions in 2 s");
}

#[tokio::test]
async fn a_closed_session_leaves_no_acknowledgement_behind() {
    let hub = Hub::start(1).await;
    hub.state().mailbox = vec![mail("a", "t", "1")];
    let mut session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    session.next().await.unwrap().ack();
    session.close().await;
    hub.until("it is acknowledged", |state| state.acked.contains("a")).await;
}

#[tokio::test]
async fn a_closed_session_leaves_nothing_unsent() {
    let hub = Hub::start(1).await;
    for _ in 0..20 {
        hub.state().log.clear();
        let session = hub.client().connect().await.unwrap().session().open().await.unwrap();
        let sender = session.sender();
        let mut receipts = Vec::new();
        for topic in ["one", "refused", "two", "three"] {
            receipts.push(sender.enqueue(Message::to_agent("worker").topic(topic)).await.unwrap());
        }
        session.close().await;
        let topics: Vec<String> = hub.state().log.iter().map(|message| message.topic.clone()).collect();
        assert_eq!(topics, ["one", "two", "three"]);
        for (index, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await.is_ok(), index != 1);
        }
    }
}

#[tokio::test]
async fn a_subscription_goes_on_after_its_last_position() {
    let hub = Hub::start(2).await;
    hub.break_at(Break::Told(4));
    let mut subscription = hub.client().connect().await.unwrap().subscribe("documents", Since::Start).await.unwrap();
    let mut offsets = Vec::new();
    for _ in 0..10 {
        offsets.push(subscription.next().await.unwrap().position.unwrap().offset);
    }
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert_eq!(hub.state().subscriptions.len(), 2);
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_renewed_once() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    hub.state().valid.clear();
    client.send(Message::to_all().topic("t")).await.unwrap();
    assert_eq!(hub.state().exchanges, 1);
    assert_eq!(hub.state().refreshes, 1);
    let identity = client.identity().await.unwrap();
    assert_eq!((identity.tenant.as_str(), identity.agent.as_str()), ("acme", "planner"));
}

#[tokio::test]
async fn an_issuer_is_asked_for_a_token_each_time() {
    let hub = Hub::start(1).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let source = move || {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move { if number < 2 { Ok(format!(" token-{number}\n")) } else { Err("the issuer is away".into()) } }
    };
    let client = hub.client().oidc_token(source).connect().await.unwrap();
    assert_eq!(client.tokens().await.unwrap().refresh, "");
    hub.state().valid.clear();
    client.send(Message::to_all().topic("t")).await.unwrap();
    assert_eq!(hub.state().subject_tokens, ["token-0", "token-1"]);
    hub.state().valid.clear();
    let error = client.send(Message::to_all().topic("t")).await.unwrap_err();
    assert!(error.to_string().contains("the issuer is away"), "{error}");
}

#[tokio::test]
async fn the_file_of_a_token_is_read_again_each_time() {
    let hub = Hub::start(1).await;
    let file = std::env::temp_dir().join(format!("acb-sdk-token-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "first\n").unwrap();
    let client = hub.client().service_account_token(&file).connect().await.unwrap();
    assert_eq!(client.tokens().await.unwrap().refresh, "");
    std::fs::write(&file, "second").unwrap();
    hub.state().valid.clear();
    client.send(Message::to_all().topic("t")).await.unwrap();
    assert_eq!(hub.state().subject_tokens, ["first", "second"]);
    assert_eq!(hub.state().exchanges, 0);
    assert_eq!(hub.state().refreshes, 0);
    std::fs::remove_file(&file).unwrap();
    hub.state().valid.clear();
    let error = client.send(Message::to_all().topic("t")).await.unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_replica_of_an_older_hub_is_passed_over() {
    let hub = Hub::start(2).await;
    let file = std::env::temp_dir().join(format!("acb-sdk-token-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "token").unwrap();
    let client = || hub.client().service_account_token(&file).retry_for(Duration::from_millis(500));
    for older in ["hub-0", "hub-1"] {
        hub.state().older = [older.to_owned()].into();
        client().connect().await.unwrap();
    }
    // Where all of them are, it says so in time.
    hub.state().older = ["hub-0", "hub-1"].map(str::to_owned).into();
    let error = client().connect().await.unwrap_err();
    assert!(error.message().contains("its hub is older"), "{error}");
    assert_eq!(hub.state().subject_tokens, ["token", "token"]);
    std::fs::remove_file(&file).unwrap();
}

#[tokio::test]
async fn who_finds_a_crowd_at_the_login_tries_again() {
    let hub = Hub::start(1).await;
    hub.state().crowd = 2;
    hub.client().connect().await.unwrap();
    assert_eq!(hub.state().exchanges, 3);
}

#[tokio::test]
async fn a_wrong_key_is_refused_at_once() {
    let hub = Hub::start(1).await;
    let error = hub.client().api_key("acb_model_wrong".parse().unwrap()).connect().await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(!error.to_string().contains("wrong"), "{error}");
}

#[tokio::test]
async fn a_foreign_ca_is_not_trusted() {
    let (hub, other) = (Hub::start(1).await, Hub::start(1).await);
    let endpoint = format!("https://{}", other.gates[0].address);
    // At once, although there would be time for more tries.
    let error = hub.client().endpoints([endpoint]).connect().await.unwrap_err();
    assert!(matches!(error, Error::Untrusted(_)) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn without_any_replica_it_gives_up_in_time_and_names_them() {
    let hub = Hub::start(2).await;
    let client = hub.client().retry_for(Duration::from_millis(500)).connect().await.unwrap();
    hub.gates.iter().for_each(|gate| gate.slam());
    let error = client.send(Message::to_all().topic("t")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    for gate in &hub.gates {
        assert!(error.message().contains(&gate.address.to_string()), "{error}");
    }
}
