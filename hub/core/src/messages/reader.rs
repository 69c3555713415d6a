//! The one task that follows the messages log: puts records in order, judges them, and hands messages to whom they are for.
//! What it decides hangs on the log alone, so that every replica decides the same.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use super::{
    dedup::{DedupKey, Verdict},
    envelope::Envelope,
    indexer::IndexWork,
    life,
    logged::{Attached, Buffered, Command, Live, LoggedMessage, REQUEST, Seen},
    message::{Address, Message},
    parts::Parts,
    ports::{IndexEntry, MailboxAddress},
    position::{MessagePlace, Position, first_of, nth_of},
    record,
    trace::event::Happening,
};
use crate::{
    directory::{agent::AgentId, membership::began_by, snapshot::Snapshot},
    kit::budget::Queue,
    log::{
        bus::{Batch, Logged, Offset, Partition},
        sequencer::Sequencer,
    },
    metrics::traffic::DeliveryLatency,
};

/// Messages that wait in memory for one session; at this bound or that of their bytes the session goes back to the index.
const LIVE_MESSAGES: usize = 256;

#[derive(Debug)]
struct Route {
    session_epoch: u64,
    messages: mpsc::Sender<Buffered>,
    bytes: Queue,
}

impl Route {
    fn offer(&self, message: &Arc<LoggedMessage>) -> bool {
        let room = self.bytes.take(message.message.cost());
        room.is_some_and(|room| self.messages.try_send((message.clone(), room)).is_ok())
    }
}

/// When the log took a record, and the messages in it.
type Entry = (OffsetDateTime, Vec<Envelope>);

pub(super) struct Reader {
    pub(super) parts: Parts,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) index: mpsc::Sender<IndexWork>,
    /// Everything below was indexed before.
    pub(super) indexed: Vec<Position>,
    /// Where the log ended at the start: caught up from there on.
    pub(super) caught_up_at: Vec<Offset>,
    sequencers: Vec<Sequencer<Entry>>,
    /// Partitions that have a record of a newer hub next.
    halted: BTreeSet<Partition>,
    routes: HashMap<AgentId, Route>,
    delivery: DeliveryLatency,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The one that everything is delivered by.
    snapshot: Arc<Snapshot>,
}

