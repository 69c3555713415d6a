//! How far a session has got in the mailbox of its agent: what was considered, what is held back, and what is to be written. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    ops::Range,
};

use time::{Duration, OffsetDateTime};

use crate::{
    log::bus::Partition,
    messages::{
        cursor::{Cursor, CursorState},
        ports::OpenedMailbox,
        position::{MessagePlace, Position},
    },
};

/// How long a takeover may take until the older session is surely over.
const TAKEOVER: Duration = Duration::seconds(2);

/// What is to be done with a message that is for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Considered {
    /// Deliver it. It was tried so often before; `delivered_before` where it may have been.
    Deliver { attempts: u32, delivered_before: bool },
    /// It was considered before, or its partition is held back: it is read again once that is free.
    Pass,
    /// As many as a cursor can hold are not acknowledged: from here on the partition is held back.
    HoldBack { unacknowledged: usize },
}

/// The cursors of one session.
#[derive(Debug)]
pub(super) struct Progress {
    cursors: Vec<Cursor>,
    /// Attempts of earlier sessions, where they are known.
    attempts: HashMap<MessagePlace, u32>,
    /// Whether the session before said what it had delivered.
    clean: bool,
    opened_at: OffsetDateTime,
    /// Where the log ended when the session began.
    began_at: Option<Vec<Position>>,
    targets: Vec<Position>,
    /// Held back until what was delivered is acknowledged.
    held: BTreeSet<Partition>,
    /// Can't be read now.
    unreadable: BTreeSet<Partition>,
    /// A partition that was held back is free again.
    released: bool,
    changed: BTreeSet<Partition>,
    /// Counts of attempts that changed; `None`: the message is done with.
    counted: HashMap<MessagePlace, Option<u32>>,
}

impl Progress {
    pub(super) fn new(opened: &OpenedMailbox, partitions: u32, opened_at: OffsetDateTime) -> Self {
        let mut cursors = vec![Cursor::default(); partitions as usize];
        for (partition, state) in &opened.cursors {
            if let Some(cursor) = cursors.get_mut(*partition as usize) {
                *cursor = Cursor::resume(state);
            }
        }
        let attempts = opened
            .attempts
            .iter()
            .map(|row| (MessagePlace { partition: row.partition, position: row.position }, row.attempts.unwrap_or(0)))
            .collect();
        Self {
            targets: vec![0; cursors.len()],
            cursors,
            attempts,
            clean: opened.clean,
            opened_at,
            began_at: None,
            held: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            released: false,
            changed: BTreeSet::new(),
            counted: HashMap::new(),
        }
    }

    /// What came too late for a cursor is remembered by its attempts alone: it is delivered again at once.
    pub(super) fn late(&self) -> Vec<(MessagePlace, u32)> {
        let late = self.attempts.iter().filter(|(place, _)| {
            self.cursors.get(place.partition as usize).is_some_and(|cursor| place.position < cursor.considered())
        });
        late.map(|(place, attempts)| (*place, *attempts)).collect()
    }

    /// Everything from these positions on comes live; what is below is read from the index.
    pub(super) fn attached(&mut self, positions: Vec<Position>) {
        self.began_at.get_or_insert_with(|| positions.clone());
        self.targets = positions;
    }

    /// Whether it is known where the log ended when the session began.
    pub(super) fn has_begun(&self) -> bool {
        self.began_at.is_some()
    }

    pub(super) fn considered(&self) -> Vec<Position> {
        self.cursors.iter().map(Cursor::considered).collect()
    }

    /// What is to be read from the index. Nothing where all was, or is held back.
    pub(super) fn unread(&self) -> Vec<(Partition, Range<Position>)> {
        let partitions = (0..).zip(&self.cursors).zip(&self.targets);
        partitions
            .map(|((partition, cursor), target)| (partition, cursor.considered()..*target))
            .filter(|(partition, range)| range.start < range.end && !self.waits(*partition))
            .collect()
    }

