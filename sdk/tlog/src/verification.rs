//! Verifies records, one after another, against the tree and what was signed of it. It does no I/O, and trusts nobody but the keys.

use std::collections::BTreeMap;

use crate::{
    checkpoint::Checkpoint,
    tree::{Hash, Tree, leaf_hash},
};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is about")]
pub enum Wrong {
    #[error("record {0} is missing: the one after it is {1}")]
    Missing(u64, u64),
    #[error("record {0} is not where it belongs: it comes after record {1}")]
    OutOfOrder(u64, u64),
    #[error("record {0} was changed, or another one was put in its place: the tree has another hash for it")]
    Changed(u64),
    #[error("record {0} was put in: the tree has no leaf for it")]
    PutIn(u64),
    #[error("the records {0} to {1} do not make the tree that was signed: one of them was changed, and the tree with it")]
    NotSigned(u64, u64),
    #[error("the records {0} to {1} are missing: the tree had them when it was signed")]
    CutOff(u64, u64),
    #[error("the hashes before record {0} do not make the tree that was signed")]
    Prefix(u64),
    #[error("there are two checkpoints of {0} records, and they differ: the trail was forked")]
    Forked(u64),
}

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first record that was looked at, and the one after the last.
    pub records: (u64, u64),
    /// The largest size that was signed, of those that could be looked at.
    pub signed: u64,
    /// Checkpoints of before the first record: nothing can be said of them.
    pub before: usize,
}

/// A verification under way.
#[derive(Debug, Default)]
pub struct Verification {
    signed: BTreeMap<u64, Hash>,
    tree: Tree,
    first: Option<u64>,
    /// The largest size at which the tree was as it was signed.
    good: Option<u64>,
}

impl Verification {
    /// The tree must be so at this size.
    ///
    /// # Errors
    /// Where another checkpoint said something else of this size.
    pub fn expect(&mut self, checkpoint: &Checkpoint) -> Result<(), Wrong> {
        match self.signed.insert(checkpoint.size, checkpoint.root) {
            Some(root) if root != checkpoint.root => Err(Wrong::Forked(checkpoint.size)),
            _ => Ok(()),
        }
    }

    /// What comes before the first record is taken from these hashes of subtrees.
    ///
    /// # Errors
    /// Where they are not what was signed.
    pub fn prefix(&mut self, size: u64, hashes: Vec<Hash>) -> Result<(), Wrong> {
        // Later in the trail it says nothing that is not known.
        if self.first.is_some() {
            return Ok(());
        }
        self.tree = Tree::resume(size, hashes).ok_or(Wrong::Prefix(size))?;
        self.first = Some(size);
        self.look(size).map_err(|_| Wrong::Prefix(size))
    }

    /// The next record, with the hash that the tree is said to have for it.
    ///
    /// # Errors
    /// Where it is the first that is wrong.
    pub fn record(&mut self, number: u64, record: &[u8], leaf: Option<Hash>) -> Result<(), Wrong> {
        let next = self.tree.size();
        self.first.get_or_insert(next);
        if number > next {
            return Err(Wrong::Missing(next, number));
        }
        if number < next {
            return Err(Wrong::OutOfOrder(number, next - 1));
        }
        match leaf {
            None => return Err(Wrong::PutIn(number)),
            Some(leaf) if leaf != leaf_hash(record) => return Err(Wrong::Changed(number)),
            Some(leaf) => drop(self.tree.push(leaf)),
        }
        self.look(number + 1)
    }

    fn look(&mut self, size: u64) -> Result<(), Wrong> {
        if self.signed.get(&size).is_some_and(|root| *root != self.tree.root()) {
            return Err(Wrong::NotSigned(self.good.or(self.first).unwrap_or(0), size.saturating_sub(1)));
        }
        if self.signed.contains_key(&size) {
            self.good = Some(size);
        }
        Ok(())
    }

