//! The mailbox port: an index over the messages log, and what each agent has acknowledged. Both are derived from the log and could be
//! made again from it, so nothing here is asked before a message is durable.

use std::{ops::Range, time::Duration};

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    cursor::CursorState,
    message::{Address, Message},
    position::Position,
};
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
};

/// Whose mailbox: `a:<agent id>`, `g:<group>` or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MailboxAddress {
    /// One agent's.
    Agent(AgentId),
    /// A group's: one row for all of its members.
    Group(String),
    /// Everyone's.
    All,
}

impl MailboxAddress {
    /// Where a message is kept: a mailbox for each agent that it names. Nowhere where it goes to a waiting caller, or to nobody.
    #[must_use]
    pub fn all_of(message: &Message) -> Vec<Self> {
        match &message.to {
            Address::Agent(_) | Address::Agents(_) => message.to_ids.iter().copied().map(Self::Agent).collect(),
            Address::Group(group) => vec![Self::Group(group.clone())],
            Address::All => vec![Self::All],
            Address::Request { .. } => Vec::new(),
        }
    }

    /// The mailbox in which this agent finds a message that is for it.
    #[must_use]
    pub fn of(message: &Message, agent: AgentId) -> Option<Self> {
        let mut all = Self::all_of(message).into_iter();
        all.find(|address| matches!(address, Self::Group(_) | Self::All) || *address == Self::Agent(agent))
    }

    /// As stored.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Agent(id) => format!("a:{id}"),
            Self::Group(name) => format!("g:{name}"),
            Self::All => "*".to_owned(),
        }
    }

    /// From what was stored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_at_checked(2) {
            Some(("a:", id)) => id.parse().ok().map(|id| Self::Agent(AgentId(id))),
            Some(("g:", name)) => Some(Self::Group(name.to_owned())),
            _ => (text == "*").then_some(Self::All),
        }
    }
}

/// One row of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Whose.
    pub address: MailboxAddress,
    /// Where the message is.
    pub partition: Partition,
    /// Where the message is.
    pub position: Position,
    /// When the log took it.
    pub log_time: OffsetDateTime,
    /// When it goes to the dead letters, by this machine's clock. What is kept is the clock of the store: a replica whose own is off takes no message from
    /// the others.
    pub expires_at: OffsetDateTime,
    /// Who sent it. `None`: an earlier version indexed it.
    pub sender: Option<AgentId>,
}

/// What claiming one row found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The caller moves it to the dead letters, for as long as it asked.
    Claimed,
    /// Somebody else moves it there now.
    Held,
    /// There is no such row: it is a dead letter by now, or not indexed yet.
    Gone,
}

/// What one look for expired rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// When the oldest of the rows that were looked at expired, by this machine's clock.
    pub oldest: Option<OffsetDateTime>,
    /// Rows of one agent's mailbox that the agent had acknowledged: they are removed.
    pub removed: u64,
    /// The others: the caller moves them to the dead letters.
    pub claimed: Vec<IndexEntry>,
}

/// Rows of one agent's mailbox in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Whose.
    pub agent: AgentId,
    /// Where the messages are.
    pub partition: Partition,
    /// All that the agent has acknowledged.
    pub range: Range<Position>,
}

/// Moves the checkpoint of one partition, together with the rows in `from..to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Which.
    pub partition: Partition,
    /// Where the checkpoint must be now.
    pub from: Position,
    /// Where it goes.
    pub to: Position,
    /// What is in between.
    pub rows: Vec<IndexEntry>,
}

/// What became of an [`Advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was applied: the checkpoint is at its `to`.
    Won,
    /// The checkpoint was here and not at its `from`: nothing was written.
    Lost(Position),
    /// There is no such checkpoint any more: the epoch has ended. Nothing was written.
    Gone,
}

/// Which life of the log the rows belong to. A log that was made anew has another epoch; its rows begin anew. A log that lost its last records
/// has the same epoch: then its rows move to an epoch that only the store knows.
#[async_trait]
pub trait LogLives: Send + Sync + 'static {
    /// The epoch that the rows of this log carry: the log's own, until it was cut short.
    async fn epoch(&self, log: Epoch) -> Result<Epoch, Fault>;

    /// For each partition the place above everything that rows of this epoch speak of: checkpoints, cursors and attempts.
    async fn reached(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Position>, Fault>;

    /// Moves all rows of the epoch `ended` to `epoch`, without what lies at or beyond the ends of these partitions. At once or not at all; false
    /// where `ended` has ended before. From then on nobody can write rows of it.
    async fn cut(&self, ended: Epoch, epoch: Epoch, ends: &[(Partition, Position)]) -> Result<bool, Fault>;
}

