//! One call that was let in, until its end: who calls, what it holds, and its audit record. Nothing here knows a protocol.

use std::sync::{Arc, Weak};

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    meter::Metered,
    open_calls::{Ending, OpenCall, OpenCalls, Reason},
    origin::Origin,
    rules::{Audited, Requirement, Rule},
};
use crate::{
    audit::{
        journal::Journal,
        record::{AuditRecord, Phase},
        refusals::{Refusals, Refused},
    },
    directory::{caller::Caller, refresher::Connected, trail::Trail},
    fault::Fault,
    kit::{
        clock::now,
        spans::{Span, SpanKind, Spans, TraceParent},
    },
    metrics::Metrics,
};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It did what it was for.
    Done,
    /// It failed.
    Failed {
        /// The code in lower case, such as `not_found`.
        code: &'a str,
        /// The stable reason, where there is one.
        reason: &'a str,
    },
    /// It was ended before its time.
    Ended(Reason),
}

/// Says what becomes of a call: in the audit trail where its operation is audited, in the hub's log, and in the metrics where it failed.
#[derive(Debug)]
pub(crate) struct Record {
    /// Names the call in the trail.
    pub(crate) id: Uuid,
    /// Has tenant, agent and correlation id.
    pub(crate) span: tracing::Span,
    pub(crate) rule: &'static Rule,
    pub(crate) origin: Origin,
    pub(crate) correlation: String,
    pub(crate) trail: Trail,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) journal: Journal,
    pub(crate) refusals: Refusals,
    pub(crate) spans: Spans,
    /// What of a trace the call is part of.
    pub(crate) parent: Option<TraceParent>,
    pub(crate) began: OffsetDateTime,
}

/// An outcome in the words of records.
struct Told<'a> {
    outcome: &'a str,
    reason: &'a str,
}

impl Outcome<'_> {
    fn told(&self) -> Told<'_> {
        match self {
            Self::Done => Told { outcome: "done", reason: "" },
            Self::Failed { code, reason } => Told { outcome: code, reason },
            Self::Ended(reason) => Told { outcome: "ended", reason: reason.fault().reason },
        }
    }
}

/// Its caller went away first.
const LEFT: Told<'_> = Told { outcome: "left", reason: "" };

impl Record {
    /// It was not let in. That is summed, whatever the operation.
    pub(crate) fn refused(&self, fault: &Fault) {
        self.count(fault.code.name());
        self.trace(Some(fault.reason));
        self.say(&Told { outcome: "refused", reason: fault.reason });
        self.sum(fault.reason);
    }

    fn sum(&self, reason: &str) {
        let agent = self.trail.facts().agent.map(|(id, name)| (Some(id), name));
        let (source, operation) = (Some(self.origin.source), self.rule.operation.name());
        self.refusals.add(Refused { source, agent, operation, reason: reason.to_owned() });
    }

    fn count(&self, code: &str) {
        self.metrics.error(self.rule.operation.name(), code);
    }

