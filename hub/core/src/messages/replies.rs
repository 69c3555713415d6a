//! Requests that wait for a reply: how they are named, and which of them were answered.

use std::collections::{HashMap, VecDeque};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::position::MessagePlace;

/// Clocks of the log's partitions may differ by this much.
const SKEW: Duration = Duration::seconds(5);
/// Who repeats a request waits at least so much longer than who asked before, as far as the log tells. So a caller that repeats one again and again puts
/// no more than one record into the log in that time, beside those that are on their way at once: repetitions are under no limit.
const LONGER: Duration = Duration::seconds(10);

/// A request, and the first reply to it.
#[derive(Debug)]
struct Asked {
    log_time: OffsetDateTime,
    /// How long somebody waits for a reply.
    until: OffsetDateTime,
    reply: Option<MessagePlace>,
}

/// Which of the last requests were answered, and where: what a repeated request gets. Follows from the log alone, so that a replica that
/// starts reads it again with its window. Request and reply are in different partitions, and may be seen in any order.
#[derive(Debug)]
pub(crate) struct Replies {
    asked: Recent<Asked>,
    /// Replies whose request was not seen, or was never made. They are kept in a map of their own: forged replies can't evict real requests.
    early: Recent<(OffsetDateTime, MessagePlace)>,
}

impl Replies {
    /// Of requests within this much log time, and of at most so many.
    pub(crate) fn new(window: Duration, limit: usize) -> Self {
        Self { asked: Recent::new(window, limit), early: Recent::new(window, limit) }
    }

    /// A request was logged. Where its key left the window and is used anew, the reply to the one before is not this one's.
    pub(crate) fn asked(&mut self, id: Uuid, log_time: OffsetDateTime, until: OffsetDateTime) {
        let early = self.early.remove(id).filter(|(replied, _)| *replied >= log_time - SKEW);
        self.asked.insert(id, log_time, Asked { log_time, until, reply: early.map(|(_, place)| place) });
    }

    /// A request was repeated: its caller waits for the reply to the first one.
    pub(crate) fn asked_again(&mut self, id: Uuid, until: OffsetDateTime) {
        if let Some(asked) = self.asked.get_mut(id).filter(|asked| asked.until < until) {
            asked.until = until.max(asked.until.saturating_add(LONGER));
        }
    }

    /// Whether a caller that repeats a request now waits longer than the log tells. Of what is not known any more nothing is refused.
    pub(crate) fn waits_longer(&mut self, id: Uuid, until: OffsetDateTime) -> bool {
        self.asked.get_mut(id).is_some_and(|asked| asked.reply.is_none() && asked.until < until)
    }

    /// Whether nobody waits for a reply any more, as far as that is known.
    pub(crate) fn is_over(&mut self, id: Uuid, now: OffsetDateTime) -> bool {
        self.asked.get_mut(id).is_some_and(|asked| asked.until <= now)
    }

    /// A reply was logged. The first one that is seen is the reply.
    pub(crate) fn answered(&mut self, id: Uuid, place: MessagePlace, log_time: OffsetDateTime) {
        match self.asked.get_mut(id) {
            Some(asked) if log_time >= asked.log_time - SKEW => {
                asked.reply.get_or_insert(place);
            }
            Some(_) => {}
            None if self.early.get_mut(id).is_some() => {}
            None => self.early.insert(id, log_time, (log_time, place)),
        }
    }

    /// Where the reply is.
    pub(crate) fn reply(&mut self, id: Uuid) -> Option<MessagePlace> {
        self.asked.get_mut(id).and_then(|asked| asked.reply)
    }
}

/// What was seen lately, by id.
#[derive(Debug)]
struct Recent<T> {
    window: Duration,
    limit: usize,
    turn: u64,
    known: HashMap<Uuid, (u64, T)>,
    order: VecDeque<(u64, OffsetDateTime, Uuid)>,
}

impl<T> Recent<T> {
    fn new(window: Duration, limit: usize) -> Self {
        Self { window, limit: limit.max(1), turn: 0, known: HashMap::new(), order: VecDeque::new() }
    }