    /// `logged_at`: by the clock of this machine, as all times here.
    pub(super) fn consider(&mut self, place: MessagePlace, logged_at: OffsetDateTime) -> Considered {
        if self.waits(place.partition) {
            return Considered::Pass;
        }
        let known_below = self.known_below(place.partition);
        let Some(cursor) = self.cursors.get_mut(place.partition as usize) else { return Considered::Pass };
        if cursor.full() {
            self.held.insert(place.partition);
            return Considered::HoldBack { unacknowledged: cursor.outstanding() };
        }
        if !cursor.consider(place.position) {
            return Considered::Pass;
        }
        self.changed.insert(place.partition);
        let known = self.attempts.get(&place).copied();
        let unsure = !self.clean && (place.position < known_below || logged_at < self.opened_at + TAKEOVER);
        Considered::Deliver { attempts: known.unwrap_or(0), delivered_before: known.is_some() || unsure }
    }

    /// Looks again at a message that was passed before its agent joined the group. Whether it is to be delivered. Its count of attempts keeps
    /// it until it is acknowledged: no cursor does.
    pub(super) fn reconsider(&mut self, place: MessagePlace) -> bool {
        if !self.cursors.get_mut(place.partition as usize).is_some_and(|cursor| cursor.reconsider(place.position)) {
            return false;
        }
        self.count(place, 0);
        true
    }

    /// Nothing below `upto` is for the agent but what was considered. `in_hand` says what is not done with yet.
    pub(super) fn skip_to(&mut self, partition: Partition, upto: Position, in_hand: impl Fn(MessagePlace) -> bool) {
        if self.waits(partition) {
            return;
        }
        let Some(cursor) = self.cursors.get_mut(partition as usize) else { return };
        cursor.skip_to(upto);
        self.changed.insert(partition);
        // Attempts of what is for the agent no more, such as what expired meanwhile.
        let counted = &mut self.counted;
        self.attempts.retain(|place, _| {
            let keep = place.partition != partition || place.position >= upto || in_hand(*place);
            if !keep {
                counted.insert(*place, None);
            }
            keep
        });
    }

    /// Takes note of attempts.
    pub(super) fn count(&mut self, place: MessagePlace, attempts: u32) {
        self.attempts.insert(place, attempts);
        self.counted.insert(place, Some(attempts));
    }

    /// A message is done with, however that came. What it blocked is free again.
    pub(super) fn acknowledge(&mut self, place: MessagePlace) -> bool {
        let known_below = self.known_below(place.partition);
        let Some(cursor) = self.cursors.get_mut(place.partition as usize) else { return false };
        let is_new = cursor.acknowledge(place.position, known_below);
        if is_new {
            self.changed.insert(place.partition);
        }
        if !cursor.full() && self.held.remove(&place.partition) {
            self.released = true;
        }
        if self.attempts.remove(&place).is_some() {
            self.counted.insert(place, None);
        }
        is_new
    }

    /// A partition can't be read now. What comes live in it would hide what was not read. Whether that is new.
    pub(super) fn hold(&mut self, partition: Partition) -> bool {
        self.unreadable.insert(partition)
    }

    /// Tries a partition again that could not be read.
    pub(super) fn try_again(&mut self, partition: Partition) {
        self.released |= self.unreadable.remove(&partition);
    }

    fn waits(&self, partition: Partition) -> bool {
        self.held.contains(&partition) || self.unreadable.contains(&partition)
    }

    /// Whether a partition has become free since this was last asked.
    pub(super) fn take_released(&mut self) -> bool {
        mem::take(&mut self.released)
    }

    /// Whether the session before this one may have delivered what this one has not come to.
    pub(super) fn in_doubt(&self, now: OffsetDateTime) -> bool {
        let all = |began: &Vec<Position>| self.cursors.iter().zip(began).all(|(cursor, began)| cursor.considered() >= *began);
        !self.clean && (now < self.opened_at + TAKEOVER || !self.began_at.as_ref().is_some_and(all))
    }

