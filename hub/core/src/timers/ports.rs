//! The port that keeps timers. Its clock is the only one that counts: when a timer is due is the same for every replica, whatever its own clock shows.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fault::Fault;

/// How long a timer that is done with is known, so that a repeated call for it is told, and makes no second one.
pub const KNOWN: Duration = Duration::from_secs(600);

/// How long a timer that is about to be carried out is left to the replica that said so. One that it carries out within this time, by the clock of the
/// store, nobody else can have begun on.
pub const RESERVED: Duration = Duration::from_secs(5);

/// Bytes of contents after which a list ends.
pub const LIST_BYTES: usize = 1024 * 1024;

/// A timer that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Its name.
    pub id: Uuid,
    /// Whose noun it is: see [`Handler::kind`](super::handler::Handler::kind).
    pub kind: String,
    /// Who made it, or what it is of.
    pub subject: Uuid,
    /// When it is due, by the clock of the store.
    pub due_at: OffsetDateTime,
    /// When it was made.
    pub made_at: OffsetDateTime,
    /// How long ago it was written down that it is about to be carried out, by the clock of the store. `None`: it never was.
    pub attempted: Option<Duration>,
    /// What its noun needs to carry it out.
    pub content: Bytes,
}

/// A timer that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTimer {
    /// Its name.
    pub id: Uuid,
    /// Whose noun it is.
    pub kind: &'static str,
    /// Who makes it, or what it is of.
    pub subject: Uuid,
    /// In which time it is due.
    pub after: Duration,
    /// Names it for its subject: a second one with the same key is the first one. Empty: none that is known again.
    pub key: String,
    /// What a repeated call must agree in.
    pub digest: [u8; 32],
    /// What its noun needs.
    pub content: Bytes,
}

/// How many timers of a kind may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Of one subject.
    pub each: u64,
    /// Of all subjects.
    pub all: u64,
}

/// What became of a new timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It waits.
    Made {
        /// When it is due.
        due_at: OffsetDateTime,
    },
    /// There is, or was a moment ago, one with this key.
    Known {
        /// Its name.
        id: Uuid,
        /// When it is, or was, due.
        due_at: OffsetDateTime,
        /// What a repeated call must agree in.
        digest: [u8; 32],
    },
    /// As many wait as may, of this subject or of all.
    Full {
        /// Whether it is of this subject that too many wait.
        of_subject: bool,
    },
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It waits no more.
    Now,
    /// It was cancelled a moment ago.
    Before,
    /// It was carried out a moment ago, or may have been: that was begun.
    TooLate,
    /// There is none of this name.
    Unknown,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many timers.
    pub count: u64,
    /// In which time the next of them is to be looked at.
    pub next: Option<Duration>,
    /// How long the oldest of them has been due.
    pub overdue: Duration,
}

/// What came of timers that were taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// They are done with.
    pub done: Vec<Uuid>,
    /// They are tried again after this.
    pub later: Vec<(Uuid, Duration)>,
    /// They are about to be carried out, by this replica: nobody else has them for [`RESERVED`]. They can't be cancelled any more.
    pub attempted: Vec<Uuid>,
    /// Nothing came of what was about to be done, for certain: they are tried again after this, as if it had not been, and can be cancelled.
    pub untouched: Vec<(Uuid, Duration)>,
}

/// Some timers that are due, and that no other replica has while this lives. Dropping it gives them back; so does the end of its replica.
#[async_trait]
pub trait Due: Send {
    /// The timers, the longest due first.
    fn timers(&self) -> &[Timer];
    /// What the clock of the store showed when they were taken.
    fn now(&self) -> OffsetDateTime;
    /// Says what came of them.
    async fn settle(self: Box<Self>, outcomes: &Outcomes) -> Result<(), Fault>;
}

/// Keeps timers.
#[async_trait]
pub trait TimerStore: Send + Sync + 'static {
    /// Makes a timer. Where two replicas do at the same moment, a few more than the bounds say may wait.
    async fn add(&self, timer: &NewTimer, bounds: Bounds) -> Result<Added, Fault>;

    /// Takes some of these kinds that are due: first of those that the caller is about to carry out. `None` where none is, that nobody else has.
    async fn claim(&self, kinds: &[&str], about_to: &[Uuid]) -> Result<Option<Box<dyn Due>>, Fault>;

    /// What waits of these kinds. Forgets those that have been done with for [`KNOWN`].
    async fn waiting(&self, kinds: &[&str]) -> Result<Backlog, Fault>;

    /// Timers of a kind that wait, of one subject or of all, after this one, in the order in which they are due: at most `limit`, and none
    /// behind [`LIST_BYTES`] of contents.
    async fn list(
        &self,
        kind: &str,
        subject: Option<Uuid>,
        after: Option<(OffsetDateTime, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Timer>, Fault>;

    /// One of a kind that waits.
    async fn find(&self, kind: &str, id: Uuid) -> Result<Option<Timer>, Fault>;

    /// Cancels one, of this subject or of any, that was never attempted. Waits for a replica that has it.
    async fn cancel(&self, kind: &str, subject: Option<Uuid>, id: Uuid) -> Result<Cancelled, Fault>;
}
