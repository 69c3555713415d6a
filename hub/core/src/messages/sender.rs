//! The way of a message into the log.

use std::time::Instant;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    dedup::{DedupKey, Verdict},
    envelope::Envelope,
    logged::{Command, REQUEST, Seen},
    message::{Address, MAX_ENVELOPE_BYTES, MAX_LIFETIME, Message, OutgoingMessage, Receipt, too_large},
    parts::{Parts, stopping},
    pending::Waiter,
    recipients::{Wants, resolve},
    record,
    trace::spans::Traced,
    usage::Reserved,
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        request_size::RequestSize,
        snapshot::Snapshot,
    },
    fault::{Code, Fault},
    kit::{
        clock::truncated,
        spans::{SpanKind, TraceParent},
    },
    log::{
        bus::{AppendError, Appended, Partition, Record},
        partition::partition_of,
    },
    metrics::traffic::SenderMetrics,
};

/// Appends that wait to be seen, of all senders.
const MAX_WAITING: usize = 100_000;
/// The reason where an append may be in the log, or not.
const UNKNOWN: &str = "LOG_UNKNOWN";
/// The reason where an append is not in the log.
const REFUSED: &str = "LOG_REFUSED";
/// What was known of a partition's clock is wrong, where it is off by more.
const OFF: Duration = Duration::SECOND;

/// Whose limits a sender is under, as they are known now: a session lasts, and they may have changed since.
fn account<'a>(snapshot: &'a Snapshot, from: &'a Agent) -> &'a Agent {
    snapshot.account(from.id).map_or(from, |agent| agent)
}

/// On whose account a message of this sender is, where that is not its own.
pub(super) fn account_of(snapshot: &Snapshot, from: &Agent) -> Option<AgentId> {
    snapshot.registered_by(from.id).map(|registrar| registrar.id)
}

/// Whether this replica may put one more message of the agent on its way into the log.
pub(super) fn may_begin(parts: &Parts, from: &Agent) -> bool {
    let snapshot = parts.directory.snapshot();
    let account = account(&snapshot, from);
    parts.usage.may_begin(account.id, account.limits, snapshot.limits)
}

/// Waits until it may.
pub(super) async fn begin(parts: &Parts, from: &Agent) {
    let snapshot = parts.directory.snapshot();
    let account = account(&snapshot, from);
    parts.usage.begin(account.id, account.limits, snapshot.limits).await;
}

/// Sends one message and waits until it was seen in order.
pub(super) async fn send(parts: &Parts, from: &Agent, message: OutgoingMessage, method: &str) -> Result<Receipt, Fault> {
    begin(parts, from).await;
    let envelope = match seal(parts, from, message, method, truncated(OffsetDateTime::now_utc()))? {
        Sealed::New(envelope) => *envelope,
        Sealed::Known(receipt) => return Ok(receipt),
    };
    append(parts, vec![envelope], &mut SenderMetrics::new(&parts.metrics, &from.name))
        .await
        .pop()
        .unwrap_or_else(|| Err(stopping()))
}

/// What is to be done with a message.
#[derive(Debug)]
pub(super) enum Sealed {
    /// It goes into the log.
    New(Box<Envelope>),
    /// It repeats one that is there. It does not go into the log again, where it would count for nothing and be limited by nothing.
    Known(Receipt),
}

