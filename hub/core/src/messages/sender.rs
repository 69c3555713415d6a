//! The way of a message into the log.

use std::{sync::Arc, time::Instant};

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    dedup::Verdict,
    envelope::Envelope,
    logged::{Command, REQUEST, SEND, Seen},
    message::{Address, MAX_ENVELOPE_BYTES, MAX_LIFETIME, Message, OutgoingMessage, Receipt, too_large},
    parts::{DRAIN, Parts},
    session::{NumberedMessage, Queued, SessionEvent},
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::{clock::truncated, quoted::quoted},
    log::{
        bus::{AppendError, Appended},
        partition::partition_of,
    },
};

/// Appends that wait to be seen, of all senders.
const MAX_WAITING: usize = 10_000;

/// Sends one message and waits until it was seen in order.
pub(super) async fn send(parts: &Parts, from: &Agent, message: OutgoingMessage, method: &str) -> Result<Receipt, Fault> {
    let began = Instant::now();
    let kind = message.kind.as_str();
    let bytes = message.payload.len();
    let receipt = append(parts, seal(parts, from, message, method)?).await?;
    parts.metrics.message(kind);
    parts.metrics.sent(&from.name, bytes);
    parts.metrics.latency("send", began.elapsed());
    Ok(receipt)
}

/// Checks a message and makes its envelope.
fn seal(parts: &Parts, from: &Agent, message: OutgoingMessage, method: &str) -> Result<Envelope, Fault> {
    let now = truncated(OffsetDateTime::now_utc());
    message.validate(now)?;
    let snapshot = parts.directory.snapshot();
    let to_id = recipient(&snapshot, &message.to)?;
    if let Address::Request { request_id, .. } = &message.to
        && parts.waiters.replies().is_over(*request_id, now)
    {
        let why = "the deadline of this request has passed: nobody waits for the reply, and it was not sent";
        return Err(Fault::new(Code::FailedPrecondition, "REQUEST_OVER", why));
    }
    if let Some(address) = &message.reply_to {
        recipient(&snapshot, address)?;
    }
    // A waiting caller's address is made by the hub, and differs with each try.
    let digest = if method == REQUEST {
        OutgoingMessage { reply_to: None, ..message.clone() }.digest(method)
    } else {
        message.digest(method)
    };
    let latest = now + MAX_LIFETIME;
    let traced = is_traceparent(&message.traceparent);
    let message = Message {
        id: Uuid::now_v7(),
        from_id: from.id,
        from: from.name.clone(),
        to: message.to,
        to_id,
        topic: message.topic,
        kind: message.kind,
        content_type: message.content_type,
        payload: message.payload,
        context_id: message.context_id,
        idempotency_key: message.idempotency_key,
        correlation_id: message.correlation_id,
        reply_to: message.reply_to,
        metadata: message.metadata,
        accepted_at: now,
        sent_at: now,
        expires_at: message.expires_at.map_or(latest, |at| truncated(at.min(latest))),
        // W3C: what can't be read is dropped, and the trace starts anew.
        tracestate: if traced && message.tracestate.len() <= 512 { message.tracestate } else { String::new() },
        traceparent: if traced { message.traceparent } else { String::new() },
        replayed_from: None,
    };
    Ok(Envelope { message, digest, method: method.to_owned() })
}

pub(super) fn recipient(snapshot: &Snapshot, address: &Address) -> Result<Option<AgentId>, Fault> {
    match address {
        Address::Agent(name) | Address::Request { agent: name, .. } => match snapshot.agent_named(name) {
            Some(agent) => Ok(Some(agent.id)),
            None => Err(unknown("agent", name)),
        },
        Address::Group(name) if !snapshot.has_group(name) => Err(unknown("group", name)),
        Address::Group(_) | Address::All => Ok(None),
    }
}

fn unknown(what: &str, name: &str) -> Fault {
    Fault::not_found("RECIPIENT_NOT_FOUND", format!("there is no {what} {}: see AgentRegistry.ListAgents", quoted(name)))
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex =
        |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    matches!(parts.as_slice(), [version, trace, span, flags]
        if hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && *version != "ff")
}

