//! The one door: every request of every protocol passes [`Arrival::admit`] before anything handles it. Who calls is proved, the right to the
//! operation is looked up, and the call is metered; what is refused is recorded, by name where the caller has one.

use std::sync::Arc;

use time::OffsetDateTime;
use tracing::Span;
use uuid::Uuid;

use super::{
    access_token::{Claims, Tokens, invalid_token},
    call::{Call, Record},
    meter::Meter,
    open_calls::OpenCalls,
    origin::Origin,
    request_counts::RequestLimits,
    rules::{Requirement, Rule},
};
use crate::{
    audit::{journal::Journal, refusals::Refusals},
    directory::{
        agent::Agent,
        caller::{Caller, lacks},
        refresher::Refresher,
        source::Source,
        trail::Trail,
    },
    fault::{Code, Fault},
    kit::{
        budget::Budget,
        clock::now,
        spans::{Spans, TraceParent},
    },
    metrics::Metrics,
};

/// The door of one tenant's hub. Clones share it.
#[derive(Clone, Debug)]
pub struct Door {
    tokens: Tokens,
    directory: Arc<Refresher>,
    metrics: Arc<Metrics>,
    meter: Meter,
    calls: OpenCalls,
    journal: Journal,
    refusals: Refusals,
    spans: Spans,
    /// What services hold until their callers have taken it.
    memory: Arc<[Budget]>,
}

impl Door {
    /// A door of one tenant, whose calls are recorded in this journal.
    #[must_use]
    pub fn new(tokens: Tokens, directory: Arc<Refresher>, metrics: Arc<Metrics>, journal: Journal) -> Self {
        let (meter, calls, refusals) = (Meter::default(), OpenCalls::default(), Refusals::default());
        let spans = Spans::default();
        Self { tokens, directory, metrics, meter, calls, journal, refusals, spans, memory: Arc::new([]) }
    }

    /// The same, which tells of each call there.
    #[must_use]
    pub fn with_spans(self, spans: Spans) -> Self {
        Self { spans, ..self }
    }

    /// The same, which knows of memory that services hold until their callers have taken it.
    #[must_use]
    pub fn with_memory(self, memory: Vec<Budget>) -> Self {
        Self { memory: memory.into(), ..self }
    }

