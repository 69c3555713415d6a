//! What may be done with dead letters: to list them, to look into one, to send one again, to drop it.
//!
//! Whoever receives has the letters of its own mailbox. Those of others, of groups and of all are an administrator's, and so is to send one to
//! somebody else than it was for: its sender did not mean that. So are those whose sender was refused: what it may send no more is not to reach whom it
//! was for by way of the dead letters.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    envelope::Envelope,
    letter::{DeadLetter, LetterFilter, LetterId, LetterState},
    letter_store::After,
    message::{Address, MAX_LIFETIME, Message},
    parts::Parts,
    ports::MailboxAddress,
    recipients::{Wants, resolve},
    sender,
};
use crate::{
    directory::{
        agent::{Agent, AgentId, Permission},
        caller::lacks,
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::{
        clock::{from_micros, now, to_micros},
        page,
    },
    log::partition::partition_of,
};

/// Letters that one call names at most.
pub const MAX_NAMED: usize = 100;
/// How long one call goes on with what a filter finds. What is left is for the next one.
const CALL: Duration = Duration::from_secs(8);
/// Idempotency keys are scoped by method: no sender has this one.
const REPLAY: &str = "replay";

/// A page of letters, without their content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterPage {
    /// In the order in which their messages were accepted.
    pub letters: Vec<DeadLetter>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// Which letters something is done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These: at most [`MAX_NAMED`].
    Named(Vec<LetterId>),
    /// Open ones that match: a page of them.
    Matching {
        /// Which.
        filter: LetterFilter,
        /// How many at most.
        page_size: u32,
        /// Where to go on.
        page_token: String,
    },
}

/// What has become of one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// How it is now.
    pub state: LetterState,
    /// Whether it was so before.
    pub before: bool,
}

/// What came of a call for several letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledPage {
    /// For each letter, in the order in which they were taken up.
    pub outcomes: Vec<(LetterId, Result<Settled, Fault>)>,
    /// Empty where none is left.
    pub next_page_token: String,
}

/// What is done with a letter.
enum Deed {
    Replay { to: Option<Address> },
    Drop,
}

/// The dead letters of a tenant, at one replica.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    parts: Parts,
}

impl DeadLetters {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// A page of the letters that match and that the caller may see.
    ///
    /// # Errors
    /// `PAGE_TOKEN_INVALID`, or where the store does not answer.
    pub async fn list(&self, caller: &Agent, filter: LetterFilter, page_size: u32, token: &str) -> Result<LetterPage, Fault> {
        let (filter, after) = resume(LetterFilter { own: sees(caller), ..filter }, token)?;
        let size = page::size(page_size);
        let mut letters = self.parts.letters.store.letters(&filter, after, size + 1).await?;
        let more = page::cut(&mut letters, size, bytes);
        let last = letters.last().filter(|_| more);
        let next_page_token = last.map(|last| page_token(&filter, last)).unwrap_or_default();
        Ok(LetterPage { letters, next_page_token })
    }

    /// A letter with its message.
    ///
    /// # Errors
    /// `DEAD_LETTER_NOT_FOUND`, `DEAD_LETTER_FORGOTTEN` where the log no longer holds it, or where store or log do not answer.
    pub async fn get(&self, caller: &Agent, id: LetterId) -> Result<(DeadLetter, Message), Fault> {
        let letter = self.find(caller, id).await?;
        let message = self.content(&letter).await?;
        Ok((letter, message))
    }

    /// Sends letters again, each as a new message from its first sender: to whom it was for, or to another. A letter that was sent again before is
    /// not sent once more.
    ///
    /// # Errors
    /// Where nothing can be done at all. What can't be done with one letter is in its outcome.
    pub async fn replay(&self, caller: &Agent, selection: Selection, to: Option<Address>) -> Result<SettledPage, Fault> {
        self.parts.ready()?;
        if let Some(to) = &to {
            let own = matches!(to, Address::Agent(name) if *name == caller.name);
            if !own && sees(caller).is_some() {
                return Err(lacks(caller, &[Permission::AllDeadLetters]));
            }
            if matches!(to, Address::Request { .. } | Address::Agents(_)) {
                return Err(Fault::invalid("RECIPIENT_INVALID", "a dead letter is sent to an agent, a group or all"));
            }
            resolve(&self.parts.directory.snapshot(), None, to, Wants::Delivery)?;
        }
        self.settle(caller, selection, &Deed::Replay { to }).await
    }

    /// Drops letters: they are listed no more unless asked for. A letter that was sent again stays so.
    ///
    /// # Errors
    /// Where nothing can be done at all. What can't be done with one letter is in its outcome.
    pub async fn discard(&self, caller: &Agent, selection: Selection) -> Result<SettledPage, Fault> {
        self.settle(caller, selection, &Deed::Drop).await
    }

