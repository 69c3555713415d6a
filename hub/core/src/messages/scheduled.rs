//! Messages that are sent later. Each is a timer until then: its sender and its recipients are those of the time when it was scheduled, and whether they
//! may still send and receive is asked when it is due. What can't be sent then becomes a dead letter, since nobody waits to be told.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    attempts::{Attempts, Tried},
    dead_letters::{self, Reason},
    envelope::{Envelope, EnvelopeError},
    letter::LetterReason,
    logged::SCHEDULED,
    message::{Address, MAX_LIFETIME, Message, OutgoingMessage},
    parts::{Parts, stopping},
    recipients::{Wants, resolve},
    sender::{self, Times},
    usage::Reserved,
};
use crate::{
    directory::{
        agent::{Agent, AgentId, Permission},
        caller::lacks,
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::{
        clock::{from_micros, now, to_micros, truncated},
        page,
    },
    log::partition::partition_of,
    metrics::traffic::SenderMetrics,
    timers::{
        alarm::Wake,
        handler::{Fired, Handler},
        ports::{Added, Bounds, Cancelled, LIST_BYTES, NewTimer, Timer, TimerStore},
    },
};

/// What these timers are called in the store.
pub(super) const KIND: &str = "message";
/// The longest that a message may wait until it is sent.
pub const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most that a scheduled message takes with its envelope: it lies in PostgreSQL until it is sent.
pub const MAX_BYTES: usize = 64 * 1024;
/// Scheduled messages of an agent, and of a tenant.
pub const BOUNDS: Bounds = Bounds { each: 1000, all: 10_000 };
/// Messages of a page.
const MAX_PAGE: usize = 100;
/// The pause before what the log did not take is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The pause before what has to wait for somebody is looked at again: a message of a newer hub, or of a tenant that is suspended.
const LONG_RETRY: Duration = Duration::from_secs(5);
/// The longest pause of one that a limit has no room for.
const LIMITED_RETRY: Duration = Duration::from_secs(60);
/// Says that nothing was said about when it expires.
const WITHOUT_EXPIRY: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

/// The answer to who schedules a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Of the message: it keeps this id when it is sent.
    pub id: Uuid,
    /// When it is sent, by the clock of the store.
    pub due_at: OffsetDateTime,
    /// Whether it had been scheduled before.
    pub deduplicated: bool,
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledMessage {
    /// What is sent. Its times are not set yet.
    pub message: Message,
    /// When it is sent.
    pub due_at: OffsetDateTime,
    /// When it was scheduled.
    pub made_at: OffsetDateTime,
}

/// A page of what waits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledPage {
    /// In the order in which they are sent.
    pub messages: Vec<ScheduledMessage>,
    /// Empty on the last page.
    pub next_page_token: String,
}

/// The scheduled messages of a tenant, at one replica.
#[derive(Clone)]
pub struct ScheduledMessages {
    parts: Parts,
    timers: Arc<dyn TimerStore>,
    wake: Wake,
    attempts: Arc<Attempts>,
}

impl std::fmt::Debug for ScheduledMessages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScheduledMessages").finish_non_exhaustive()
    }
}

impl ScheduledMessages {
    pub(super) fn new(parts: Parts, timers: Arc<dyn TimerStore>, wake: Wake) -> Self {
        Self { parts, timers, wake, attempts: Arc::default() }
    }