    /// What callers hold, for who shows it.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.tokens.tenant()
    }

    /// A request is there, for what `rule` is about.
    #[must_use]
    pub fn arrive(&self, rule: &'static Rule, origin: Origin, ties: Ties<'_>) -> Arrival {
        let id = Uuid::now_v7();
        let correlation = ties.correlation.map_or_else(|| id.to_string(), str::to_owned);
        let span = tracing::info_span!(
            "request",
            tenant = self.tenant(),
            method = rule.operation.name(),
            agent = tracing::field::Empty,
            correlation_id = correlation.as_str(),
        );
        let record = Record {
            id,
            span,
            rule,
            origin,
            correlation,
            trail: Trail::default(),
            metrics: self.metrics.clone(),
            journal: self.journal.clone(),
            refusals: self.refusals.clone(),
            spans: self.spans.clone(),
            parent: TraceParent::parse(ties.traceparent),
            began: now(),
        };
        Arrival { door: self.clone(), record }
    }

    /// A request is for nothing that there is.
    #[must_use]
    pub fn unknown(&self) -> Fault {
        self.metrics.error("unknown", Code::Unimplemented.name());
        Fault::new(Code::Unimplemented, "NO_SUCH_METHOD", "the hub has no such method: see its reflection service")
    }

    /// Ends calls whose callers lost their rights, and, where memory is short, those whose peers take nothing, for as long as it is polled.
    pub async fn watch(&self) {
        let is_short = || self.meter.is_short() || self.memory.iter().any(Budget::is_short);
        self.calls.watch(|rule, caller, now| self.still_admits(rule, caller, now), is_short).await;
    }

    /// Writes the sums of what was refused, for as long as it is polled.
    pub async fn write_refusals(&self) {
        self.refusals.write(&self.journal).await;
    }

    /// Waits until what was recorded so far is in the log.
    pub async fn recorded(&self) {
        self.refusals.write_once(&self.journal).await;
        self.journal.flushed().await;
    }

    /// Proves who calls, and that the caller's role allows the operation. `authorization` is the header's text. `trail` learns who the caller
    /// says to be as soon as that is proved, and so before the first refusal that has a name. The caller is `None` only for public operations.
    pub async fn admit(&self, rule: &Rule, authorization: Option<&str>, trail: &Trail) -> Result<Option<Caller>, Fault> {
        let Requirement::AnyOf(permissions) = rule.access else {
            return Ok(None);
        };
        let claims = self.authenticate(authorization)?;
        trail.agent(claims.agent(), &claims.name);
        if let Some(source) = claims.source() {
            trail.source(&source);
        }
        let caller = self.known(rule, claims).await?;
        if !permissions.iter().any(|permission| caller.agent.role.allows(*permission)) {
            return Err(lacks(&caller.agent, permissions));
        }
        Ok(Some(caller))
    }

    /// Whom the request's token speaks for.
    fn authenticate(&self, authorization: Option<&str>) -> Result<Claims, Fault> {
        let Some(authorization) = authorization else {
            return Err(Fault::new(
                Code::Unauthenticated,
                "TOKEN_REQUIRED",
                "this method needs `authorization: Bearer <access token>`: get one from AuthService.ExchangeToken",
            ));
        };
        let (scheme, token) = authorization.split_once(' ').ok_or_else(invalid_token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(invalid_token());
        }
        self.tokens.verify(token.trim())
    }

    /// The one whom a token speaks for, where it still does.
    async fn known(&self, rule: &Rule, claims: Claims) -> Result<Caller, Fault> {
        let snapshot = if rule.fresh { self.directory.current().await? } else { self.directory.at_least(claims.r#gen).await? };
        if snapshot.suspended {
            return Err(Fault::new(
                Code::PermissionDenied,
                "TENANT_SUSPENDED",
                format!("tenant {} is suspended: ask the platform team", self.tenant()),
            ));
        }
        let agent = snapshot.agent(claims.agent()).filter(|agent| !agent.suspended).ok_or_else(invalid_token)?;
        if claims.epoch != snapshot.credential_epoch {
            return Err(invalid_token());
        }
        let source = claims.source();
        if source.as_ref().is_some_and(|source| !snapshot.source_lives(agent.id, source, OffsetDateTime::now_utc())) {
            return Err(invalid_token());
        }
        let expires_at = OffsetDateTime::from_unix_timestamp(claims.exp).map_err(|_| invalid_token())?;
        let agent = as_its_token_says(agent, source.as_ref()).ok_or_else(invalid_token)?;
        Ok(Caller { agent, expires_at, epoch: claims.epoch, source })
    }

    /// Whether a caller that was let in before still would be: for streams that outlive a change.
    fn still_admits(&self, rule: &Rule, caller: &Caller, now: OffsetDateTime) -> bool {
        let snapshot = self.directory.directory().snapshot();
        if rule.access == Requirement::Public {
            return true;
        }
        !snapshot.suspended
            && now < caller.expires_at
            && caller.epoch == snapshot.credential_epoch
            && caller.source.as_ref().is_none_or(|source| snapshot.source_lives(caller.agent.id, source, now))
            && snapshot
                .agent(caller.agent.id)
                // A stream begun by one role goes on by no other: what it may do was looked at when it began.
                .filter(|agent| !agent.suspended)
                .and_then(|agent| as_its_token_says(agent, caller.source.as_ref()))
                .is_some_and(|agent| agent.role == caller.agent.role)
    }
}

/// The agent, with the role that its token lowers it to. `None` where that would raise it: the agent has got another role since.
fn as_its_token_says(agent: &Arc<Agent>, source: Option<&Source>) -> Option<Arc<Agent>> {
    match source.and_then(Source::role) {
        None => Some(agent.clone()),
        Some(role) => agent.lowered(role).map(Arc::new),
    }
}

/// What a request is part of, as its caller says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ties<'a> {
    /// What ties log lines of several hubs and agents together. The hub makes one where the caller names none.
    pub correlation: Option<&'a str>,
    /// W3C's, where there is one.
    pub traceparent: &'a str,
}

/// A request on its way in.
#[derive(Debug)]
pub struct Arrival {
    door: Door,
    record: Record,
}

impl Arrival {
    /// What all log lines about it have: tenant, method, agent, correlation id.
    #[must_use]
    pub fn span(&self) -> Span {
        self.record.span.clone()
    }

    /// By what the call is found in the hub's log and in the audit trail.
    #[must_use]
    pub fn correlation(&self) -> &str {
        &self.record.correlation
    }

