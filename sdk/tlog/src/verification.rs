//! Verifies records, one after another, against the tree and what was signed of it. It does no I/O, and trusts nobody but the keys.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    checkpoint::Checkpoint,
    proof::verify_consistency,
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
    #[error("the trail before record {1} is not the one that was signed at {0} records: it was forked")]
    AnotherBefore(u64, u64),
    #[error("the checkpoint of {0} records is of before record {1}, and nothing proves that the trail went on from it")]
    Unproved(u64, u64),
    #[error("nothing shows that the records {0} to {1} are as they were logged: none of them is signed")]
    Unsigned(u64, u64),
    #[error("there are no records")]
    Empty,
}

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The first record that was looked at, and the one after the last.
    pub records: (u64, u64),
    /// The largest size that was signed. What comes after it is proved by nothing: who changes a record there changes its hash with it.
    pub signed: u64,
    /// Checkpoints of before the first record. Each is proved to be of this trail.
    pub before: usize,
}

/// A verification under way.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    signed: BTreeMap<u64, Hash>,
    tree: Tree,
    /// The size before the first record, and the root that the tree has there.
    first: Option<(u64, Hash)>,
    /// The largest size at which the tree was as it was signed.
    good: Option<u64>,
    /// Sizes before the first record that the tree is proved to have grown from.
    proved: BTreeSet<u64>,
    unsigned_allowed: bool,
}

impl Verification {
    /// A trail of which nothing is signed passes as well. Only who knows where it comes from may ask for that.
    pub fn allow_unsigned(&mut self) {
        self.unsigned_allowed = true;
    }

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

    /// What comes before the first record is taken from these hashes of subtrees. After a record they must be those of the records before.
    ///
    /// # Errors
    /// Where they are not what was signed, or not what the records make.
    pub fn prefix(&mut self, size: u64, hashes: Vec<Hash>) -> Result<(), Wrong> {
        let tree = Tree::resume(size, hashes).ok_or(Wrong::Prefix(size))?;
        if self.first.is_some() {
            let is_known = (tree.size(), tree.root()) == (self.tree.size(), self.tree.root());
            return if is_known { Ok(()) } else { Err(Wrong::Prefix(size)) };
        }
        self.first = Some((size, tree.root()));
        self.tree = tree;
        self.look(size).map_err(|_| Wrong::Prefix(size))
    }

    /// The sizes that were signed before the first record, each of which takes a proof.
    #[must_use]
    pub fn to_prove(&self) -> Vec<u64> {
        let (first, _) = self.first.unwrap_or_default();
        self.signed.range(1..first.max(1)).map(|(size, _)| *size).filter(|size| !self.proved.contains(size)).collect()
    }

    /// The proof that the tree before the first record grew from the one that was signed at this size. Nobody asks for that of other sizes.
    ///
    /// # Errors
    /// Where it did not.
    pub fn grew_from(&mut self, size: u64, proof: &[Hash]) -> Result<(), Wrong> {
        let (Some((first, root)), Some(signed)) = (self.first, self.signed.get(&size)) else { return Ok(()) };
        if size < first {
            verify_consistency((size, signed), (first, &root), proof).map_err(|_| Wrong::AnotherBefore(size, first))?;
            self.proved.insert(size);
        }
        Ok(())
    }

