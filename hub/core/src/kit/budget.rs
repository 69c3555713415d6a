//! Bytes that wait in memory: bounded for each queue, and for all queues of a replica together.
//!
//! A queue takes no more than its own bound, and never more than what all of them have left: `n` queues whose readers are slow hold at most
//! `n / (n + 1)` of the whole, and the rest is there for the others. An empty queue takes one item beyond what is left, so that it need not wait for
//! others: a small one always, and a large one until the whole is overshot by as much again. So `n` queues hold at most twice the whole, and a small
//! item each. Where the whole is overshot, it is [short](Budget::is_short): who holds it for peers that take nothing has to let go of it.
//!
//! A share is stricter: it takes nothing that does not fit, not even its first item. It may have to wait for others, and the whole stays whole. A
//! [queue of small items](Budget::small_queue) is between the two: its first item goes beyond what is left where it is small.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Bytes of an item that an empty queue takes whatever is left.
pub const SMALL: usize = 64 * 1024;

/// What the queues of one replica may hold together. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Whole>);

#[derive(Debug)]
struct Whole {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Budget {
    /// Of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Whole { used: AtomicUsize::new(0), limit, freed: Notify::new() }))
    }

    /// What they hold.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether they hold more than they should: somebody may be waiting for what others do not let go of.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.used() > self.0.limit
    }

    /// A queue that holds at most `limit`.
    pub(crate) fn queue(&self, limit: usize) -> Queue {
        self.account(limit, Overshoot::ByFirst)
    }

    /// The same, whose first item overshoots only where it is small.
    pub(crate) fn small_queue(&self, limit: usize) -> Queue {
        self.account(limit, Overshoot::BySmallFirst)
    }

    /// A share of at most `limit`: not even its first item may overshoot.
    #[must_use]
    pub fn share(&self, limit: usize) -> Queue {
        self.account(limit, Overshoot::Never)
    }

    fn account(&self, limit: usize, overshoot: Overshoot) -> Queue {
        Queue(Arc::new(Account {
            whole: self.0.clone(),
            used: AtomicUsize::new(0),
            limit,
            overshoot,
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
        }))
    }
}

/// What a queue that holds nothing takes beyond what is left of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overshoot {
    /// An item: a large one only until the whole is overshot by as much again.
    ByFirst,
    /// A small item.
    BySmallFirst,
    Never,
}

#[derive(Debug)]
struct Account {
    whole: Arc<Whole>,
    used: AtomicUsize,
    limit: usize,
    overshoot: Overshoot,
    freed: Notify,
    waiting: AtomicUsize,
}

/// The bytes of one queue. Clones share it.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Account>);

impl Queue {
    /// Whether so many bytes would be taken now.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.fits_beside(self.0.used.load(Ordering::Relaxed), bytes)
    }

    fn fits_beside(&self, used: usize, bytes: usize) -> bool {
        let (whole, limit) = (self.0.whole.used.load(Ordering::Relaxed), self.0.whole.limit);
        let may_overshoot = match self.0.overshoot {
            Overshoot::ByFirst => bytes <= SMALL || whole.saturating_add(bytes) <= limit.saturating_mul(2),
            Overshoot::BySmallFirst => bytes <= SMALL,
            Overshoot::Never => false,
        };
        (used == 0 && may_overshoot) || bytes == 0 || used.saturating_add(bytes) <= self.0.limit.min(limit.saturating_sub(whole))
    }

    /// Room for so many bytes. `None` where there is none.
    pub(crate) fn take(&self, bytes: usize) -> Option<Room> {
        let beside = |used: usize| self.fits_beside(used, bytes).then(|| used.saturating_add(bytes));
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, beside).ok()?;
        // What other queues take at the same moment may overshoot the whole, by one item each.
        self.0.whole.used.fetch_add(bytes, Ordering::Relaxed);
        Some(Room { queue: self.clone(), bytes })
    }

    /// Room for what is in memory already, and so can't wait for any: it is counted, whatever is left.
    pub(crate) fn count(&self, bytes: usize) -> Room {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.0.whole.used.fetch_add(bytes, Ordering::Relaxed);
        Room { queue: self.clone(), bytes }
    }

    fn give_back(&self, bytes: usize) {
        // Many may wait: nobody is woken for nothing.
        if bytes == 0 {
            return;
        }
        let account = &self.0;
        account.whole.used.fetch_sub(bytes, Ordering::Relaxed);
        account.used.fetch_sub(bytes, Ordering::Relaxed);
        account.freed.notify_waiters();
        account.whole.freed.notify_waiters();
    }

    /// Waits for room. It comes with what this queue lets go of; that of a share, and of an empty queue, comes with what anybody lets go of.
    pub async fn wait(&self, bytes: usize) -> Room {
        loop {
            let mut own = std::pin::pin!(self.0.freed.notified());
            own.as_mut().enable();
            if let Some(room) = self.take(bytes) {
                return room;
            }
            if self.0.overshoot != Overshoot::Never && self.0.used.load(Ordering::Relaxed) > 0 {
                // Not woken by everybody: many wait like that, each for its own peer.
                own.await;
                continue;
            }
            let mut anybodys = std::pin::pin!(self.0.whole.freed.notified());
            anybodys.as_mut().enable();
            if let Some(room) = self.take(bytes) {
                return room;
            }
            anybodys.await;
        }
    }
}

