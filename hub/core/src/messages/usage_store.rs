//! The port that keeps what agents have sent, summed by hour and by calendar month of the log's clock.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{ports::Moved, position::Position, sent::Sent};
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
};

/// What one agent has sent in one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageSum {
    /// When the period begins.
    pub starts_at: OffsetDateTime,
    /// Whose account it is on.
    pub agent: AgentId,
    /// Its name; empty where it is not known.
    pub name: String,
    /// What it has sent.
    pub sent: Sent,
}

/// Where the sums go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// By partition: everything below is summed.
    pub next: Vec<Position>,
    /// The sums of the months that were asked for, as they are then; the oldest first.
    pub months: Vec<UsageSum>,
    /// Places of the last day at which the sums lack something.
    pub gaps: u64,
}

/// Moves the checkpoint of one partition, together with what was sent in `from..to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageAdvance {
    /// Which.
    pub partition: Partition,
    /// Where the checkpoint must be now.
    pub from: Position,
    /// Where it goes.
    pub to: Position,
    /// What was sent in between, by hour and agent.
    pub hours: Vec<UsageSum>,
    /// The last of these hours, and where it begins: what lies before is of earlier ones.
    pub latest: Option<(OffsetDateTime, Position)>,
    /// Records in between that were gone before anybody had read them.
    pub missing: u64,
}

/// How long a period of a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    /// An hour.
    Hour,
    /// A day, from midnight UTC.
    Day,
    /// A calendar month, UTC.
    Month,
}

/// Whose sums are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Of this agent.
    Agent(AgentId),
    /// Of agents that had this name, and are gone.
    Named(String),
}

/// Which sums are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumFilter {
    /// Whose.
    pub whose: Whose,
    /// By which period.
    pub by: Period,
    /// Periods that begin then or later.
    pub from: Option<OffsetDateTime>,
    /// Periods that begin before.
    pub to: Option<OffsetDateTime>,
    /// Only what comes behind this period and agent, in the order of the list.
    pub after: Option<(OffsetDateTime, AgentId)>,
}

/// A place at which the sums lack something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageGap {
    /// When that was found.
    pub found_at: OffsetDateTime,
    /// What is missing, and why.
    pub what: String,
    /// How many records of the log; `None`: that is not known.
    pub records: Option<u64>,
}

/// Hours up to which the topic of usage has everything that is summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complete {
    /// The last of them.
    pub through: OffsetDateTime,
    /// By partition of the messages log: everything below is of these hours, or of earlier ones.
    pub below: Vec<Position>,
}

/// Hours that are closed and that the topic of usage does not have as they are. Read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unexported {
    /// The oldest first.
    pub hours: Vec<UsageSum>,
    /// By partition of the messages log: what lies below is in these sums, and nothing else.
    pub next: Vec<Position>,
    /// What the topic has with these. `None` where there are more of them.
    pub complete: Option<Complete>,
}

/// Takes the sums to what the topic of usage says of them. Nobody adds to them meanwhile. Dropping it takes all of it back.
#[async_trait]
pub trait Rebuild: Send {
    /// The last hour that something was summed in, as far as the store knows.
    fn last_hour(&self) -> Option<OffsetDateTime>;
    /// Raises hours to these sums, and their months with them. One that is as high stays.
    async fn raise(&mut self, hours: &[UsageSum]) -> Result<(), Fault>;
    /// Moves the checkpoints there, by partition: what lies below is of hours up to `through`.
    async fn done(self: Box<Self>, next: &[Position], through: OffsetDateTime) -> Result<(), Fault>;
}

/// Keeps the sums.
#[async_trait]
pub trait UsageStore: Send + Sync + 'static {
    /// Where the sums of this life of the log go on, and what they are then. Where nothing was ever summed, they begin at `indexed`; where they are
    /// about another log, at its beginning, and that is kept as a gap. Months that begin at `since` or later are read, and in any case the last two that
    /// something was summed in: the clock of who asks may be off.
    async fn begin(&self, epoch: Epoch, indexed: &[Position], since: OffsetDateTime) -> Result<Begun, Fault>;

    /// Adds to the sums what each of these partitions has in between, where its checkpoint is at `from`: in one transaction with the move of the
    /// checkpoint. Answers what became of each, and how many gaps of the last day there are.
    async fn add(&self, epoch: Epoch, advances: &[UsageAdvance]) -> Result<(Vec<Moved>, u64), Fault>;

    /// Sums that match, by period and agent, at most `limit`.
    async fn sums(&self, filter: &SumFilter, limit: usize) -> Result<Vec<UsageSum>, Fault>;

    /// How many gaps of the last day there are.
    async fn gaps_lately(&self) -> Result<u64, Fault>;

    /// The latest gaps that were found in this time, at most `limit`.
    async fn gaps(&self, from: Option<OffsetDateTime>, to: Option<OffsetDateTime>, limit: usize) -> Result<Vec<UsageGap>, Fault>;

    /// Removes hours that began before, at most `limit` rows. Answers with how many went.
    async fn forget_hours(&self, before: OffsetDateTime, limit: usize) -> Result<u64, Fault>;

    /// Hours that began `close_after` ago or earlier, and that this life of the topic of usage does not have as they are; at most `limit`. None where
    /// this life of the messages log is over.
    async fn unexported(&self, epoch: Epoch, topic: Epoch, close_after: Duration, limit: usize) -> Result<Unexported, Fault>;

    /// That life of the topic has these.
    async fn exported(&self, topic: Epoch, hours: &[UsageSum]) -> Result<(), Fault>;

    /// Begins to take the sums to what the topic of usage says. `None` where they do not go on at `from` any more.
    async fn rebuild(&self, epoch: Epoch, from: &[Position]) -> Result<Option<Box<dyn Rebuild>>, Fault>;
}