    /// Has a message sent `after` this time, 7 days at most.
    ///
    /// # Errors
    /// `DELIVERY_TIME_INVALID`, `SCHEDULED_MESSAGE_TOO_LARGE`, `TOO_MANY_SCHEDULED_MESSAGES`, as a message that is sent now, or where the store does
    /// not answer.
    pub async fn schedule(&self, from: &Agent, message: OutgoingMessage, after: Duration) -> Result<Scheduled, Fault> {
        self.parts.ready()?;
        if after.is_zero() || after > MAX_WAIT {
            let why = "a message is scheduled for a time of more than 0 and at most 7 days from now";
            return Err(Fault::invalid("DELIVERY_TIME_INVALID", why));
        }
        if matches!(message.to, Address::Request { .. }) {
            let why = "the caller of a request waits for its answer now: send it at once";
            return Err(Fault::invalid("DELIVERY_TIME_INVALID", why));
        }
        let now = now();
        // It must live when it is sent.
        message.validate(now + after)?;
        let snapshot = self.parts.directory.snapshot();
        let to_ids = sender::recipients(&self.parts, &snapshot, from, &message, SCHEDULED, now)?;
        let digest = message.digest(SCHEDULED, message.reply_to.as_ref());
        let (id, key) = (Uuid::now_v7(), message.idempotency_key.clone());
        let expires_at = message.expires_at.map_or(WITHOUT_EXPIRY, truncated);
        let message = sender::message_of(from, message, to_ids, id, Times { accepted_at: now, sent_at: now, expires_at });
        // Not by the sender's key: that may be used again once this is sent. This one is of the timer alone, so that a message which is sent again,
        // since nobody could say that it was, is dropped.
        let message = Message { idempotency_key: id.to_string(), ..message };
        let (digest_of_id, method) = (Sha256::digest(id.as_bytes()).into(), SCHEDULED.to_owned());
        let content = Envelope { message, digest: digest_of_id, method, account: None, original: None }.encode();
        if content.len() > MAX_BYTES {
            let why = format!(
                "the message has {} bytes and may have {MAX_BYTES} to be scheduled: share a context and send its id",
                content.len()
            );
            return Err(Fault::invalid("SCHEDULED_MESSAGE_TOO_LARGE", why));
        }
        let timer = NewTimer { id, kind: KIND, subject: from.id.0, after, key, digest, content };
        match self.timers.add(&timer, BOUNDS).await? {
            Added::Made { due_at } => {
                self.wake.wake();
                Ok(Scheduled { id, due_at, deduplicated: false })
            }
            Added::Known { id, due_at, digest: known } if known == digest => Ok(Scheduled { id, due_at, deduplicated: true }),
            Added::Known { id, .. } => Err(Fault::new(
                Code::AlreadyExists,
                "IDEMPOTENCY_KEY_REUSED",
                format!("message {id} was scheduled with this idempotency key and differs: use a new key for a new message"),
            )),
            Added::Full { of_subject } => {
                let (whose, most) = if of_subject { ("this agent", BOUNDS.each) } else { ("the tenant", BOUNDS.all) };
                let why = format!(
                    "{most} scheduled messages of {whose} wait, which is the most: cancel some, or wait until some are sent"
                );
                Err(Fault::new(Code::ResourceExhausted, "TOO_MANY_SCHEDULED_MESSAGES", why))
            }
        }
    }

    /// A page of what waits: what the caller scheduled, or `all` agents did.
    ///
    /// # Errors
    /// `PAGE_TOKEN_INVALID`, where the caller may not see those of all, or where the store does not answer.
    pub async fn list(&self, caller: &Agent, all: bool, page_size: u32, token: &str) -> Result<ScheduledPage, Fault> {
        let after = resume(token)?;
        let subject = if all { self.all(caller)? } else { Some(caller.id.0) };
        let size = page::size(page_size).min(MAX_PAGE);
        let mut timers = self.timers.list(KIND, subject, after, size + 1).await?;
        // The store's answer may have ended by its bytes: then there is more, too.
        let more = timers.len() > size || timers.iter().map(|timer| timer.content.len()).sum::<usize>() >= LIST_BYTES;
        timers.truncate(size);
        let last = timers.last().filter(|_| more);
        let next_page_token = last.map(|last| format!("{}.{}", to_micros(last.due_at), last.id)).unwrap_or_default();
        let messages = timers.into_iter().filter_map(|Timer { content, due_at, made_at, .. }| {
            // What only a newer hub can read is not shown.
            let message = Envelope::decode(&content).ok()?.message;
            Some(ScheduledMessage { message, due_at, made_at })
        });
        Ok(ScheduledPage { messages: messages.collect(), next_page_token })
    }

    /// Cancels a message. To cancel one again does nothing. Whether it was cancelled before.
    ///
    /// # Errors
    /// `SCHEDULED_MESSAGE_NOT_FOUND`, `SCHEDULED_MESSAGE_SENT`, or where the store does not answer.
    pub async fn cancel(&self, caller: &Agent, id: Uuid) -> Result<bool, Fault> {
        let subject = if caller.role.allows(Permission::AllScheduledMessages) { None } else { Some(caller.id.0) };
        match self.timers.cancel(KIND, subject, id).await? {
            Cancelled::Now => Ok(false),
            Cancelled::Before => Ok(true),
            Cancelled::TooLate => {
                let why = format!(
                    "message {id} was due, and is sent, may be sent, or is among the dead letters: it can't be cancelled any more"
                );
                Err(Fault::new(Code::FailedPrecondition, "SCHEDULED_MESSAGE_SENT", why))
            }
            Cancelled::Unknown => {
                let why = format!("you have scheduled no message {id} that waits: see ListScheduledMessages");
                Err(Fault::not_found("SCHEDULED_MESSAGE_NOT_FOUND", why))
            }
        }
    }

    /// That the caller sees those of all agents.
    fn all(&self, caller: &Agent) -> Result<Option<Uuid>, Fault> {
        if caller.role.allows(Permission::AllScheduledMessages) {
            return Ok(None);
        }
        Err(lacks(caller, &[Permission::AllScheduledMessages]))
    }

