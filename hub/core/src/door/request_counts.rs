//! How many requests were let in within this minute, of whose account, and for what.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::rules::{Operation, RULES};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::{Limits, OperationLimits, Whose},
    },
    fault::{Code, Exhausted, Fault},
    kit::clock::{minute_of, rest_of_minute},
};

/// The name of the limit in the resources.
const REQUESTS: &str = "requestsPerMinute";
/// Accounts that one replica tells the others of.
const TOLD: usize = 1000;

/// Requests of one account, as far as it has limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountRequests {
    /// All of them.
    pub all: u64,
    /// Of each operation that was asked for.
    pub operations: HashMap<Operation, u64>,
}

/// Requests of one minute, counted in minutes since 1970, that some limit is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Which minute.
    pub minute: i64,
    /// Of all accounts.
    pub all: u64,
    /// Of each account.
    pub accounts: HashMap<AgentId, AccountRequests>,
}

/// What is limited of requests.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits<'a> {
    /// The tenant's name, and what holds for all its agents together.
    pub tenant: (&'a str, Limits),
    /// What each agent may ask for in a minute, of single operations.
    pub operations: &'a OperationLimits,
}

/// A limit that applies to a request: whose, its name, what it is, and what was used of it.
type Applied<'a> = (Whose<'a>, &'static str, u64, u64);

impl RequestCounts {
    /// None yet, in the minute of this time.
    fn begun(minute: i64) -> Self {
        Self { minute, ..Self::default() }
    }

    fn of(&self, account: AgentId, operation: Option<Operation>) -> u64 {
        self.accounts.get(&account).map_or(0, |requests| match operation {
            Some(operation) => requests.operations.get(&operation).copied().unwrap_or(0),
            None => requests.all,
        })
    }

    /// One more, for the limit of this name.
    fn count(&mut self, account: AgentId, operation: Operation, (whose, limit): (Whose<'_>, &str)) {
        let count = match whose {
            Whose::Tenant(_) => &mut self.all,
            Whose::Agent(_) if limit == REQUESTS => &mut self.accounts.entry(account).or_default().all,
            Whose::Agent(_) => self.accounts.entry(account).or_default().operations.entry(operation).or_default(),
        };
        *count = count.saturating_add(1);
    }
}

/// Requests at this replica, and at the others as they said last.
#[derive(Debug, Default)]
pub(super) struct Requests {
    here: RequestCounts,
    others: Vec<RequestCounts>,
}

impl Requests {
    /// What the other replicas say of theirs.
    pub(super) fn hear(&mut self, others: Vec<RequestCounts>) {
        self.others = others;
    }

    /// Those of this minute at this replica, as far as they matter to others: where at least a fourth of a limit is used here.
    pub(super) fn that_matter(
        &self,
        at: OffsetDateTime,
        limits: RequestLimits<'_>,
        account: impl Fn(AgentId) -> Limits,
    ) -> RequestCounts {
        let mut told = RequestCounts::begun(minute_of(at));
        if self.here.minute != told.minute {
            return told;
        }
        let matters = |used: u64, most: Option<u64>| most.is_some_and(|most| used.saturating_mul(4) >= most);
        if matters(self.here.all, limits.tenant.1.requests_per_minute) {
            told.all = self.here.all;
        }
        for (id, requests) in &self.here.accounts {
            if told.accounts.len() >= TOLD {
                break;
            }
            let of_operation =
                |(operation, used): &(Operation, u64)| matters(*used, limits.operations.get(operation.name()).copied());
            let operations: HashMap<_, _> =
                requests.operations.iter().map(|(operation, used)| (*operation, *used)).filter(of_operation).collect();
            let all = if matters(requests.all, account(*id).requests_per_minute) { requests.all } else { 0 };
            if all > 0 || !operations.is_empty() {
                told.accounts.insert(*id, AccountRequests { all, operations });
            }
        }
        told
    }