    /// The next record, with the hash that the tree is said to have for it.
    ///
    /// # Errors
    /// Where it is the first that is wrong.
    pub fn record(&mut self, number: u64, record: &[u8], leaf: Option<Hash>) -> Result<(), Wrong> {
        let next = self.tree.size();
        let root = self.tree.root();
        self.first.get_or_insert((next, root));
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
            return Err(Wrong::NotSigned(self.good.or(self.first.map(|(first, _)| first)).unwrap_or(0), size.saturating_sub(1)));
        }
        if self.signed.contains_key(&size) {
            self.good = Some(size);
        }
        Ok(())
    }

    /// There are no more.
    ///
    /// # Errors
    /// Where more were signed, where nothing of it was, and where a checkpoint of before the first record has no proof.
    pub fn end(self) -> Result<Verified, Wrong> {
        let ((first, _), size) = (self.first.unwrap_or_default(), self.tree.size());
        if let Some((signed, _)) = self.signed.last_key_value().filter(|(signed, _)| **signed > size) {
            return Err(Wrong::CutOff(size, signed - 1));
        }
        if let Some(unproved) = self.to_prove().first() {
            return Err(Wrong::Unproved(*unproved, first));
        }
        let signed = self.good.unwrap_or(0);
        if signed <= first && !self.unsigned_allowed {
            return Err(if first < size { Wrong::Unsigned(first, size - 1) } else { Wrong::Empty });
        }
        Ok(Verified { records: (first, size), signed, before: self.proved.len() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use super::*;
    use crate::{
        proof::{Part, consistency},
        tree::{fold, subtrees},
    };

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

    /// Hashes that are folded of nodes of the tree.
    fn hashes(parts: Vec<Part>) -> Vec<Hash> {
        let mut tree = Tree::default();
        let nodes: HashMap<_, _> = (0..10).flat_map(|number| tree.push(leaf_hash(&record(number)))).collect();
        parts.iter().map(|part| fold(&part.iter().map(|id| nodes[id]).collect::<Vec<_>>()).unwrap()).collect()
    }

    fn prefix(size: u64) -> Vec<Hash> {
        hashes(subtrees(size).into_iter().map(|id| vec![id]).collect())
    }

    /// The records from 6 on, of which the tree was signed at 4 and 8.
    fn verify_from_6(prefix: Vec<Hash>, proof: Option<Vec<Hash>>) -> Result<Verified, Wrong> {
        let mut verification = Verification::default();
        for size in [4, 8] {
            verification.expect(&signed(size))?;
        }
        verification.prefix(6, prefix)?;
        if let Some(proof) = proof {
            assert_eq!(verification.to_prove(), [4]);
            verification.grew_from(4, &proof)?;
            assert!(verification.to_prove().is_empty());
        }
        for (number, record, leaf) in good().into_iter().skip(6) {
            verification.record(number, &record, leaf)?;
        }
        verification.end()
    }

    #[test]
    fn a_trail_without_its_beginning_is_verified_from_there() {
        let proof = hashes(consistency(4, 6).unwrap());
        assert_eq!(verify_from_6(prefix(6), Some(proof)), Ok(Verified { records: (6, 10), signed: 8, before: 1 }));
        assert_eq!(verify_from_6(vec![[7; 32]; 2], None), Err(Wrong::NotSigned(6, 7)));
        assert_eq!(verify_from_6(vec![[7; 32]], None), Err(Wrong::Prefix(6)));
    }

    #[test]
    fn a_checkpoint_of_before_the_first_record_takes_a_proof() {
        assert_eq!(verify_from_6(prefix(6), None), Err(Wrong::Unproved(4, 6)));
        assert_eq!(verify_from_6(prefix(6), Some(vec![[7; 32]])), Err(Wrong::AnotherBefore(4, 6)));
        assert_eq!(verify_from_6(prefix(6), Some(Vec::new())), Err(Wrong::AnotherBefore(4, 6)));
    }

    #[test]
    fn what_is_not_signed_does_not_pass() {
        let verify = |allowed: bool, sizes: &[u64], records: std::ops::Range<usize>| {
            let mut verification = Verification::default();
            if allowed {
                verification.allow_unsigned();
            }
            sizes.iter().for_each(|size| verification.expect(&signed(*size)).unwrap());
            let first = records.start as u64;
            if first > 0 {
                verification.prefix(first, prefix(first)).unwrap();
            }
            for (number, record, leaf) in good().drain(records) {
                verification.record(number, &record, leaf).unwrap();
            }
            verification.end()
        };
        assert_eq!(verify(false, &[], 0..10), Err(Wrong::Unsigned(0, 9)));
        assert_eq!(verify(false, &[], 0..0), Err(Wrong::Empty));
        assert_eq!(verify(false, &[4], 4..10), Err(Wrong::Unsigned(4, 9)), "the checkpoint is of what is before");
        assert_eq!(verify(true, &[], 0..10), Ok(Verified { records: (0, 10), signed: 0, before: 0 }));
    }

    #[test]
    fn hashes_between_records_must_be_those_of_the_records() {
        let mut verification = Verification::default();
        for (number, record, leaf) in good().drain(..6) {
            verification.record(number, &record, leaf).unwrap();
        }
        verification.prefix(6, prefix(6)).unwrap();
        assert_eq!(verification.prefix(5, prefix(5)), Err(Wrong::Prefix(5)));
        assert_eq!(verification.prefix(6, vec![[7; 32]; 2]), Err(Wrong::Prefix(6)));
    }

    #[test]
    fn two_checkpoints_of_one_size_are_a_fork() {
        let mut verification = Verification::default();
        verification.expect(&signed(4)).unwrap();
        verification.expect(&signed(4)).unwrap();
        assert_eq!(verification.expect(&Checkpoint { root: [7; 32], ..signed(4) }), Err(Wrong::Forked(4)));
    }
}
