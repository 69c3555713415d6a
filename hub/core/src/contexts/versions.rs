//! Which version of each context was seen last.

use std::collections::{HashMap, VecDeque};

use super::context::ContextId;

/// Tells repeats: the log has a change again where its acknowledgement was lost. Versions of a context only rise.
#[derive(Debug)]
pub(crate) struct Versions {
    /// With the last use of each.
    seen: HashMap<ContextId, (u64, u64)>,
    uses: u64,
    /// Uses, the oldest first. Of a context only the last one counts.
    order: VecDeque<(ContextId, u64)>,
    capacity: usize,
}

impl Versions {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { seen: HashMap::new(), uses: 0, order: VecDeque::new(), capacity }
    }

    /// The version that was seen last, as far as it is remembered.
    pub(crate) fn last(&self, id: ContextId) -> Option<u64> {
        self.seen.get(&id).map(|(version, _)| *version)
    }

    /// Of what is told no more it need not be known.
    pub(crate) fn forget(&mut self, id: ContextId) {
        self.seen.remove(&id);
    }

    /// Whether this version is new. When it is full, it forgets the context that was unused for longest.
    pub(crate) fn advance(&mut self, id: ContextId, version: u64) -> bool {
        self.uses += 1;
        let last = self.seen.get(&id).map_or(0, |(version, _)| *version);
        self.seen.insert(id, (version.max(last), self.uses));
        self.order.push_back((id, self.uses));
        while self.seen.len() > self.capacity {
            let Some((oldest, used)) = self.order.pop_front() else { break };
            if self.seen.get(&oldest).is_some_and(|(_, last)| *last == used) {
                self.seen.remove(&oldest);
            }
        }
        if self.order.len() > 2 * self.capacity {
            self.order.retain(|(id, used)| self.seen.get(id).is_some_and(|(_, last)| last == used));
        }
        version > last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::{change::tests::context, context::Payload};

    #[test]
    fn repeats_are_told_and_memory_is_bounded() {
        let mut versions = Versions::new(2);
        let ids: Vec<_> = (0..3).map(|_| context(Payload::Unread).id).collect();
        assert!(versions.advance(ids[0], 1));
        assert!(!versions.advance(ids[0], 1));
        assert!(versions.advance(ids[0], 3));
        assert!(!versions.advance(ids[0], 2));
        assert_eq!((versions.last(ids[0]), versions.last(ids[1])), (Some(3), None));
        assert!(versions.advance(ids[1], 1));
        assert!(versions.advance(ids[2], 1));
        assert_eq!(versions.seen.len(), 2);
    }

    #[test]
    fn a_context_that_changes_all_the_time_is_not_forgotten_for_new_ones() {
        let mut versions = Versions::new(4);
        let busy = context(Payload::Unread).id;
        for version in 1..1000 {
            assert!(versions.advance(busy, version));
            assert!(versions.advance(context(Payload::Unread).id, 1));
            assert!(!versions.advance(busy, version), "a repeat");
            assert!(versions.seen.len() <= 4 && versions.order.len() <= 8);
        }
    }
}
