//! Messages that are sent later. Shared with the suite that runs on PostgreSQL.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_hub_core::{
    directory::{
        agent::{Agent, Role},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    messages::{
        config::MessagesConfig,
        letter::{DeadLetter, LetterFilter, LetterReason},
        letters::Selection,
        message::{Address, OutgoingMessage},
        scheduled::{BOUNDS, MAX_BYTES, MAX_WAIT, Scheduled, ScheduledMessage, ScheduledMessages},
        service::Messages,
    },
    metrics::Metrics,
    timers::{
        alarm::{Alarm, Wake},
        handler::{Fired, Handler},
        ports::{Added, Bounds, Cancelled, Due, NewTimer, Outcomes, Timer, TimerStore},
    },
};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{World, delivery, eventually, keyed, silent, text, to};

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(3600);

/// A replica with what sends its scheduled messages, until that is told to end.
pub(crate) struct Replica {
    pub(crate) messages: Messages,
    pub(crate) scheduled: ScheduledMessages,
    pub(crate) timers: Arc<dyn TimerStore>,
    wake: Wake,
    stop: CancellationToken,
    alarm: Mutex<Option<JoinHandle<()>>>,
}

impl Replica {
    /// One that sends nothing yet.
    pub(crate) async fn idle(world: &World, name: &str) -> Self {
        let (messages, timers, wake) = (world.replica(name).await, (world.connect)().timers, Wake::default());
        let scheduled = messages.scheduled(timers.clone(), wake.clone());
        Self { messages, scheduled, timers, wake, stop: CancellationToken::new(), alarm: Mutex::default() }
    }

    pub(crate) fn begin(&self, poll: Duration) {
        let handlers: [Arc<dyn Handler>; 1] = [Arc::new(self.scheduled.clone())];
        let alarm = Alarm::new(self.timers.clone(), handlers, self.wake.clone(), poll, Arc::new(Metrics::new("acme")));
        *self.alarm.lock().unwrap() = Some(tokio::spawn(alarm.run(self.stop.clone())));
    }

    /// It ends at once, whatever it is doing.
    fn kill(&self) {
        self.alarm.lock().unwrap().take().unwrap().abort();
        self.messages.stop();
    }

    pub(crate) async fn start(world: &World, name: &str) -> Self {
        let replica = Self::idle(world, name).await;
        replica.begin(Duration::from_millis(200));
        replica
    }

    async fn waiting(&self, agent: &Agent, all: bool) -> Vec<ScheduledMessage> {
        let (mut messages, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.scheduled.list(agent, all, 2, &token).await.unwrap();
            assert!(page.messages.len() <= 2);
            messages.extend(page.messages);
            token = page.next_page_token;
            if token.is_empty() {
                return messages;
            }
        }
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        self.messages.dead_letters().list(&admin(), LetterFilter::default(), 100, "").await.unwrap().letters
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn admin() -> Agent {
    Agent { role: Role::Admin, ..crate::world::agent("root", OffsetDateTime::now_utc()) }
}

/// Another directory, which every replica learns of now: without an agent where `change` says so.
fn change(world: &World, change: impl Fn(&Agent) -> Option<Agent>) {
    let snapshot = world.directory.snapshot();
    let agents = snapshot.agents().filter_map(|agent| change(agent)).collect();
    world.directory.replace(Snapshot::new(snapshot.generation + 1, agents, snapshot.memberships("pair").to_vec()));
}

/// Carries a timer out that was not attempted before.
async fn fire(replica: &Replica, timer: &Timer) -> Fired {
    assert_eq!(timer.attempted, None);
    match replica.scheduled.fire(timer, false).await {
        Fired::Attempt => replica.scheduled.fire(&attempted(timer, Duration::ZERO), true).await,
        fired => fired,
    }
}

/// As if it had been attempted so long ago.
fn attempted(timer: &Timer, ago: Duration) -> Timer {
    Timer { attempted: Some(ago), ..timer.clone() }
}

fn done(id: Uuid) -> Outcomes {
    Outcomes { done: vec![id], ..Outcomes::default() }
}

/// What is due, as soon as something is.
async fn claimed(replica: &Replica) -> Box<dyn Due> {
    let mut due = None;
    eventually(async || {
        due = replica.timers.claim(&["message"], &[]).await.unwrap();
        due.is_some()
    })
    .await;
    due.unwrap()
}

fn reason<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> &'static str {
    outcome.unwrap_err().reason
}

pub(crate) async fn what_is_scheduled_is_sent_once_when_it_is_due(world: &World) {
    let (left, right) = (Replica::start(world, "left").await, Replica::start(world, "right").await);
    let (a, began) = (world.agent("a"), Instant::now());
    let mut inbox = world.receive(&right.messages, "b").await;
    let scheduled = left.scheduled.schedule(&a, keyed("b", "later", "k"), SOON).await.unwrap();
    assert!(!scheduled.deduplicated);
    let again = right.scheduled.schedule(&a, keyed("b", "later", "k"), SOON).await.unwrap();
    assert_eq!(again, Scheduled { deduplicated: true, ..scheduled });
    assert_eq!(reason(right.scheduled.schedule(&a, keyed("b", "other", "k"), SOON).await), "IDEMPOTENCY_KEY_REUSED");
    // Sent now, it is another message.
    right.messages.send(&a, keyed("b", "now", "k")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "now");
    let got = delivery(&mut inbox).await;
    assert!(began.elapsed() >= SOON);
    assert_eq!((text(&got).as_str(), got.message.id, got.message.from.as_str()), ("later", scheduled.id, "a"));
    assert!(got.message.expires_at - got.message.sent_at >= time::Duration::days(6));
    eventually(async || left.waiting(&a, false).await.is_empty()).await;
    assert!(silent(&mut inbox).await);
    // Whose answer was lost until then is told all the same.
    let again = left.scheduled.schedule(&a, keyed("b", "later", "k"), SOON).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (scheduled.id, true));
    tokio::time::sleep(SOON).await;
    assert!(silent(&mut inbox).await);