impl Reader {
    pub(super) fn new(
        parts: Parts,
        commands: mpsc::Receiver<Command>,
        batches: mpsc::Receiver<Batch>,
        index: mpsc::Sender<IndexWork>,
        indexed: Vec<Position>,
        caught_up_at: Vec<Offset>,
        from: &[Offset],
    ) -> Self {
        let sequencers = from.iter().map(|offset| Sequencer::new(*offset)).collect();
        let mut snapshots = parts.directory.changes();
        let snapshot = snapshots.borrow_and_update().clone();
        Self {
            delivery: DeliveryLatency::new(&parts.metrics),
            parts,
            commands,
            batches,
            index,
            indexed,
            caught_up_at,
            sequencers,
            halted: BTreeSet::new(),
            routes: HashMap::new(),
            snapshots,
            snapshot,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.parts.lifecycle.stop.clone();
        self.check_caught_up();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.snapshots.changed() => match changed {
                    Ok(()) => self.follow_directory(),
                    Err(_) => return,
                },
                command = self.commands.recv() => match command {
                    Some(Command::Own { partition, offset, log_time, envelopes, turns }) => {
                        self.follow_directory();
                        let (mut ordered, mut next) = (Vec::new(), 0);
                        if let Some(sequencer) = self.sequencers.get_mut(partition as usize) {
                            next = sequencer.position();
                            // Another record was read at this offset: that one is lost, and its offset was given out again. Where its own was, whoever waited
                            // for it has an answer, and may wait once more by now: a message that was late is appended again.
                            let mut awaited = envelopes.iter().zip(&turns);
                            let appends = &self.parts.waiters.appends;
                            if offset < sequencer.position()
                                && awaited.any(|(envelope, turn)| appends.is_awaited(envelope.message.id, *turn))
                            {
                                return life::end(&self.parts, life::CUT);
                            }
                            let bytes = envelopes.iter().map(|envelope| envelope.message.cost()).sum();
                            sequencer.own(offset, (log_time, envelopes), bytes, &mut ordered);
                        }
                        self.handle(partition, next, ordered).await;
                    }
                    Some(Command::Attach { agent, session_epoch, answer }) => {
                        self.follow_directory();
                        // A caller that went away needs no answer; its route closes with the first message.
                        let _gone = answer.send(self.attach(agent, session_epoch));
                    }
                    None => return,
                },
                batch = self.batches.recv() => {
                    let Some(batch) = batch else { return };
                    self.follow_directory();
                    self.take(batch).await;
                }
            }
        }
    }

    /// From here on messages go to whom the newest snapshot says. A session whose agent joined a group goes back to the index: it
    /// missed what was logged between the join and now.
    fn follow_directory(&mut self) {
        let snapshot = self.parts.directory.snapshot();
        if Arc::ptr_eq(&snapshot, &self.snapshot) {
            return;
        }
        for member in snapshot.joins_since(&self.snapshot) {
            self.routes.remove(&member.agent);
        }
        self.snapshot = snapshot;
    }

    async fn take(&mut self, mut batch: Batch) {
        if self.halted.contains(&batch.partition) {
            return;
        }
        self.halt_at_newer(&mut batch);
        let mut ordered = Vec::new();
        let Some(sequencer) = self.sequencers.get_mut(batch.partition as usize) else { return };
        let position = sequencer.position();
        let read_at = OffsetDateTime::now_utc();
        if let Some(last) = batch.records.last() {
            self.parts.log.clock.showed(batch.partition, last.log_time, read_at);
        }
        let mut sent = None;
        let records = batch.records.into_iter().filter(|logged| logged.offset >= position).map(|logged| {
            let decoded = logged.record.value.as_ref().map(record::decode).transpose();
            let envelopes = decoded.unwrap_or_else(|error| {
                tracing::warn!(partition = logged.partition, offset = logged.offset, %error, "skipping a record");
                None
            });
            let envelopes = envelopes.unwrap_or_default();
            // What is replayed says when it was sent first.
            let first = envelopes.first().map(|envelope| &envelope.message).filter(|message| message.replayed_from.is_none());
            sent = first.map(|message| (message.sent_at, logged.log_time)).or(sent);
            (logged.offset, (logged.log_time, envelopes))
        });
        sequencer.tail(records, batch.next, &mut ordered);
        // The log took it between these times of two hubs, whose clocks agree better than the log's may with either. So a replica that sends nothing itself
        // knows that clock, too.
        if let Some((sent_at, log_time)) = sent {
            self.parts.log.clock.took(batch.partition, (sent_at, read_at), log_time);
        }
        let (partition, next) = (batch.partition, sequencer.position());
        let passed = ordered.last().is_none_or(|(offset, _)| offset + 1 < next);
        self.handle(partition, position, ordered).await;
        // What the log no longer holds has no rows: whoever waits for the index must not wait for that.
        if passed && !self.send_to_index(partition, first_of(next), None).await {
            return;
        }
        self.check_caught_up();
    }

    /// Reads no further than to a record that only a newer hub can read. It may be a message: a replica that skipped it would index past it, and whom
    /// it is for would never get it.
    fn halt_at_newer(&mut self, batch: &mut Batch) {
        let newer = |logged: &Logged| logged.record.value.as_ref().and_then(record::newer);
        let Some(at) = batch.records.iter().position(|logged| newer(logged).is_some()) else { return };
        batch.next = batch.records[at].offset;
        batch.records.truncate(at);
        self.halted.insert(batch.partition);
        tracing::error!(
            topic = %self.parts.log.topic.name,
            partition = batch.partition,
            offset = batch.next,
            "a newer hub wrote this record, and this replica can't read it: it reads no further"
        );
        // Agents go to replicas that can.
        self.parts.lifecycle.draining.cancel();
    }

    /// Handles what comes next in a partition, from `next` on. What lies between is no longer in the log.
    async fn handle(&mut self, partition: Partition, mut next: Offset, ordered: Vec<(Offset, Entry)>) {
        for (offset, (log_time, envelopes)) in ordered {
            if offset > next {
                self.parts.sums.forgotten(partition, first_of(offset));
            }
            next = offset + 1;
            let end = first_of(next);
            let mut last = None;
            for (number, envelope) in envelopes.into_iter().enumerate() {
                let position = nth_of(offset, number);
                for row in self.judge(partition, position, log_time, envelope) {
                    // Not past its position before it is known to be the last one there: the index must not go on without the others.
                    if let Some(row) = last.replace(row)
                        && !self.send_to_index(partition, position, Some(row)).await
                    {
                        return;
                    }
                }
            }
            if !self.send_to_index(partition, end, last).await {
                return;
            }
            if !self.parts.sums.read_to(partition, end) {
                tokio::select! {
                    () = self.parts.lifecycle.stop.cancelled() => return,
                    () = self.parts.sums.room() => {}
                }
            }
        }
        if let Some(sequencer) = self.sequencers.get(partition as usize) {
            if sequencer.position() > next {
                self.parts.sums.forgotten(partition, first_of(sequencer.position()));
            }
            self.parts.log.read_to(partition, sequencer.position());
        }
    }

    /// Tells the indexer how far a partition was read, unless it was indexed so far before. False where the indexer is gone.
    async fn send_to_index(&self, partition: Partition, next: Position, row: Option<IndexEntry>) -> bool {
        let indexed = self.indexed.get(partition as usize).copied().unwrap_or(0);
        (row.is_none() && next <= indexed) || self.index.send(IndexWork { partition, next, row }).await.is_ok()
    }

    /// What every reader decides about a message. The rows to index: one for each mailbox that it is in.
    fn judge(
        &mut self,
        partition: Partition,
        position: Position,
        log_time: OffsetDateTime,
        envelope: Envelope,
    ) -> Vec<IndexEntry> {
        if log_time - envelope.message.accepted_at > self.parts.config.max_append_delay {
            self.parts.waiters.appends.resolve(envelope.message.id, Seen::Stale(Box::new(envelope)));
            return Vec::new();
        }
        let Envelope { message, digest, method, account, original } = envelope;
        let id = message.id;
        let expires_at = self.parts.log.expires_at(partition, log_time, &message);
        let verdict = if message.idempotency_key.is_empty() {
            Verdict::First
        } else {
            let key = DedupKey::new(message.from_id, &method, &message.idempotency_key);
            let Some(mut window) = self.parts.windows.of(partition) else { return Vec::new() };
            // What was indexed before was read from the middle on: of the message that it repeats nothing may have been read.
            let original = original.filter(|_| self.indexed.get(partition as usize).is_some_and(|indexed| position < *indexed));
            window.see(key, &digest, id, log_time, original)
        };
        // What an administrator replays is no message that its first sender sends now.
        let counts = verdict == Verdict::First && message.replayed_from.is_none();
        // A hub that does not say so wrote it before: then by what is known now of who registered whom.
        let known = || self.parts.directory.snapshot().account(message.from_id).map_or(message.from_id, |agent| agent.id);
        let account = account.unwrap_or_else(known);
        let bytes = message.payload.len() as u64;
        self.parts.usage.logged(id, account, bytes, log_time, counts);
        if counts {
            self.parts.usage.logged_in_month((partition, position), account, bytes, log_time);
            self.parts.sums.logged((partition, position), account, bytes, log_time);
        }
        // Not what merely passes on where the reply to another's request goes.
        if method == REQUEST
            && !message.idempotency_key.is_empty()
            && let Some(Address::Request { request_id, .. }) = &message.reply_to
        {
            let mut replies = self.parts.waiters.replies();
            match verdict {
                Verdict::First => replies.asked(*request_id, log_time, expires_at),
                Verdict::Repeated(_) => replies.asked_again(*request_id, expires_at),
                Verdict::Conflict(_) => {}
            }
        }
        let first = verdict == Verdict::First;
        let (sender, place) = (message.from_id, MessagePlace { partition, position });
        let rows = if first { self.deliver(place, (log_time, expires_at), message) } else { Vec::new() };
        // The replica whose sender waits is the one that took the message.
        if self.parts.waiters.appends.resolve(id, Seen::Judged(verdict)) && first {
            self.parts.trace.note(place, Happening::Accepted, sender);
        }
        rows
    }

    fn deliver(
        &mut self,
        place: MessagePlace,
        (log_time, expires_at): (OffsetDateTime, OffsetDateTime),
        message: Message,
    ) -> Vec<IndexEntry> {
        let MessagePlace { partition, position } = place;
        if let Address::Request { request_id, .. } = &message.to {
            self.parts.waiters.replies().answered(*request_id, place, log_time);
            if self.parts.waiters.requests.resolve(*request_id, &message) {
                self.note_reply(place, &message);
            }
        }
        let addresses = MailboxAddress::all_of(&message);
        let sender = message.from_id;
        // What was indexed before, each session finds in the index.
        if addresses.is_empty() || self.indexed.get(partition as usize).is_none_or(|indexed| position < *indexed) {
            return Vec::new();
        }
        if !self.routes.is_empty() {
            let logged = Arc::new(LoggedMessage { partition, position, log_time, message: Arc::new(message) });
            let mut offered = false;
            for address in &addresses {
                offered |= self.fan_out(address, &logged);
            }
            if offered {
                let now = self.parts.log.clock.there(partition, OffsetDateTime::now_utc());
                self.delivery.took(now - logged.message.accepted_at);
            }
        }
        let row = |address| IndexEntry { address, partition, position, log_time, expires_at, sender: Some(sender) };
        addresses.into_iter().map(row).collect()
    }

    /// The caller of a request has its reply.
    fn note_reply(&self, place: MessagePlace, reply: &Message) {
        if let Address::Request { agent, .. } = &reply.to
            && let Some(caller) = self.snapshot.agent_named(agent)
        {
            self.parts.trace.note_attempt(place, Happening::Delivered, caller.id, 1);
        }
    }

    /// Whether somebody who is connected has it now.
    fn fan_out(&mut self, address: &MailboxAddress, logged: &Arc<LoggedMessage>) -> bool {
        let snapshot = &self.snapshot;
        let sender = logged.message.from_id;
        let at = self.parts.log.logged_at(snapshot, logged.partition, logged.log_time);
        let mut offered = false;
        let mut offer = |agent: AgentId| match self.routes.get(&agent).map(|route| route.offer(logged)) {
            Some(true) => offered = true,
            Some(false) => drop(self.routes.remove(&agent)),
            None => {}
        };
        match address {
            MailboxAddress::Agent(agent) => offer(*agent),
            MailboxAddress::Group(group) => {
                for member in snapshot.memberships(group) {
                    if member.covers(at) && member.agent != sender {
                        offer(member.agent);
                    }
                }
            }
            MailboxAddress::All => {
                for agent in snapshot.agents() {
                    if agent.id != sender && began_by(agent.created_at, at) {
                        offer(agent.id);
                    }
                }
            }
        }
        offered
    }

    fn attach(&mut self, agent: AgentId, session_epoch: u64) -> Option<Attached> {
        if self.routes.get(&agent).is_some_and(|route| route.session_epoch > session_epoch) {
            return None;
        }
        let (messages, receiver) = mpsc::channel(LIVE_MESSAGES);
        // A large message that does not fit is read from the log, when its agent takes it.
        let bytes = self.parts.memory.sessions.small_queue(self.parts.config.session_bytes);
        self.routes.insert(agent, Route { session_epoch, messages, bytes });
        // A partition that is late may still be read below what was indexed before.
        let position = |(sequencer, indexed): (&Sequencer<Entry>, &Position)| first_of(sequencer.position()).max(*indexed);
        let positions = self.sequencers.iter().zip(&self.indexed).map(position).collect();
        Some(Attached { positions, snapshot: self.snapshot.clone(), live: Live { messages: receiver } })
    }

    fn check_caught_up(&mut self) {
        if !self.halted.is_empty() {
            let waits = "a newer hub: this replica can't read what that one writes";
            self.parts.lifecycle.waits_for.send_replace(Some(waits.to_owned()));
            return;
        }
        if self.caught_up_at.is_empty() {
            return;
        }
        let missing: u64 =
            self.sequencers.iter().zip(&self.caught_up_at).map(|(sequencer, end)| end.saturating_sub(sequencer.position())).sum();
        if missing == 0 {
            self.caught_up_at = Vec::new();
        }
        let waits = (missing > 0).then(|| format!("the messages log: {missing} records to read"));
        self.parts.lifecycle.waits_for.send_replace(waits);
    }
}
