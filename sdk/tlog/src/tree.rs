//! The Merkle tree of RFC 6962, section 2.1: over records in their order, each a leaf.
//!
//! A node is named by its level and its index in that level; one of level *l* is over 2^*l* leaves. Only nodes whose leaves are all there are named: they
//! never change. The root of any size follows from at most 64 of them.

use sha2::{Digest as _, Sha256};

/// SHA-256.
pub type Hash = [u8; 32];

/// The hash of a record.
#[must_use]
pub fn leaf_hash(record: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(record).finalize().into()
}

/// The hash of a node, from those of its two children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A node whose leaves are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// 0: leaves.
    pub level: u8,
    /// From 0, in its level.
    pub index: u64,
}

/// The nodes whose leaves are together the first `size` ones, the largest first.
#[must_use]
pub fn subtrees(size: u64) -> Vec<NodeId> {
    range(0, size)
}

/// The largest nodes that have together the leaves `from..to`, in their order. `from` is where a subtree of the tree of `to` leaves begins.
pub(crate) fn range(from: u64, to: u64) -> Vec<NodeId> {
    let mut nodes = Vec::new();
    let mut at = from;
    while at < to {
        // As large as its place and the end allow.
        let by_place = if at == 0 { 63 } else { at.trailing_zeros() };
        let by_end = (to - at).ilog2();
        let level = by_place.min(by_end);
        nodes.push(NodeId { level: u8::try_from(level).unwrap_or(u8::MAX), index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The hash of neighbouring subtrees as one, the largest first. `None` of none.
#[must_use]
pub fn fold(hashes: &[Hash]) -> Option<Hash> {
    let (last, before) = hashes.split_last()?;
    Some(before.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// A tree that grows: what it must know of the leaves that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// The hashes of [`subtrees`].
    subtrees: Vec<Hash>,
}

impl Tree {
    /// One of this size, from the hashes of its [`subtrees`]. `None` where they are not as many.
    #[must_use]
    pub fn resume(size: u64, hashes: Vec<Hash>) -> Option<Self> {
        (subtrees(size).len() == hashes.len()).then_some(Self { size, subtrees: hashes })
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.subtrees).unwrap_or_else(empty_root)
    }

    /// One leaf more. Gives every node that is complete with it, the leaf first.
    pub fn push(&mut self, leaf: Hash) -> Vec<(NodeId, Hash)> {
        let mut id = NodeId { level: 0, index: self.size };
        let mut hash = leaf;
        let mut made = vec![(id, hash)];
        while id.index % 2 == 1 {
            let Some(left) = self.subtrees.pop() else { break };
            hash = node_hash(&left, &hash);
            id = NodeId { level: id.level + 1, index: id.index / 2 };
            made.push((id, hash));
        }
        self.subtrees.push(hash);
        self.size += 1;
        made
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The leaves of the test vectors of Certificate Transparency, and the roots over the first of them.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut tree = Tree::default();
        assert_eq!(hex::encode(tree.root()), ROOTS[0]);
        for (leaf, root) in LEAVES.iter().zip(&ROOTS[1..]) {
            tree.push(leaf_hash(&hex::decode(leaf).unwrap()));
            assert_eq!(&hex::encode(tree.root()), root);
        }
    }

    /// As RFC 6962 has it, word for word.
    pub(crate) fn root_of(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            _ => {
                let k = 1 << (leaves.len() - 1).ilog2();
                node_hash(&root_of(&leaves[..k]), &root_of(&leaves[k..]))
            }
        }
    }

    pub(crate) fn leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    #[test]
    fn a_tree_goes_on_from_its_complete_nodes() {
        let leaves = leaves(70);
        let mut nodes = std::collections::HashMap::new();
        let mut tree = Tree::default();
        for (count, leaf) in leaves.iter().enumerate() {
            let hashes = subtrees(count as u64).iter().map(|id| nodes[id]).collect();
            assert_eq!(Tree::resume(count as u64, hashes), Some(tree.clone()));
            nodes.extend(tree.push(*leaf));
            assert_eq!(tree.root(), root_of(&leaves[..=count]));
        }
        assert_eq!(Tree::resume(3, vec![leaves[0]]), None);
        for (id, hash) in &nodes {
            let (from, to) = (id.index << id.level, (id.index + 1) << id.level);
            assert_eq!(*hash, root_of(&leaves[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()]), "{id:?}");
        }
    }

    #[test]
    fn the_largest_sizes_have_subtrees() {
        assert_eq!(subtrees(u64::MAX).len(), 64);
        assert_eq!(subtrees(1 << 63), [NodeId { level: 63, index: 0 }]);
        assert_eq!(subtrees(0), []);
    }
}
