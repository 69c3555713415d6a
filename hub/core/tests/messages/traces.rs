//! What happened to messages. Shared with the suite that runs on PostgreSQL.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_hub_core::{
    directory::agent::{Agent, Role},
    kit::spans::{Span, SpanSink, Spans, TraceParent},
    log::{bus::TopicName, partition::partition_of},
    messages::{
        config::MessagesConfig,
        envelope::Envelope,
        letter::LetterReason,
        message::{Address, Message, OutgoingMessage},
        service::Messages,
        trace::{event::Happening, search::TraceRecipient},
    },
};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use crate::world::{World, delivery, eventually, to};

/// What happened, by whom it was noted, and of whom.
async fn events(replica: &Messages, caller: &Agent, id: Uuid) -> Vec<(Happening, String, String, u32)> {
    let trace = replica.traces().trace(caller, id).await.unwrap();
    trace.events.into_iter().map(|event| (event.what, event.replica, event.agent, event.attempt)).collect()
}

fn event(what: Happening, replica: &str, agent: &str, attempt: u32) -> (Happening, String, String, u32) {
    (what, replica.to_owned(), agent.to_owned(), attempt)
}

pub(crate) async fn what_happened_to_a_message_is_seen_by_those_whom_it_concerns(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b, c) = (world.agent("a"), world.agent("b"), world.agent("c"));
    let sent = left.send(&a, to("b", "hello")).await.unwrap();
    let before = left.traces().trace(&a, sent.id).await.unwrap();
    assert_eq!(before.recipients, [TraceRecipient { agent: "b".to_owned(), acknowledged: false }]);
    assert_eq!(before.message.correlation_id, sent.id.to_string(), "what names none has its own id");

    let mut inbox = world.receive(&right, "b").await;
    let got = delivery(&mut inbox).await;
    inbox.input.ack(vec![got.id]).await.unwrap();
    world.acknowledged("b", &[got]).await;
    let expected = [
        event(Happening::Accepted, "left", "a", 0),
        event(Happening::Delivered, "right", "b", 1),
        event(Happening::Acknowledged, "right", "b", 0),
    ];
    // What the other replica noted is written within about a second.
    eventually(async || events(&left, &a, sent.id).await == expected).await;
    assert_eq!(events(&right, &b, sent.id).await, expected, "whom it is for sees the same");
    let after = left.traces().trace(&a, sent.id).await.unwrap();
    assert_eq!(after.recipients, [TraceRecipient { agent: "b".to_owned(), acknowledged: true }]);
    let times: Vec<_> = after.events.iter().map(|event| event.at).collect();
    assert!(times.is_sorted() && times[0] <= after.logged_at, "{times:?}");

    let auditor = Agent { role: Role::Auditor, ..(*c).clone() };
    assert_eq!(events(&left, &auditor, sent.id).await, expected);
    for unknown in [(&c, sent.id), (&a, Uuid::now_v7()), (&a, Uuid::new_v4()), (&a, Uuid::nil()), (&a, Uuid::max())] {
        let fault = left.traces().trace(unknown.0, unknown.1).await.unwrap_err();
        assert_eq!(fault.reason, "MESSAGE_NOT_FOUND", "{unknown:?}");
    }
}