    /// There are no more.
    ///
    /// # Errors
    /// Where more were signed.
    pub fn end(self) -> Result<Verified, Wrong> {
        let (first, size) = (self.first.unwrap_or(0), self.tree.size());
        if let Some((signed, _)) = self.signed.last_key_value().filter(|(signed, _)| **signed > size) {
            return Err(Wrong::CutOff(size, signed - 1));
        }
        let before = self.signed.range(..first).filter(|(signed, _)| **signed > 0).count();
        Ok(Verified { records: (first, size), signed: self.good.unwrap_or(0), before })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::tree::subtrees;

    use super::*;

    fn record(number: u64) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn signed(size: u64) -> Checkpoint {
        let mut tree = Tree::default();
        for number in 0..size {
            tree.push(leaf_hash(&record(number)));
        }
        Checkpoint { origin: "acme".to_owned(), size, root: tree.root() }
    }

    /// Ten records, of which the tree was signed at 4 and 8; each as it is told.
    fn verify(told: impl IntoIterator<Item = (u64, Vec<u8>, Option<Hash>)>) -> Result<Verified, Wrong> {
        let mut verification = Verification::default();
        for size in [4, 8] {
            verification.expect(&signed(size))?;
        }
        for (number, record, leaf) in told {
            verification.record(number, &record, leaf)?;
        }
        verification.end()
    }

    fn good() -> Vec<(u64, Vec<u8>, Option<Hash>)> {
        (0..10).map(|number| (number, record(number), Some(leaf_hash(&record(number))))).collect()
    }

    /// Another order of the records, told under the numbers and leaves that there are.
    fn renumbered(order: &[u64]) -> Vec<(u64, Vec<u8>, Option<Hash>)> {
        let leaf = |number: u64| (number < 10).then(|| leaf_hash(&record(number)));
        (0..).zip(order).map(|(number, told)| (number, record(*told), leaf(number))).collect()
    }

    #[test]
    fn a_trail_as_it_was_signed_is_verified() {
        assert_eq!(verify(good()), Ok(Verified { records: (0, 10), signed: 8, before: 0 }));
    }

    #[test]
    fn the_first_record_that_is_wrong_is_named() {
        let mut changed = good();
        changed[5].1 = b"other".to_vec();
        assert_eq!(verify(changed), Err(Wrong::Changed(5)));
        let mut removed = good();
        removed.remove(5);
        assert_eq!(verify(removed), Err(Wrong::Missing(5, 6)));
        assert_eq!(verify(renumbered(&[0, 1, 2, 4, 5, 6, 7, 8, 9])), Err(Wrong::Changed(3)), "removed, and the others moved up");
        assert_eq!(verify(renumbered(&[0, 1, 99, 2, 3, 4, 5, 6, 7, 8, 9])), Err(Wrong::Changed(2)), "put in between");
        assert_eq!(verify(renumbered(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 99])), Err(Wrong::PutIn(10)));
        assert_eq!(verify(renumbered(&[0, 1, 2, 4, 3, 5, 6, 7, 8, 9])), Err(Wrong::Changed(3)), "reordered");
        let mut swapped = good();
        swapped.swap(3, 4);
        assert_eq!(verify(swapped), Err(Wrong::Missing(3, 4)));
        let mut twice = good();
        twice.insert(4, twice[3].clone());
        assert_eq!(verify(twice), Err(Wrong::OutOfOrder(3, 3)));
        assert_eq!(verify(good().into_iter().take(6)), Err(Wrong::CutOff(6, 7)));
    }

    #[test]
    fn a_tree_that_was_changed_with_its_record_is_not_the_one_that_was_signed() {
        let mut forged = good();
        forged[5] = (5, b"other".to_vec(), Some(leaf_hash(b"other")));
        assert_eq!(verify(forged), Err(Wrong::NotSigned(4, 7)));
    }

    #[test]
    fn a_trail_without_its_beginning_is_verified_from_there() {
        let mut tree = Tree::default();
        let nodes: std::collections::HashMap<_, _> = (0..6).flat_map(|number| tree.push(leaf_hash(&record(number)))).collect();
        let hashes: Vec<Hash> = subtrees(6).iter().map(|id| nodes[id]).collect();
        let begin = |hashes: Vec<Hash>| {
            let mut verification = Verification::default();
            for size in [4, 8] {
                verification.expect(&signed(size))?;
            }
            verification.prefix(6, hashes)?;
            for (number, record, leaf) in good().into_iter().skip(6) {
                verification.record(number, &record, leaf)?;
            }
            verification.end()
        };
        assert_eq!(begin(hashes.clone()), Ok(Verified { records: (6, 10), signed: 8, before: 1 }));
        assert_eq!(begin(vec![[7; 32]; 2]), Err(Wrong::NotSigned(6, 7)));
        assert_eq!(begin(vec![[7; 32]]), Err(Wrong::Prefix(6)));
    }

    #[test]
    fn two_checkpoints_of_one_size_are_a_fork() {
        let mut verification = Verification::default();
        verification.expect(&signed(4)).unwrap();
        verification.expect(&signed(4)).unwrap();
        assert_eq!(verification.expect(&Checkpoint { root: [7; 32], ..signed(4) }), Err(Wrong::Forked(4)));
    }
}
