//! What a session has in hand: messages that wait for their acknowledgement, and when each is due again. Pure.
//!
//! A delivery is an attempt once the agent has begun with it, or has had it for as long as an acknowledgement may take. What waits unread on
//! its way to the agent, or is handed back with the end of a session, is none: or a program that comes and goes would lose its mail
//! to the dead letters.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use crate::{
    kit::budget::Room,
    messages::{logged::LoggedMessage, position::MessagePlace},
};

/// A message with the room that it takes while it is kept for its next delivery.
pub(super) type Kept = (Arc<LoggedMessage>, Room);

#[derive(Debug)]
struct InHand {
    due: Instant,
    /// Attempts that count, without the present delivery.
    attempts: u32,
    /// Whether this session has handed it over.
    handed_over: bool,
    /// Whether the agent has begun with it.
    started: bool,
    /// What is undone where the agent says that it is still at work on an earlier delivery: the attempt that was counted for that, and
    /// whether it had begun.
    again: Option<bool>,
    /// Kept while memory allows, so that its next delivery reads nothing.
    message: Option<Kept>,
}

impl InHand {
    /// Attempts that count once the present delivery is over without an acknowledgement.
    fn attempts_after(&self, handed_back: bool) -> u32 {
        let counts = if handed_back { self.started } else { self.handed_over };
        self.attempts.saturating_add(u32::from(counts))
    }
}

/// A message that is due: how often it was tried, and its content where it was kept.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) place: MessagePlace,
    pub(super) attempts: u32,
    pub(super) message: Option<Arc<LoggedMessage>>,
}

/// Every message in hand.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    in_hand: HashMap<MessagePlace, InHand>,
    due: BTreeSet<(Instant, MessagePlace)>,
}

impl Outstanding {
    pub(super) fn len(&self) -> usize {
        self.in_hand.len()
    }

    pub(super) fn contains(&self, place: MessagePlace) -> bool {
        self.in_hand.contains_key(&place)
    }