/// Checks a message and makes its envelope.
pub(super) fn seal(
    parts: &Parts,
    from: &Agent,
    message: OutgoingMessage,
    method: &str,
    now: OffsetDateTime,
) -> Result<Sealed, Fault> {
    message.validate(now)?;
    let snapshot = parts.directory.snapshot();
    let to_ids = recipients(parts, &snapshot, from, &message, method, now)?;
    // A waiting caller's address is made by the hub, and differs with each try.
    let reply_to = message.reply_to.as_ref().filter(|_| method != REQUEST);
    // Nothing is compared with what has no key.
    let digest = if message.idempotency_key.is_empty() { [0; 32] } else { message.digest(method, reply_to) };
    let id = Uuid::now_v7();
    let partition = partition_of(from.id.0, parts.log.partitions);
    let accepted_at = parts.log.clock.there(partition, now);
    let key = (!message.idempotency_key.is_empty()).then(|| DedupKey::new(from.id, method, &message.idempotency_key));
    if let Some(key) = &key
        && let Some(verdict) = parts.windows.of(partition).and_then(|window| window.recall(key, &digest, accepted_at))
        && !(verdict.is_repeated() && waits_longer(parts, &message))
    {
        return receipt(id, Some(Seen::Judged(verdict))).map(Sealed::Known);
    }
    let bytes = message.payload.len();
    let fits = RequestSize::of(account(&snapshot, from), (&parts.config.tenant, snapshot.limits))
        .map_or(Ok(()), |size| size.check(bytes as u64));
    if let Err(fault) = fits.and_then(|()| reserve(parts, from, id, bytes, accepted_at)) {
        // What is there is not sent a second time: who asks what became of it is told.
        let is_there = key.is_some_and(|key| parts.windows.of(partition).is_some_and(|window| window.knows(&key)));
        if !is_there {
            parts.metrics.limited(&fault);
            return Err(fault);
        }
    }
    let latest = now + MAX_LIFETIME;
    let expires_at = message.expires_at.map_or(latest, |at| truncated(at.min(latest)));
    let message = message_of(from, message, to_ids, id, Times { accepted_at, sent_at: now, expires_at });
    let account = account_of(&snapshot, from);
    let original = key.and_then(|key| parts.windows.of(partition)?.original(&key));
    Ok(Sealed::New(Box::new(Envelope { message, digest, method: method.to_owned(), account, original })))
}

/// Whether the caller of a request waits longer for the reply than the replicas know, which would refuse it then: only the log tells them.
fn waits_longer(parts: &Parts, message: &OutgoingMessage) -> bool {
    let (Some(Address::Request { request_id, .. }), Some(until)) = (&message.reply_to, message.expires_at) else { return false };
    parts.waiters.replies().waits_longer(*request_id, until)
}

/// Reserves what the limits leave for a message with so many bytes. `now` is what the log's clock shows.
pub(super) fn reserve(parts: &Parts, from: &Agent, id: Uuid, bytes: usize, now: OffsetDateTime) -> Result<(), Fault> {
    let snapshot = parts.directory.snapshot();
    let limits = (parts.config.tenant.as_str(), snapshot.limits);
    parts.usage.reserve(id, account(&snapshot, from), limits, bytes as u64, now)
}

/// The agents that a message is for by name, where each of its addresses can be sent to.
pub(super) fn recipients(
    parts: &Parts,
    snapshot: &Snapshot,
    from: &Agent,
    message: &OutgoingMessage,
    method: &str,
    now: OffsetDateTime,
) -> Result<Vec<AgentId>, Fault> {
    let wants = if method == REQUEST { Wants::Reply } else { Wants::Delivery };
    let to_ids = resolve(snapshot, Some(from.id), &message.to, wants)?;
    if let Address::Request { request_id, .. } = &message.to
        && parts.waiters.replies().is_over(*request_id, now)
    {
        let why = "the deadline of this request has passed: nobody waits for the reply, and it was not sent";
        return Err(Fault::new(Code::FailedPrecondition, "REQUEST_OVER", why));
    }
    if let Some(address) = &message.reply_to {
        if matches!(address, Address::Agents(_)) {
            let why = "reply_to names one agent, a group or all: nothing was sent";
            return Err(Fault::invalid("RECIPIENTS_INVALID", why));
        }
        // Whoever answers sends to it, and not this sender.
        resolve(snapshot, None, address, Wants::Delivery)?;
    }
    Ok(to_ids)
}

/// When a message was taken and sent, and until when it lives.
pub(super) struct Times {
    pub(super) accepted_at: OffsetDateTime,
    pub(super) sent_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
}

/// The message as its receiver gets it.
pub(super) fn message_of(from: &Agent, message: OutgoingMessage, to_ids: Vec<AgentId>, id: Uuid, times: Times) -> Message {
    let Times { accepted_at, sent_at, expires_at } = times;
    let traced = TraceParent::parse(&message.traceparent).is_some();
    // What follows from a message that names none is found by the message's own id.
    let correlation_id = if message.correlation_id.is_empty() { id.to_string() } else { message.correlation_id };
    Message {
        id,
        from_id: from.id,
        from: from.name.clone(),
        to: message.to,
        to_ids,
        topic: message.topic,
        kind: message.kind,
        content_type: message.content_type,
        payload: message.payload,
        context_id: message.context_id,
        idempotency_key: message.idempotency_key,
        correlation_id,
        reply_to: message.reply_to,
        metadata: message.metadata,
        accepted_at,
        sent_at,
        expires_at,
        // W3C: what can't be read is dropped, and the trace starts anew.
        tracestate: if traced && message.tracestate.len() <= 512 { message.tracestate } else { String::new() },
        traceparent: if traced { message.traceparent } else { String::new() },
        replayed_from: None,
    }
}

