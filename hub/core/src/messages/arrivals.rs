//! Who waits for the next message of a mailbox without taking any. The indexer tells them, once a row is there to be read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::ports::MailboxAddress;

/// Waits of one replica.
const MAX_WAITS: usize = 10_000;
/// Waits of one agent at one replica.
const MAX_OF_AGENT: usize = 16;

#[derive(Debug, Default)]
struct Waits {
    count: usize,
    turn: u64,
    by_address: HashMap<MailboxAddress, Vec<(u64, Arc<Notify>)>>,
}

/// Who waits at this replica.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    waiting: Mutex<Waits>,
}

impl Arrivals {
    /// Waits for what comes to any of an agent's addresses; the first of them is its own. `None`: too many wait.
    pub(super) fn wait(self: &Arc<Self>, addresses: Vec<MailboxAddress>) -> Option<Arrival> {
        let mut waiting = self.lock();
        let own = addresses.first().and_then(|own| waiting.by_address.get(own)).map_or(0, Vec::len);
        if waiting.count >= MAX_WAITS || own >= MAX_OF_AGENT {
            return None;
        }
        waiting.count += 1;
        waiting.turn += 1;
        let (turn, came) = (waiting.turn, Arc::new(Notify::new()));
        for address in &addresses {
            waiting.by_address.entry(address.clone()).or_default().push((turn, came.clone()));
        }
        Some(Arrival { arrivals: self.clone(), addresses, turn, came })
    }

    /// Rows of these addresses can be read now.
    pub(super) fn tell(&self, addresses: &[MailboxAddress]) {
        let waiting = self.lock();
        for (_, came) in addresses.iter().filter_map(|address| waiting.by_address.get(address)).flatten() {
            came.notify_one();
        }
    }

    /// Whether somebody waits for what comes to one of these addresses.
    pub(super) fn awaits<'a>(&self, mut addresses: impl Iterator<Item = &'a MailboxAddress>) -> bool {
        let waiting = self.lock();
        !waiting.by_address.is_empty() && addresses.any(|address| waiting.by_address.contains_key(address))
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One wait. It ends with this value.
#[derive(Debug)]
pub(super) struct Arrival {
    arrivals: Arc<Arrivals>,
    addresses: Vec<MailboxAddress>,
    turn: u64,
    came: Arc<Notify>,
}

impl Arrival {
    /// Something came since this was last asked.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.lock();
        waiting.count -= 1;
        for address in &self.addresses {
            let empty = waiting.by_address.get_mut(address).is_some_and(|waits| {
                waits.retain(|(turn, _)| *turn != self.turn);
                waits.is_empty()
            });
            if empty {
                waiting.by_address.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_once_and_leaves_nothing_behind() {
        let arrivals = Arc::new(Arrivals::default());
        let group = MailboxAddress::Group("pair".to_owned());
        let wait = arrivals.wait(vec![MailboxAddress::All, group.clone()]).unwrap();
        assert!(wait.came().now_or_never().is_none());
        assert!(arrivals.awaits([&group].into_iter()));
        assert!(!arrivals.awaits([&MailboxAddress::Group("other".to_owned())].into_iter()));
        arrivals.tell(&[MailboxAddress::Group("other".to_owned()), group.clone(), group]);
        assert!(wait.came().now_or_never().is_some());
        assert!(wait.came().now_or_never().is_none());
        let more: Vec<Arrival> = (1..MAX_OF_AGENT).map(|_| arrivals.wait(vec![MailboxAddress::All]).unwrap()).collect();
        assert!(arrivals.wait(vec![MailboxAddress::All]).is_none());
        drop((wait, more));
        assert!(arrivals.lock().by_address.is_empty());
        assert_eq!(arrivals.lock().count, 0);
    }
}