    async fn settle(&self, caller: &Agent, selection: Selection, deed: &Deed) -> Result<SettledPage, Fault> {
        match selection {
            Selection::Named(ids) => {
                if ids.is_empty() || ids.len() > MAX_NAMED {
                    let rule = format!("name 1 to {MAX_NAMED} dead letters, or give a filter");
                    return Err(Fault::invalid("DEAD_LETTERS_UNNAMED", rule));
                }
                let began = Instant::now();
                let mut outcomes = Vec::with_capacity(ids.len());
                for id in ids {
                    let found = if began.elapsed() > CALL && !outcomes.is_empty() {
                        Err(not_reached())
                    } else {
                        self.find(caller, id).await
                    };
                    let outcome = match found {
                        Ok(letter) => self.settle_one(&letter, deed).await,
                        Err(fault) => Err(fault),
                    };
                    outcomes.push((id, outcome));
                }
                Ok(SettledPage { outcomes, next_page_token: String::new() })
            }
            Selection::Matching { filter, page_size, page_token: token } => {
                // What becomes a letter from now on is not this call's, or one that is replayed and dies again would keep it going.
                let latest = self.parts.log.clock.latest(now());
                let until = Some(filter.until.map_or(latest, |until| until.min(latest)));
                let (filter, after) = resume(LetterFilter { own: sees(caller), settled: false, until, ..filter }, &token)?;
                let size = page::size(page_size);
                let mut letters = self.parts.letters.store.letters(&filter, after, size + 1).await?;
                let mut more = page::cut(&mut letters, size, bytes);
                let (began, mut last) = (Instant::now(), None);
                let mut outcomes = Vec::with_capacity(letters.len());
                for letter in letters {
                    if began.elapsed() > CALL && last.is_some() {
                        more = true;
                        break;
                    }
                    outcomes.push((letter.id, self.settle_one(&letter, deed).await));
                    last = Some(letter);
                }
                let next_page_token = last.filter(|_| more).map(|last| page_token(&filter, &last)).unwrap_or_default();
                Ok(SettledPage { outcomes, next_page_token })
            }
        }
    }

    async fn settle_one(&self, letter: &DeadLetter, deed: &Deed) -> Result<Settled, Fault> {
        let state = match (deed, letter.state) {
            (Deed::Replay { .. }, LetterState::Replayed(_)) | (Deed::Drop, LetterState::Dropped) => {
                return Ok(Settled { state: letter.state, before: true });
            }
            (Deed::Replay { .. }, LetterState::Dropped) => {
                let why = format!("dead letter {} was dropped: it is not sent again", letter.id);
                return Err(Fault::new(Code::FailedPrecondition, "DEAD_LETTER_DROPPED", why));
            }
            (Deed::Drop, LetterState::Replayed(message)) => {
                let why = format!("dead letter {} was sent again, as message {message}: there is nothing to drop", letter.id);
                return Err(Fault::new(Code::FailedPrecondition, "DEAD_LETTER_REPLAYED", why));
            }
            (Deed::Drop, LetterState::Open) => LetterState::Dropped,
            (Deed::Replay { to }, LetterState::Open) => self.send(letter, to.as_ref()).await?,
        };
        let kept = self.parts.letters.store.settle_letter(letter.id, state).await?.unwrap_or(state);
        if kept == state {
            self.parts.metrics.letters_settled(if state == LetterState::Dropped { "dropped" } else { "replayed" });
        }
        Ok(Settled { state: kept, before: kept != state })
    }

    /// Sends a letter again. Where the answer of an earlier try was lost, its key finds that one in the log.
    async fn send(&self, letter: &DeadLetter, to: Option<&Address>) -> Result<LetterState, Fault> {
        let message = self.content(letter).await?;
        let _room = self.parts.memory.sending.take(message.cost()).ok_or_else(sender::too_many)?;
        let (to, to_ids) = recipient(&self.parts.directory.snapshot(), letter, to)?;
        let now = now();
        let message = Message {
            id: Uuid::now_v7(),
            to,
            to_ids,
            idempotency_key: letter.id.to_string(),
            // Whoever waited there waits no more: an answer goes to the mailbox.
            reply_to: message.reply_to.filter(|address| !matches!(address, Address::Request { .. })),
            accepted_at: self.parts.log.clock.there(partition_of(message.from_id.0, self.parts.log.partitions), now),
            expires_at: now + MAX_LIFETIME,
            replayed_from: Some(letter.message_id),
            ..message
        };
        // Not of the recipient: a letter is sent again once, whoever it goes to.
        let digest = Sha256::digest(letter.id.0.as_bytes()).into();
        let envelope = Envelope { message, digest, method: REPLAY.to_owned(), account: None, original: None };
        let receipt = sender::append_one(&self.parts, envelope, now).await?;
        Ok(LetterState::Replayed(receipt.id))
    }

