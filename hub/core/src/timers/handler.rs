//! What a noun does with its timers that are due.

use std::time::Duration;

use async_trait::async_trait;

use super::ports::Timer;

/// What came of a timer that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fired {
    /// It is done with.
    Done,
    /// It is about to be carried out. That is to be written down first: it is fired again at once, and knows that it was.
    Attempt,
    /// It could not be done now: it is tried again after this.
    Later(Duration),
    /// The same, and it is certain that nothing came of what was about to be done.
    Untouched(Duration),
}

/// A noun with timers.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// What its timers are called in the store. It never changes.
    fn kind(&self) -> &'static str;
    /// Whether this replica can carry any out now. If not, they are left to the others.
    fn ready(&self) -> bool;
    /// Carries a timer out. It may have been carried out before, by a replica that ended before it could say so: then nothing may come of it.
    /// Where `begins`, nobody has begun on it: this replica has just said that it is about to.
    /// Where this takes longer than [`FIRE_WITHIN`](super::alarm::FIRE_WITHIN), it is dropped and tried again.
    async fn fire(&self, timer: &Timer, begins: bool) -> Fired;
}