    /// Sends what is due, as its sender would now. That it was attempted is written down before: what became of an attempt may never be known.
    /// `may_be_there`: whether it may be in the log, or on its way.
    async fn send(&self, envelope: Envelope, attempted: Option<Duration>, may_be_there: &mut bool) -> Result<Fired, Fault> {
        let parts = &self.parts;
        let snapshot = parts.directory.snapshot();
        let sealed_at = now();
        let envelope = timed(envelope, sealed_at);
        // Before anything is said about who may send: what the log has is sent, whatever became of its sender and its recipients since.
        let tried = self.attempts.tried(parts, &envelope, attempted).await?;
        match tried {
            Tried::Sent => {
                *may_be_there = true;
                return match reach(&snapshot, &envelope)? {
                    Reach::Some { gone, .. } => self.dead_letter(&envelope, &gone, LetterReason::RecipientGone).await,
                    Reach::All | Reach::Nobody => Ok(Fired::Done),
                };
            }
            Tried::Searching => return Ok(Fired::Later(RETRY)),
            // It would have expired there, too.
            Tried::Forgotten => return self.dead_letter(&envelope, &envelope.message.to_ids, LetterReason::Expired).await,
            Tried::Not | Tried::Lately => {}
        }
        if snapshot.suspended {
            // Nobody of the tenant sends: what is due waits until it may.
            return Ok(Fired::Later(LONG_RETRY));
        }
        let from = snapshot.acting(envelope.message.from_id).ok().filter(|from| from.role.allows(Permission::Send));
        let Some(from) = from else {
            return self.give_up(&envelope, LetterReason::SenderRefused, tried).await;
        };
        let (mut envelope, gone) = match reach(&snapshot, &envelope)? {
            Reach::Nobody => return self.give_up(&envelope, LetterReason::RecipientGone, tried).await,
            Reach::All => (envelope, None),
            Reach::Some { there, gone } => (*there, Some((envelope, gone))),
        };
        let partition = partition_of(envelope.message.from_id.0, parts.log.partitions);
        if let Some(pause) = self.attempts.pauses.pause(partition) {
            return Ok(Fired::Later(pause.max(RETRY)));
        }
        sender::begin(parts, from).await;
        envelope.account = sender::account_of(&snapshot, from);
        let message = &mut envelope.message;
        message.accepted_at = parts.log.clock.there(partition, sealed_at);
        if let Err(fault) = sender::reserve(parts, from, message.id, message.payload.len(), message.accepted_at) {
            parts.metrics.limited(&fault);
            return match fault.exhausted.as_ref().and_then(|exhausted| exhausted.retry_after) {
                // A month is long: its limit may be raised before it ends.
                Some(pause) => Ok(Fired::Later(pause.clamp(RETRY, LIMITED_RETRY))),
                // It never will be sent while the limit is as low.
                None => self.give_up(&envelope, LetterReason::SenderRefused, tried).await,
            };
        }
        if tried == Tried::Not {
            drop(Reserved(parts.usage.clone(), vec![message.id]));
            return Ok(Fired::Attempt);
        }
        // A partition that takes nothing holds up no other for long.
        let patience = match self.attempts.pauses.begin(partition) {
            Ok(patience) => patience,
            Err(pause) => {
                drop(Reserved(parts.usage.clone(), vec![message.id]));
                return Ok(Fired::Later(pause.max(RETRY)));
            }
        };
        let mut metrics = SenderMetrics::new(&parts.metrics, &from.name);
        let was_there = std::mem::replace(may_be_there, true);
        let sent = timeout(patience, sender::append(parts, vec![envelope], &mut metrics)).await;
        let sent = sent.map_or_else(|_| Some(Err(sender::unanswered())), |mut sent| sent.pop());
        let sent = sent.unwrap_or_else(|| Err(stopping()));
        self.attempts.pauses.ended(partition, sender::is_taken(&sent));
        *may_be_there = was_there || !sender::is_refused(&sent);
        sent?;
        match gone {
            // Not before it is sent: until it is, this is tried again and again.
            Some((envelope, gone)) => self.dead_letter(&envelope, &gone, LetterReason::RecipientGone).await,
            None => Ok(Fired::Done),
        }
    }

    /// Puts a message that is not to be sent any more into the dead letters, unless it may be on its way into the log.
    async fn give_up(&self, envelope: &Envelope, reason: LetterReason, tried: Tried) -> Result<Fired, Fault> {
        match tried {
            Tried::Lately => Ok(Fired::Later(LONG_RETRY)),
            _ => self.dead_letter(envelope, &envelope.message.to_ids, reason).await,
        }
    }