    /// Takes a message in hand that is to be delivered at `due`.
    pub(super) fn take(&mut self, place: MessagePlace, attempts: u32, due: Instant, message: Option<Kept>) {
        let in_hand = InHand { due, attempts, handed_over: false, started: false, again: None, message };
        if let Some(before) = self.in_hand.insert(place, in_hand) {
            self.due.remove(&(before.due, place));
        }
        self.due.insert((due, place));
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The one that has been due for longest, at this time.
    pub(super) fn overdue(&self, now: Instant) -> Option<Due> {
        let (_, place) = self.due.first().filter(|(due, _)| *due <= now)?;
        let in_hand = self.in_hand.get(place)?;
        let message = in_hand.message.as_ref().map(|(message, _)| message.clone());
        Some(Due { place: *place, attempts: in_hand.attempts_after(false), message })
    }

    /// It is on its way to the agent, which has until `due` to acknowledge it. What came before counts from now on. The attempts that the
    /// next session is to know of; `None` where they are as before.
    pub(super) fn hand_over(&mut self, place: MessagePlace, due: Instant) -> Option<u32> {
        let in_hand = self.in_hand.get_mut(&place)?;
        let counted = in_hand.handed_over;
        if counted {
            in_hand.attempts = in_hand.attempts_after(false);
            in_hand.again = Some(in_hand.started);
            in_hand.started = false;
        }
        in_hand.handed_over = true;
        let attempts = in_hand.attempts;
        self.postpone(place, due);
        counted.then_some(attempts)
    }

    /// Keeps a message for its next delivery.
    pub(super) fn keep(&mut self, place: MessagePlace, message: Kept) {
        if let Some(in_hand) = self.in_hand.get_mut(&place) {
            in_hand.message = Some(message);
        }
    }

    pub(super) fn postpone(&mut self, place: MessagePlace, due: Instant) {
        if let Some(in_hand) = self.in_hand.get_mut(&place) {
            self.due.remove(&(in_hand.due, place));
            in_hand.due = due;
            self.due.insert((due, place));
        }
    }

    /// The agent begins with it. The attempts that the next session is to know of.
    pub(super) fn start(&mut self, place: MessagePlace) -> Option<u32> {
        let in_hand = self.in_hand.get_mut(&place).filter(|in_hand| in_hand.handed_over && !in_hand.started)?;
        in_hand.started = true;
        Some(in_hand.attempts_after(true))
    }

    /// The agent is still at work on an earlier delivery: that one was no attempt that failed. It has until `due` again. The attempts that
    /// the next session is to know of; `None` where they are as before.
    pub(super) fn in_progress(&mut self, place: MessagePlace, due: Instant) -> Option<u32> {
        let in_hand = self.in_hand.get_mut(&place)?;
        let attempts = in_hand.again.take().map(|started| {
            in_hand.attempts = in_hand.attempts.saturating_sub(1);
            in_hand.started |= started;
            in_hand.attempts_after(true)
        });
        self.postpone(place, due);
        attempts
    }

    /// Attempts that count, without the present delivery.
    pub(super) fn attempts(&self, place: MessagePlace) -> u32 {
        self.in_hand.get(&place).map_or(0, |in_hand| in_hand.attempts)
    }

    /// It is done with. Whether it was there.
    pub(super) fn remove(&mut self, place: MessagePlace) -> bool {
        let Some(in_hand) = self.in_hand.remove(&place) else { return false };
        self.due.remove(&(in_hand.due, place));
        true
    }

    /// What the next session is to know of: each message in hand was delivered before, and was tried so often.
    pub(super) fn handed_back(&self) -> impl Iterator<Item = (MessagePlace, u32)> {
        self.in_hand.iter().map(|(place, in_hand)| (*place, in_hand.attempts_after(true)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn place(position: u64) -> MessagePlace {
        MessagePlace { partition: 0, position }
    }

    fn handed_back(outstanding: &Outstanding) -> Vec<(u64, u32)> {
        let mut all: Vec<_> = outstanding.handed_back().map(|(place, attempts)| (place.position, attempts)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn only_what_the_agent_began_or_had_for_long_counts() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut outstanding = Outstanding::default();
        for position in 1..4 {
            outstanding.take(place(position), 0, later(30), None);
            assert_eq!(outstanding.hand_over(place(position), later(30)), None);
        }
        assert_eq!(outstanding.start(place(2)), Some(1));
        assert_eq!(outstanding.start(place(2)), None, "once");
        assert!(outstanding.overdue(later(29)).is_none());
        // The third is over its time, and comes again.
        outstanding.postpone(place(1), later(99));
        outstanding.postpone(place(2), later(99));
        assert_eq!(outstanding.overdue(later(30)).map(|due| (due.place, due.attempts)), Some((place(3), 1)));
        assert_eq!(outstanding.hand_over(place(3), later(60)), Some(1));
        assert_eq!(handed_back(&outstanding), [(1, 0), (2, 1), (3, 1)]);
        assert!(outstanding.remove(place(2)) && !outstanding.remove(place(2)));
        assert_eq!(outstanding.next_due(), Some(later(60)));
    }

    #[test]
    fn what_the_agent_is_still_at_work_on_was_no_failed_attempt() {
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut outstanding = Outstanding::default();
        outstanding.take(place(1), 3, now, None);
        assert_eq!(outstanding.overdue(now).map(|due| due.attempts), Some(3), "nobody has had it yet");
        assert_eq!(outstanding.hand_over(place(1), later(30)), None);
        assert_eq!(outstanding.start(place(1)), Some(4));
        assert_eq!(outstanding.hand_over(place(1), later(60)), Some(4));
        assert_eq!(outstanding.in_progress(place(1), later(90)), Some(4), "the one that it is at work on");
        assert_eq!(outstanding.in_progress(place(1), later(95)), None, "once");
        assert_eq!(handed_back(&outstanding), [(1, 4)]);
        assert_eq!(outstanding.overdue(later(95)).map(|due| due.attempts), Some(4));
    }

    #[test]
    fn what_waits_to_be_handed_over_has_not_begun() {
        let mut outstanding = Outstanding::default();
        outstanding.take(place(1), 2, Instant::now(), None);
        assert_eq!(outstanding.start(place(1)), None);
        assert_eq!(outstanding.start(place(9)), None);
        assert_eq!(handed_back(&outstanding), [(1, 2)]);
    }
}