    /// A letter that the caller may see.
    async fn find(&self, caller: &Agent, id: LetterId) -> Result<DeadLetter, Fault> {
        let letter = self.parts.letters.store.letter(id).await?;
        let own = |letter: &DeadLetter| sees(caller).is_none_or(|own| letter.is_own(own));
        letter.filter(own).ok_or_else(|| {
            Fault::not_found(
                "DEAD_LETTER_NOT_FOUND",
                format!("there is no dead letter {id} in your mailbox: see ListDeadLetters"),
            )
        })
    }

    async fn content(&self, letter: &DeadLetter) -> Result<Message, Fault> {
        let (log, place) = (&self.parts.log, letter.place);
        let records = if log.topic.bus.topic(&log.dead_letters).await?.epoch == place.epoch {
            log.topic.bus.read(&log.dead_letters, place.partition, place.offset, 1).await?
        } else {
            Vec::new()
        };
        let snapshot = self.parts.directory.snapshot();
        let read = records.first().and_then(|logged| DeadLetter::read(logged, place.epoch, &snapshot));
        read.filter(|(found, _)| found.id == letter.id).map(|(_, message)| message).ok_or_else(|| {
            Fault::not_found("DEAD_LETTER_FORGOTTEN", format!("the log no longer holds the content of dead letter {}", letter.id))
        })
    }
}

/// Of a letter that was named in a call which lasted too long.
fn not_reached() -> Fault {
    Fault::unavailable("DEAD_LETTER_NOT_REACHED", "the call had no time left for this letter: name it again")
}

/// Whose letters the caller sees; `None`: everybody's.
fn sees(caller: &Agent) -> Option<AgentId> {
    (!caller.role.allows(Permission::AllDeadLetters)).then_some(caller.id)
}

/// Where a letter goes when it is sent again.
fn recipient(snapshot: &Snapshot, letter: &DeadLetter, to: Option<&Address>) -> Result<(Address, Vec<AgentId>), Fault> {
    let to = match (to, &letter.recipient) {
        (Some(to), _) => to.clone(),
        (None, MailboxAddress::Agent(agent)) => match snapshot.agent(*agent) {
            Some(agent) => Address::Agent(agent.name.clone()),
            None => {
                let why =
                    format!("the agent {} that dead letter {} was for is gone: name another", letter.recipient_name, letter.id);
                return Err(Fault::not_found("RECIPIENT_NOT_FOUND", why));
            }
        },
        (None, MailboxAddress::Group(name)) => Address::Group(name.clone()),
        (None, MailboxAddress::All) => Address::All,
    };
    let ids = resolve(snapshot, None, &to, Wants::Delivery)?;
    Ok((to, ids))
}

fn bytes(letter: &DeadLetter) -> usize {
    page::bytes([&letter.sender_name, &letter.recipient_name, &letter.topic])
}

/// Where the next page begins, and where the pages end: what comes while they are read is not theirs.
fn page_token(filter: &LetterFilter, last: &DeadLetter) -> String {
    let until = filter.until.map(|until| to_micros(until).to_string()).unwrap_or_default();
    format!("{until}.{}.{}", last.message_id, last.id)
}

fn resume(filter: LetterFilter, token: &str) -> Result<(LetterFilter, Option<After>), Fault> {
    if token.is_empty() {
        return Ok((filter, None));
    }
    let time = |text: &str| -> Option<OffsetDateTime> { from_micros(text.parse().ok()?) };
    let parse = || {
        let [until, message, id] = token.split('.').collect::<Vec<_>>().try_into().ok()?;
        let until = if until.is_empty() { filter.until } else { Some(time(until)?) };
        Some((until, (message.parse().ok()?, id.parse().ok()?)))
    };
    let (until, after) = parse().ok_or_else(|| Fault::invalid("PAGE_TOKEN_INVALID", "give the page_token of the page before"))?;
    Ok((LetterFilter { until, ..filter }, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_and_noise_is_refused() {
        let filter = LetterFilter::default();
        let id = LetterId(Uuid::from_u128(7));
        let message = Uuid::from_u128(9);
        let token = format!("5.{message}.{id}");
        let until = Some(OffsetDateTime::UNIX_EPOCH + Duration::from_micros(5));
        assert_eq!(resume(filter.clone(), &token), Ok((LetterFilter { until, ..filter.clone() }, Some((message, id)))));
        assert_eq!(resume(filter.clone(), ""), Ok((filter.clone(), None)));
        for noise in [".", "..", "1.2.3", "x.9.x", "99999999999999999999.1.1", "\0", &format!("{}.{message}.{id}", i64::MAX)] {
            assert_eq!(resume(filter.clone(), noise).map_err(|fault| fault.reason), Err("PAGE_TOKEN_INVALID"), "{noise:?}");
        }
    }
}
