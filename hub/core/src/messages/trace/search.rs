//! Finds a message by its id, and what happened to it.

use std::{ops::Range, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::event::{Happening, of_position};
use crate::{
    directory::{
        agent::{Agent, AgentId, Permission},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::clock::rfc3339,
    log::bus::{Offset, Partition},
    messages::{
        catch_up,
        message::{Address, Message},
        parts::Parts,
        ports::{IndexEntry, MailboxAddress},
        position::{MessagePlace, nth_of},
        record, scheduled,
    },
    timers::ports::{Timer, TimerStore},
};

/// By how much the time in an id, and what is known of the log's clock, may be off. Most messages are in the log by then.
const SLACK: Duration = Duration::from_secs(10);
/// Records that are read together.
const RUN: usize = 64;
/// How long one search may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Searches of this replica at a time: each may read much of the log.
const AT_A_TIME: usize = 2;
/// Parts that are read of what was noted.
const PARTS: usize = 1000;
/// Events that are told of one message.
const EVENTS: usize = 1000;
/// Recipients that are told of one message.
const RECIPIENTS: usize = 100;

/// Something that happened to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// When, by the clock of the replica.
    pub at: OffsetDateTime,
    /// What.
    pub what: Happening,
    /// The replica that noted it.
    pub replica: String,
    /// The recipient's name, or of what was accepted the sender's. Empty where that agent is gone, or where there is none.
    pub agent: String,
    /// The number of the attempt, of a delivery; 0 of all else.
    pub attempt: u32,
}

/// Whether one of those whom a message is for has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRecipient {
    /// Its name.
    pub agent: String,
    /// Whether it has.
    pub acknowledged: bool,
}

/// A message, without its content, and what happened to it.
#[derive(Clone, Debug)]
pub struct MessageTrace {
    /// The message. What reads this shows no payload and no metadata.
    pub message: Message,
    /// Where the log has it.
    pub place: MessagePlace,
    /// When the log took it.
    pub logged_at: OffsetDateTime,
    /// In the order of their times: 1,000 at most.
    pub events: Vec<TraceEvent>,
    /// Whether there are more.
    pub more_events: bool,
    /// Those whom it is for now: 100 at most. None of a reply to a caller that waits.
    pub recipients: Vec<TraceRecipient>,
    /// How many more there are.
    pub more_recipients: usize,
}

/// Searches of one replica. Clones share their bound.
#[derive(Clone)]
pub struct Traces {
    parts: Parts,
    places: Arc<Semaphore>,
    /// What is sent later is not in the log yet.
    timers: Option<Arc<dyn TimerStore>>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

struct Located {
    place: MessagePlace,
    logged_at: OffsetDateTime,
    message: Message,
}

impl Traces {
    pub(in crate::messages) fn new(parts: Parts) -> Self {
        Self { parts, places: Arc::new(Semaphore::new(AT_A_TIME)), timers: None }
    }

    /// The same, that knows of messages which are sent later.
    #[must_use]
    pub fn with_timers(self, timers: Arc<dyn TimerStore>) -> Self {
        Self { timers: Some(timers), ..self }
    }