impl Queue {
    /// Waits until this queue alone may hold so many bytes more. For what has its room in another queue of the budget, and moves.
    pub(crate) async fn wait_for_place(&self, bytes: usize) {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            freed.as_mut().enable();
            let used = self.0.used.load(Ordering::Relaxed);
            if used == 0 || used.saturating_add(bytes) <= self.0.limit {
                return;
            }
            freed.await;
        }
    }
}

/// What each of many holders, such as agents, may hold of a budget. A holder that holds nothing is forgotten.
#[derive(Debug)]
pub struct Shares<K> {
    whole: Budget,
    limit: usize,
    overshoot: Overshoot,
    holders: Mutex<HashMap<K, Queue>>,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Shares of at most `limit` each. Whoever asks waits where others hold the rest.
    #[must_use]
    pub fn strict(whole: Budget, limit: usize) -> Self {
        Self { whole, limit, overshoot: Overshoot::Never, holders: Mutex::default() }
    }

    /// Queues of at most `limit` each. A holder that holds nothing may take one item, whatever others hold.
    #[must_use]
    pub fn queues(whole: Budget, limit: usize) -> Self {
        Self { whole, limit, overshoot: Overshoot::ByFirst, holders: Mutex::default() }
    }

    /// What all of them hold.
    pub(crate) fn whole(&self) -> &Budget {
        &self.whole
    }

    /// Waits for room.
    pub async fn wait(&self, holder: K, bytes: usize) -> Room {
        let queue = self.queue(holder);
        queue.wait(bytes).await
    }

    /// The same, where at most so many wait for room of this holder. `None` for one more.
    pub async fn wait_in_line(&self, holder: K, bytes: usize, most: usize) -> Option<Room> {
        let queue = self.queue(holder);
        if let Some(room) = queue.take(bytes) {
            return Some(room);
        }
        let line = Line::join(&queue, most)?;
        let room = queue.wait(bytes).await;
        drop(line);
        Some(room)
    }

    fn queue(&self, holder: K) -> Queue {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = holders.get(&holder) {
            return queue.clone();
        }
        // Rooms, and who waits for one, have the queue, too.
        holders.retain(|_, queue| Arc::strong_count(&queue.0) > 1);
        holders.entry(holder).or_insert(self.whole.account(self.limit, self.overshoot)).clone()
    }
}

/// A place among those who wait for room.
struct Line<'a>(&'a AtomicUsize);