    // To a group and to several, in the order in which they are due, and not of their calls.
    let pair = OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "second");
    left.scheduled.schedule(&a, pair, 2 * SOON).await.unwrap();
    let both = Address::agents(vec!["b".to_owned(), "d".to_owned()]).unwrap();
    left.scheduled.schedule(&a, OutgoingMessage::new(both, "t", "first"), SOON).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "first");
    assert_eq!(text(&delivery(&mut inbox).await), "second");
    assert_eq!(world.rows("d").await, 1);
}

pub(crate) async fn what_is_cancelled_is_not_sent(world: &World) {
    let (left, right) = (Replica::start(world, "left").await, Replica::start(world, "right").await);
    let (a, c) = (world.agent("a"), world.agent("c"));
    let mut inbox = world.receive(&right.messages, "b").await;
    let mut ids = Vec::new();
    for (number, agent) in [&a, &a, &c, &a].into_iter().enumerate() {
        let after = LATER + number as u32 * SOON;
        ids.push(left.scheduled.schedule(agent, to("b", &number.to_string()), after).await.unwrap().id);
    }
    let listed = async |agent: &Agent, all| -> Vec<Uuid> {
        right.waiting(agent, all).await.into_iter().map(|waiting| waiting.message.id).collect()
    };
    assert_eq!(listed(&a, false).await, [ids[0], ids[1], ids[3]]);
    assert_eq!(listed(&admin(), true).await, ids);
    assert_eq!(reason(right.scheduled.list(&a, true, 0, "").await), "ROLE_LACKS_PERMISSION");
    assert_eq!(reason(right.scheduled.list(&a, false, 0, "noise").await), "PAGE_TOKEN_INVALID");
    // Another's is not there for it.
    assert_eq!(reason(right.scheduled.cancel(&a, ids[2]).await), "SCHEDULED_MESSAGE_NOT_FOUND");
    assert_eq!(right.scheduled.cancel(&admin(), ids[2]).await, Ok(false));
    assert_eq!(right.scheduled.cancel(&a, ids[0]).await, Ok(false));
    assert_eq!(left.scheduled.cancel(&a, ids[0]).await, Ok(true));
    assert_eq!(reason(right.scheduled.cancel(&a, Uuid::new_v4()).await), "SCHEDULED_MESSAGE_NOT_FOUND");
    assert_eq!(listed(&admin(), true).await, [ids[1], ids[3]]);
    let soon = left.scheduled.schedule(&a, to("b", "soon"), SOON).await.unwrap();
    assert_eq!(right.scheduled.cancel(&a, soon.id).await, Ok(false));
    let sent = left.scheduled.schedule(&a, to("b", "sent"), SOON).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "sent");
    let fault = right.scheduled.cancel(&a, sent.id).await.unwrap_err();
    assert_eq!((fault.code, fault.reason), (Code::FailedPrecondition, "SCHEDULED_MESSAGE_SENT"));
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn what_can_not_be_scheduled_says_why(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let a = world.agent("a");
    let schedule = async |message, after| reason(replica.scheduled.schedule(&a, message, after).await);
    for after in [Duration::ZERO, MAX_WAIT + Duration::from_secs(1), Duration::MAX] {
        assert_eq!(schedule(to("b", "x"), after).await, "DELIVERY_TIME_INVALID");
    }
    let waiting = Address::Request { agent: "b".to_owned(), request_id: Uuid::new_v4() };
    assert_eq!(schedule(OutgoingMessage::new(waiting, "t", "x"), SOON).await, "DELIVERY_TIME_INVALID");
    assert_eq!(schedule(to("nobody", "x"), SOON).await, "RECIPIENT_NOT_FOUND");
    assert_eq!(schedule(OutgoingMessage { topic: " ".to_owned(), ..to("b", "x") }, SOON).await, "TOPIC_INVALID");
    assert_eq!(schedule(to("b", &"x".repeat(MAX_BYTES)), SOON).await, "SCHEDULED_MESSAGE_TOO_LARGE");
    // It would be over before it is sent.
    let expires_at = Some(OffsetDateTime::now_utc() + Duration::from_secs(60));
    assert_eq!(schedule(OutgoingMessage { expires_at, ..to("b", "x") }, LATER).await, "EXPIRY_INVALID");
    assert!(replica.waiting(&admin(), true).await.is_empty());
    let largest = to("b", &"x".repeat(MAX_BYTES - 1024));
    replica.scheduled.schedule(&a, largest, MAX_WAIT).await.unwrap();
    for _ in 1..BOUNDS.each {
        replica.scheduled.schedule(&a, to("b", "x"), LATER).await.unwrap();
    }
    assert_eq!(schedule(to("b", "x"), LATER).await, "TOO_MANY_SCHEDULED_MESSAGES");
    // Others may go on.
    replica.scheduled.schedule(&world.agent("c"), to("b", "x"), LATER).await.unwrap();
}