    /// What happened to a message: to its sender, to those whom it is for, and to whom all traces are open. To anybody else there is no such message.
    ///
    /// # Errors
    /// `MESSAGE_NOT_FOUND`, also of what the log has forgotten; `MESSAGE_SCHEDULED` of what is sent later; `TOO_MANY_TRACES`; or where log or store do
    /// not answer.
    pub async fn trace(&self, caller: &Agent, id: Uuid) -> Result<MessageTrace, Fault> {
        self.parts.ready()?;
        let _place = self.places.try_acquire().map_err(|_| {
            let why = "this replica searches for other messages: try again shortly";
            Fault::new(Code::ResourceExhausted, "TOO_MANY_TRACES", why)
        })?;
        let missing = || {
            let why = format!("there is no message {id} for you: the log keeps messages for 7 days");
            Fault::not_found("MESSAGE_NOT_FOUND", why)
        };
        // First: it may be sent between two looks.
        let due_at = self.scheduled(caller, id).await?;
        let located = self.locate(id).await?.ok_or_else(|| due_at.map_or_else(missing, |due_at| scheduled_for(id, due_at)))?;
        let snapshot = self.parts.directory.snapshot();
        let Located { place, logged_at, message } = located;
        let rows = rows(&message, place, logged_at);
        let sees_all = message.from_id == caller.id || caller.role.allows(Permission::AllTraces);
        let asked = matches!(&message.to, Address::Request { agent, .. } if *agent == caller.name);
        if !sees_all && !asked && !rows.iter().any(|row| catch_up::is_for(&self.parts.log, &snapshot, caller.id, row)) {
            return Err(missing());
        }
        // What the others whom a message is for do with it is not for each of them.
        let only = (!sees_all).then_some(caller.id);
        let (events, more_events) = self.events(&snapshot, place, message.accepted_at, only).await?;
        let (recipients, more_recipients) = self.recipients(&snapshot, &message, place, &rows, only).await?;
        Ok(MessageTrace { message, place, logged_at, events, more_events, recipients, more_recipients })
    }

    /// When a message is due that is sent later: to its sender, and to whom all traces are open.
    async fn scheduled(&self, caller: &Agent, id: Uuid) -> Result<Option<OffsetDateTime>, Fault> {
        let Some(timers) = &self.timers else { return Ok(None) };
        let timer = timers.find(scheduled::KIND, id).await?;
        let sees = |timer: &Timer| timer.subject == caller.id.0 || caller.role.allows(Permission::AllTraces);
        Ok(timer.filter(sees).map(|timer| timer.due_at))
    }

    /// Looks where the message is likely to be, and then as far as its way into the log may have taken.
    async fn locate(&self, id: Uuid) -> Result<Option<Located>, Fault> {
        match self.locate_within(id, SLACK).await? {
            None => self.locate_within(id, SLACK + self.parts.config.max_append_delay).await,
            found => Ok(found),
        }
    }

