//! One call that was let in, until its end: who calls, what it holds, and its audit record. Nothing here knows a protocol.

use std::sync::{Arc, Weak};

use tracing::Span;

use super::{
    meter::Metered,
    open_calls::{Ending, OpenCall, OpenCalls},
    origin::Origin,
    rules::{Access, Rule},
};
use crate::{
    directory::{caller::Caller, refresher::Connected, trail::Trail},
    fault::{Code, Fault},
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
    /// Its caller lost the right to it.
    AccessEnded,
}

/// Says once what became of a call: in the audit log where its operation is audited, and in the metrics where it failed.
#[derive(Debug)]
pub(crate) struct Record {
    /// Has tenant, agent and correlation id.
    pub(crate) span: Span,
    pub(crate) rule: &'static Rule,
    pub(crate) origin: Origin,
    pub(crate) trail: Trail,
    pub(crate) metrics: Arc<Metrics>,
}

impl Record {
    /// It was not let in. That is always recorded.
    pub(crate) fn refused(&self, fault: &Fault) {
        self.count(fault.code.name());
        self.write("refused", Some(fault.reason));
    }

    fn settle(&self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Done => self.say("done", None),
            Outcome::Failed { code, reason } => {
                self.count(code);
                self.say(code, Some(reason).filter(|reason| !reason.is_empty()));
            }
            // As a refusal, always: the right to the call was taken away.
            Outcome::AccessEnded => {
                let fault = access_ended();
                self.count(fault.code.name());
                self.write("ended", Some(fault.reason));
            }
        }
    }

    fn count(&self, code: &str) {
        self.metrics.error(self.rule.operation.name(), code);
    }

    fn say(&self, outcome: &str, reason: Option<&str>) {
        if self.rule.audited {
            self.write(outcome, reason);
        }
    }

    fn write(&self, outcome: &str, reason: Option<&str>) {
        let facts = self.trail.facts();
        self.span.in_scope(|| {
            // Only a login learns after its admission whose it is.
            if let Some(agent) = facts.agent.filter(|_| self.rule.access == Access::Public) {
                self.span.record("agent", agent);
            }
            let (key, object, version) = (facts.key.as_deref(), facts.object.as_deref(), facts.version);
            let (method, peer) = (self.rule.operation.name(), self.origin.address.map(tracing::field::display));
            tracing::info!(target: "acb::audit", method, outcome, reason, object, version, key, peer);
        });
    }
}

/// What a caller hears at the end of its rights.
#[must_use]
pub fn access_ended() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "ACCESS_ENDED",
        "the access token has expired, or the agent's rights have changed: get a new token and call again",
    )
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

    /// Who calls. `None` only for public operations.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
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

    /// It begins, and what becomes of it will be known later.
    pub fn begun(&self) {
        self.record.say("begun", None);
    }

    /// Records what became of it, if that is not recorded yet.
    pub fn settle(&mut self, outcome: Outcome<'_>) {
        if !std::mem::replace(&mut self.settled, true) {
            self.record.settle(outcome);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.settled {
            self.record.say("left", None);
        }
    }
}