/// Appends one message, for whoever sent it. It was sealed when this machine's clock showed `sealed_at`.
pub(super) async fn append_one(parts: &Parts, envelope: Envelope, sealed_at: OffsetDateTime) -> Result<Receipt, Fault> {
    let (id, kind) = (envelope.message.id, envelope.message.kind.as_str());
    let seen = append_record(parts, vec![envelope], sealed_at).await?;
    let receipt = receipt(id, seen.into_iter().next().flatten())?;
    parts.metrics.message(kind);
    Ok(receipt)
}

/// Appends messages of one sender as one record, and waits until each was seen in order. Where the record is not taken, the first has the
/// fault, and there is no answer for the others. Where that is not known, all have it: each may be in the log.
pub(super) async fn append(parts: &Parts, envelopes: Vec<Envelope>, metrics: &mut SenderMetrics) -> Vec<Result<Receipt, Fault>> {
    let began = Instant::now();
    let Some(sealed_at) = envelopes.first().map(|envelope| envelope.message.sent_at) else { return Vec::new() };
    let _reserved = Reserved(parts.usage.clone(), envelopes.iter().map(|envelope| envelope.message.id).collect());
    let sent: Vec<_> =
        envelopes.iter().map(|Envelope { message, .. }| (message.id, message.kind.as_str(), message.payload.len())).collect();
    let now = OffsetDateTime::now_utc();
    let traced = |Envelope { message, .. }: &Envelope| {
        Traced::of(&parts.config.spans, message, now).map(|traced| (message.id, message.from.clone(), traced))
    };
    let traced: Vec<_> = envelopes.iter().filter_map(traced).collect();
    let seen = match append_record(parts, envelopes, sealed_at).await {
        Ok(seen) => seen,
        Err(fault) if fault.reason == UNKNOWN => return vec![Err(fault); sent.len()],
        Err(fault) => return vec![Err(fault)],
    };
    let receipts = sent.into_iter().zip(seen).map(|((id, kind, bytes), seen)| {
        let receipt = receipt(id, seen)?;
        metrics.sent(kind, bytes, began.elapsed());
        Ok(receipt)
    });
    let receipts: Vec<_> = receipts.collect();
    let ended = OffsetDateTime::now_utc();
    for (id, from, traced) in traced {
        // What failed has no receipt to be told by, and its sender hears why.
        if receipts.iter().flatten().any(|receipt| receipt.id == id) {
            traced.tell(parts, "publish", SpanKind::Producer, &from, ended);
        }
    }
    receipts
}

/// Appends one record, and says how each of its messages was judged. Where it was sealed by a wrong clock, it may be dropped for being late that is
/// not: with what is known of the partition's clock now it goes in once more, as its messages were not taken.
async fn append_record(parts: &Parts, envelopes: Vec<Envelope>, sealed_at: OffsetDateTime) -> Result<Vec<Option<Seen>>, Fault> {
    let Some(Envelope { message: first, .. }) = envelopes.first() else { return Ok(Vec::new()) };
    let (partition, accepted_at) = (partition_of(first.from_id.0, parts.log.partitions), first.accepted_at);
    let seen = append_once(parts, partition, envelopes).await?;
    let is_stale = |seen: &Option<Seen>| matches!(seen, Some(Seen::Stale(_)));
    if !seen.iter().all(is_stale) || parts.log.clock.there(partition, sealed_at) - accepted_at <= OFF {
        return Ok(seen);
    }
    let now = parts.log.clock.there(partition, truncated(OffsetDateTime::now_utc()));
    let again = seen.into_iter().filter_map(|seen| match seen {
        Some(Seen::Stale(mut envelope)) => {
            envelope.message.accepted_at = now;
            Some(*envelope)
        }
        _ => None,
    });
    append_once(parts, partition, again.collect()).await
}

