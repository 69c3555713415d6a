//! What a session sends, in its order: one record after another. What waits while a record is on its way goes into the next one together, so that a
//! session with many messages in flight does not wait for a round trip to the log for each.

use std::{collections::VecDeque, sync::Arc};

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    envelope::Envelope,
    logged::SEND,
    message::{OutgoingMessage, Receipt},
    parts::{DRAIN, Parts},
    position::MAX_MESSAGES,
    sender::{self, Sealed},
    session::{NumberedMessage, Queued, SessionEvent},
};
use crate::{
    directory::agent::Agent,
    fault::{Code, Fault},
    kit::{budget::Room, clock::truncated},
    metrics::traffic::SenderMetrics,
};

/// Bytes of the messages of one record, beside the first: what is larger gains little by company, and holds up the others.
const RECORD_BYTES: usize = 256 * 1024;

/// What became of a message, by its number.
type Outcome = (u64, Result<Receipt, Fault>);

/// Sends what a session was given until it ends.
pub(super) async fn serve(
    parts: Parts,
    agent: Arc<Agent>,
    mut messages: mpsc::Receiver<Box<NumberedMessage>>,
    events: mpsc::Sender<Queued>,
    ended: CancellationToken,
) {
    let mut queue = SendQueue::default();
    let mut metrics = SenderMetrics::new(&parts.metrics, &agent.name);
    loop {
        if queue.waiting.is_empty() {
            let next = tokio::select! {
                () = parts.lifecycle.stop.cancelled() => return,
                // What was taken is still sent.
                () = ended.cancelled(), if !messages.is_closed() => {
                    messages.close();
                    continue;
                }
                next = messages.recv() => next,
            };
            let Some(next) = next else { return };
            queue.waiting.push_back(next);
        }
        while queue.waiting.len() < MAX_MESSAGES
            && let Ok(next) = messages.try_recv()
        {
            queue.waiting.push_back(next);
        }
        sender::begin(&parts, &agent).await;
        let now = truncated(OffsetDateTime::now_utc());
        let may_begin = || sender::may_begin(&parts, &agent);
        let run = queue.next_run(may_begin, |message| sender::seal(&parts, &agent, message, SEND, now));
        let Run { envelopes, sequences, rooms, answered } = run;
        let receipts = sender::append(&parts, envelopes, &mut metrics).await;
        drop(rooms);
        for (sequence, outcome) in queue.settle(sequences, receipts, answered) {
            if events.send(SessionEvent::Sent { sequence, outcome }.into()).await.is_err() {
                return;
            }
        }
    }
}

/// For a session that only sends: says that the hub is about to stop, and ends it a little later.
pub(super) async fn announce_drain(parts: Parts, events: mpsc::Sender<Queued>, ended: CancellationToken) {
    parts.lifecycle.draining.cancelled().await;
    let _full = events.send_timeout(SessionEvent::Draining.into(), DRAIN).await;
    tokio::time::sleep(DRAIN).await;
    ended.cancel();
}

/// Messages that wait, and the one that failed.
#[derive(Debug, Default)]
struct SendQueue {
    waiting: VecDeque<Box<NumberedMessage>>,
    /// The number of a message that did not get into the log. Nothing with a higher one does, until it was sent again: its sender may not know.
    failed: Option<u64>,
}

/// Messages that go into the log together.
struct Run {
    envelopes: Vec<Envelope>,
    /// Their numbers.
    sequences: Vec<u64>,
    /// What they take of memory until they are in the log.
    rooms: Vec<Room>,
    /// The message behind them does not go into the log: it can't be sent, or repeats one that is there.
    answered: Option<Outcome>,
}