    fn get_mut(&mut self, id: Uuid) -> Option<&mut T> {
        self.known.get_mut(&id).map(|(_, value)| value)
    }

    fn remove(&mut self, id: Uuid) -> Option<T> {
        self.known.remove(&id).map(|(_, value)| value)
    }

    fn insert(&mut self, id: Uuid, now: OffsetDateTime, value: T) {
        self.turn += 1;
        self.known.insert(id, (self.turn, value));
        self.order.push_back((self.turn, now, id));
        // Places of what was removed or replaced are passed over: there are no more of them than entries that came after.
        while self.order.len() > self.limit || self.order.front().is_some_and(|(_, time, _)| *time < now - self.window) {
            let Some((turn, _, id)) = self.order.pop_front() else { break };
            if self.known.get(&id).is_some_and(|(known, _)| *known == turn) {
                self.known.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reply_to_what_was_asked_is_known_for_a_while() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let place = |position| MessagePlace { partition: 0, position };
        let id = Uuid::from_u128;
        let asked = |replies: &mut Replies, id, at| replies.asked(id, at, at + Duration::seconds(30));
        let mut replies = Replies::new(Duration::seconds(60), 2);
        asked(&mut replies, id(1), at(0));
        replies.answered(id(1), place(2), at(1));
        replies.answered(id(1), place(3), at(1));
        assert_eq!(replies.reply(id(1)), Some(place(2)));
        assert!(!replies.is_over(id(1), at(29)) && replies.is_over(id(1), at(30)) && !replies.is_over(id(9), at(99)));
        replies.asked_again(id(1), at(40));
        replies.asked_again(id(1), at(35));
        assert!(!replies.is_over(id(1), at(39)) && replies.is_over(id(1), at(40)));
        // Its partition was read first.
        replies.answered(id(2), place(4), at(60));
        assert_eq!(replies.reply(id(2)), None);
        asked(&mut replies, id(2), at(60));
        assert_eq!((replies.reply(id(1)), replies.reply(id(2))), (Some(place(2)), Some(place(4))));
        // What nobody asked for crowds out nothing.
        for other in 100..200 {
            replies.answered(id(other), place(9), at(60));
        }
        assert_eq!(replies.reply(id(2)), Some(place(4)));
        assert_eq!((replies.early.known.len(), replies.early.order.len()), (2, 2));
        asked(&mut replies, id(3), at(60));
        assert_eq!(replies.reply(id(1)), None, "two are known at the most");
        replies.answered(id(3), place(5), at(60));
        asked(&mut replies, id(4), at(121));
        assert_eq!((replies.reply(id(3)), replies.asked.order.len(), replies.asked.known.len()), (None, 1, 1));
        replies.answered(id(4), place(6), at(50));
        assert_eq!(replies.reply(id(4)), None, "to an earlier request with this key");
        replies.answered(id(4), place(7), at(122));
        asked(&mut replies, id(4), at(130));
        assert_eq!(replies.reply(id(4)), None, "asked anew");
    }

    #[test]
    fn who_asks_again_and_again_waits_longer_by_much_each_time() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let id = Uuid::from_u128(1);
        let mut replies = Replies::new(Duration::seconds(600), 9);
        assert!(!replies.waits_longer(id, at(99)), "nothing is known of it");
        replies.asked(id, at(0), at(30));
        assert!(replies.waits_longer(id, at(31)) && !replies.waits_longer(id, at(30)));
        let told = (31..=330).filter(|until| {
            let longer = replies.waits_longer(id, at(*until));
            if longer {
                replies.asked_again(id, at(*until));
            }
            longer
        });
        assert_eq!(told.count(), 30);
        assert!(!replies.is_over(id, at(329)) && replies.is_over(id, at(331)));
        replies.answered(id, MessagePlace { partition: 0, position: 1 }, at(5));
        assert!(!replies.waits_longer(id, at(999)), "it has its reply");
    }
}