/// The index.
#[async_trait]
pub trait MailboxStore: LogLives {
    /// How far the index goes, for each of the partitions that the log had when this life of it began, which is now where nothing is kept of it; 0 where
    /// nothing was indexed yet. Whose partition a sender is hangs on how many there are: a replica that starts goes on with as many as the others have.
    async fn checkpoints(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Position>, Fault>;

    /// Applies each advance whose checkpoint is still at `from`, drops the others, and says for each which it was, in their order. Rows and
    /// checkpoint change together. A row of one agent's mailbox that lies below the agent's watermark may be left out: its message is
    /// acknowledged.
    async fn index(&self, epoch: Epoch, advances: Vec<Advance>) -> Result<Vec<Moved>, Fault>;

    /// Rows of these addresses in these ranges, by partition and position: of each range the first `limit`. One place has one row, and one
    /// partition has one range. Fails with [`index_went_back`] where the index does not go as far as the end of a range: rows that are missing
    /// are no messages that are not there.
    async fn entries(
        &self,
        epoch: Epoch,
        addresses: &[MailboxAddress],
        ranges: &[(Partition, Range<Position>)],
        limit: usize,
    ) -> Result<Vec<IndexEntry>, Fault>;

    /// Takes the oldest rows that have expired by the clock of the store and that nobody else holds, at most `limit`. Removes those of one agent's mailbox
    /// that the agent acknowledged, and claims the others: for `lease` no other claim gets them.
    async fn claim_expired(&self, epoch: Epoch, lease: Duration, limit: usize) -> Result<Expired, Fault>;

    /// Claims one row, expired or not.
    async fn claim(
        &self,
        epoch: Epoch,
        address: &MailboxAddress,
        partition: Partition,
        position: Position,
        lease: Duration,
    ) -> Result<ClaimOutcome, Fault>;

    /// Shortens the claims of these rows: they can be claimed again after `rest`.
    async fn release(&self, epoch: Epoch, rows: &[IndexEntry], rest: Duration) -> Result<(), Fault>;

    /// Removes the rows in these ranges, at most `limit`. Answers with how many went; less than `limit` where none is left.
    async fn remove_acknowledged(&self, epoch: Epoch, ranges: &[Acknowledged], limit: usize) -> Result<u64, Fault>;

    /// Removes rows.
    async fn remove(&self, epoch: Epoch, rows: &[IndexEntry]) -> Result<(), Fault>;

    /// Removes what is kept of other epochs, cursors and attempts too: at most `limit` rows of each kind. Answers with how many went; 0 where
    /// nothing is left.
    async fn remove_other_epochs(&self, epoch: Epoch, limit: usize) -> Result<u64, Fault>;
}

/// The index ends before what it is asked for, because PostgreSQL went back or the epoch has ended.
#[must_use]
pub fn index_went_back() -> Fault {
    Fault::unavailable("INDEX_WENT_BACK", "the mailbox index is behind what this hub has seen of it: try again shortly")
}

/// How often one agent has tried a message that was delivered to it and is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// Where the message is.
    pub partition: Partition,
    /// Where the message is.
    pub position: Position,
    /// How often an attempt at it failed. `None`: the message is done with, and the row goes.
    pub attempts: Option<u32>,
}

/// How long the sessions of a process of the hub are taken for alive after it last said so.
pub const LEASE: Duration = Duration::from_secs(10);

/// Who wants to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// This replica's name.
    pub replica: String,
    /// This process of the hub: the sessions of one that ended are over.
    pub lease: Uuid,
    /// The program: its own older session it may always end. Empty: none that is known again.
    pub receiver: String,
    /// Whether the session of another program ends, too.
    pub take_over: bool,
}

/// What became of an [`Opening`].
#[derive(Clone, Debug, PartialEq)]
pub enum Opened {
    /// The session begins.
    Begun(OpenedMailbox),
    /// Another program receives.
    Held {
        /// In which process of the hub.
        lease: Uuid,
        /// In which session.
        session_epoch: u64,
    },
}

/// What a new receiving session starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedMailbox {
    /// This session's number: every older one of the agent is over.
    pub session_epoch: u64,
    /// Whether the session before said what it had delivered. If not, anything may have been.
    pub clean: bool,
    /// What was acknowledged; partitions without a cursor are missing.
    pub cursors: Vec<(Partition, CursorState)>,
    /// Unacknowledged messages that were delivered before.
    pub attempts: Vec<Attempts>,
}

/// What one session has to write.
#[derive(Clone, Debug, PartialEq)]
pub struct CursorFlush {
    /// Whose.
    pub agent: AgentId,
    /// Which session: a write of an older one is refused.
    pub session_epoch: u64,
    /// Changed cursors; may be empty, where only the session's life is asked.
    pub cursors: Vec<(Partition, CursorState)>,
    /// Changed counts of deliveries.
    pub attempts: Vec<Attempts>,
    /// The session ends with this.
    pub closing: bool,
    /// Where it ends: whether every delivery is known that the next session may repeat. If not, that session flags what it can't know of.
    pub clean: bool,
}

/// What each agent has acknowledged.
#[async_trait]
pub trait CursorStore: Send + Sync + 'static {
    /// Begins a receiving session of the agent, which ends any older one; unless another program has one in a process of the hub that lives, and
    /// this one does not say that it takes over. The lease is good for [`LEASE`] from now on.
    async fn open(&self, epoch: Epoch, agent: AgentId, opening: &Opening) -> Result<Opened, Fault>;

    /// Keeps the sessions of a process of the hub alive for another [`LEASE`]: these. What else is said to be a session of it, and began longer ago
    /// than [`LEASE`], is over. Answers with those of them that are no longer the newest.
    async fn renew(&self, lease: Uuid, open: &[(AgentId, u64)]) -> Result<Vec<(AgentId, u64)>, Fault>;

    /// Writes what sessions changed, in one transaction, and answers with those (agent and session epoch) that are no longer the
    /// newest: nothing of theirs was written.
    async fn flush(&self, epoch: Epoch, flushes: Vec<CursorFlush>) -> Result<Vec<(AgentId, u64)>, Fault>;

    /// The cursors of these agents in these partitions, where there are any.
    async fn cursors(
        &self,
        epoch: Epoch,
        agents: &[AgentId],
        partitions: &[Partition],
    ) -> Result<Vec<(AgentId, Partition, CursorState)>, Fault>;
}
