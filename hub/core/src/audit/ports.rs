//! The port that keeps the trail: rows in the order of the log, and the tree over them.

use std::time::Duration;

use acb_tlog::tree::{Hash, NodeId, Tree};
use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::record::{AuditRecord, OPERATOR, Phase};
use crate::{
    fault::Fault,
    log::bus::{Epoch, Offset},
};

/// Where in the log the tree goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreePosition {
    /// In which life of the log.
    pub epoch: Epoch,
    /// Everything below is in the tree.
    pub next: Offset,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The tree.
    pub tree: Tree,
    /// Where it goes on. `None`: nothing was read yet.
    pub place: Option<TreePosition>,
}

/// A record that becomes a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its bytes, as they are in the log.
    pub record: Bytes,
    /// What it says, for those who look for it.
    pub at: OffsetDateTime,
    /// The name of the agent; empty where there is none.
    pub agent: String,
    /// The operation.
    pub operation: String,
}

/// What is added at one time.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The tree's size before it.
    pub first: u64,
    /// One record at least.
    pub leaves: Vec<Leaf>,
    /// The nodes that are complete with them.
    pub nodes: Vec<(NodeId, Hash)>,
    /// Where the tree goes on after it.
    pub place: TreePosition,
    /// Calls of the leaves that tell of acts of the operator.
    pub acts: Vec<Uuid>,
}

/// Something that the operator did, and the trail does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAct {
    /// The call of its record.
    pub call: Uuid,
    /// When, by the clock of the store.
    pub at: OffsetDateTime,
    /// Which operator.
    pub operator: String,
    /// Such as `AgentChanged`.
    pub operation: String,
    /// What it was about, such as `agent planner`.
    pub object: String,
    /// What changed about it.
    pub change: String,
}

impl OperatorAct {
    /// Its record: the same bytes each time that it is made.
    #[must_use]
    pub fn record(self) -> AuditRecord {
        AuditRecord {
            call: self.call,
            phase: Phase::Outcome,
            at: self.at,
            replica: self.operator,
            operation: self.operation,
            agent_id: None,
            agent: String::new(),
            key: String::new(),
            object: self.object,
            version: 0,
            bytes: 0,
            source: OPERATOR.to_owned(),
            outcome: "done".to_owned(),
            reason: String::new(),
            correlation_id: String::new(),
            count: 0,
            change: self.change,
        }
    }
}

/// A checkpoint that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The size of the tree.
    pub size: u64,
    /// The key that signed it, as a C2SP verifier key.
    pub verifier: String,
    /// The signed note.
    pub note: String,
    /// When it was signed.
    pub at: OffsetDateTime,
}

/// Which records; what is not said is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// At this time or later.
    pub since: Option<OffsetDateTime>,
    /// Before this time.
    pub until: Option<OffsetDateTime>,
    /// With a number below this.
    pub below: Option<u64>,
    /// Of this agent.
    pub agent: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
}

/// A record that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptRecord {
    /// The number of its leaf.
    pub number: u64,
    /// Its bytes.
    pub record: Bytes,
    /// The hash that the tree has for it. `None`: the tree has no such leaf.
    pub leaf: Option<Hash>,
}

/// Keeps the trail. What is there is never changed, and goes only when its retention is over.
#[async_trait]
pub trait AuditStore: Send + Sync + 'static {
    /// Whether this holder builds the tree from now on for so long: where nobody else does.
    async fn hold_sink(&self, holder: Uuid, life: Duration) -> Result<bool, Fault>;
    /// What is kept now.
    async fn head(&self) -> Result<Head, Fault>;
    /// The tree's size now.
    async fn size(&self) -> Result<u64, Fault>;
    /// The sizes that the tree had before it had this one, and where it went on then: the largest first, at most `limit`.
    async fn sizes_before(&self, size: u64, limit: usize) -> Result<Vec<(u64, TreePosition)>, Fault>;
    /// Adds records and their nodes, and notes which acts are among them, together. False where the tree does not have that size now: nothing is added then.
    async fn grow(&self, growth: &Growth) -> Result<bool, Fault>;
    /// The oldest acts of the operator that are no leaves yet, in their order: at most `limit`.
    async fn acts(&self, limit: usize) -> Result<Vec<OperatorAct>, Fault>;
    /// Keeps a checkpoint. False where the tree does not have that size now, or one of that size is kept already.
    async fn keep_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Fault>;
    /// The latest checkpoint.
    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Fault>;
    /// Every key that signed one.
    async fn verifiers(&self) -> Result<Vec<String>, Fault>;
    /// The hashes of these nodes, in their order. `None` where one of them is not there.
    async fn nodes(&self, ids: &[NodeId]) -> Result<Option<Vec<Hash>>, Fault>;
    /// The records that match, from this number on, by number: at most `limit`.
    async fn records(&self, filter: &AuditFilter, from: u64, limit: usize) -> Result<Vec<KeptRecord>, Fault>;
    /// Forgets the oldest records whose retention is over, and what was kept for them alone, at most `limit` of each: how many went of what went most.
    /// What proves the others stays.
    async fn forget(&self, limit: usize) -> Result<u64, Fault>;
}
