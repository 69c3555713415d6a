//! Proofs of RFC 6962: that a leaf is in a tree, and that a tree is the beginning of a larger one.
//!
//! A proof is a list of hashes. Who has the tree makes it of the nodes that [`inclusion`] and [`consistency`] name: the nodes of each part, folded,
//! are one hash.

use crate::tree::{Hash, NodeId, node_hash, range};

/// The nodes whose folded hash is one hash of a proof.
pub type Part = Vec<NodeId>;

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not lead to the root")]
pub struct Refuted;

/// The proof that leaf `index` is in the tree of `size` leaves. `None` where there is no such leaf.
#[must_use]
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Part>> {
    (index < size).then(|| {
        let mut parts = Vec::new();
        path(index, 0, size, &mut parts);
        parts
    })
}

/// PATH of section 2.1.1, in the part of the tree with the leaves `from..to`.
fn path(index: u64, from: u64, to: u64, parts: &mut Vec<Part>) {
    if to - from <= 1 {
        return;
    }
    let middle = from + split(to - from);
    if index < middle {
        path(index, from, middle, parts);
        parts.push(range(middle, to));
    } else {
        path(index, middle, to, parts);
        parts.push(range(from, middle));
    }
}

/// The proof that the tree of `first` leaves is the beginning of that of `second`. `None` where it can't be; empty where both are the same.
#[must_use]
pub fn consistency(first: u64, second: u64) -> Option<Vec<Part>> {
    (0 < first && first <= second).then(|| {
        let mut parts = Vec::new();
        subproof(first, 0, second, true, &mut parts);
        parts
    })
}

/// SUBPROOF of section 2.1.2. `first` counts from the beginning of the tree.
fn subproof(first: u64, from: u64, to: u64, whole: bool, parts: &mut Vec<Part>) {
    if first == to {
        if !whole {
            parts.push(range(from, to));
        }
        return;
    }
    let middle = from + split(to - from);
    if first <= middle {
        subproof(first, from, middle, whole, parts);
        parts.push(range(middle, to));
    } else {
        subproof(first, middle, to, false, parts);
        parts.push(range(from, middle));
    }
}

/// The largest power of two that is smaller. Of 2 at least.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Whether a proof shows that this is leaf `index` of the tree of this size and root.
///
/// # Errors
/// Where it does not.
pub fn verify_inclusion(index: u64, size: u64, leaf: Hash, proof: &[Hash], root: &Hash) -> Result<(), Refuted> {
    if index >= size {
        return Err(Refuted);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(Refuted);
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A node without a right neighbour stands for itself on higher levels.
            while node % 2 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(Refuted) }
}

/// Whether a proof shows that the first tree is the beginning of the second.
///
/// # Errors
/// Where it does not.
pub fn verify_consistency(first: (u64, &Hash), second: (u64, &Hash), proof: &[Hash]) -> Result<(), Refuted> {
    let ((first_size, first_root), (second_size, second_root)) = (first, second);
    if first_size == second_size {
        return if proof.is_empty() && first_root == second_root { Ok(()) } else { Err(Refuted) };
    }
    if first_size == 0 || first_size > second_size {
        return Err(Refuted);
    }
    let mut rest = proof.iter();
    // The first tree is one node of the second: the verifier has its hash.
    let begin = if first_size.is_power_of_two() { first_root } else { rest.next().ok_or(Refuted)? };
    let (mut node, mut last) = (first_size - 1, second_size - 1);
    while node % 2 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut first_hash, mut second_hash) = (*begin, *begin);
    for hash in rest {
        if last == 0 {
            return Err(Refuted);
        }
        if node % 2 == 1 || node == last {
            first_hash = node_hash(hash, &first_hash);
            second_hash = node_hash(hash, &second_hash);
            while node % 2 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            second_hash = node_hash(&second_hash, hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 && first_hash == *first_root && second_hash == *second_root { Ok(()) } else { Err(Refuted) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use super::*;
    use crate::tree::{
        Tree, fold,
        tests::{leaves, root_of},
    };

    const SIZE: u64 = 40;

    fn nodes() -> HashMap<NodeId, Hash> {
        let mut tree = Tree::default();
        leaves(SIZE).into_iter().flat_map(|leaf| tree.push(leaf)).collect()
    }

    fn hashes(parts: Vec<Part>, nodes: &HashMap<NodeId, Hash>) -> Vec<Hash> {
        let fold = |part: Part| fold(&part.iter().map(|id| nodes[id]).collect::<Vec<_>>()).unwrap();
        parts.into_iter().map(fold).collect()
    }

    fn root(size: u64) -> Hash {
        root_of(&leaves(size))
    }

    #[test]
    fn every_leaf_of_every_tree_is_proved_and_no_other() {
        let (nodes, leaves) = (nodes(), leaves(SIZE));
        for size in 1..=SIZE {
            let root = root(size);
            for index in 0..size {
                let proof = hashes(inclusion(index, size).unwrap(), &nodes);
                let leaf = leaves[usize::try_from(index).unwrap()];
                verify_inclusion(index, size, leaf, &proof, &root).unwrap();
                verify_inclusion(index, size, [7; 32], &proof, &root).unwrap_err();
                verify_inclusion(index, size, leaf, &proof, &[7; 32]).unwrap_err();
                verify_inclusion(index + size, size, leaf, &proof, &root).unwrap_err();
                let longer: Vec<Hash> = proof.iter().copied().chain([[7; 32]]).collect();
                verify_inclusion(index, size, leaf, &longer, &root).unwrap_err();
                if let Some((_, shorter)) = proof.split_last() {
                    verify_inclusion(index, size, leaf, shorter, &root).unwrap_err();
                }
                for other in (0..size).filter(|other| *other != index) {
                    verify_inclusion(other, size, leaf, &proof, &root).unwrap_err();
                }
            }
        }
        assert_eq!((inclusion(0, 0), inclusion(5, 5)), (None, None));
    }

    #[test]
    fn every_tree_is_proved_to_begin_every_larger_one() {
        let nodes = nodes();
        for second in 1..=SIZE {
            for first in 1..=second {
                let proof = hashes(consistency(first, second).unwrap(), &nodes);
                let (one, two) = (root(first), root(second));
                verify_consistency((first, &one), (second, &two), &proof).unwrap();
                verify_consistency((first, &[7; 32]), (second, &two), &proof).unwrap_err();
                verify_consistency((first, &one), (second, &[7; 32]), &proof).unwrap_err();
                let longer: Vec<Hash> = proof.iter().copied().chain([[7; 32]]).collect();
                verify_consistency((first, &one), (second, &two), &longer).unwrap_err();
                if let Some((_, shorter)) = proof.split_last() {
                    verify_consistency((first, &one), (second, &two), shorter).unwrap_err();
                }
            }
        }
        assert_eq!((consistency(0, 3), consistency(4, 3)), (None, None));
        verify_consistency((0, &root(0)), (3, &root(3)), &[]).unwrap_err();
    }
}
