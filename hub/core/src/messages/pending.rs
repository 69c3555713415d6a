//! Who waits for what in this replica: senders for their append to be seen, callers for the reply to their request.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    logged::Seen,
    message::{Address, Message},
};

/// One-shot answers by id. Each entry lives as long as the [`Waiter`] for it.
#[derive(Debug)]
pub(super) struct Pending<T> {
    waiting: Mutex<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Never given out twice: whoever was answered must not give up the place of the next one.
    turn: u64,
    places: HashMap<Uuid, (u64, oneshot::Sender<T>)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { turn: 0, places: HashMap::new() }) }
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Waiter<'a, T> {
    pending: &'a Pending<T>,
    id: Uuid,
    turn: u64,
    answer: oneshot::Receiver<T>,
}

impl<T> Pending<T> {
    /// Waits for the answer to `id`; one that waited for it before gets none. `None` where `limit` others wait already.
    pub(super) fn wait(&self, id: Uuid, limit: usize) -> Option<Waiter<'_, T>> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.places.len() >= limit {
            return None;
        }
        waiting.turn += 1;
        let turn = waiting.turn;
        waiting.places.insert(id, (turn, sender));
        Some(Waiter { pending: self, id, turn, answer })
    }

    /// Whether who took this turn waits for the answer to `id`, and no other since.
    pub(super) fn is_awaited(&self, id: Uuid, turn: u64) -> bool {
        self.lock().places.get(&id).is_some_and(|(of, _)| *of == turn)
    }

    /// Whether somebody waited for it. Whoever did may be gone meanwhile; then nobody wants the answer.
    fn answer(&self, id: Uuid, answer: T) -> bool {
        let waiter = self.lock().places.remove(&id);
        waiter.is_some_and(|(_, sender)| sender.send(answer).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<Seen> {
    /// Whether its sender waits in this replica.
    pub(super) fn resolve(&self, id: Uuid, seen: Seen) -> bool {
        self.answer(id, seen)
    }
}

/// Whoever knows the id of a request may answer it: its `reply_to` says it only to those who were asked.
impl Pending<Message> {
    /// Whether its caller waits in this replica.
    pub(super) fn resolve(&self, request_id: Uuid, reply: &Message) -> bool {
        matches!(reply.to, Address::Request { .. }) && self.answer(request_id, reply.clone())
    }
}

impl<T> Waiter<'_, T> {
    /// Which it is of those who waited: no other has the same.
    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    /// The answer; `None` where another took this place.
    pub(super) async fn answered(&mut self) -> Option<T> {
        (&mut self.answer).await.ok()
    }
}

impl<T> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        let mut waiting = self.pending.lock();
        if waiting.places.get(&self.id).is_some_and(|(turn, _)| *turn == self.turn) {
            waiting.places.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_was_answered_leaves_the_next_one_its_place() {
        let pending = Pending::<u32>::default();
        let mut first = pending.wait(Uuid::nil(), 9).unwrap();
        pending.answer(Uuid::nil(), 1);
        // The same request again, before the first caller has looked.
        let mut second = pending.wait(Uuid::nil(), 9).unwrap();
        assert_eq!(first.answered().await, Some(1));
        assert!(!pending.is_awaited(Uuid::nil(), first.turn()) && pending.is_awaited(Uuid::nil(), second.turn()));
        drop(first);
        pending.answer(Uuid::nil(), 2);
        assert_eq!(second.answered().await, Some(2));
    }
}