pub(crate) async fn what_can_not_be_sent_when_it_is_due_is_a_dead_letter(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let (a, d) = (world.agent("a"), world.agent("d"));
    let mut inbox = world.receive(&replica.messages, "b").await;
    let several = Address::agents(["b", "c", "d"].map(str::to_owned).into()).unwrap();
    replica.scheduled.schedule(&a, OutgoingMessage::new(several, "t", "for two of three"), SOON).await.unwrap();
    replica.scheduled.schedule(&a, to("c", "for one who is gone"), SOON).await.unwrap();
    replica.scheduled.schedule(&d, to("b", "of one who is suspended"), SOON).await.unwrap();
    // One is made anew under its name, and is another one; one is suspended.
    change(world, |agent| match agent.name.as_str() {
        "c" => Some(crate::world::agent("c", OffsetDateTime::now_utc())),
        "d" => Some(Agent { suspended: true, ..agent.clone() }),
        _ => Some(agent.clone()),
    });
    replica.begin(Duration::from_millis(200));
    let got = delivery(&mut inbox).await;
    assert_eq!(text(&got), "for two of three");
    assert_eq!(got.message.to, Address::agents(vec!["b".to_owned(), "d".to_owned()]).unwrap());
    eventually(async || replica.letters().await.len() == 3).await;
    let mut letters: Vec<_> = replica
        .letters()
        .await
        .into_iter()
        .map(|letter| (letter.reason.as_str(), letter.sender_name, letter.recipient_name, letter.size))
        .collect();
    letters.sort();
    let letter = |reason: LetterReason, from: &str, to: &str, text: &str| {
        (reason.as_str(), from.to_owned(), to.to_owned(), text.len() as u64)
    };
    let expected = [
        letter(LetterReason::RecipientGone, "a", "c", "for two of three"),
        letter(LetterReason::RecipientGone, "a", "c", "for one who is gone"),
        letter(LetterReason::SenderRefused, "d", "b", "of one who is suspended"),
    ];
    assert_eq!(letters, expected);
    assert!(silent(&mut inbox).await && replica.waiting(&admin(), true).await.is_empty());
    // What a suspended agent meant to send does not reach its recipient as a letter of its own.
    let refused = replica.letters().await.into_iter().find(|letter| letter.reason == LetterReason::SenderRefused).unwrap();
    let (letters, b) = (replica.messages.dead_letters(), world.agent("b"));
    assert!(letters.list(&b, LetterFilter::default(), 100, "").await.unwrap().letters.is_empty());
    assert_eq!(reason(letters.get(&b, refused.id).await), "DEAD_LETTER_NOT_FOUND");
    let named = || Selection::Named(vec![refused.id]);
    let all = || Selection::Matching { filter: LetterFilter::default(), page_size: 100, page_token: String::new() };
    let replayed = letters.replay(&b, named(), None).await.unwrap().outcomes.remove(0).1;
    assert_eq!(reason(replayed), "DEAD_LETTER_NOT_FOUND");
    assert!(letters.replay(&b, all(), None).await.unwrap().outcomes.is_empty());
    assert!(letters.discard(&b, all()).await.unwrap().outcomes.is_empty());
    assert!(silent(&mut inbox).await);
    assert!(letters.get(&admin(), refused.id).await.is_ok());
}