impl SendQueue {
    /// The next messages that can go into one record: the first, and others as long as more of them may be on their way at one time.
    fn next_run(&mut self, may_begin: impl Fn() -> bool, seal: impl Fn(OutgoingMessage) -> Result<Sealed, Fault>) -> Run {
        let mut run = Run { envelopes: Vec::new(), sequences: Vec::new(), rooms: Vec::new(), answered: None };
        let mut bytes = 0;
        while let Some(next) = self.waiting.pop_front() {
            let cost = next.message.cost();
            let is_blocked = self.failed.is_some_and(|at| next.sequence > at);
            if !run.envelopes.is_empty() && (is_blocked || bytes + cost > RECORD_BYTES || !may_begin()) {
                self.waiting.push_front(next);
                break;
            }
            let NumberedMessage { sequence, message, room } = *next;
            let sealed = match self.failed {
                Some(at) if is_blocked => Err(blocked(at)),
                _ => seal(message),
            };
            match sealed {
                Ok(Sealed::New(envelope)) => {
                    bytes += cost;
                    run.envelopes.push(*envelope);
                    run.sequences.push(sequence);
                    run.rooms.push(room);
                }
                Ok(Sealed::Known(receipt)) => {
                    run.answered = Some((sequence, Ok(receipt)));
                    break;
                }
                Err(fault) => {
                    run.answered = Some((sequence, Err(fault)));
                    break;
                }
            }
        }
        run
    }

    /// What became of each message of a run, in their order.
    fn settle(&mut self, sequences: Vec<u64>, receipts: Vec<Result<Receipt, Fault>>, answered: Option<Outcome>) -> Vec<Outcome> {
        let mut receipts = receipts.into_iter();
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(sequences.len() + 1);
        let sent = sequences.into_iter().map(|sequence| (sequence, None));
        for (sequence, answer) in sent.chain(answered.map(|(sequence, outcome)| (sequence, Some(outcome)))) {
            // What has an answer of its own was in the record, whatever became of the one before it.
            let outcome = match (answer, self.failed) {
                (None, at) => receipts.next().unwrap_or_else(|| Err(at.map_or_else(sender::unanswered, blocked))),
                (Some(_), Some(at)) if sequence > at => Err(blocked(at)),
                (Some(outcome), _) => outcome,
            };
            match &outcome {
                Ok(_) => self.failed = None,
                // It is in the log, and no message: its key is another one's. What is behind it is in the log, too.
                Err(fault) if fault.code == Code::AlreadyExists => {}
                Err(_) => self.failed = Some(self.failed.map_or(sequence, |at| at.min(sequence))),
            }
            outcomes.push((sequence, outcome));
        }
        outcomes
    }
}