pub(crate) async fn a_message_for_a_group_is_one_for_each_of_its_members(world: &World) {
    let replica = world.replica("only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    let group = OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "all of you".to_owned());
    let sent = replica.send(&a, OutgoingMessage { correlation_id: "case-7".to_owned(), ..group }).await.unwrap();
    let mut inbox = world.receive(&replica, "b").await;
    let got = delivery(&mut inbox).await;
    inbox.input.ack(vec![got.id]).await.unwrap();
    world.acknowledged("b", &[got]).await;
    let trace = replica.traces().trace(&a, sent.id).await.unwrap();
    let recipient = |name: &str, acknowledged| TraceRecipient { agent: name.to_owned(), acknowledged };
    assert_eq!(trace.recipients, [recipient("b", true), recipient("c", false)], "d left the group");
    assert_eq!((trace.message.correlation_id.as_str(), trace.more_recipients), ("case-7", 0));
    // What the others do with it is not for each of them.
    let c = world.agent("c");
    let trace = replica.traces().trace(&c, sent.id).await.unwrap();
    assert_eq!(trace.recipients, [recipient("c", false)]);
    assert_eq!(events(&replica, &c, sent.id).await, [event(Happening::Accepted, "only", "a", 0)]);
    let delivered = [event(Happening::Delivered, "only", "b", 1), event(Happening::Acknowledged, "only", "b", 0)];
    assert_eq!(events(&replica, &b, sent.id).await[1..], delivered);
}

pub(crate) async fn who_asked_sees_what_became_of_the_reply(world: &World) {
    let replica = world.replica("only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    let mut inbox = world.receive(&replica, "b").await;
    let (asked, answered) = tokio::join!(replica.request(&a, to("b", "?"), Duration::from_secs(20)), async {
        let got = delivery(&mut inbox).await;
        let answer = OutgoingMessage::new(got.message.reply_to.clone().unwrap(), "t", "!".to_owned());
        replica.send(&b, answer).await.unwrap()
    });
    assert_eq!(asked.unwrap().id, answered.id);
    let expected = [event(Happening::Accepted, "only", "b", 0), event(Happening::Delivered, "only", "a", 1)];
    eventually(async || {
        let mut seen = events(&replica, &b, answered.id).await;
        seen.sort_by_key(|(_, _, agent, _)| agent != "b");
        seen == expected
    })
    .await;
    assert_eq!(events(&replica, &a, answered.id).await.len(), 2, "whom it is for");
    let fault = replica.traces().trace(&world.agent("c"), answered.id).await.unwrap_err();
    assert_eq!(fault.reason, "MESSAGE_NOT_FOUND");
}

/// Keeps what it is told, of what is part of nothing, too.
#[derive(Default)]
struct Kept(Mutex<Vec<Span>>);

impl SpanSink for Kept {
    fn take(&self, span: Span) {
        self.0.lock().unwrap().push(span);
    }

    fn begins_traces(&self) -> bool {
        true
    }
}

pub(crate) async fn spans_are_told_of_messages_whose_senders_collect_them(world: &World) {
    let kept = Arc::new(Kept::default());
    let config = MessagesConfig { spans: Spans::new(kept.clone()), ..world.config.clone() };
    let world = World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for traceparent in [parent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", ""] {
        let message = OutgoingMessage { traceparent: traceparent.to_owned(), ..to("b", "x") };
        replica.send(&a, message).await.unwrap();
        let got = delivery(&mut inbox).await;
        inbox.input.ack(vec![got.id]).await.unwrap();
        world.acknowledged("b", &[got]).await;
    }
    let spans = kept.0.lock().unwrap();
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    // The recipient may have it before its sender is told.
    names.sort_unstable();
    assert_eq!(names, ["deliver t", "publish t", "settle t"], "of the one that is collected, once each");
    assert!(spans.iter().all(|span| span.parent == TraceParent::parse(parent) && span.began <= span.ended), "{spans:?}");
}

pub(crate) async fn attempts_and_the_end_of_a_message_that_nobody_takes_are_noted(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(100), max_attempts: 2, ..world.config.clone() };
    let world = World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let sent = replica.send(&a, to("b", "poison")).await.unwrap();
    let mut inbox = world.receive(&replica, "b").await;
    let attempts = [delivery(&mut inbox).await.attempt, delivery(&mut inbox).await.attempt];
    assert_eq!(attempts, [1, 2]);
    let expected = [
        event(Happening::Accepted, "only", "a", 0),
        event(Happening::Delivered, "only", "b", 1),
        event(Happening::Redelivered, "only", "b", 2),
        event(Happening::Dead(LetterReason::Attempts), "only", "b", 0),
    ];
    eventually(async || events(&replica, &a, sent.id).await == expected).await;
}

/// Its way into the log took a minute, while others came.
pub(crate) async fn a_message_that_was_slow_is_found(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let topic = TopicName::system(&world.tenant, "messages");
    let partition = partition_of(a.id.0, world.bus.topic(&topic).await.unwrap().partitions);
    // More than are looked at together.
    for number in 0..100 {
        replica.send(&a, to("c", &number.to_string())).await.unwrap();
    }
    let before = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let seconds = u64::try_from(before.unix_timestamp()).unwrap();
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
    let fresh = world.bus.read(&topic, partition, 0, 1000).await.unwrap().pop().unwrap();
    let envelope = Envelope::decode(fresh.record.value.as_ref().unwrap()).unwrap();
    let message = Message { id, accepted_at: before, sent_at: before, ..envelope.message };
    let slow = Envelope { message, ..envelope };
    world.bus.append(&topic, partition, slow.record()).await.unwrap().await.unwrap();
    let mut found = None;
    eventually(async || {
        found = replica.traces().trace(&a, id).await.ok();
        found.is_some()
    })
    .await;
    let found = found.unwrap();
    assert!(found.logged_at - found.message.accepted_at >= Duration::from_secs(59), "{found:?}");
}

/// It says what it acknowledges by the delivery that an earlier session gave it.
pub(crate) async fn an_acknowledgement_after_a_reconnect_is_noted(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let sent = left.send(&a, to("b", "x")).await.unwrap();
    let mut inbox = world.receive(&left, "b").await;
    let first = delivery(&mut inbox).await;
    drop(inbox);
    let inbox = world.receive(&right, "b").await;
    inbox.input.ack(vec![first.id]).await.unwrap();
    world.acknowledged("b", &[first]).await;
    let acknowledged = event(Happening::Acknowledged, "right", "b", 0);
    eventually(async || events(&left, &a, sent.id).await.contains(&acknowledged)).await;
    let noted = events(&left, &a, sent.id).await;
    assert_eq!(noted.iter().filter(|event| event.0 == Happening::Acknowledged).count(), 1, "{noted:?}");
}