    fn counted(&self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Done => {
                if self.rule.audited == Audited::Login {
                    self.metrics.login(self.rule.operation.name());
                }
                self.trace(None);
            }
            Outcome::Failed { code, reason } => {
                self.count(code);
                self.trace(Some(if reason.is_empty() { code } else { reason }));
            }
            Outcome::Ended(reason) => {
                let fault = reason.fault();
                self.count(fault.code.name());
                self.trace(Some(fault.reason));
            }
        }
    }

    /// Tells whoever collects traces of the call.
    fn trace(&self, failed: Option<&str>) {
        let method = self.rule.bindings.grpc.trim_start_matches('/');
        // Who has not proved who it is does not decide what is collected.
        let parent = self.parent.filter(|_| self.trail.facts().agent.is_some());
        self.spans.tell(parent, || {
            let mut attributes = vec![
                ("rpc.system", "grpc".to_owned()),
                ("rpc.method", method.to_owned()),
                ("acb.correlation_id", self.correlation.clone()),
                ("acb.replica", self.journal.replica().to_owned()),
            ];
            attributes.extend(self.trail.facts().agent.map(|(_, name)| ("acb.agent", name)));
            attributes.extend(failed.map(|reason| ("error.type", reason.to_owned())));
            Span {
                name: method.to_owned(),
                kind: SpanKind::Server,
                parent,
                began: self.began,
                ended: now(),
                attributes,
                failed: failed.map(str::to_owned),
            }
        });
    }

    /// The record of one moment of the call.
    fn record(&self, phase: Phase, told: &Told<'_>) -> AuditRecord {
        let facts = self.trail.facts();
        let (agent_id, agent) = facts.agent.map(|(id, name)| (Some(id), name)).unwrap_or_default();
        AuditRecord {
            call: self.id,
            phase,
            at: now(),
            replica: self.journal.replica().to_owned(),
            operation: self.rule.operation.name().to_owned(),
            agent_id,
            agent,
            key: facts.key.unwrap_or_default(),
            object: facts.object.unwrap_or_default(),
            version: facts.version.unwrap_or(0),
            bytes: facts.bytes,
            source: self.origin.address.map(|address| address.to_string()).unwrap_or_default(),
            outcome: told.outcome.to_owned(),
            reason: told.reason.to_owned(),
            correlation_id: self.correlation.clone(),
            count: 0,
            change: String::new(),
        }
    }

    /// What comes last of a call.
    fn last(&self) -> Phase {
        if self.rule.answers_many { Phase::End } else { Phase::Outcome }
    }

    /// The last of an audited call, which no one waits for.
    fn ended(&self, told: &Told<'_>) {
        match self.rule.audited {
            Audited::Not => {}
            // It took tokens away from somebody: that is more than a refusal.
            Audited::Login if self.trail.facts().revoked => self.journal.queue(&self.record(Phase::Outcome, told)),
            // Nobody was proved: it is as good as refused.
            Audited::Login => self.sum(if told.reason.is_empty() { told.outcome } else { told.reason }),
            Audited::Change | Audited::Read => self.journal.queue(&self.record(self.last(), told)),
        }
        if self.rule.audited != Audited::Not {
            self.say(told);
        }
    }

    /// A line of the hub's log.
    fn say(&self, told: &Told<'_>) {
        let facts = self.trail.facts();
        self.span.in_scope(|| {
            // Only a login learns after its admission whose it is.
            if let Some((_, agent)) = facts.agent.filter(|_| self.rule.access == Requirement::Public) {
                self.span.record("agent", agent);
            }
            let (key, object, version) = (facts.key.as_deref(), facts.object.as_deref(), facts.version);
            let (method, peer) = (self.rule.operation.name(), self.origin.address.map(tracing::field::display));
            let (outcome, reason) = (told.outcome, Some(told.reason).filter(|reason| !reason.is_empty()));
            tracing::info!(target: "acb::audit", method, outcome, reason, object, version, key, peer);
        });
    }
}

/// A call that was let in. Dropped before it is settled, it is recorded as left by its caller. That is no failure of ours, and often how a stream
/// ends.
#[derive(Debug)]
pub struct Call {
    record: Record,
    settled: bool,
    caller: Option<Caller>,
    metered: Metered,
    open_calls: OpenCalls,
    open: Option<OpenCall>,
    _connected: Option<Connected>,
}

impl Call {
    pub(crate) fn new(
        record: Record,
        caller: Option<Caller>,
        metered: Metered,
        open_calls: OpenCalls,
        connected: Option<Connected>,
    ) -> Self {
        Self { record, settled: false, caller, metered, open_calls, open: None, _connected: connected }
    }

