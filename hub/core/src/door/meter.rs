//! What each caller holds at one time: connections with open calls, bytes of requests, and bytes of answers that it has not taken. The meter stands between the right to a call and its
//! handling, so that one caller can't use up what is there for all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    open_connections::OpenConnections,
    open_counts::OpenCounts,
    origin::Origin,
    replica_counts::ReplicaCounts,
    request_counts::{RequestLimits, Requests},
    rules::Operation,
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        caller::Caller,
        limits::{LimitUsage, Limits, Whose},
        request_size::{self, RequestSize},
        snapshot::Snapshot,
    },
    fault::{Code, Exhausted, Fault},
    kit::{
        budget::{Budget, Queue, Room},
        clock::rest_of_minute,
    },
    metrics::Metrics,
};

const MIB: usize = 1024 * 1024;
/// What the requests of all agents hold at one time, and of one of them.
const AGENTS: usize = 64 * MIB;
const AGENT: usize = 16 * MIB;
/// The same of those who call without a token, by where they call from. Apart from the agents', whom strangers must not crowd out.
const STRANGERS: usize = 4 * MIB;
/// The same of one such source.
pub const STRANGER: usize = MIB;
/// What the answers of all agents hold at one time until they are taken, and those of one of them. Who holds nothing may hold one answer, so that
/// no agent waits for another one to take what it asked for.
const ANSWERS: usize = 64 * MIB;
/// The same of one agent.
pub const ANSWER: usize = 8 * MIB;
/// Connections with open calls of one agent, whatever its limits: on each of them a protocol holds a window.
const MOST_CONNECTIONS: usize = 64;
/// The reason where a call is on one connection too many.
const TOO_MANY_CONNECTIONS: &str = "TOO_MANY_CONNECTIONS";

/// The names of the limits of streams and of connections in the resources.
const STREAMS: &str = "concurrentStreams";
const CONNECTIONS: &str = "connections";
/// When to try again where as many are open as may: one may have been left by a connection that broke.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a request waits for room.
pub const WAIT: Duration = Duration::from_secs(5);

/// What the callers of one replica hold. Clones share it.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agents: Budget,
    strangers: Budget,
    answers: Budget,
    accounts: Mutex<HashMap<Who, Account>>,
    streams: Mutex<Streams>,
    connections: Mutex<Connections>,
    requests: Mutex<Requests>,
}

/// Calls that last: at this replica, and at the others as they said last.
#[derive(Debug, Default)]
struct Streams {
    here: OpenCounts,
    others: OpenCounts,
}

impl Streams {
    fn of(&self, account: AgentId) -> u64 {
        self.here.of(account).saturating_add(self.others.of(account))
    }

    fn all(&self) -> u64 {
        self.here.all.saturating_add(self.others.all)
    }
}

/// Connections with open calls: at this replica, and at the others as they said last.
#[derive(Debug, Default)]
struct Connections {
    here: OpenConnections,
    others: OpenCounts,
}

impl Connections {
    fn of(&self, account: AgentId) -> u64 {
        self.here.of(account).saturating_add(self.others.of(account))
    }

    fn all(&self) -> u64 {
        self.here.all().saturating_add(self.others.all)
    }

    /// Those at this replica, as far as they matter to others: of accounts that are limited, and that have several here.
    fn that_matter(&self, of_tenant: Limits, account: impl Fn(AgentId) -> Limits) -> OpenCounts {
        let counts = self.here.counts(|id| account(id).connections.is_some()).of_several();
        OpenCounts { all: if of_tenant.connections.is_some() { counts.all } else { 0 }, ..counts }
    }
}

/// Whose share a request counts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Agent(AgentId),
    Source(IpAddr),
}

#[derive(Debug)]
struct Account {
    share: Queue,
    answers: Queue,
    /// Open calls on each of its connections.
    calls: HashMap<usize, usize>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(Budget::new(AGENTS), Budget::new(STRANGERS))
    }
}

impl Meter {
    /// One that counts the requests of agents, and of those who call without a token, on these budgets.
    #[must_use]
    pub fn new(agents: Budget, strangers: Budget) -> Self {
        Self(Arc::new(Shared {
            agents,
            strangers,
            answers: Budget::new(ANSWERS),
            accounts: Mutex::default(),
            streams: Mutex::default(),
            connections: Mutex::default(),
            requests: Mutex::default(),
        }))
    }