/// Its replica had it in the log and died. Until another one takes it the keys that are known have gone.
pub(crate) async fn what_may_be_in_the_log_is_looked_up_before_it_is_sent(world: &World) {
    let config = MessagesConfig { dedup_keys: 1, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = Replica::idle(world, "only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica.messages, "b").await;
    replica.scheduled.schedule(&a, to("b", "once"), Duration::from_millis(1)).await.unwrap();
    let due = claimed(&replica).await;
    let sent = due.timers()[0].clone();
    assert_eq!(fire(&replica, &sent).await, Fired::Done);
    assert_eq!(text(&delivery(&mut inbox).await), "once");
    for number in 0..100 {
        replica.messages.send(&a, keyed("d", "x", &number.to_string())).await.unwrap();
    }
    assert_eq!(replica.scheduled.fire(&attempted(&sent, LATER), false).await, Fired::Done);
    assert!(silent(&mut inbox).await, "once");
    // Nor is it a dead letter, whatever its sender may do since.
    let suspend = |agent: &Agent| Some(Agent { suspended: agent.name == "a", ..agent.clone() });
    change(world, suspend);
    assert_eq!(replica.scheduled.fire(&attempted(&sent, LATER), false).await, Fired::Done);
    assert!(replica.letters().await.is_empty());
    change(world, |agent| Some(Agent { suspended: false, ..agent.clone() }));
    due.settle(&done(sent.id)).await.unwrap();

    // What is not there goes there, once that is written down again.
    replica.scheduled.schedule(&a, to("b", "not yet"), Duration::from_millis(1)).await.unwrap();
    let due = claimed(&replica).await;
    let unsent = due.timers()[0].clone();
    assert_eq!(replica.scheduled.fire(&attempted(&unsent, LATER), false).await, Fired::Attempt);
    // Or to the dead letters, as soon as it can't be on its way any more.
    change(world, suspend);
    assert!(matches!(replica.scheduled.fire(&attempted(&unsent, Duration::ZERO), false).await, Fired::Later(_)));
    assert!(replica.letters().await.is_empty());
    assert_eq!(replica.scheduled.fire(&attempted(&unsent, LATER), false).await, Fired::Done);
    eventually(async || replica.letters().await.len() == 1).await;
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn what_was_attempted_is_not_cancelled(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica.messages, "b").await;
    let scheduled = replica.scheduled.schedule(&a, to("b", "may be there"), Duration::from_millis(1)).await.unwrap();
    let due = claimed(&replica).await;
    due.settle(&Outcomes { attempted: vec![scheduled.id], ..Outcomes::default() }).await.unwrap();
    assert_eq!(reason(replica.scheduled.cancel(&a, scheduled.id).await), "SCHEDULED_MESSAGE_SENT");
    assert_eq!(replica.waiting(&a, false).await.len(), 1);
    let due = claimed(&replica).await;
    assert!(due.timers()[0].attempted.is_some_and(|ago| ago < Duration::from_secs(60)));
    drop(due);
    replica.begin(Duration::from_millis(200));
    assert_eq!(delivery(&mut inbox).await.message.id, scheduled.id);
    eventually(async || replica.waiting(&a, false).await.is_empty()).await;
}

pub(crate) async fn a_trace_says_when_a_message_is_sent(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    let scheduled = replica.scheduled.schedule(&a, to("b", "x"), LATER).await.unwrap();
    let traces = replica.messages.traces().with_timers(replica.timers.clone());
    for caller in [&*a, &admin()] {
        let fault = traces.trace(caller, scheduled.id).await.unwrap_err();
        assert_eq!((fault.code, fault.reason), (Code::FailedPrecondition, "MESSAGE_SCHEDULED"));
        assert!(fault.message.contains(&format!("is scheduled for {}-", scheduled.due_at.year())), "{fault}");
    }
    // Whom it will be for does not know of it.
    assert_eq!(reason(traces.trace(&b, scheduled.id).await), "MESSAGE_NOT_FOUND");
    let soon = replica.scheduled.schedule(&a, to("b", "y"), SOON).await.unwrap();
    replica.begin(Duration::from_millis(200));
    eventually(async || traces.trace(&b, soon.id).await.is_ok()).await;
    assert!(traces.trace(&a, soon.id).await.is_ok());
}

/// It was about to be sent, and the log did not take it: its sender may think better of it.
pub(crate) async fn what_the_log_refused_is_cancelled(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let a = world.agent("a");
    let scheduled = replica.scheduled.schedule(&a, to("b", "x"), Duration::from_millis(1)).await.unwrap();
    let due = claimed(&replica).await;
    let timer = due.timers()[0].clone();
    due.settle(&Outcomes { attempted: vec![timer.id], ..Outcomes::default() }).await.unwrap();
    assert_eq!(reason(replica.scheduled.cancel(&a, scheduled.id).await), "SCHEDULED_MESSAGE_SENT");
    // It is this replica's for a while.
    assert!(replica.timers.claim(&["message"], &[]).await.unwrap().is_none());
    assert!(replica.timers.claim(&["message"], &[Uuid::new_v4()]).await.unwrap().is_none());
    let due = replica.timers.claim(&["message"], &[timer.id]).await.unwrap().unwrap();
    assert!(due.timers()[0].attempted.is_some());
    due.settle(&Outcomes { untouched: vec![(timer.id, LATER)], ..Outcomes::default() }).await.unwrap();
    assert!(replica.timers.claim(&["message"], &[]).await.unwrap().is_none());
    assert_eq!(replica.scheduled.cancel(&a, scheduled.id).await, Ok(false));
}

pub(crate) async fn what_a_suspended_tenant_scheduled_is_left_alone(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let mut inbox = world.receive(&replica.messages, "b").await;
    replica.scheduled.schedule(&world.agent("a"), to("b", "x"), Duration::from_millis(1)).await.unwrap();
    let snapshot = world.directory.snapshot();
    let mut suspended = (*snapshot).clone();
    suspended.suspended = true;
    world.directory.replace(suspended);
    assert!(!replica.scheduled.ready());
    replica.begin(Duration::from_millis(200));
    assert!(silent(&mut inbox).await);
    world.directory.replace((*snapshot).clone());
    assert_eq!(text(&delivery(&mut inbox).await), "x");
}

/// It had the message in the log, and could not say so any more.
pub(crate) async fn what_a_replica_that_died_had_sent_is_not_sent_again(world: &World) {
    let (dying, other) = (Replica::idle(world, "dying").await, Replica::idle(world, "other").await);
    let a = world.agent("a");
    let mut inbox = world.receive(&other.messages, "b").await;
    let scheduled = dying.scheduled.schedule(&a, keyed("b", "once", "k"), Duration::from_millis(1)).await.unwrap();
    let due = claimed(&dying).await;
    let timer = due.timers()[0].clone();
    assert_eq!(timer.id, scheduled.id);
    // Nobody else has it meanwhile.
    assert!(other.timers.claim(&["message"], &[]).await.unwrap().is_none());
    assert_eq!(fire(&dying, &timer).await, Fired::Done);
    drop(due);
    dying.messages.stop();
    drop(dying);
    assert_eq!(delivery(&mut inbox).await.message.id, scheduled.id);
    other.begin(Duration::from_millis(200));
    eventually(async || other.waiting(&a, false).await.is_empty()).await;
    assert!(silent(&mut inbox).await, "once");
    assert_eq!(reason(other.scheduled.cancel(&a, scheduled.id).await), "SCHEDULED_MESSAGE_SENT");
}

/// The replica that took a message wakes for it; where that one is gone, the others find it at their next look.
pub(crate) async fn what_is_due_is_sent_in_time(world: &World) {
    let (left, right) = (Replica::idle(world, "left").await, Replica::idle(world, "right").await);
    let a = world.agent("a");
    let mut inbox = world.receive(&right.messages, "b").await;
    // By itself it would look once an hour.
    left.begin(LATER);
    let scheduled = left.scheduled.schedule(&a, to("b", "woken for"), SOON).await.unwrap();
    let got = delivery(&mut inbox).await;
    assert_eq!(got.message.id, scheduled.id);
    left.scheduled.schedule(&a, to("b", "taken over"), SOON).await.unwrap();
    left.kill();
    right.begin(Duration::from_millis(200));
    assert_eq!(text(&delivery(&mut inbox).await), "taken over");
    assert!(silent(&mut inbox).await);
}

/// Of two replicas one is killed again and again, wherever it is, while they send what is due.
pub(crate) async fn what_is_scheduled_is_sent_once_through_kills(world: &World) {
    const MESSAGES: usize = 200;
    let a = world.agent("a");
    let lasting = Replica::start(world, "lasting").await;
    let mut inbox = world.receive(&lasting.messages, "b").await;
    for number in 0..MESSAGES {
        let after = SOON + Duration::from_millis(10 * number as u64);
        lasting.scheduled.schedule(&a, to("b", &number.to_string()), after).await.unwrap();
    }
    let killing = async {
        loop {
            let killed = Replica::idle(world, "killed").await;
            killed.begin(Duration::from_millis(20));
            tokio::time::sleep(Duration::from_millis(150)).await;
            killed.kill();
        }
    };
    let receiving = async {
        let mut got = std::collections::BTreeSet::new();
        while got.len() < MESSAGES {
            let delivery = delivery(&mut inbox).await;
            assert!(got.insert(text(&delivery)), "{} is there twice", text(&delivery));
        }
    };
    tokio::select! {
        () = killing => {}
        () = receiving => {}
    }
    eventually(async || lasting.waiting(&a, false).await.is_empty()).await;
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn a_timer_is_carried_out_by_one_replica_at_a_time(world: &World) {
    const MESSAGES: usize = 60;
    let replicas = [Replica::start(world, "left").await, Replica::start(world, "right").await];
    let a = world.agent("a");
    let mut inbox = world.receive(&replicas[0].messages, "b").await;
    for number in 0..MESSAGES {
        replicas[number % 2].scheduled.schedule(&a, to("b", &number.to_string()), SOON).await.unwrap();
    }
    let mut got = std::collections::BTreeSet::new();
    for _ in 0..MESSAGES {
        got.insert(text(&delivery(&mut inbox).await));
    }
    assert_eq!(got.len(), MESSAGES, "none is there twice");
    assert!(silent(&mut inbox).await);
    eventually(async || replicas[0].waiting(&admin(), true).await.is_empty()).await;
}

pub(crate) async fn what_the_limits_have_no_room_for_waits(world: &World) {
    let replica = Replica::idle(world, "only").await;
    let a = world.agent("a");
    let both = Address::agents(vec!["b".to_owned(), "c".to_owned()]).unwrap();
    replica.scheduled.schedule(&a, OutgoingMessage::new(both, "t", "x"), Duration::from_millis(1)).await.unwrap();
    change(world, |agent| Some(agent.clone()).filter(|agent| agent.name != "c"));
    world.limit("a", Some(1));
    replica.messages.send(&a, to("b", "the one of this minute")).await.unwrap();
    let due = claimed(&replica).await;
    let timer = due.timers()[0].clone();
    match fire(&replica, &timer).await {
        // Unless a minute has just begun.
        Fired::Done => {}
        Fired::Later(pause) | Fired::Untouched(pause) => {
            assert!(pause <= Duration::from_secs(61), "{pause:?}");
            assert!(replica.letters().await.is_empty());
            world.limit("a", None);
            assert_eq!(fire(&replica, &timer).await, Fired::Done);
        }
        Fired::Attempt => panic!("it was attempted"),
    }
    due.settle(&done(timer.id)).await.unwrap();
    // Who is gone has a letter once it was sent, and not with each try.
    eventually(async || replica.letters().await.len() == 1).await;
    assert_eq!(replica.letters().await[0].reason, LetterReason::RecipientGone);
    // Where it never will be sent, somebody is to see that.
    world.limit("a", Some(0));
    replica.scheduled.schedule(&a, to("b", "never"), Duration::from_millis(1)).await.unwrap();
    replica.begin(Duration::from_millis(200));
    eventually(async || replica.letters().await.len() == 2).await;
    assert_eq!(replica.letters().await[1].reason, LetterReason::SenderRefused);
}

pub(crate) async fn timers_are_bounded_known_again_and_forgotten(world: &World) {
    let timers = (world.connect)().timers;
    let bounds = Bounds { each: 2, all: 3 };
    let new = |subject: u128, key: &str, after| NewTimer {
        id: Uuid::new_v4(),
        kind: "test",
        subject: Uuid::from_u128(subject),
        after,
        key: key.to_owned(),
        digest: [7; 32],
        content: Bytes::from_static(b"content"),
    };
    let add = async |timer: &NewTimer| timers.add(timer, bounds).await.unwrap();
    let first = new(1, "k", Duration::from_millis(1));
    let Added::Made { due_at } = add(&first).await else { panic!("it is made") };
    assert_eq!(add(&new(1, "k", LATER)).await, Added::Known { id: first.id, due_at, digest: [7; 32] });
    assert!(matches!(add(&new(1, "", LATER)).await, Added::Made { .. }));
    assert_eq!(add(&new(1, "", LATER)).await, Added::Full { of_subject: true });
    assert!(matches!(add(&new(2, "k", LATER)).await, Added::Made { .. }));
    assert_eq!(add(&new(3, "", LATER)).await, Added::Full { of_subject: false });
    // Two at the same moment are one.
    let twice = [new(4, "k", LATER), new(4, "k", LATER)];
    let wide = Bounds { each: 9, all: 9 };
    let (one, other) = tokio::join!(timers.add(&twice[0], wide), timers.add(&twice[1], wide));
    let made = [one.unwrap(), other.unwrap()].into_iter().filter(|added| matches!(added, Added::Made { .. })).count();
    assert_eq!(made, 1);
    // Other kinds are nobody's here.
    assert!(timers.claim(&["other"], &[]).await.unwrap().is_none());
    assert_eq!(timers.waiting(&["other"]).await.unwrap().count, 0);
    let mut due = None;
    eventually(async || {
        due = timers.claim(&["test"], &[]).await.unwrap();
        due.is_some()
    })
    .await;
    let due = due.unwrap();
    assert_eq!(
        due.timers().iter().map(|timer| (timer.id, &timer.content[..])).collect::<Vec<_>>(),
        [(first.id, &b"content"[..])]
    );
    assert!(due.now() >= due_at);
    // Who cancels it waits for whoever has it, and is too late.
    let cancelling = timers.cancel("test", None, first.id);
    let settling = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        due.settle(&done(first.id)).await
    };
    let (cancelled, settled) = tokio::join!(cancelling, settling);
    settled.unwrap();
    assert_eq!(cancelled.unwrap(), Cancelled::TooLate);
    assert_eq!(add(&new(1, "k", LATER)).await, Added::Known { id: first.id, due_at, digest: [7; 32] });
    assert!(matches!(add(&new(1, "", LATER)).await, Added::Full { of_subject: false }));
    let waiting = timers.waiting(&["test"]).await.unwrap();
    assert_eq!(waiting.count, 3);
    assert!(waiting.next.unwrap() > LATER / 2);
}