impl<'a> Line<'a> {
    fn join(queue: &'a Queue, most: usize) -> Option<Self> {
        let waiting = &queue.0.waiting;
        let one_more = |waiting: usize| (waiting < most).then_some(waiting + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one item takes of a queue, until it is dropped.
#[derive(Debug)]
pub struct Room {
    queue: Queue,
    bytes: usize,
}

impl Room {
    /// The same room, as that of another queue of the budget. The whole holds what it held.
    pub(crate) fn move_to(mut self, queue: &Queue) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        queue.0.used.fetch_add(bytes, Ordering::Relaxed);
        self.queue.0.used.fetch_sub(bytes, Ordering::Relaxed);
        self.queue.0.freed.notify_waiters();
        Self { queue: queue.clone(), bytes }
    }

    /// Gives back what the item turned out not to take.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.bytes -= less;
        self.queue.give_back(less);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.queue.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_holder_has_its_share_and_is_forgotten_with_the_last_of_it() {
        let whole = Budget::new(1000);
        let shares = Shares::queues(whole.clone(), 100);
        let (one, other) = (shares.wait(1, 80).await, shares.wait(2, 80).await);
        assert!(timeout(Duration::from_millis(10), shares.wait(1, 80)).await.is_err());
        assert_eq!((whole.used(), shares.holders.lock().unwrap().len()), (160, 2));
        drop((one, other));
        let _third = shares.wait(3, 80).await;
        assert_eq!((whole.used(), shares.holders.lock().unwrap().len()), (80, 1));
        // Of a share not even the first item overshoots.
        let strict = Shares::strict(whole.clone(), 10);
        assert!(timeout(Duration::from_millis(10), strict.wait(1, 11)).await.is_err());
        drop(strict.wait(1, 10).await);
    }

    #[test]
    fn a_queue_holds_its_bound_and_an_empty_one_takes_anything() {
        let queue = Budget::new(1000).queue(100);
        let large = queue.take(500).unwrap();
        assert!(queue.take(1).is_none());
        drop(large);
        let first = queue.take(60).unwrap();
        assert!(queue.take(41).is_none());
        let mut second = queue.take(40).unwrap();
        second.shrink_to(30);
        assert!(queue.fits(10) && !queue.fits(11));
        second.shrink_to(35);
        assert!(!queue.fits(11), "it never grows");
        drop(second);
        let _second = queue.take(40).unwrap();
        drop(first);
        assert!(queue.fits(60) && !queue.fits(61));
    }

    #[test]
    fn slow_ones_leave_room_for_others_and_the_whole_is_bounded() {
        let budget = Budget::new(1000);
        let fill = |queue: &Queue| {
            let mut rooms = Vec::new();
            while let Some(room) = queue.take(10) {
                rooms.push(room);
            }
            rooms
        };
        let queues: Vec<Queue> = (0..9).map(|_| budget.queue(500)).collect();
        let mut held: Vec<Vec<Room>> = queues.iter().map(fill).collect();
        let used = || budget.used();
        assert!(used() <= 1000 + 9 * 10, "{}", used());
        assert!(held.iter().all(|rooms| !rooms.is_empty()) && held[0].len() == 50);
        // A queue that has nothing takes its item even then.
        let late = budget.queue(500);
        assert_eq!(fill(&late).len(), 1);
        // What one lets go of is there for the others.
        held.remove(0);
        assert!(fill(&late).len() > 1);
        drop(held);
        assert_eq!(used(), 0);
    }

    #[tokio::test]
    async fn room_moves_to_another_queue_when_that_has_a_place_whatever_is_left() {
        let budget = Budget::new(SMALL);
        let (page, events) = (budget.queue(SMALL), budget.queue(SMALL));
        let first = page.take(2 * SMALL).unwrap();
        assert!(events.take(SMALL + 1).is_none(), "the whole is overshot as far as it may be");
        events.wait_for_place(2 * SMALL).await;
        let moved = first.move_to(&events);
        assert_eq!((budget.used(), page.take(SMALL).map(drop)), (2 * SMALL, Some(())));
        assert!(timeout(Duration::from_millis(10), events.wait_for_place(1)).await.is_err());
        drop(moved);
        events.wait_for_place(1).await;
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn large_items_of_many_queues_overshoot_the_whole_by_as_much_again_and_small_ones_are_taken_always() {
        let budget = Budget::new(10 * SMALL);
        let large = 2 * SMALL;
        let queues: Vec<Queue> = (0..100).map(|_| budget.queue(5 * SMALL)).collect();
        let mut held: Vec<Room> = queues.iter().filter_map(|queue| queue.take(large)).collect();
        assert_eq!((held.len(), budget.used()), (10, 20 * SMALL));
        assert!(budget.is_short());
        let late = budget.queue(5 * SMALL);
        assert!(late.take(large).is_none());
        drop(late.take(SMALL).unwrap());
        let small = budget.small_queue(5 * SMALL);
        assert!(small.take(SMALL + 1).is_none() && budget.share(SMALL).take(1).is_none());
        drop(small.take(SMALL).unwrap());
        let waiting = tokio::spawn(async move { late.wait(large).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held.pop());
        let _room = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        held.truncate(4);
        assert!(!budget.is_short());
    }

    #[tokio::test]
    async fn a_share_never_overshoots_and_waits_for_others() {
        let budget = Budget::new(100);
        let (first, second) = (budget.share(80), budget.share(80));
        assert!(first.take(81).is_none(), "though it is empty");
        let large = first.take(60).unwrap();
        assert!(second.take(50).is_none());
        let waiting = tokio::spawn(async move { second.wait(50).await });
        tokio::task::yield_now().await;
        drop(large);
        let _room = timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(budget.used(), 50);
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_its_own_queue_shrinks() {
        let budget = Budget::new(100);
        let (queue, _other) = (budget.queue(50), budget.queue(100).take(90).unwrap());
        let first = queue.take(50).unwrap();
        assert!(timeout(Duration::from_millis(50), queue.wait(50)).await.is_err());
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.wait(50).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }
}