    /// Whether answers hold more than they should.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.answers.is_short()
    }

    /// A call of this caller, or of anybody at that place.
    pub fn enter(&self, caller: Option<&Caller>, origin: &Origin) -> Result<Metered, Fault> {
        if caller.is_none() && origin.crowded {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_CALLS",
                "this connection has as many calls open as one may on which nobody has shown a token: try again when some have ended",
            ));
        }
        let who = caller.map_or(Who::Source(origin.source), |caller| Who::Agent(caller.agent.id));
        let mut accounts = self.0.lock();
        let account = accounts.entry(who).or_insert_with(|| {
            let share = match who {
                Who::Agent(_) => self.0.agents.share(AGENT),
                Who::Source(_) => self.0.strangers.share(STRANGER),
            };
            Account { share, answers: self.0.answers.queue(ANSWER), calls: HashMap::new() }
        });
        let known = account.calls.len();
        if matches!(who, Who::Agent(_)) && known >= MOST_CONNECTIONS && !account.calls.contains_key(&origin.connection) {
            return Err(Fault::new(
                Code::ResourceExhausted,
                TOO_MANY_CONNECTIONS,
                format!("the agent has calls open on {known} connections to this replica: end some, or call over one of them"),
            ));
        }
        *account.calls.entry(origin.connection).or_default() += 1;
        let (share, answers) = (account.share.clone(), account.answers.clone());
        Ok(Metered(Arc::new(OneCall {
            shared: self.0.clone(),
            who,
            connection: origin.connection,
            share,
            answers,
            account: OnceLock::new(),
            stream: OnceLock::new(),
            size: OnceLock::new(),
        })))
    }

    /// Lets a request in as far as the limits of requests allow, and counts it.
    ///
    /// # Errors
    /// `RATE_LIMIT_EXCEEDED`.
    pub fn request(&self, account: &Agent, operation: Operation, limits: RequestLimits<'_>) -> Result<(), Fault> {
        self.0.requests().enter(account, operation, OffsetDateTime::now_utc(), limits)
    }

    /// What the other replicas have to know of this one, where limits are those of this snapshot.
    #[must_use]
    pub fn counts(&self, snapshot: &Snapshot) -> ReplicaCounts {
        let streams = self.0.streams().here.of_several();
        let matter = !streams.agents.is_empty() || (streams.all > 0 && snapshot.limits.concurrent_streams.is_some());
        let account = |id: AgentId| snapshot.agent(id).map(|agent| agent.limits).unwrap_or_default();
        let limits = RequestLimits { tenant: ("", snapshot.limits), operations: &snapshot.operation_limits };
        ReplicaCounts {
            streams: if matter { streams } else { OpenCounts::default() },
            connections: self.0.connections().that_matter(snapshot.limits, account),
            requests: self.0.requests().that_matter(OffsetDateTime::now_utc(), limits, account),
        }
    }

    /// What the other replicas say of theirs.
    pub fn hear(&self, others: Vec<ReplicaCounts>) {
        let (mut streams, mut connections) = (OpenCounts::default(), OpenCounts::default());
        let mut requests = Vec::with_capacity(others.len());
        for other in others {
            streams.add(other.streams);
            connections.add(other.connections);
            requests.push(other.requests);
        }
        self.0.streams().others = streams;
        self.0.connections().others = connections;
        self.0.requests().hear(requests);
    }

    /// The limits of the streams, connections and requests of this account and of the tenant, and what is used, as far as that is known here.
    #[must_use]
    pub fn usage(&self, account: &Agent, limits: RequestLimits<'_>) -> Vec<LimitUsage> {
        let (tenant, of_tenant) = limits.tenant;
        let (own, all) = (Whose::Agent(&account.name), Whose::Tenant(tenant));
        let of_streams = |streams: &Streams| (streams.of(account.id), streams.all());
        let of_connections = |connections: &Connections| (connections.of(account.id), connections.all());
        let (streams, all_streams) = of_streams(&self.0.streams());
        let (connections, all_connections) = of_connections(&self.0.connections());
        let mut usage: Vec<_> = [
            (own, STREAMS, account.limits.concurrent_streams, streams),
            (all, STREAMS, of_tenant.concurrent_streams, all_streams),
            (own, CONNECTIONS, account.limits.connections, connections),
            (all, CONNECTIONS, of_tenant.connections, all_connections),
        ]
        .map(|(whose, limit, most, used)| LimitUsage { subject: whose.subject(), limit, most, used, resets_in: None })
        .into();
        let now = OffsetDateTime::now_utc();
        let requests = self.0.requests().applied(account, None, now, limits);
        usage.extend(requests.into_iter().map(|(whose, limit, most, used)| LimitUsage {
            subject: whose.subject(),
            limit,
            most: Some(most),
            used,
            resets_in: Some(rest_of_minute(now)),
        }));
        usage.extend(request_size::usage(account, limits.tenant));
        usage
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Who, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open call of an account, as long as a clone of it lives.
#[derive(Clone, Debug)]
pub struct Metered(Arc<OneCall>);

#[derive(Debug)]
struct OneCall {
    shared: Arc<Shared>,
    who: Who,
    connection: usize,
    share: Queue,
    answers: Queue,
    /// On whose account its connection counts.
    account: OnceLock<AgentId>,
    /// Whose stream it is, where it is one.
    stream: OnceLock<AgentId>,
    /// How large its request may be, where that is limited, and where refusals are counted.
    size: OnceLock<(RequestSize, Arc<Metrics>)>,
}

impl Metered {
    /// It is a call on this account, over its connection. What is open already goes on, and so do further calls over it.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`.
    pub fn open_connection(&self, account: &Agent, (tenant, of_tenant): (&str, Limits)) -> Result<(), Fault> {
        let connection = self.0.connection;
        let mut connections = self.0.shared.connections();
        let (known, known_to_all) = connections.here.knows(account.id, connection);
        for (whose, known, limits, open) in [
            (Whose::Agent(&account.name), known, account.limits, connections.of(account.id)),
            (Whose::Tenant(tenant), known_to_all, of_tenant, connections.all()),
        ] {
            let Some(most) = limits.connections.filter(|most| !known && open >= *most) else { continue };
            let of = whose.kind();
            let why =
                format!("{of} may have calls open on {most} connections, and has on {open}: end some, or call over one of them");
            return Err(too_many(TOO_MANY_CONNECTIONS, why, whose, (CONNECTIONS, most)));
        }
        if self.0.account.set(account.id).is_ok() {
            connections.here.open(account.id, connection);
        }
        Ok(())
    }

    /// It is a call that lasts, on this account.
    ///
    /// # Errors
    /// `TOO_MANY_STREAMS`.
    pub fn open_stream(&self, account: &Agent, (tenant, of_tenant): (&str, Limits)) -> Result<(), Fault> {
        let mut streams = self.0.shared.streams();
        let own = streams.of(account.id);
        for (whose, limits, open) in
            [(Whose::Agent(&account.name), account.limits, own), (Whose::Tenant(tenant), of_tenant, streams.all())]
        {
            let Some(most) = limits.concurrent_streams.filter(|most| open >= *most) else { continue };
            let of = whose.kind();
            let why = format!("{of} may have {most} streams open at a time, and has {open}: end some");
            return Err(too_many("TOO_MANY_STREAMS", why, whose, (STREAMS, most)));
        }
        if self.0.stream.set(account.id).is_ok() {
            streams.here.open(account.id);
        }
        Ok(())
    }

    /// Its request is of this account.
    pub fn limit_size(&self, account: &Agent, tenant: (&str, Limits), metrics: &Arc<Metrics>) {
        if let Some(size) = RequestSize::of(account, tenant) {
            // A call has one account.
            self.0.size.get_or_init(|| (size, metrics.clone()));
        }
    }

    /// Whether its request may have so many bytes: to be asked before they are read.
    ///
    /// # Errors
    /// `REQUEST_SIZE_LIMIT_EXCEEDED`.
    pub fn check_size(&self, bytes: u64) -> Result<(), Fault> {
        let Some((size, metrics)) = self.0.size.get() else { return Ok(()) };
        size.check(bytes).inspect_err(|fault| metrics.limited(fault))
    }

    /// Whether nobody has shown who calls.
    #[must_use]
    pub fn is_strangers(&self) -> bool {
        matches!(self.0.who, Who::Source(_))
    }

    /// Waits for room for a request, for a while.
    pub async fn room(&self, bytes: usize) -> Result<Room, Fault> {
        timeout(WAIT, self.0.share.wait(bytes)).await.map_err(|_| {
            let whose = match self.0.who {
                Who::Agent(_) => "this agent",
                Who::Source(_) => "this address",
            };
            let why = format!(
                "requests of {whose}, or of all callers, hold as many bytes as they may on this replica: try again when some have ended"
            );
            // The others are read meanwhile, or stall and are refused.
            Fault::new(Code::ResourceExhausted, "TOO_MANY_REQUEST_BYTES", why).passing_in(WAIT)
        })
    }
}

impl Metered {
    /// Waits for room for an answer, for a while. To be held until the caller has taken it.
    pub async fn answer(&self, bytes: usize) -> Result<Room, Fault> {
        timeout(WAIT, self.0.answers.wait(bytes)).await.map_err(|_| {
            let why = "answers that this agent has not taken hold as many bytes as they may on this replica: take them first";
            Fault::new(Code::ResourceExhausted, "TOO_MANY_ANSWER_BYTES", why)
        })
    }

    /// The room of an answer in another form than it was made in, such as JSON. It does not wait: what it was made of is counted, has to be let go of, and
    /// could be what others wait for. Strangers' answers are few bytes, which are not counted.
    #[must_use]
    pub fn reformed(&self, bytes: usize) -> Option<Room> {
        (!self.is_strangers()).then(|| self.0.answers.count(bytes))
    }

    /// The same of a part of a stream, which waits for as long as it must: what was sent before it has to be taken first.
    pub async fn part(&self, bytes: usize) -> Room {
        self.0.answers.wait(bytes).await
    }
}

fn too_many(reason: &'static str, why: String, whose: Whose<'_>, (limit, most): (&'static str, u64)) -> Fault {
    Fault::new(Code::ResourceExhausted, reason, why).exhausted(Exhausted {
        subject: whose.subject(),
        limit,
        most,
        retry_after: (most > 0).then_some(AGAIN),
    })
}

impl Drop for OneCall {
    fn drop(&mut self) {
        if let Some(account) = self.account.get() {
            self.shared.connections().here.close(*account, self.connection);
        }
        if let Some(account) = self.stream.get() {
            self.shared.streams().here.close(*account);
        }
        let mut accounts = self.shared.lock();
        let Some(account) = accounts.get_mut(&self.who) else { return };
        if let Some(calls) = account.calls.get_mut(&self.connection) {
            *calls -= 1;
            if *calls == 0 {
                account.calls.remove(&self.connection);
            }
        }
        if account.calls.is_empty() {
            accounts.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{directory::agent::Role, door::access_token::tests::agent};

    fn at(connection: usize) -> Origin {
        Origin { connection, source: Ipv4Addr::LOCALHOST.into(), ..Origin::default() }
    }

    #[test]
    fn an_agent_calls_over_so_many_connections_and_over_another_one_when_one_is_free() {
        let meter = Meter::default();
        let caller = Caller { agent: agent(Role::Full).into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None };
        let mut calls: Vec<_> = (0..MOST_CONNECTIONS).map(|number| meter.enter(Some(&caller), &at(number)).unwrap()).collect();
        assert_eq!(meter.enter(Some(&caller), &at(MOST_CONNECTIONS)).unwrap_err().reason, "TOO_MANY_CONNECTIONS");
        calls.push(meter.enter(Some(&caller), &at(0)).unwrap());
        calls.swap_remove(1);
        calls.push(meter.enter(Some(&caller), &at(MOST_CONNECTIONS)).unwrap());
        drop(calls);
        assert!(meter.0.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_for_a_request_hears_when_to_try_again() {
        let meter = Meter::default();
        let call = meter.enter(None, &at(1)).unwrap();
        let _room = call.room(STRANGER).await.unwrap();
        let refused = call.room(1).await.unwrap_err();
        assert_eq!((refused.reason, refused.retry_after()), ("TOO_MANY_REQUEST_BYTES", Some(WAIT)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answers_gets_no_more_of_them_and_others_do() {
        let meter = Meter::default();
        let caller = |number: u128| {
            let agent = crate::directory::agent::Agent { id: AgentId(uuid::Uuid::from_u128(number)), ..agent(Role::Full) };
            Caller { agent: agent.into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None }
        };
        let call = meter.enter(Some(&caller(1)), &at(1)).unwrap();
        let mut held = Vec::new();
        let refused = loop {
            match call.answer(MIB).await {
                Ok(room) => held.push(room),
                Err(fault) => break fault.reason,
            }
        };
        assert_eq!((refused, held.len()), ("TOO_MANY_ANSWER_BYTES", ANSWER / MIB));
        let mut part = Box::pin(call.part(MIB));
        assert!(timeout(10 * WAIT, &mut part).await.is_err());
        // However many do the same, as much again is there for those who hold nothing, and beyond that what is small.
        let mut others = Vec::new();
        for number in 0..(2 * ANSWERS - ANSWER) / MIB {
            let other = meter.enter(Some(&caller(number as u128 + 2)), &at(1)).unwrap();
            others.push(other.answer(MIB).await.unwrap());
        }
        let late = meter.enter(Some(&caller(1000)), &at(1)).unwrap();
        assert_eq!(late.answer(MIB).await.unwrap_err().reason, "TOO_MANY_ANSWER_BYTES");
        drop(late.answer(1000).await.unwrap());
        // Where memory is short, those are ended that take nothing.
        assert!(meter.is_short());
        drop(others.pop());
        drop(late.answer(MIB).await.unwrap());
        drop(others);
        assert!(!meter.is_short());
        held.remove(0);
        part.await;
    }

    #[test]
    fn streams_are_counted_until_they_end_and_by_account() {
        let meter = Meter::default();
        let limits = Limits { concurrent_streams: Some(2), ..Limits::default() };
        let account = Agent { limits, ..agent(Role::Full) };
        let caller = Caller { agent: agent(Role::Full).into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None };
        let all = ("acme", Limits { concurrent_streams: Some(3), ..Limits::default() });
        let open = |account: &Agent, all| {
            let call = meter.enter(Some(&caller), &at(1)).unwrap();
            call.open_stream(account, all).map(|()| call).map_err(|fault| (fault.reason, fault.exhausted.unwrap().subject))
        };
        let mut held = vec![open(&account, all).unwrap(), open(&account, all).unwrap()];
        assert_eq!(open(&account, all).unwrap_err(), ("TOO_MANY_STREAMS", format!("agent {}", account.name)));
        let other = Agent { id: AgentId(uuid::Uuid::from_u128(77)), name: "other".to_owned(), ..account.clone() };
        held.push(open(&other, all).unwrap());
        assert_eq!(open(&other, all).unwrap_err(), ("TOO_MANY_STREAMS", "tenant acme".to_owned()));
        let [own, tenant, ..] = &meter.usage(&account, RequestLimits { tenant: all, operations: &HashMap::new() })[..] else {
            panic!()
        };
        assert_eq!((own.used, own.most, tenant.used, tenant.most), (2, Some(2), 3, Some(3)));
        held.remove(0);
        held.push(open(&account, all).unwrap());
        drop(held);
        assert_eq!(meter.counts(&Snapshot::default()).streams, OpenCounts::default());
        assert_eq!(meter.0.streams().here, OpenCounts::default());
        let never = Limits { concurrent_streams: Some(0), ..Limits::default() };
        assert!(open(&Agent { limits: never, ..account.clone() }, all).is_err());
        let most = Limits { concurrent_streams: Some(1 << 63), ..Limits::default() };
        assert!(open(&Agent { limits: most, ..account }, ("acme", Limits::default())).is_ok());
    }

    #[test]
    fn connections_with_open_calls_are_counted_by_account_and_what_is_open_stays() {
        let meter = Meter::default();
        let caller = |number: u128| {
            let agent = Agent { id: AgentId(uuid::Uuid::from_u128(number)), ..agent(Role::Full) };
            Caller { agent: agent.into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None }
        };
        let limits = |connections| Limits { connections, ..Limits::default() };
        let account = |own| Agent { limits: limits(own), ..agent(Role::Full) };
        // Agent 2 was registered by agent 1: both are on the account of the one.
        let open = |number, connection, own, all| {
            let call = meter.enter(Some(&caller(number)), &at(connection)).unwrap();
            let opened = call.open_connection(&account(own), ("acme", limits(all)));
            opened.map(|()| call).map_err(|fault| (fault.reason, fault.exhausted.unwrap()))
        };
        let refused = |opened: Result<Metered, (_, Box<Exhausted>)>| {
            let (reason, exhausted) = opened.unwrap_err();
            assert_eq!((reason, exhausted.limit), (TOO_MANY_CONNECTIONS, CONNECTIONS));
            (exhausted.subject, exhausted.retry_after)
        };
        let mut held = vec![open(1, 1, Some(2), None).unwrap(), open(2, 2, Some(2), None).unwrap()];
        assert_eq!(refused(open(1, 3, Some(2), None)), ("agent alice".to_owned(), Some(AGAIN)));
        assert_eq!(refused(open(2, 3, None, Some(2))), ("tenant acme".to_owned(), Some(AGAIN)));
        // Over those that are there it goes on, also where the limit got smaller.
        held.push(open(1, 2, Some(0), Some(0)).unwrap());
        assert_eq!(refused(open(1, 3, Some(0), None)).1, None, "waiting does not help");
        let used = |limit| {
            let own = account(limit);
            let limits = RequestLimits { tenant: ("acme", Limits::default()), operations: &HashMap::new() };
            meter.usage(&own, limits).into_iter().find(|usage| usage.limit == CONNECTIONS).unwrap()
        };
        assert_eq!((used(Some(2)).most, used(Some(2)).used), (Some(2), 2));
        held.remove(0);
        held.push(open(1, 3, Some(2), Some(1 << 63)).unwrap());
        drop(held);
        assert_eq!((used(None).used, meter.0.connections().here.all()), (0, 0));
    }

    #[test]
    fn others_hear_of_connections_where_they_are_limited() {
        let meter = Meter::default();
        let limited = Agent { limits: Limits { connections: Some(9), ..Limits::default() }, ..agent(Role::Full) };
        let caller = Caller { agent: limited.clone().into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None };
        let _held: Vec<_> = [1, 2]
            .map(|connection| {
                let call = meter.enter(Some(&caller), &at(connection)).unwrap();
                call.open_connection(&limited, ("acme", Limits::default())).unwrap();
                call
            })
            .into();
        let told = |agent: &Agent, tenant| {
            let mut snapshot = Snapshot::new(1, vec![agent.clone()], Vec::new());
            snapshot.limits = tenant;
            meter.counts(&snapshot).connections
        };
        let of_agent = OpenCounts { all: 0, agents: [(limited.id, 2)].into() };
        assert_eq!(told(&limited, Limits::default()), of_agent);
        let free = Agent { limits: Limits::default(), ..limited.clone() };
        assert_eq!(told(&free, Limits::default()), OpenCounts::default());
        assert_eq!(told(&free, limited.limits), OpenCounts { all: 2, ..OpenCounts::default() });
        meter.hear(vec![ReplicaCounts { connections: of_agent, ..ReplicaCounts::default() }]);
        let limits = RequestLimits { tenant: ("acme", Limits::default()), operations: &HashMap::new() };
        assert_eq!(meter.usage(&limited, limits)[2].used, 4);
    }

    #[test]
    fn strangers_on_a_crowded_connection_are_refused_and_agents_are_not() {
        let (meter, crowded) = (Meter::default(), Origin { crowded: true, ..at(1) });
        assert_eq!(meter.enter(None, &crowded).unwrap_err().reason, "TOO_MANY_CALLS");
        let caller = Caller { agent: agent(Role::Full).into(), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None };
        assert!(!meter.enter(Some(&caller), &crowded).unwrap().is_strangers());
        assert!(meter.enter(None, &at(1)).unwrap().is_strangers());
    }
}
