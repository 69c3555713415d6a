//! What a session has received and not yet acknowledged, across its connections.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::seen::Seen;

/// Deliveries that one frame names at most.
const MOST_NAMED: usize = 1000;
/// How many handled messages are remembered, to drop their redeliveries.
const REMEMBERED: usize = 10_000;
/// How often the hub hears that the application is still at work: long before it would deliver again, or give up after the last attempt.
const REMIND_EVERY: Duration = Duration::from_secs(10);

/// A message that is with the application now.
#[derive(Debug)]
struct Open {
    /// Of the latest delivery.
    delivery_id: String,
    /// Whether it may have been delivered before: then its next delivery may be the last.
    redelivered: bool,
}

#[derive(Debug)]
struct State {
    /// By message id.
    open: HashMap<String, Open>,
    handled: Seen,
    /// Delivery ids to acknowledge on the current connection.
    acks: Vec<String>,
    /// What the application began with on the current connection, where it may have been delivered before.
    started: Vec<String>,
    /// What came again on the current connection while it is with the application, and what the application is at work on for long.
    in_progress: Vec<String>,
    /// When the hub is to hear of what the application is at work on. Where that is nothing, no timer runs.
    remind_at: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

impl Inbox {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            open: HashMap::new(),
            handled: Seen::new(REMEMBERED),
            acks: Vec::new(),
            started: Vec::new(),
            in_progress: Vec::new(),
            remind_at: None,
        };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new() })
    }

    /// An acker where the application is to see the message; `None` where it has it, or had it.
    pub(crate) fn admit(self: &Arc<Self>, message_id: &str, delivery_id: &str, redelivered: bool) -> Option<Acker> {
        let state = &mut *self.lock();
        if state.handled.contains(message_id) {
            state.acks.push(delivery_id.to_owned());
            self.wake.notify_one();
            return None;
        }
        // Where the log was made anew the same message has a new delivery id, and only that can be acknowledged.
        if let Some(open) = state.open.get_mut(message_id) {
            delivery_id.clone_into(&mut open.delivery_id);
            state.in_progress.push(delivery_id.to_owned());
            self.wake.notify_one();
            return None;
        }
        state.open.insert(message_id.to_owned(), Open { delivery_id: delivery_id.to_owned(), redelivered });
        if redelivered && state.remind_at.is_none() {
            state.remind_at = Some(Instant::now() + REMIND_EVERY);
            self.wake.notify_one();
        }
        Some(Acker { inbox: self.clone(), message_id: message_id.to_owned() })
    }

    /// Delivery ids of an earlier connection mean nothing to the next.
    pub(crate) fn forget_deliveries(&self) {
        let mut state = self.lock();
        state.acks.clear();
        state.started.clear();
        state.in_progress.clear();
    }

    pub(crate) fn take_acks(&self) -> Vec<String> {
        some_of(&mut self.lock().acks)
    }

    pub(crate) fn take_started(&self) -> Vec<String> {
        some_of(&mut self.lock().started)
    }

    pub(crate) fn take_in_progress(&self) -> Vec<String> {
        some_of(&mut self.lock().in_progress)
    }

    /// When [`remind`](Self::remind) is due.
    pub(crate) fn remind_at(&self) -> Option<Instant> {
        self.lock().remind_at
    }

    /// The application still has what may have been delivered before. The hub asks that by delivering again, but not after the last attempt: what it
    /// hears nothing of goes to the dead letters then, while it is handled, or waits for its turn.
    pub(crate) fn remind(&self) {
        let state = &mut *self.lock();
        // What is not taken from here by the connection is not said twice.
        if state.in_progress.is_empty() {
            state.in_progress.extend(state.open.values().filter(|open| open.redelivered).map(|open| open.delivery_id.clone()));
        }
        state.remind_at = state.open.values().any(|open| open.redelivered).then(|| Instant::now() + REMIND_EVERY);
    }

    /// Whether there is anything to tell the hub of its deliveries.
    pub(crate) fn has_news(&self) -> bool {
        let state = self.lock();
        !state.acks.is_empty() || !state.started.is_empty() || !state.in_progress.is_empty()
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn some_of(ids: &mut Vec<String>) -> Vec<String> {
    ids.drain(..ids.len().min(MOST_NAMED)).collect()
}

/// The right to acknowledge one message. Dropped, the message may be delivered again.
#[derive(Debug)]
pub(crate) struct Acker {
    inbox: Arc<Inbox>,
    message_id: String,
}

impl Acker {
    /// The application begins with a message that may have been delivered before: from now on that counts as an attempt.
    pub(crate) fn start(&self) {
        let state = &mut *self.inbox.lock();
        if let Some(open) = state.open.get(&self.message_id) {
            state.started.push(open.delivery_id.clone());
        }
        self.inbox.wake.notify_one();
    }

    pub(crate) fn ack(self) {
        let mut state = self.inbox.lock();
        if let Some(open) = state.open.remove(&self.message_id) {
            state.handled.insert(&self.message_id);
            state.acks.push(open.delivery_id);
        }
        self.inbox.wake.notify_one();
    }
}

impl Drop for Acker {
    fn drop(&mut self) {
        self.inbox.lock().open.remove(&self.message_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redelivery_of_what_was_handled_is_acknowledged_unseen() {
        let inbox = Inbox::new();
        inbox.admit("m", "d1", false).unwrap().ack();
        assert_eq!(inbox.take_acks(), ["d1"]);
        assert!(inbox.admit("m", "d2", false).is_none());
        assert_eq!(inbox.take_acks(), ["d2"]);
    }

    #[test]
    fn a_message_in_hand_is_acknowledged_by_its_latest_delivery() {
        let inbox = Inbox::new();
        let acker = inbox.admit("m", "d1", false).unwrap();
        inbox.forget_deliveries();
        assert!(inbox.admit("m", "d2", false).is_none());
        assert_eq!(inbox.take_in_progress(), ["d2"]);
        acker.ack();
        assert_eq!(inbox.take_acks(), ["d2"]);
    }

    #[test]
    fn what_is_begun_is_told_by_its_latest_delivery() {
        let inbox = Inbox::new();
        let acker = inbox.admit("m", "d1", false).unwrap();
        assert!(!inbox.has_news());
        acker.start();
        assert!(inbox.has_news());
        assert_eq!(inbox.take_started(), ["d1"]);
        acker.start();
        inbox.forget_deliveries();
        assert!(inbox.take_started().is_empty(), "of an earlier connection");
    }

    #[test]
    fn the_hub_hears_again_of_what_came_again_and_of_nothing_else() {
        let inbox = Inbox::new();
        let _first = inbox.admit("n", "d2", false).unwrap();
        assert_eq!(inbox.remind_at(), None, "what comes for the first time costs no timer");
        let worked_at = inbox.admit("m", "d1", true).unwrap();
        assert!(inbox.remind_at().is_some());
        inbox.remind();
        inbox.remind();
        assert_eq!(inbox.take_in_progress(), ["d1"]);
        assert!(inbox.admit("m", "d3", true).is_none());
        assert_eq!(inbox.take_in_progress(), ["d3"]);
        inbox.remind();
        assert_eq!(inbox.take_in_progress(), ["d3"], "by its latest delivery");
        worked_at.ack();
        inbox.remind();
        assert!(inbox.take_in_progress().is_empty() && inbox.remind_at().is_none());
    }

    #[test]
    fn what_was_dropped_comes_again() {
        let inbox = Inbox::new();
        drop(inbox.admit("m", "d1", false));
        assert!(inbox.take_acks().is_empty());
        assert!(inbox.admit("m", "d2", false).is_some());
    }
}