    /// Lets a request in, and counts it for the limits that it is under: what is under none would be kept for nothing.
    ///
    /// # Errors
    /// `RATE_LIMIT_EXCEEDED`: nothing is counted then.
    pub(super) fn enter(
        &mut self,
        account: &Agent,
        operation: Operation,
        at: OffsetDateTime,
        limits: RequestLimits<'_>,
    ) -> Result<(), Fault> {
        // A clock that was set back begins a minute, too: waiting for the old one could take a day.
        if self.here.minute != minute_of(at) {
            self.here = RequestCounts::begun(minute_of(at));
        }
        let applied = self.applied(account, Some(operation), at, limits);
        for (whose, limit, most, used) in applied.iter().copied() {
            if used < most {
                continue;
            }
            let of = whose.kind();
            let what = if limit == REQUESTS { "requests".to_owned() } else { format!("{} requests", operation.name()) };
            let why = format!("{of} may make {most} {what} a minute, and has made {used}: try again when the next minute begins");
            return Err(Fault::new(Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED", why).exhausted(Exhausted {
                subject: whose.subject(),
                limit,
                most,
                retry_after: (most > 0).then(|| rest_of_minute(at)),
            }));
        }
        for (whose, limit, ..) in applied {
            self.here.count(account.id, operation, (whose, limit));
        }
        Ok(())
    }

