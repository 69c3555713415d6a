//! What one agent has acknowledged in one partition: everything below a watermark, and single exceptions above it.

use std::collections::BTreeSet;

use super::position::Position;

/// The most exceptions that a cursor holds.
pub const MAX_EXCEPTIONS: usize = 1000;

/// A cursor as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorState {
    /// Everything below is acknowledged, or was not for the agent.
    pub watermark: Position,
    /// Acknowledged positions from the watermark on, rising.
    pub exceptions: Vec<Position>,
}

impl CursorState {
    /// Whether the message at `position` was acknowledged.
    #[must_use]
    pub fn acknowledged(&self, position: Position) -> bool {
        position < self.watermark || self.exceptions.binary_search(&position).is_ok()
    }
}

/// A cursor at work: what was considered for delivery, what is outstanding, and what was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything below was delivered, or was not for the agent.
    considered: Position,
    outstanding: BTreeSet<Position>,
    acknowledged: BTreeSet<Position>,
}

impl Cursor {
    /// Goes on from what was stored: delivers again what was not acknowledged.
    #[must_use]
    pub fn resume(state: &CursorState) -> Self {
        let acknowledged = state.exceptions.iter().copied().filter(|position| *position >= state.watermark).collect();
        Self { considered: state.watermark, outstanding: BTreeSet::new(), acknowledged }
    }

    /// The next position to look at.
    #[must_use]
    pub fn considered(&self) -> Position {
        self.considered
    }

    /// Looks at a message for this agent: whether to deliver it. One that was looked at before, or acknowledged, is not.
    pub fn consider(&mut self, position: Position) -> bool {
        if position < self.considered {
            return false;
        }
        self.considered = position + 1;
        !self.acknowledged.contains(&position) && self.outstanding.insert(position)
    }

    /// Reconsiders a message that was passed over because its agent was not a member yet. Returns whether to deliver it. If the message lies at or above
    /// the watermark, and the cursor has room for one more exception, the watermark waits for its acknowledgement from now on.
    pub fn reconsider(&mut self, position: Position) -> bool {
        if self.acknowledged.contains(&position) {
            return false;
        }
        if (self.watermark()..self.considered).contains(&position) && !self.full() {
            self.outstanding.insert(position);
        }
        true
    }

    /// Nothing below `position` is for the agent but what was considered.
    pub fn skip_to(&mut self, position: Position) {
        self.considered = self.considered.max(position);
    }

    /// Takes an acknowledgement, of an outstanding message or of one that an older session of the agent delivered and whose turn
    /// did not come yet. Whether it changed anything. What is outstanding may become an exception: there is room for the latter only
    /// beside it.
    pub fn acknowledge(&mut self, position: Position, known_below: Position) -> bool {
        let room = self.acknowledged.len() + self.outstanding.len() < MAX_EXCEPTIONS;
        let ahead = position >= self.considered && position < known_below && room;
        if !self.outstanding.remove(&position) && !ahead {
            return false;
        }
        self.acknowledged.insert(position);
        let watermark = self.watermark();
        self.acknowledged = self.acknowledged.split_off(&watermark);
        true
    }

    /// Whether one more delivery could pass the bound on exceptions.
    #[must_use]
    pub fn full(&self) -> bool {
        !self.outstanding.is_empty() && self.acknowledged.len() + self.outstanding.len() > MAX_EXCEPTIONS
    }

    /// How many were delivered and not acknowledged.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// What to store.
    #[must_use]
    pub fn state(&self) -> CursorState {
        let watermark = self.watermark();
        CursorState { watermark, exceptions: self.acknowledged.range(watermark..).copied().collect() }
    }