    async fn locate_within(&self, id: Uuid, after: Duration) -> Result<Option<Located>, Fault> {
        let Some(made_at) = id.get_timestamp().and_then(|time| {
            let (seconds, nanos) = time.to_unix();
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
        }) else {
            return Ok(None);
        };
        let (parts, topic) = (&self.parts, &self.parts.log.topic);
        let span = |time: Duration| time::Duration::try_from(time).unwrap_or_default();
        let (since, until) = (made_at.checked_sub(span(SLACK)), made_at.checked_add(span(after)));
        let (Some(since), Some(until)) = (since, until) else { return Ok(None) };
        // The time in the id is a replica's, and the log's clock may be elsewhere.
        let there = |partition, at| parts.log.clock.there(partition, at);
        let earliest = (0..parts.log.partitions).map(|partition| there(partition, since)).min().unwrap_or(since);
        let starts = topic.bus.offsets_at_each(&topic.name, earliest).await?;
        let bounds = topic.bus.bounds_each(&topic.name).await?;
        let deadline = Instant::now() + WITHIN;
        let searches = (0..).zip(starts.into_iter().zip(bounds)).map(|(partition, (start, bounds))| async move {
            let bounds = bounds?;
            let search = self.search(partition, start?.max(bounds.first)..bounds.next, there(partition, until), id);
            timeout_at(deadline, search).await.unwrap_or_else(|_| Err(too_long()))
        });
        let mut failed = None;
        for found in futures::future::join_all(searches).await {
            match found {
                Ok(Some(located)) => return Ok(Some(located)),
                Ok(None) => {}
                // It may be there.
                Err(fault) => failed = Some(fault),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    async fn search(
        &self,
        partition: Partition,
        mut range: Range<Offset>,
        until: OffsetDateTime,
        id: Uuid,
    ) -> Result<Option<Located>, Fault> {
        while !range.is_empty() {
            let records = self.parts.log.topic.read(partition, range.start, RUN).await?;
            let Some(last) = records.last().map(|logged| (logged.offset, logged.log_time)) else { return Ok(None) };
            for logged in &records {
                if let Some((number, message)) = record::find(logged, id, self.parts.config.max_append_delay)? {
                    let place = MessagePlace { partition, position: nth_of(logged.offset, number) };
                    return Ok(Some(Located { place, logged_at: logged.log_time, message }));
                }
            }
            if last.1 > until {
                break;
            }
            range.start = last.0 + 1;
        }
        Ok(None)
    }

    async fn events(
        &self,
        snapshot: &Snapshot,
        place: MessagePlace,
        accepted_at: OffsetDateTime,
        only: Option<AgentId>,
    ) -> Result<(Vec<TraceEvent>, bool), Fault> {
        // What this replica noted a moment ago is not written yet. A caller who goes away meanwhile must not take along what is being written.
        let trace = self.parts.trace.clone();
        let _written = tokio::spawn(async move { trace.write().await }).await;
        let store = self.parts.trace.store();
        let parts = store.noted(self.parts.log.epoch, place, PARTS).await?;
        let mut events: Vec<TraceEvent> = Vec::new();
        let mut more = parts.len() >= PARTS;
        for (replica, bytes) in parts {
            let mut noted = of_position(&bytes, place.position);
            noted.retain(|noted| noted.what == Happening::Accepted || only.is_none_or(|only| noted.agent == only));
            more |= noted.len() > EVENTS - events.len();
            events.extend(noted.into_iter().take(EVENTS - events.len()).map(|noted| TraceEvent {
                // It was noted once the log had the message.
                at: if noted.what == Happening::Accepted { accepted_at } else { noted.at },
                what: noted.what,
                replica: replica.clone(),
                agent: snapshot.agent(noted.agent).map(|agent| agent.name.clone()).unwrap_or_default(),
                attempt: noted.attempt.into(),
            }));
        }
        events.sort_by_key(|event| (event.at, event.what.number()));
        Ok((events, more))
    }

    async fn recipients(
        &self,
        snapshot: &Snapshot,
        message: &Message,
        place: MessagePlace,
        rows: &[IndexEntry],
        only: Option<AgentId>,
    ) -> Result<(Vec<TraceRecipient>, usize), Fault> {
        let is_for = |agent: &Agent| {
            if only.is_some_and(|only| agent.id != only) {
                return false;
            }
            let direct = message.to_ids.contains(&agent.id);
            (direct || agent.id != message.from_id)
                && rows.iter().any(|row| catch_up::is_for(&self.parts.log, snapshot, agent.id, row))
        };
        let mut agents: Vec<_> = snapshot.agents().filter(|agent| is_for(agent)).collect();
        agents.sort_by(|a, b| a.name.cmp(&b.name));
        let more = agents.len().saturating_sub(RECIPIENTS);
        agents.truncate(RECIPIENTS);
        let ids: Vec<_> = agents.iter().map(|agent| agent.id).collect();
        let cursors = self.parts.cursors.cursors(self.parts.log.epoch, &ids, &[place.partition]).await?;
        let acknowledged =
            |agent: &Agent| cursors.iter().any(|(of, _, cursor)| *of == agent.id && cursor.acknowledged(place.position));
        let recipients =
            agents.into_iter().map(|agent| TraceRecipient { agent: agent.name.clone(), acknowledged: acknowledged(agent) });
        Ok((recipients.collect(), more))
    }
}

fn scheduled_for(id: Uuid, due_at: OffsetDateTime) -> Fault {
    let why = format!("message {id} is scheduled for {}, and was not sent yet", rfc3339(due_at));
    Fault::new(Code::FailedPrecondition, "MESSAGE_SCHEDULED", why)
}

fn too_long() -> Fault {
    Fault::unavailable("TRACE_TOO_LONG", "the log did not show the message in time: try again")
}

/// The rows of all mailboxes that the message is in.
fn rows(message: &Message, place: MessagePlace, log_time: OffsetDateTime) -> Vec<IndexEntry> {
    let row = |address| IndexEntry {
        address,
        partition: place.partition,
        position: place.position,
        log_time,
        expires_at: message.expires_at,
        sender: Some(message.from_id),
    };
    MailboxAddress::all_of(message).into_iter().map(row).collect()
}
