//! The order of one partition as one replica sees it: a record is handed on once every lower one was.
//!
//! A replica sees its own appends when they are acknowledged, and everything in the tail. An own append acknowledged at exactly the
//! next position is handed on at once, without waiting for the tail; one further on is kept until the gap below it closes.

use std::collections::BTreeMap;

use super::bus::Offset;

/// The most own appends that are kept, and the most of their bytes; one more waits for the tail, which shows it anyway.
const MAX_EARLY: usize = 1024;
const MAX_EARLY_BYTES: usize = 1024 * 1024;

/// Puts the records of one partition into one order, each exactly once.
#[derive(Debug)]
pub struct Sequencer<T> {
    position: Offset,
    /// Each with its bytes.
    early: BTreeMap<Offset, (T, usize)>,
    early_bytes: usize,
}

impl<T> Sequencer<T> {
    /// Starts at this offset: everything below counts as seen.
    #[must_use]
    pub fn new(position: Offset) -> Self {
        Self { position, early: BTreeMap::new(), early_bytes: 0 }
    }

    /// The next offset to hand on.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// An own append of so many bytes was acknowledged at `offset`. Hands on what is now in order.
    pub fn own(&mut self, offset: Offset, record: T, bytes: usize, out: &mut Vec<(Offset, T)>) {
        let fits = self.early.len() < MAX_EARLY && self.early_bytes + bytes <= MAX_EARLY_BYTES;
        if offset == self.position || (offset > self.position && fits) {
            self.forget(offset);
            self.early.insert(offset, (record, bytes));
            self.early_bytes += bytes;
            self.release(out);
        }
    }

    /// The tail shows a run of records, and has handed over everything below `next`.
    pub fn tail(&mut self, records: impl IntoIterator<Item = (Offset, T)>, next: Offset, out: &mut Vec<(Offset, T)>) {
        for (offset, record) in records {
            if offset >= self.position {
                self.forget(offset);
                self.position = offset + 1;
                out.push((offset, record));
                self.release(out);
            }
        }
        if next > self.position {
            self.position = next;
        }
        self.release(out);
    }

    fn forget(&mut self, offset: Offset) {
        if let Some((_, bytes)) = self.early.remove(&offset) {
            self.early_bytes -= bytes;
        }
    }

    fn release(&mut self, out: &mut Vec<(Offset, T)>) {
        while let Some(entry) = self.early.first_entry() {
            let offset = *entry.key();
            if offset > self.position {
                break;
            }
            let (record, bytes) = entry.remove();
            self.early_bytes -= bytes;
            if offset == self.position {
                self.position += 1;
                out.push((offset, record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a replica is told, in some order: own acknowledgements, and the tail in order.
    fn view(owner: &[bool], me: bool, moves: &[usize]) -> Vec<(Offset, u64)> {
        let mut sequencer = Sequencer::new(0);
        let mut acks: Vec<Offset> = (0u64..).zip(owner).filter(|(_, own)| **own == me).map(|(offset, _)| offset).collect();
        let mut tailed = 0;
        let mut out = Vec::new();
        for step in moves.iter().chain(std::iter::repeat(&0)) {
            if tailed == owner.len() && acks.is_empty() {
                break;
            }
            if step % 3 == 0 && tailed < owner.len() {
                let run = (step / 3 % 4 + 1).min(owner.len() - tailed);
                let records: Vec<(Offset, u64)> = (tailed..tailed + run).map(|offset| (offset as u64, offset as u64)).collect();
                tailed += run;
                sequencer.tail(records, tailed as u64, &mut out);
            } else if !acks.is_empty() {
                let ack = acks.remove(step % acks.len());
                sequencer.own(ack, ack, 1, &mut out);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn two_replicas_see_the_same_order(
            owner in proptest::collection::vec(any::<bool>(), 0..40),
            left in proptest::collection::vec(0usize..100, 0..120),
            right in proptest::collection::vec(0usize..100, 0..120),
        ) {
            let all: Vec<(Offset, u64)> = (0..owner.len() as u64).map(|offset| (offset, offset)).collect();
            prop_assert_eq!(view(&owner, true, &left), all.clone());
            prop_assert_eq!(view(&owner, false, &right), all);
        }
    }

    #[test]
    fn every_order_of_four_events_gives_the_same_sequence() {
        // Offsets 0 and 2 are own, 1 and 3 are not. The tail comes as four single records, in order.
        for mask in 0u32..1 << 6 {
            let mut sequencer = Sequencer::new(0);
            let (mut tail, mut own, mut out) = (0, [0, 2].into_iter(), Vec::new());
            for bit in 0..6 {
                if mask >> bit & 1 == 0 && tail < 4 {
                    sequencer.tail([(tail, ())], tail + 1, &mut out);
                    tail += 1;
                } else if let Some(offset) = own.next() {
                    sequencer.own(offset, (), 1, &mut out);
                }
            }
            while tail < 4 {
                sequencer.tail([(tail, ())], tail + 1, &mut out);
                tail += 1;
            }
            assert_eq!(out.iter().map(|(offset, ())| *offset).collect::<Vec<_>>(), [0, 1, 2, 3], "{mask:b}");
        }
    }

    #[test]
    fn an_own_append_above_a_gap_waits() {
        let mut sequencer = Sequencer::new(5);
        let mut out = Vec::new();
        sequencer.own(6, 'b', 1, &mut out);
        assert!(out.is_empty());
        sequencer.tail([(5, 'a')], 6, &mut out);
        assert_eq!(out, [(5, 'a'), (6, 'b')]);
        sequencer.tail([(6, 'b'), (7, 'c')], 8, &mut out);
        assert_eq!(out, [(5, 'a'), (6, 'b'), (7, 'c')]);
    }

    #[test]
    fn own_appends_above_a_gap_are_bounded_by_their_bytes() {
        let mut sequencer = Sequencer::new(0);
        let mut out = Vec::new();
        for offset in 1..=4 {
            sequencer.own(offset, 'o', MAX_EARLY_BYTES / 2, &mut out);
        }
        assert_eq!((sequencer.early.len(), out.len()), (2, 0));
        // What closes the gap is taken, however large; and what had no room comes with the tail.
        sequencer.own(0, 'o', MAX_EARLY_BYTES, &mut out);
        assert_eq!((sequencer.position(), sequencer.early_bytes), (3, 0));
        sequencer.tail([(3, 't'), (4, 't')], 5, &mut out);
        assert_eq!(out, [(0, 'o'), (1, 'o'), (2, 'o'), (3, 't'), (4, 't')]);
        // The tail shows what is kept.
        sequencer.own(6, 'o', 10, &mut out);
        sequencer.tail([(5, 't'), (6, 't')], 7, &mut out);
        assert_eq!((sequencer.position(), sequencer.early_bytes), (7, 0));
    }

    #[test]
    fn a_position_moves_over_what_is_gone() {
        let mut sequencer = Sequencer::new(0);
        let mut out = Vec::new();
        sequencer.tail([(10, ())], 12, &mut out);
        assert_eq!((sequencer.position(), out), (12, vec![(10, ())]));
    }
}