    /// The limits of requests that apply to this account: of everything, and of one operation or of each that has one.
    pub(super) fn applied<'a>(
        &self,
        account: &'a Agent,
        operation: Option<Operation>,
        at: OffsetDateTime,
        RequestLimits { tenant: (tenant, of_tenant), operations }: RequestLimits<'a>,
    ) -> Vec<Applied<'a>> {
        let minute = minute_of(at);
        let used = |of: &dyn Fn(&RequestCounts) -> u64| {
            let counts = std::iter::once(&self.here).chain(&self.others).filter(|counts| counts.minute == minute);
            counts.fold(0_u64, |sum, counts| sum.saturating_add(of(counts)))
        };
        let own = Whose::Agent(&account.name);
        let of_operation = |limited: Operation| {
            let most = *operations.get(limited.name())?;
            Some((own, limited.limit_name(), most, used(&|counts| counts.of(account.id, Some(limited)))))
        };
        let mut applied: Vec<Applied<'a>> = match operation {
            Some(operation) => of_operation(operation).into_iter().collect(),
            None if operations.is_empty() => Vec::new(),
            None => RULES.iter().filter_map(|rule| of_operation(rule.operation)).collect(),
        };
        if let Some(most) = account.limits.requests_per_minute {
            applied.push((own, REQUESTS, most, used(&|counts| counts.of(account.id, None))));
        }
        if let Some(most) = of_tenant.requests_per_minute {
            applied.push((Whose::Tenant(tenant), REQUESTS, most, used(&|counts| counts.all)));
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::{directory::agent::Role, door::access_token::tests::agent};

    const NOON: OffsetDateTime = datetime!(2026-01-01 12:00:10 UTC);

    fn alice(requests_per_minute: Option<u64>) -> Agent {
        Agent { limits: Limits { requests_per_minute, ..Limits::default() }, ..agent(Role::Full) }
    }

    fn of(tenant: Option<u64>, operations: &OperationLimits) -> RequestLimits<'_> {
        RequestLimits { tenant: ("acme", Limits { requests_per_minute: tenant, ..Limits::default() }), operations }
    }

    fn refused(entered: Result<(), Fault>) -> (String, &'static str, Option<Duration>) {
        let fault = entered.unwrap_err();
        assert_eq!(fault.reason, "RATE_LIMIT_EXCEEDED");
        let exhausted = fault.exhausted.unwrap();
        (exhausted.subject, exhausted.limit, exhausted.retry_after)
    }

    #[test]
    fn so_many_are_let_in_each_minute() {
        let (mut requests, none, alice) = (Requests::default(), OperationLimits::new(), alice(Some(2)));
        let mut enter = |at| requests.enter(&alice, Operation::GetContext, at, of(None, &none));
        enter(NOON).unwrap();
        enter(NOON).unwrap();
        let (subject, limit, again) = refused(enter(NOON));
        assert_eq!((subject, limit, again), ("agent alice".to_owned(), REQUESTS, Some(Duration::from_secs(50))));
        refused(enter(NOON + Duration::from_secs(49)));
        enter(NOON + Duration::from_secs(50)).unwrap();
        // A clock that was set back begins anew.
        enter(NOON - Duration::from_secs(3600)).unwrap();
        let nothing = Agent { limits: Limits { requests_per_minute: Some(0), ..Limits::default() }, ..alice.clone() };
        assert_eq!(refused(requests.enter(&nothing, Operation::GetContext, NOON, of(None, &none))).2, None);
        let most = Agent { limits: Limits { requests_per_minute: Some(u64::MAX), ..Limits::default() }, ..alice };
        requests.enter(&most, Operation::GetContext, NOON, of(Some(u64::MAX), &none)).unwrap();
    }

    #[test]
    fn a_refusal_says_to_the_instant_when_the_next_minute_begins() {
        let (mut requests, none, alice) = (Requests::default(), OperationLimits::new(), alice(Some(1)));
        let late = NOON + Duration::from_millis(49_750);
        requests.enter(&alice, Operation::GetContext, NOON, of(None, &none)).unwrap();
        let (.., again) = refused(requests.enter(&alice, Operation::GetContext, late, of(None, &none)));
        assert_eq!(again, Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_under_no_limit_is_not_kept() {
        let (mut requests, none, alice) = (Requests::default(), OperationLimits::new(), alice(None));
        let mut enter = |limits: RequestLimits<'_>| {
            requests.enter(&alice, Operation::GetContext, NOON, limits).unwrap();
            requests.here.clone()
        };
        let nothing = RequestCounts::begun(minute_of(NOON));
        assert_eq!(enter(of(None, &none)), nothing);
        // Another operation has a limit.
        assert_eq!(enter(of(None, &OperationLimits::from([("ListContexts".to_owned(), 9)]))), nothing);
        // The tenant's is for all agents together: no agent is told apart.
        assert_eq!(enter(of(Some(9), &none)), RequestCounts { all: 1, ..nothing.clone() });
        let of_operation = AccountRequests { all: 0, operations: [(Operation::GetContext, 1)].into() };
        let limited = OperationLimits::from([("GetContext".to_owned(), 9)]);
        assert_eq!(enter(of(None, &limited)).accounts, HashMap::from([(alice.id, of_operation)]));
    }

    #[test]
    fn an_operation_has_a_limit_of_its_own_and_the_tenant_one_for_all() {
        let operations = OperationLimits::from([("ListContexts".to_owned(), 1), ("OfALaterVersion".to_owned(), 0)]);
        let (mut requests, alice) = (Requests::default(), alice(None));
        let mut enter = |agent: &Agent, operation| requests.enter(agent, operation, NOON, of(Some(4), &operations));
        enter(&alice, Operation::ListContexts).unwrap();
        assert_eq!(refused(enter(&alice, Operation::ListContexts)).1, "requestsPerMinute/ListContexts");
        enter(&alice, Operation::GetContext).unwrap();
        let bob = Agent { id: AgentId(Uuid::from_u128(77)), name: "bob".to_owned(), ..alice.clone() };
        enter(&bob, Operation::ListContexts).unwrap();
        enter(&bob, Operation::GetContext).unwrap();
        assert_eq!(refused(enter(&bob, Operation::GetContext)).0, "tenant acme");
        let shown = requests.applied(&alice, None, NOON, of(Some(4), &operations));
        let shown: Vec<_> = shown.into_iter().map(|(whose, limit, most, used)| (whose.subject(), limit, most, used)).collect();
        assert_eq!(
            shown,
            [
                ("agent alice".to_owned(), "requestsPerMinute/ListContexts", 1, 1),
                ("tenant acme".to_owned(), "requestsPerMinute", 4, 4)
            ]
        );
    }

    #[test]
    fn what_other_replicas_let_in_counts_in_its_minute() {
        let (none, alice) = (OperationLimits::new(), alice(Some(4)));
        let (mut here, mut there) = (Requests::default(), Requests::default());
        let limits = of(None, &none);
        let told = |requests: &Requests, at| requests.that_matter(at, limits, |_| alice.limits);
        there.enter(&alice, Operation::GetContext, NOON, limits).unwrap();
        let told = told(&there, NOON);
        assert_eq!((told.all, told.of(alice.id, None)), (0, 1), "a fourth of it, and the tenant has no limit");
        here.hear(vec![told.clone(), told]);
        here.enter(&alice, Operation::GetContext, NOON, limits).unwrap();
        here.enter(&alice, Operation::GetContext, NOON, limits).unwrap();
        refused(here.enter(&alice, Operation::GetContext, NOON, limits));
        here.enter(&alice, Operation::GetContext, NOON + Duration::from_secs(60), limits).unwrap();
        let much = Agent { limits: Limits { requests_per_minute: Some(5), ..Limits::default() }, ..alice.clone() };
        assert_eq!(there.that_matter(NOON, limits, |_| much.limits).accounts.len(), 0, "less than a fourth");
        assert_eq!(there.that_matter(NOON + Duration::from_secs(60), limits, |_| alice.limits).accounts.len(), 0);
    }
}