async fn append_once(parts: &Parts, partition: Partition, mut envelopes: Vec<Envelope>) -> Result<Vec<Option<Seen>>, Fault> {
    let size_of = |record: &Record| record.value.as_ref().map_or(0, bytes::Bytes::len);
    let mut record = record::encode(&envelopes);
    // What was small enough at first is sent again: what the hub adds to a repetition must not have it refused.
    if size_of(&record) > MAX_ENVELOPE_BYTES && envelopes.iter().any(|envelope| envelope.original.is_some()) {
        envelopes.iter_mut().for_each(|envelope| envelope.original = None);
        record = record::encode(&envelopes);
    }
    let size = size_of(&record);
    // What was small enough once is sent again, with what that adds.
    if size > MAX_ENVELOPE_BYTES && envelopes.iter().any(|envelope| envelope.message.replayed_from.is_none()) {
        return Err(too_large(size));
    }
    let wait = |envelope: &Envelope| parts.waiters.appends.wait(envelope.message.id, MAX_WAITING);
    let mut waiters = envelopes.iter().map(wait).collect::<Option<Vec<_>>>().ok_or_else(too_many)?;
    let turns = waiters.iter().map(Waiter::turn).collect();
    let mut answers = async || {
        let mut answers = Vec::with_capacity(waiters.len());
        for waiter in &mut waiters {
            answers.push(waiter.answered().await);
        }
        answers
    };
    let seen = tokio::time::timeout(parts.config.append_timeout, async {
        let topic = &parts.log.topic;
        let began = OffsetDateTime::now_utc();
        let pending = topic.bus.append(&topic.name, partition, record).await.map_err(append_fault)?;
        match pending.await {
            Ok(Appended::At { offset, log_time }) => {
                parts.log.clock.took(partition, (began, OffsetDateTime::now_utc()), log_time);
                let own = Command::Own { partition, offset, log_time, envelopes, turns };
                // Where the reader is gone the waiters below say so.
                let _gone = parts.reader.send(own).await;
                Ok(answers().await)
            }
            Ok(Appended::Unknown) => Ok(answers().await),
            Err(AppendError::Unknown(why)) => {
                // It may be there all the same: the tail would show it soon.
                let grace = parts.config.append_timeout.min(std::time::Duration::from_secs(2));
                match tokio::time::timeout(grace, answers()).await {
                    Ok(seen) => Ok(seen),
                    Err(_) => Err(append_fault(AppendError::Unknown(why))),
                }
            }
            Err(error) => Err(append_fault(error)),
        }
    });
    tokio::select! {
        seen = seen => seen.map_err(|_| append_fault(AppendError::Unknown("the log did not answer in time".to_owned())))?,
        () = parts.lifecycle.stop.cancelled() => Err(append_fault(AppendError::Unknown("the hub stops".to_owned()))),
    }
}

/// What the sender of a message is told.
fn receipt(id: Uuid, seen: Option<Seen>) -> Result<Receipt, Fault> {
    match seen {
        Some(Seen::Judged(Verdict::First)) => Ok(Receipt { id, deduplicated: false }),
        Some(Seen::Judged(Verdict::Repeated(first))) => Ok(Receipt { id: first, deduplicated: true }),
        Some(Seen::Judged(Verdict::Conflict(first))) => Err(Fault::new(
            Code::AlreadyExists,
            "IDEMPOTENCY_KEY_REUSED",
            format!("message {first} was sent with this idempotency key and differs: use a new key for a new message"),
        )),
        Some(Seen::Stale(_)) => {
            Err(Fault::unavailable("MESSAGE_STALE", "the message reached the log too late and was dropped: send it again"))
        }
        None => Err(append_fault(AppendError::Unknown("the hub stops".to_owned()))),
    }
}

/// For a message of whose append nothing is known.
pub(super) fn unanswered() -> Fault {
    append_fault(AppendError::Unknown("the log did not answer".to_owned()))
}

/// Whether the log took an append, whatever became of its messages there.
pub(super) fn is_taken<T>(sent: &Result<T, Fault>) -> bool {
    !matches!(sent, Err(fault) if fault.reason == UNKNOWN || fault.reason == REFUSED)
}

/// Whether it is certain that nothing of an append is in the log, or on its way there.
pub(super) fn is_refused<T>(sent: &Result<T, Fault>) -> bool {
    matches!(sent, Err(fault) if fault.reason == REFUSED)
}

pub(super) fn too_many() -> Fault {
    let why = "too many messages are on their way into the log: send more slowly";
    Fault::new(Code::ResourceExhausted, "TOO_MANY_SENDS", why)
}

fn append_fault(error: AppendError) -> Fault {
    match error {
        AppendError::TooLarge { size, .. } => too_large(size),
        AppendError::Refused(why) => {
            Fault::unavailable(REFUSED, format!("the log did not take the message ({why}): send it again"))
        }
        AppendError::Unknown(why) => Fault::unavailable(
            UNKNOWN,
            format!("it is not known whether the log has the message ({why}): send it again with the same idempotency key"),
        ),
    }
}