    /// Lets it in, or records that it was refused. `authorization` is the header's text.
    pub async fn admit(self, authorization: Option<&str>) -> Result<Call, Fault> {
        let Self { door, record } = self;
        let admitted = async {
            let caller = door.admit(record.rule, authorization, &record.trail).await?;
            let metered = door.meter.enter(caller.as_ref(), &record.origin)?;
            if let Some(caller) = &caller {
                let snapshot = door.directory.directory().snapshot();
                let account = snapshot.account(caller.agent.id).unwrap_or(&caller.agent);
                let tenant = (door.tenant(), snapshot.limits);
                let limits = RequestLimits { tenant, operations: &snapshot.operation_limits };
                let within = || {
                    metered.open_connection(account, tenant)?;
                    door.meter.request(account, record.rule.operation, limits)?;
                    if record.rule.lasts() { metered.open_stream(account, tenant) } else { Ok(()) }
                };
                within().inspect_err(|fault| door.metrics.limited(fault))?;
                metered.limit_size(account, tenant, &door.metrics);
            }
            Ok((caller, metered))
        };
        let admitted = admitted.await;
        if let Some((_, agent)) = record.trail.facts().agent {
            record.span.record("agent", agent);
        }
        match admitted {
            Ok((caller, metered)) => {
                // The directory is looked at more often while somebody is connected.
                let connected = caller.is_some().then(|| door.directory.connect());
                Ok(Call::new(record, caller, metered, door.calls, connected))
            }
            Err(fault) => {
                record.refused(&fault);
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        audit::journal::tests::journal,
        directory::{
            agent::Role,
            snapshot::{Directory, DirectoryStore, KnownKey, Snapshot},
        },
        door::{
            access_token::{
                Grounds,
                tests::{agent, keyring},
            },
            rules::{Operation, RULES},
        },
    };

    struct Fixed(Snapshot);

    #[async_trait]
    impl DirectoryStore for Fixed {
        async fn generation(&self) -> Result<u64, Fault> {
            Ok(self.0.generation)
        }

        async fn load(&self) -> Result<Snapshot, Fault> {
            Ok(self.0.clone())
        }
    }

    /// A door before this agent, and a header with a token of it.
    fn door(agent: Agent, change: impl FnOnce(&mut Snapshot)) -> (Door, String) {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let source = Source::ApiKey("k1".to_owned());
        let grounds = Grounds { source: Some(source), generation: 1, ..Grounds::default() };
        let token = tokens.issue(&agent, grounds, OffsetDateTime::now_utc()).unwrap().0;
        let key = KnownKey { agent: agent.id, expires_at: None };
        let mut snapshot = Snapshot::new(1, vec![agent], Vec::new());
        snapshot.api_keys.insert("k1".to_owned(), key);
        change(&mut snapshot);
        let refresher = Refresher::new(Directory::default(), Arc::new(Fixed(snapshot)));
        (Door::new(tokens, Arc::new(refresher), Arc::new(Metrics::new("acme")), journal().1), format!("Bearer {token}"))
    }

    #[tokio::test]
    async fn every_method_refuses_callers_without_a_token_and_roles_without_the_permission() {
        for rule in RULES.iter().copied() {
            for role in Role::ALL {
                let (door, header) = door(agent(role), |_| {});
                let Requirement::AnyOf(permissions) = rule.access else {
                    assert!(door.admit(rule, None, &Trail::default()).await.unwrap().is_none());
                    continue;
                };
                assert_eq!(
                    door.admit(rule, None, &Trail::default()).await.unwrap_err().code,
                    Code::Unauthenticated,
                    "{:?}",
                    rule.operation
                );
                let admitted = door.admit(rule, Some(&header), &Trail::default()).await;
                if permissions.iter().any(|permission| role.allows(*permission)) {
                    assert_eq!(admitted.unwrap().unwrap().agent.name, "alice", "{:?}", rule.operation);
                } else {
                    assert_eq!(admitted.unwrap_err().code, Code::PermissionDenied, "{:?} as {role:?}", rule.operation);
                }
            }
        }
    }

    #[tokio::test]
    async fn suspended_and_removed_agents_stay_out() {
        let heartbeat = Operation::Heartbeat.rule();
        let (suspended, header) = door(Agent { suspended: true, ..agent(Role::Full) }, |_| {});
        assert_eq!(suspended.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().code, Code::Unauthenticated);
        let (removed, header) = door(agent(Role::Full), |snapshot| *snapshot = Snapshot::new(1, Vec::new(), Vec::new()));
        assert_eq!(removed.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().code, Code::Unauthenticated);
        let (tenant, header) = door(agent(Role::Full), |snapshot| snapshot.suspended = true);
        assert_eq!(tenant.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().reason, "TENANT_SUSPENDED");
    }

    #[tokio::test]
    async fn a_refusal_has_a_name_as_soon_as_the_token_is_proved() {
        let heartbeat = Operation::Heartbeat.rule();
        let seen = async |door: &Door, header: Option<&str>| {
            let trail = Trail::default();
            let reason = door.admit(heartbeat, header, &trail).await.unwrap_err().reason;
            let facts = trail.facts();
            (reason, facts.agent.map(|(_, name)| name), facts.key)
        };
        let named = || (Some("alice".to_owned()), Some("k1".to_owned()));
        let of = |reason, (agent, key)| (reason, agent, key);
        let (observer, header) = door(agent(Role::Observer), |_| {});
        assert_eq!(seen(&observer, Some(&header)).await, of("ROLE_LACKS_PERMISSION", named()));
        assert_eq!(seen(&observer, None).await, ("TOKEN_REQUIRED", None, None));
        let (suspended, header) = door(Agent { suspended: true, ..agent(Role::Full) }, |_| {});
        assert_eq!(seen(&suspended, Some(&header)).await, of("TOKEN_INVALID", named()));
        let (tenant, header) = door(agent(Role::Full), |snapshot| snapshot.suspended = true);
        assert_eq!(seen(&tenant, Some(&header)).await, of("TENANT_SUSPENDED", named()));
        assert_eq!(seen(&tenant, Some(&format!("{header}x"))).await, ("TOKEN_INVALID", None, None));
    }

    #[tokio::test]
    async fn a_token_ends_with_the_key_that_it_came_from() {
        let heartbeat = Operation::Heartbeat.rule();
        let now = OffsetDateTime::now_utc();
        let limited = |at| {
            door(agent(Role::Full), move |snapshot| {
                snapshot.api_keys.insert("k1".to_owned(), KnownKey { agent: agent(Role::Full).id, expires_at: Some(at) });
            })
        };
        let (overlap, header) = limited(now + time::Duration::minutes(5));
        let caller = overlap.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap().unwrap();
        assert!(overlap.still_admits(heartbeat, &caller, now));
        assert!(!overlap.still_admits(heartbeat, &caller, now + time::Duration::minutes(6)), "the overlap is over");
        let (past, header) = limited(now - time::Duration::seconds(1));
        assert_eq!(past.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().reason, "TOKEN_INVALID");
        let (removed, header) = door(agent(Role::Full), |snapshot| snapshot.api_keys.clear());
        assert_eq!(removed.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().reason, "TOKEN_INVALID");
        let (others, header) = door(agent(Role::Full), |snapshot| {
            let other = crate::directory::agent::AgentId(uuid::Uuid::from_u128(99));
            snapshot.api_keys.insert("k1".to_owned(), KnownKey { agent: other, expires_at: None });
        });
        assert_eq!(others.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap_err().reason, "TOKEN_INVALID");
    }

    #[tokio::test]
    async fn a_token_ends_where_the_epoch_is_another() {
        let heartbeat = Operation::Heartbeat.rule();
        for (epoch, reason) in [(0, None), (1, Some("TOKEN_INVALID")), (1_800_000_000, Some("TOKEN_INVALID"))] {
            let (door, header) = door(agent(Role::Full), |snapshot| snapshot.credential_epoch = epoch);
            let admitted = door.admit(heartbeat, Some(&header), &Trail::default()).await;
            assert_eq!(admitted.map_or_else(|fault| Some(fault.reason), |_| None), reason, "{epoch}");
        }
        let (door, header) = door(agent(Role::Full), |_| {});
        let caller = door.admit(heartbeat, Some(&header), &Trail::default()).await.unwrap().unwrap();
        let mut restored = Snapshot::clone(&door.directory.directory().snapshot());
        restored.credential_epoch = 7;
        assert!(door.still_admits(heartbeat, &caller, OffsetDateTime::now_utc()));
        door.directory.directory().replace(restored);
        assert!(!door.still_admits(heartbeat, &caller, OffsetDateTime::now_utc()), "what is open ends, too");
    }

    #[tokio::test]
    async fn a_stream_ends_with_the_right_to_it() {
        let session = Operation::Session.rule();
        let (door, header) = door(agent(Role::Full), |_| {});
        let caller = door.admit(session, Some(&header), &Trail::default()).await.unwrap().unwrap();
        assert!(door.still_admits(session, &caller, OffsetDateTime::now_utc()));
        assert!(!door.still_admits(session, &caller, caller.expires_at));
        // It may still send, but no longer receive.
        let mut changed = Snapshot::new(2, vec![agent(Role::Producer)], Vec::new());
        changed.api_keys = door.directory.directory().snapshot().api_keys.clone();
        door.directory.directory().replace(changed);
        assert!(!door.still_admits(session, &caller, OffsetDateTime::now_utc()));
    }
}