fn blocked(at: u64) -> Fault {
    let why = format!("message {at} of this session failed: send {at} again, the same or another, and then what follows it");
    Fault::new(Code::Aborted, "EARLIER_MESSAGE_FAILED", why)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        kit::budget::Budget,
        messages::{envelope::tests::envelope, message::Address},
    };

    fn queue(messages: &[(u64, usize)]) -> SendQueue {
        let budget = Budget::new(usize::MAX).queue(usize::MAX);
        let message = |(sequence, bytes): &(u64, usize)| {
            Box::new(NumberedMessage {
                sequence: *sequence,
                message: OutgoingMessage::new(Address::All, sequence.to_string(), vec![0; *bytes]),
                room: budget.take(0).expect("there is room"),
            })
        };
        SendQueue { waiting: messages.iter().map(message).collect(), failed: None }
    }

    /// Refuses what is for the topic `3`.
    fn seal(message: OutgoingMessage) -> Result<Sealed, Fault> {
        if message.topic == "3" { Err(Fault::invalid("TOPIC_INVALID", "3")) } else { Ok(Sealed::New(Box::new(envelope()))) }
    }

    fn taken() -> Result<Receipt, Fault> {
        Ok(Receipt { id: Uuid::nil(), deduplicated: false })
    }

    fn refused() -> Result<Receipt, Fault> {
        Err(Fault::unavailable("LOG_REFUSED", "no"))
    }

    /// Sends the next run with these receipts: the numbers in it, and what became of each.
    fn send(queue: &mut SendQueue, receipts: Vec<Result<Receipt, Fault>>) -> (Vec<u64>, Vec<(u64, Option<&'static str>)>) {
        let run = queue.next_run(|| true, seal);
        let sent = run.sequences.clone();
        let outcomes = queue.settle(run.sequences, receipts, run.answered);
        (sent, outcomes.into_iter().map(|(sequence, outcome)| (sequence, outcome.err().map(|fault| fault.reason))).collect())
    }

    #[test]
    fn what_waits_goes_together_up_to_what_is_refused() {
        let mut queue = queue(&[(1, 1), (2, 1), (3, 1), (4, 1), (3, 1)]);
        let (sent, outcomes) = send(&mut queue, vec![taken(), taken()]);
        assert_eq!((sent, outcomes), (vec![1, 2], vec![(1, None), (2, None), (3, Some("TOPIC_INVALID"))]));
        let (sent, outcomes) = send(&mut queue, vec![]);
        assert_eq!((sent, outcomes), (vec![], vec![(4, Some("EARLIER_MESSAGE_FAILED"))]));
        assert_eq!(queue.failed, Some(3));
    }

    #[test]
    fn a_record_that_was_not_taken_fails_its_first_message_and_aborts_the_others() {
        let mut queue = queue(&[(1, 1), (2, 1), (3, 1), (1, 1), (2, 1), (4, 1)]);
        let (_, outcomes) = send(&mut queue, vec![refused()]);
        let aborted = Some("EARLIER_MESSAGE_FAILED");
        assert_eq!(outcomes, [(1, Some("LOG_REFUSED")), (2, aborted), (3, aborted)]);
        // The first was sent again: the sender knows.
        assert_eq!(send(&mut queue, vec![taken()]).1, [(1, None)]);
        assert_eq!(send(&mut queue, vec![taken(), taken()]), (vec![2, 4], vec![(2, None), (4, None)]));
    }

    #[test]
    fn where_nothing_is_known_of_a_record_nothing_is_known_of_any_of_its_messages() {
        let mut queue = queue(&[(1, 1), (2, 1), (3, 1)]);
        let unknown = || Err(Fault::unavailable("LOG_UNKNOWN", "?"));
        let (_, outcomes) = send(&mut queue, vec![unknown(), unknown()]);
        assert_eq!(outcomes, [(1, Some("LOG_UNKNOWN")), (2, Some("LOG_UNKNOWN")), (3, Some("EARLIER_MESSAGE_FAILED"))]);
        assert_eq!(queue.failed, Some(1));
    }

    #[test]
    fn a_record_has_no_more_than_may_be_on_its_way() {
        let mut queue = queue(&[(1, 1), (2, 1), (4, 1)]);
        let more = std::cell::Cell::new(1);
        let may_begin = || more.replace(more.get() - 1) > 0;
        assert_eq!(queue.next_run(may_begin, seal).sequences, [1, 2]);
        more.set(0);
        assert_eq!(queue.next_run(|| false, seal).sequences, [4]);
    }

    #[test]
    fn a_used_key_fails_its_message_alone() {
        let mut queue = queue(&[(1, 1), (2, 1), (4, 1)]);
        let used = Err(Fault::new(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED", "k"));
        let (_, outcomes) = send(&mut queue, vec![taken(), used, taken()]);
        assert_eq!(outcomes, [(1, None), (2, Some("IDEMPOTENCY_KEY_REUSED")), (4, None)]);
        assert_eq!(queue.failed, None);
    }

    #[test]
    fn a_record_holds_so_many_bytes_and_one_message_of_any_size() {
        let mut queue = queue(&[(1, RECORD_BYTES), (2, 10), (4, RECORD_BYTES / 2), (5, RECORD_BYTES / 2), (6, 1)]);
        for (sent, count) in [(vec![1], 1), (vec![2, 4], 2), (vec![5, 6], 2)] {
            assert_eq!(send(&mut queue, vec![taken(); count]).0, sent);
        }
    }
}