    /// What its operation needs.
    #[must_use]
    pub fn rule(&self) -> &'static Rule {
        self.record.rule
    }

    /// By what it is found in the hub's log and in the audit trail.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.record.correlation
    }

    /// Who calls. `None` only for public operations.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.record.origin
    }

    /// What its services fill for the record.
    #[must_use]
    pub fn trail(&self) -> &Trail {
        &self.record.trail
    }

    /// What it counts to.
    #[must_use]
    pub fn metered(&self) -> &Metered {
        &self.metered
    }

    /// From here on the call is ended once its caller has no right to it any more. One of no caller has nothing to lose.
    pub fn ends_with_rights(&mut self, ending: Weak<dyn Ending>) {
        self.open = self.caller.as_ref().map(|caller| self.open_calls.enter(self.record.rule, caller, ending));
    }

    /// It can't be carried out, as its protocol found before anything handled it.
    pub fn refuse(mut self, fault: &Fault) {
        self.settled = true;
        self.record.refused(fault);
    }

    /// To be awaited before anything handles it. A change must not be made where its intent can't be recorded.
    ///
    /// # Errors
    /// Where it must not be carried out.
    pub async fn intend(&mut self) -> Result<(), Fault> {
        if self.record.rule.audited != Audited::Change {
            return Ok(());
        }
        let phase = if self.record.rule.answers_many { Phase::Begin } else { Phase::Intent };
        self.must_write(phase, &NOT_YET).await
    }

    /// To be awaited before the first byte of an answer that goes on: what becomes of it will be known later.
    ///
    /// # Errors
    /// Where nothing of the answer may reach the caller.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        if self.record.rule.audited == Audited::Read {
            self.must_write(Phase::Begin, &NOT_YET).await?;
        }
        if self.record.rule.audited != Audited::Not {
            self.record.say(&Told { outcome: "begun", reason: "" });
        }
        Ok(())
    }

    /// To be awaited before the first byte of an answer that is known as a whole.
    ///
    /// # Errors
    /// Where nothing of the answer may reach the caller.
    pub async fn answer(&mut self, outcome: Outcome<'_>) -> Result<(), Fault> {
        let is_proven = || self.record.trail.facts().agent.is_some() && outcome == Outcome::Done;
        let waits = match self.record.rule.audited {
            Audited::Read => true,
            Audited::Login => is_proven(),
            Audited::Not | Audited::Change => false,
        };
        if waits && !self.settled {
            let told = outcome.told();
            self.must_write(Phase::Outcome, &told).await?;
            self.settled = true;
            self.record.counted(outcome);
            self.record.say(&told);
        } else {
            self.settle(outcome);
        }
        Ok(())
    }

    /// Records what became of it, if that is not recorded yet. Nobody waits for that.
    pub fn settle(&mut self, outcome: Outcome<'_>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        self.record.counted(outcome);
        self.record.ended(&outcome.told());
        // As a refusal, of any operation: the right to the call was taken away.
        if outcome == Outcome::Ended(Reason::AccessEnded) && self.record.rule.audited == Audited::Not {
            let told = outcome.told();
            self.record.say(&told);
            self.record.sum(told.reason);
        }
    }

    /// Writes a record without which the call must not go on. Where it can't be written that is the end of the call.
    async fn must_write(&mut self, phase: Phase, told: &Told<'_>) -> Result<(), Fault> {
        let written = self.record.journal.write(&self.record.record(phase, told)).await;
        if let Err(fault) = &written {
            let failed = Outcome::Failed { code: fault.code.name(), reason: fault.reason };
            if self.record.rule.audited == Audited::Login {
                // It was proved, and so is no refusal.
                self.settled = true;
                self.record.counted(failed);
                self.record.say(&failed.told());
            } else {
                self.settle(failed);
            }
        }
        written
    }
}

/// What becomes of it is not known yet.
const NOT_YET: Told<'_> = Told { outcome: "", reason: "" };

impl Drop for Call {
    fn drop(&mut self) {
        if !self.settled {
            self.record.trace(None);
            self.record.ended(&LEFT);
        }
    }
}