    /// Puts a message into the dead letters: a letter for each of these agents, or one for the group or all.
    async fn dead_letter(&self, envelope: &Envelope, agents: &[AgentId], reason: LetterReason) -> Result<Fired, Fault> {
        if agents.is_empty() {
            dead_letters::put(&self.parts, None, envelope, None, Reason::Unsent(reason)).await?;
        }
        for agent in agents {
            dead_letters::put(&self.parts, None, envelope, Some(*agent), Reason::Unsent(reason)).await?;
        }
        tracing::info!(message = %envelope.message.id, reason = reason.as_str(), "a scheduled message was not sent");
        Ok(Fired::Done)
    }
}

#[async_trait]
impl Handler for ScheduledMessages {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn ready(&self) -> bool {
        // Nobody of a suspended tenant sends. To look at what is due again and again would load a store that others share.
        self.parts.ready().is_ok() && !self.parts.directory.snapshot().suspended
    }

    async fn fire(&self, timer: &Timer, begins: bool) -> Fired {
        let envelope = match Envelope::decode(&timer.content) {
            Ok(envelope) => envelope,
            Err(error @ EnvelopeError::Version(_)) => {
                tracing::warn!(id = %timer.id, %error, "a scheduled message is left to a newer hub");
                return Fired::Later(LONG_RETRY);
            }
            Err(error) => {
                tracing::error!(id = %timer.id, %error, "a damaged scheduled message is dropped");
                return Fired::Done;
            }
        };
        let mut may_be_there = timer.attempted.is_some() && !begins;
        let fired = self.send(envelope, timer.attempted, &mut may_be_there).await.unwrap_or_else(|fault| {
            tracing::warn!(id = %timer.id, %fault, "a scheduled message can't be sent yet");
            Fired::Later(RETRY)
        });
        match fired {
            Fired::Later(pause) if timer.attempted.is_some() && !may_be_there => Fired::Untouched(pause),
            fired => fired,
        }
    }
}

/// Who can have a message now of those whom it was for when it was scheduled.
enum Reach {
    All,
    Nobody,
    /// It is sent to those who are there. The others have a dead letter.
    Some {
        there: Box<Envelope>,
        gone: Vec<AgentId>,
    },
}

fn reach(snapshot: &Snapshot, envelope: &Envelope) -> Result<Reach, Fault> {
    let Envelope { message, digest, method, account, original } = envelope;
    if !matches!(message.to, Address::Agent(_) | Address::Agents(_)) {
        let somebody = resolve(snapshot, Some(message.from_id), &message.to, Wants::Delivery).is_ok();
        return Ok(if somebody { Reach::All } else { Reach::Nobody });
    }
    // An agent that was made anew under the same name is another one: the message was not for that.
    let receives = |id: &AgentId| snapshot.agent(*id).is_some_and(|agent| agent.role.allows(Permission::Receive));
    let (reached, gone): (Vec<AgentId>, Vec<AgentId>) = message.to_ids.iter().copied().partition(receives);
    if gone.is_empty() {
        return Ok(Reach::All);
    }
    if reached.is_empty() {
        return Ok(Reach::Nobody);
    }
    let names = reached.iter().filter_map(|id| message.recipient_name(*id)).map(str::to_owned).collect();
    let message = Message { to: Address::agents(names)?, to_ids: reached, ..message.clone() };
    let there = Box::new(Envelope { message, digest: *digest, method: method.clone(), account: *account, original: *original });
    Ok(Reach::Some { there, gone })
}

/// The message as of now, without when it was accepted.
fn timed(envelope: Envelope, now: OffsetDateTime) -> Envelope {
    let latest = now + MAX_LIFETIME;
    let Envelope { message, digest, method, account, original } = envelope;
    let expires_at = if message.expires_at == WITHOUT_EXPIRY { latest } else { message.expires_at.min(latest) };
    Envelope { message: Message { sent_at: now, expires_at, ..message }, digest, method, account, original }
}

fn resume(token: &str) -> Result<Option<(OffsetDateTime, Uuid)>, Fault> {
    if token.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let (micros, id) = token.split_once('.')?;
        Some((from_micros(micros.parse().ok()?)?, id.parse().ok()?))
    };
    parse().map(Some).ok_or_else(|| Fault::invalid("PAGE_TOKEN_INVALID", "give the page_token of the page before"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_and_noise_is_refused() {
        let id = Uuid::from_u128(7);
        let at = OffsetDateTime::UNIX_EPOCH + Duration::from_micros(5);
        assert_eq!(resume(&format!("5.{id}")), Ok(Some((at, id))));
        assert_eq!(resume(""), Ok(None));
        for noise in [".", "5", "5.x", "x.5", &format!("{}.{id}", i64::MAX)] {
            assert_eq!(resume(noise).map_err(|fault| fault.reason), Err("PAGE_TOKEN_INVALID"), "{noise:?}");
        }
    }
}
