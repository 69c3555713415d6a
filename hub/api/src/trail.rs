//! The audit record of a call: who called, what it was about, and what became of it, when that is known. Nothing here knows a protocol.

use std::{
    fmt::Display,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use acb_hub_core::{door::rules::Rule, metrics::Metrics};
use http::Extensions;
use tracing::Span;

/// What only the one who handles a call knows of it. It comes with the request; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trail(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    agent: Option<String>,
    key: Option<String>,
    object: Option<String>,
}

impl Trail {
    /// The one of this request.
    #[must_use]
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// The agent that a credential turned out to be of.
    pub fn agent(&self, name: &str) {
        self.lock().agent = Some(name.to_owned());
    }

    /// The prefix of the API key that was shown, or that a token came from.
    pub fn key(&self, prefix: &str) {
        self.lock().key = Some(prefix.to_owned());
    }

    /// What the call is about, such as `context 0190…`.
    pub fn object(&self, kind: &str, id: impl Display) {
        self.lock().object = Some(format!("{kind} {id}"));
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says once what became of a call: in the audit log where its method is audited, and in the metrics where it failed. Dropped before that, it says that
/// the caller left. That is no failure of ours, and often how a stream ends.
#[derive(Debug)]
pub(crate) struct Record {
    call: Call,
    open: bool,
}

/// Whose record it is.
#[derive(Debug)]
pub(crate) struct Call {
    /// Has tenant, agent and correlation id.
    pub(crate) span: Span,
    pub(crate) rule: &'static Rule,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) trail: Trail,
    pub(crate) metrics: Arc<Metrics>,
}

impl Record {
    pub(crate) fn new(call: Call) -> Self {
        Self { call, open: true }
    }

    /// It was not let in. That is always recorded.
    pub(crate) fn refused(mut self, code: &str, reason: &str) {
        self.open = false;
        self.call.metrics.error(self.call.rule.method(), code);
        self.call.write("refused", Some(reason));
    }

    /// It begins, and what becomes of it will be known later.
    pub(crate) fn begun(&self) {
        self.say("begun", None);
    }

    /// It is over, and did what it was for.
    pub(crate) fn done(mut self) {
        self.open = false;
        self.say("done", None);
    }

    /// It failed.
    pub(crate) fn failed(mut self, code: &str, reason: &str) {
        self.open = false;
        self.call.metrics.error(self.call.rule.method(), code);
        self.say(code, Some(reason).filter(|reason| !reason.is_empty()));
    }

    fn say(&self, outcome: &str, reason: Option<&str>) {
        if self.call.rule.audited {
            self.call.write(outcome, reason);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.open {
            self.say("left", None);
        }
    }
}

impl Call {
    fn write(&self, outcome: &str, reason: Option<&str>) {
        let facts = self.trail.lock();
        self.span.in_scope(|| {
            if let Some(agent) = &facts.agent {
                self.span.record("agent", agent);
            }
            let (key, object) = (facts.key.as_deref(), facts.object.as_deref());
            let (method, peer) = (self.rule.method(), self.address.map(tracing::field::display));
            tracing::info!(target: "acb::audit", method, outcome, reason, object, key, peer);
        });
    }
}
