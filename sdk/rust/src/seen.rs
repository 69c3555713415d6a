//! Remembers the last so many ids.

use std::collections::{HashSet, VecDeque};

/// A set that forgets its oldest member when it is full.
#[derive(Debug)]
pub(crate) struct Seen {
    most: usize,
    order: VecDeque<String>,
    members: HashSet<String>,
}

impl Seen {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, order: VecDeque::new(), members: HashSet::new() }
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.members.contains(id)
    }

    pub(crate) fn insert(&mut self, id: &str) {
        if !self.members.insert(id.to_owned()) {
            return;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_forgets_the_oldest() {
        let mut seen = Seen::new(2);
        for id in ["a", "b", "b", "c"] {
            seen.insert(id);
        }
        assert!(!seen.contains("a") && seen.contains("b") && seen.contains("c"));
        assert_eq!(seen.order.len(), 2);
    }
}
