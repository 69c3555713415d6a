//! Reading the trail: records, the latest checkpoint, and proofs.

use std::{fmt, sync::Arc};

use acb_tlog::{
    proof::{Part, consistency, inclusion},
    tree::{Hash, fold, subtrees},
};

use super::{
    following::AuditFollowing,
    ports::{AuditFilter, AuditStore, KeptRecord, SignedCheckpoint},
};
use crate::{
    fault::{Code, Fault},
    kit::page,
};

/// What can be proved of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A record is in the tree of this size.
    Inclusion {
        /// The record's number.
        number: u64,
        /// The tree's size.
        size: u64,
    },
    /// A tree is the beginning of a larger one.
    Consistency {
        /// The smaller size.
        first: u64,
        /// The larger size.
        second: u64,
    },
    /// The hashes of the subtrees of the first so many records.
    Prefix {
        /// How many.
        size: u64,
    },
}

/// Some records, and where the next ones are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPage {
    /// By number.
    pub records: Vec<KeptRecord>,
    /// Empty at the end.
    pub next_page_token: String,
}

/// Reads one tenant's trail. Clones share it.
#[derive(Clone)]
pub struct AuditTrail(Arc<dyn AuditStore>);

impl fmt::Debug for AuditTrail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditTrail")
    }
}

impl AuditTrail {
    /// That is kept there.
    #[must_use]
    pub fn new(store: Arc<dyn AuditStore>) -> Self {
        Self(store)
    }

    /// The records that match, from number `first` on.
    ///
    /// # Errors
    /// Where the token is none of a list.
    pub async fn list(&self, filter: &AuditFilter, first: u64, page_size: u32, page_token: &str) -> Result<RecordPage, Fault> {
        let from = match page_token {
            "" => first,
            token => token
                .parse()
                .map_err(|_| Fault::invalid("PAGE_TOKEN_INVALID", "the page token is of no list of audit records"))?,
        };
        let size = page::size(page_size);
        let mut records = self.0.records(filter, from, size + 1).await?;
        let more = page::cut(&mut records, size, |record| record.record.len() + 64);
        let next = records.last().filter(|_| more).map(|last| (last.number + 1).to_string());
        Ok(RecordPage { records, next_page_token: next.unwrap_or_default() })
    }

    /// Records as they are logged, from number `first` on; without it, from now on.
    ///
    /// # Errors
    /// `AUDIT_TREE_SMALLER` where there are not so many, or where the store does not answer.
    pub async fn follow(&self, filter: AuditFilter, first: Option<u64>) -> Result<AuditFollowing, Fault> {
        AuditFollowing::begin(self.0.clone(), filter, first).await
    }

    /// The latest checkpoint, and every key that signed one.
    ///
    /// # Errors
    /// Where there is none yet.
    pub async fn checkpoint(&self) -> Result<(SignedCheckpoint, Vec<String>), Fault> {
        let checkpoint = self.0.checkpoint().await?.ok_or_else(|| {
            let why = "nothing of the audit trail is signed yet: that comes within a minute of its first record";
            Fault::not_found("AUDIT_NOT_SIGNED", why)
        })?;
        Ok((checkpoint, self.0.verifiers().await?))
    }

    /// The hashes that prove it.
    ///
    /// # Errors
    /// Where it is not so.
    pub async fn prove(&self, claim: Statement) -> Result<Vec<Hash>, Fault> {
        let (parts, size) = match claim {
            Statement::Inclusion { number, size } => (inclusion(number, size), size),
            Statement::Consistency { first, second } => (consistency(first, second), second),
            Statement::Prefix { size } => (Some(subtrees(size).into_iter().map(|id| vec![id]).collect()), size),
        };
        let parts = parts.ok_or_else(|| {
            Fault::invalid(
                "AUDIT_PROOF_INVALID",
                "a record has a number below the tree's size, and a tree begins with one that is not larger",
            )
        })?;
        let there = self.0.head().await?.tree.size();
        if size > there {
            let why = format!("the audit trail has {there} records, and no tree of {size}");
            return Err(Fault::new(Code::OutOfRange, "AUDIT_TREE_SMALLER", why));
        }
        let ids: Vec<_> = parts.iter().flatten().copied().collect();
        let nodes = self.0.nodes(&ids).await?.ok_or_else(|| {
            Fault::new(Code::DataLoss, "AUDIT_TREE_DAMAGED", "nodes of the audit trail's tree are missing: somebody removed them")
        })?;
        let mut nodes = nodes.as_slice();
        let mut next = |part: &Part| {
            let (hashes, rest) = nodes.split_at_checked(part.len())?;
            nodes = rest;
            fold(hashes)
        };
        parts
            .iter()
            .map(&mut next)
            .collect::<Option<_>>()
            .ok_or_else(|| Fault::new(Code::Internal, "AUDIT_PROOF_FAILED", "see the hub's log"))
    }
}
