//! Who waits for what in this replica: senders for their append to be seen, callers for the reply to their request.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::reader::Seen;
use crate::message::{Address, Message};

/// One-shot answers by id. Each entry lives as long as the [`Ticket`] for it.
#[derive(Debug)]
pub(super) struct Desk<T> {
    waiting: Mutex<HashMap<Uuid, (u64, oneshot::Sender<T>)>>,
}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default() }
    }
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Ticket<'a, T> {
    desk: &'a Desk<T>,
    id: Uuid,
    turn: u64,
    answer: oneshot::Receiver<T>,
}

impl<T> Desk<T> {
    /// Waits for the answer to `id`; one that waited for it before gets none. `None` where `limit` others wait already.
    pub(super) fn wait(&self, id: Uuid, limit: usize) -> Option<Ticket<'_, T>> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.len() >= limit {
            return None;
        }
        let turn = waiting.get(&id).map_or(0, |(turn, _)| turn + 1);
        waiting.insert(id, (turn, sender));
        Some(Ticket { desk: self, id, turn, answer })
    }

    fn answer(&self, id: Uuid, answer: T) {
        if let Some((_, sender)) = self.lock().remove(&id) {
            // Whoever waited may be gone; then nobody wants the answer.
            let _gone = sender.send(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, (u64, oneshot::Sender<T>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk<Seen> {
    pub(super) fn resolve(&self, id: Uuid, seen: Seen) {
        self.answer(id, seen);
    }
}

/// A caller's name beside what it waits for, so that a reply to another's request finds nobody.
impl Desk<Message> {
    pub(super) fn resolve(&self, request_id: Uuid, reply: &Message) {
        if matches!(reply.to, Address::Request { .. }) {
            self.answer(request_id, reply.clone());
        }
    }
}

impl<T> Ticket<'_, T> {
    /// The answer; `None` where another took this place.
    pub(super) async fn answered(&mut self) -> Option<T> {
        (&mut self.answer).await.ok()
    }
}

impl<T> Drop for Ticket<'_, T> {
    fn drop(&mut self) {
        let mut waiting = self.desk.lock();
        if waiting.get(&self.id).is_some_and(|(turn, _)| *turn == self.turn) {
            waiting.remove(&self.id);
        }
    }
}