    fn watermark(&self) -> Position {
        self.outstanding.first().copied().unwrap_or(self.considered)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_watermark_follows_the_oldest_outstanding_message() {
        let mut cursor = Cursor::default();
        for position in [3, 5, 9] {
            assert!(cursor.consider(position));
        }
        assert_eq!(cursor.state(), CursorState { watermark: 3, exceptions: vec![] });
        assert!(cursor.acknowledge(5, 10));
        assert_eq!(cursor.state(), CursorState { watermark: 3, exceptions: vec![5] });
        assert!(cursor.acknowledge(3, 10));
        assert_eq!(cursor.state(), CursorState { watermark: 9, exceptions: vec![] });
        assert!(cursor.acknowledge(9, 10));
        assert!(!cursor.acknowledge(9, 10));
        assert_eq!(cursor.state(), CursorState { watermark: 10, exceptions: vec![] });
    }

    #[test]
    fn a_resumed_cursor_delivers_what_was_not_acknowledged() {
        let mut cursor = Cursor::resume(&CursorState { watermark: 3, exceptions: vec![5] });
        let delivered: Vec<Position> = (0..8).filter(|position| cursor.consider(*position)).collect();
        assert_eq!(delivered, [3, 4, 6, 7]);
    }

    #[test]
    fn a_message_that_was_passed_is_looked_at_again() {
        let mut cursor = Cursor::default();
        for position in [3, 5, 9] {
            assert!(cursor.consider(position));
        }
        assert!(cursor.acknowledge(5, 10));
        assert!(!cursor.reconsider(5));
        for position in [2, 7] {
            assert!(cursor.reconsider(position));
        }
        // The watermark has passed the one, and waits for the other.
        assert!(!cursor.acknowledge(2, 10));
        assert!(cursor.acknowledge(3, 10));
        assert_eq!(cursor.state(), CursorState { watermark: 7, exceptions: vec![] });
        assert!(cursor.acknowledge(7, 10));
        assert_eq!(cursor.state(), CursorState { watermark: 9, exceptions: vec![] });
    }

    #[test]
    fn it_is_full_before_the_exceptions_pass_their_bound() {
        let mut cursor = Cursor::default();
        let mut next = 0;
        while !cursor.full() {
            assert!(cursor.consider(next));
            if next > 0 {
                assert!(cursor.acknowledge(next, next));
            }
            next += 1;
        }
        assert!(cursor.state().exceptions.len() <= MAX_EXCEPTIONS);
        assert!(cursor.acknowledge(0, next));
        assert!(!cursor.full());
    }

    #[test]
    fn acknowledgements_ahead_of_their_turn_keep_the_bound() {
        let mut cursor = Cursor::default();
        let end = 3 * MAX_EXCEPTIONS as Position;
        for position in 0..=500 {
            assert!(cursor.consider(position));
        }
        for position in 501..end {
            cursor.acknowledge(position, end);
        }
        for position in 1..=500 {
            assert!(cursor.acknowledge(position, end));
            assert!(cursor.state().exceptions.len() <= MAX_EXCEPTIONS);
        }
        assert_eq!(cursor.state().watermark, 0);
        assert!(cursor.acknowledge(0, end));
        assert!(!cursor.full());
    }

    proptest! {
        #[test]
        fn the_exceptions_keep_their_bound(turns in proptest::collection::vec((0u8..3, 0u64..4000, 1u64..900), 0..40)) {
            let mut cursor = Cursor::default();
            for (turn, from, count) in turns {
                for step in 0..count {
                    let next = cursor.considered() + step % 2;
                    let _changed = match turn {
                        0 if !cursor.full() => cursor.consider(next),
                        1 => cursor.reconsider(from + step),
                        2 => cursor.acknowledge(from + step, 5000),
                        _ => false,
                    };
                }
                prop_assert!(cursor.state().exceptions.len() <= MAX_EXCEPTIONS);
            }
        }

        #[test]
        fn nothing_unacknowledged_is_below_the_watermark(acks in proptest::collection::vec(0u64..60, 0..80), for_me in proptest::collection::btree_set(0u64..60, 0..40)) {
            let mut cursor = Cursor::default();
            let mut acked = BTreeSet::new();
            for position in &for_me {
                cursor.consider(*position);
            }
            for ack in acks {
                if cursor.acknowledge(ack, 0) {
                    acked.insert(ack);
                }
                let state = cursor.state();
                for position in &for_me {
                    prop_assert_eq!(state.acknowledged(*position), acked.contains(position));
                }
            }
        }
    }
}