    /// Whether there is anything to write.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.counted.is_empty()
    }

    /// What changed since this was last asked.
    pub(super) fn take_changes(&mut self) -> (BTreeMap<Partition, CursorState>, HashMap<MessagePlace, Option<u32>>) {
        let changed = mem::take(&mut self.changed);
        let states = changed.into_iter().filter_map(|partition| Some((partition, self.cursors.get(partition as usize)?.state())));
        (states.collect(), mem::take(&mut self.counted))
    }

    fn known_below(&self, partition: Partition) -> Position {
        self.began_at.as_ref().and_then(|began| began.get(partition as usize)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{cursor::MAX_EXCEPTIONS, ports::Attempts};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn opened(attempts: Vec<Attempts>, clean: bool) -> OpenedMailbox {
        OpenedMailbox { session_epoch: 1, clean, cursors: Vec::new(), attempts }
    }

    fn place(position: Position) -> MessagePlace {
        MessagePlace { partition: 0, position }
    }

    #[test]
    fn a_partition_is_free_again_however_the_blocking_message_went() {
        let mut progress = Progress::new(&opened(Vec::new(), true), 1, NOW);
        progress.attached(vec![5000]);
        let mut delivered = Vec::new();
        let held_at = (0..5000).find(|position| match progress.consider(place(*position), NOW) {
            Considered::Deliver { .. } => {
                delivered.push(*position);
                // All but the first are acknowledged.
                if *position > 0 {
                    progress.acknowledge(place(*position));
                }
                false
            }
            Considered::HoldBack { unacknowledged } => unacknowledged == 1,
            Considered::Pass => false,
        });
        let bound = MAX_EXCEPTIONS as u64 + 1;
        assert_eq!(held_at, Some(bound));
        assert_eq!(progress.consider(place(4000), NOW), Considered::Pass, "read again later");
        assert_eq!(progress.unread(), []);
        // As where it is a dead letter: nobody has said anything.
        progress.acknowledge(place(0));
        assert!(progress.take_released());
        assert!(!progress.take_released(), "told once");
        assert_eq!(progress.unread(), [(0, bound..5000)]);
    }

    #[test]
    fn a_partition_that_can_not_be_read_holds_up_no_other() {
        let mut progress = Progress::new(&opened(Vec::new(), true), 2, NOW);
        progress.attached(vec![10, 10]);
        assert_eq!(progress.unread(), [(0, 0..10), (1, 0..10)]);
        assert!(progress.hold(0) && !progress.hold(0));
        assert_eq!(progress.unread(), [(1, 0..10)]);
        // An acknowledgement does not make it readable.
        progress.acknowledge(place(1));
        assert!(!progress.take_released());
        // What comes live in it is passed: it would hide what was not read yet.
        assert_eq!(progress.consider(place(12), NOW), Considered::Pass);
        progress.try_again(0);
        assert!(progress.take_released());
        assert_eq!(progress.unread(), [(0, 0..10), (1, 0..10)]);
    }

    #[test]
    fn what_may_have_been_delivered_is_flagged_and_counts_what_was_counted() {
        let row = Attempts { partition: 0, position: 3, attempts: Some(2) };
        let flags = |clean| {
            let mut progress = Progress::new(&opened(vec![row], clean), 1, NOW);
            progress.attached(vec![5]);
            [1, 3, 7].map(|position| match progress.consider(place(position), NOW + Duration::minutes(1)) {
                Considered::Deliver { attempts, delivered_before } => (attempts, delivered_before),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(flags(true), [(0, false), (2, true), (0, false)]);
        assert_eq!(flags(false), [(0, true), (2, true), (0, false)], "the session before said nothing");
    }

    #[test]
    fn what_is_written_follows_what_was_done() {
        let rows = vec![
            Attempts { partition: 0, position: 1, attempts: Some(4) },
            Attempts { partition: 0, position: 2, attempts: Some(0) },
        ];
        let mut progress = Progress::new(&opened(rows, true), 1, NOW);
        progress.attached(vec![9]);
        progress.consider(place(2), NOW);
        progress.count(place(2), 1);
        progress.skip_to(0, 9, |other| other == place(2));
        let (cursors, counted) = progress.take_changes();
        assert_eq!(cursors[&0].watermark, 2);
        assert_eq!(counted, HashMap::from([(place(1), None), (place(2), Some(1))]));
        progress.acknowledge(place(2));
        let (cursors, counted) = progress.take_changes();
        assert_eq!((cursors[&0].watermark, counted), (9, HashMap::from([(place(2), None)])));
        assert!(!progress.has_changes());
        assert_eq!(progress.take_changes(), Default::default());
    }
}