pub(super) async fn append(parts: &Parts, envelope: Envelope) -> Result<Receipt, Fault> {
    let record = envelope.record();
    let size = record.value.as_ref().map_or(0, bytes::Bytes::len);
    // What was small enough once is sent again, with what that adds.
    if size > MAX_ENVELOPE_BYTES && envelope.message.replayed_from.is_none() {
        return Err(too_large(size));
    }
    let id = envelope.message.id;
    let partition = partition_of(envelope.message.from_id.0, parts.log.partitions);
    let mut waiter = parts.waiters.appends.wait(id, MAX_WAITING).ok_or_else(too_many)?;
    let seen = tokio::time::timeout(parts.config.append_timeout, async {
        let pending = parts.log.bus.append(&parts.log.topic, partition, record).await.map_err(append_fault)?;
        match pending.await {
            Ok(Appended::At { offset, log_time }) => {
                let own = Command::Own { partition, offset, log_time, envelope: Arc::new(envelope) };
                // Where the reader is gone the waiter below says so.
                let _gone = parts.reader.send(own).await;
                Ok(waiter.answered().await)
            }
            Ok(Appended::Unknown) => Ok(waiter.answered().await),
            Err(AppendError::Unknown(why)) => {
                // It may be there all the same: the tail would show it soon.
                let grace = parts.config.append_timeout.min(std::time::Duration::from_secs(2));
                match tokio::time::timeout(grace, waiter.answered()).await {
                    Ok(seen) => Ok(seen),
                    Err(_) => Err(append_fault(AppendError::Unknown(why))),
                }
            }
            Err(error) => Err(append_fault(error)),
        }
    });
    let stopped = parts.lifecycle.stop.cancelled();
    let seen = tokio::select! {
        seen = seen => seen.map_err(|_| append_fault(AppendError::Unknown("the log did not answer in time".to_owned())))??,
        () = stopped => return Err(append_fault(AppendError::Unknown("the hub stops".to_owned()))),
    };
    match seen {
        Some(Seen::Judged(Verdict::First)) => Ok(Receipt { id, deduplicated: false }),
        Some(Seen::Judged(Verdict::Repeated(first))) => Ok(Receipt { id: first, deduplicated: true }),
        Some(Seen::Judged(Verdict::Conflict(first))) => Err(Fault::new(
            Code::AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
            format!("message {first} was sent with this idempotency key and differs: use a new key for a new message"),
        )),
        Some(Seen::Stale) => {
            Err(Fault::unavailable("MESSAGE_STALE", "the message reached the log too late and was dropped: send it again"))
        }
        None => Err(append_fault(AppendError::Unknown("the hub stops".to_owned()))),
    }
}

pub(super) fn too_many() -> Fault {
    let why = "too many messages are on their way into the log: send more slowly";
    Fault::new(Code::ResourceExhausted, "TOO_MANY_SENDS", why)
}

fn append_fault(error: AppendError) -> Fault {
    match error {
        AppendError::TooLarge { size, .. } => too_large(size),
        AppendError::Refused(why) => {
            Fault::unavailable("LOG_REFUSED", format!("the log did not take the message ({why}): send it again"))
        }
        AppendError::Unknown(why) => Fault::unavailable(
            "LOG_UNKNOWN",
            format!("it is not known whether the log has the message ({why}): send it again with the same idempotency key"),
        ),
    }
}

/// Sends what a session was given, one after another, so that nothing passes a message that failed.
pub(super) async fn serve(
    parts: Parts,
    agent: Arc<Agent>,
    mut messages: mpsc::Receiver<NumberedMessage>,
    events: mpsc::Sender<Queued>,
    ended: CancellationToken,
) {
    let mut failed = None;
    loop {
        let next = tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            // What was taken is still sent.
            () = ended.cancelled(), if !messages.is_closed() => {
                messages.close();
                continue;
            }
            next = messages.recv() => next,
        };
        let Some(NumberedMessage { sequence, message, room: _room }) = next else { return };
        let outcome = match failed {
            Some(at) if sequence > at => Err(Fault::new(
                Code::Aborted,
                "EARLIER_MESSAGE_FAILED",
                format!("message {at} of this session failed: send {at} again, the same or another, and then what follows it"),
            )),
            _ => send(&parts, &agent, message, SEND).await,
        };
        if outcome.is_ok() {
            failed = None;
        } else if failed.is_none_or(|at| sequence <= at) {
            failed = Some(sequence);
        }
        if events.send(SessionEvent::Sent { sequence, outcome }.into()).await.is_err() {
            return;
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
