//! How long a process that lost its lease at once leaves it to others: what ended the term is likely to end the next one, too.

use std::time::Duration;

/// A term that ends sooner was none.
const SHORT_TERM: Duration = Duration::from_secs(10);
/// After the first such term; doubled with each, to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The pauses of one process.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// The last one, where the last term was too short.
    last: Option<Duration>,
}

impl Pauses {
    /// How long to wait after a term that lasted so long; `None`: not at all.
    pub(super) fn after(&mut self, term: Duration) -> Option<Duration> {
        let next = self.last.map_or(PAUSES.0, |last| (last * 2).min(PAUSES.1));
        self.last = (term < SHORT_TERM).then_some(next);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_that_are_none_come_less_and_less_often() {
        let (mut pauses, short) = (Pauses::default(), SHORT_TERM / 2);
        let seconds: Vec<u64> = (0..8).filter_map(|_| pauses.after(short)).map(|pause| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.after(SHORT_TERM), None, "one that lasted is followed by the next at once");
        assert_eq!(pauses.after(short), Some(PAUSES.0));
    }
}
