//! How much each agent, and all of them together, have sent in a minute, and whether they may send more.
//!
//! What is in the log is counted where every replica sees it, so all of them count the same, by the clock of the log. Before a message is appended
//! its sender reserves room for it here. A replica does not see what the others have reserved. So each has at most a two-hundredth of a limit (and at
//! least one message) on its way into the log at one time, and with n replicas a limit is overshot by at most n - 1 times that: 2 % with five.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::Limits,
    },
    fault::{Code, Exhausted, Fault},
};

const MINUTE: i64 = 60;
/// The part of a limit that one replica has on its way into the log at one time.
const PART: u64 = 200;
/// The names of the limits in the resources.
const MESSAGES: &str = "messagesPerMinute";
const BYTES: &str = "bytesPerMinute";

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Sent {
    fn one(bytes: u64) -> Self {
        Self { messages: 1, bytes }
    }

    fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn take_off(&mut self, other: Self) {
        self.messages = self.messages.saturating_sub(other.messages);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// What was sent in a minute of the log's clock and in the one before: the partitions of a log may be on machines whose clocks differ a little.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    minute: i64,
    now: Sent,
    before: Sent,
    /// On its way into the log from this replica.
    reserved: Sent,
}

impl Tally {
    fn logged(&mut self, minute: i64, sent: Sent) {
        if minute > self.minute {
            self.before = if minute == self.minute + 1 { self.now } else { Sent::default() };
            (self.minute, self.now) = (minute, Sent::default());
        }
        if minute == self.minute {
            self.now.add(sent);
        } else if minute == self.minute - 1 {
            self.before.add(sent);
        }
    }

    /// In the log or on its way there.
    fn at(&self, minute: i64) -> Sent {
        let mut sent = match self.minute - minute {
            0 => self.now,
            1 => self.before,
            _ => Sent::default(),
        };
        sent.add(self.reserved);
        sent
    }

    fn is_over(&self, minute: i64) -> bool {
        self.minute < minute - 1 && self.reserved == Sent::default()
    }
}

/// Counts of one replica.
#[derive(Debug, Default)]
pub(super) struct Usage {
    counts: Mutex<Counts>,
    /// Something is no longer on its way.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of those who sent something in these minutes.
    agents: HashMap<AgentId, Tally>,
    tenant: Tally,
    /// Messages that room was reserved for, and that nobody has seen in the log yet.
    reserved: HashMap<Uuid, (AgentId, Sent)>,
}

/// Who is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose<'a> {
    Agent(&'a str),
    Tenant(&'a str),
}

impl Whose<'_> {
    fn subject(self) -> String {
        match self {
            Self::Agent(name) => format!("agent {name}"),
            Self::Tenant(name) => format!("tenant {name}"),
        }
    }
}

impl Usage {
    /// Whether this replica may put one more message of the agent on its way.
    pub(super) fn may_begin(&self, agent: AgentId, limits: Limits, of_tenant: Limits) -> bool {
        if is_unlimited(limits, of_tenant) {
            return true;
        }
        let counts = self.lock();
        let own = counts.agents.get(&agent).map(|tally| tally.reserved).unwrap_or_default();
        fits(own, limits) && fits(counts.tenant.reserved, of_tenant)
    }

    /// Waits until it may.
    pub(super) async fn begin(&self, agent: AgentId, limits: Limits, of_tenant: Limits) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Before the look: what is freed in between is not missed.
            freed.as_mut().enable();
            if self.may_begin(agent, limits, of_tenant) {
                return;
            }
            freed.await;
        }
    }

    /// Reserves room for a message of this agent. `now` is what the log's clock shows.
    pub(super) fn reserve(
        &self,
        id: Uuid,
        agent: &Agent,
        (tenant, of_tenant): (&str, Limits),
        bytes: u64,
        now: OffsetDateTime,
    ) -> Result<(), Fault> {
        if is_unlimited(agent.limits, of_tenant) {
            return Ok(());
        }
        let minute = minute_of(now);
        let mut counts = self.lock();
        let own = counts.agents.get(&agent.id).map(|tally| tally.at(minute)).unwrap_or_default();
        check(own, bytes, agent.limits, Whose::Agent(&agent.name), now)?;
        check(counts.tenant.at(minute), bytes, of_tenant, Whose::Tenant(tenant), now)?;
        let sent = Sent::one(bytes);
        counts.agents.entry(agent.id).or_default().reserved.add(sent);
        counts.tenant.reserved.add(sent);
        counts.reserved.insert(id, (agent.id, sent));
        Ok(())
    }

    /// A message was seen in the log, in order. It counts where it is one, and not the repetition of another.
    pub(super) fn logged(&self, id: Uuid, from: AgentId, bytes: u64, log_time: OffsetDateTime, counts_for: bool) {
        let minute = minute_of(log_time);
        let mut counts = self.lock();
        if counts.give_back(id) {
            self.freed.notify_waiters();
        }
        if !counts_for {
            return;
        }
        if minute > counts.tenant.minute {
            counts.agents.retain(|_, tally| !tally.is_over(minute));
        }
        counts.agents.entry(from).or_default().logged(minute, Sent::one(bytes));
        counts.tenant.logged(minute, Sent::one(bytes));
    }

    /// These messages are no longer on their way.
    pub(super) fn give_back(&self, ids: &[Uuid]) {
        let mut counts = self.lock();
        let freed = ids.iter().filter(|id| counts.give_back(**id)).count();
        if freed > 0 {
            self.freed.notify_waiters();
        }
    }

    /// What an agent has sent in the minute of `now`, and what all have.
    pub(super) fn sent(&self, agent: AgentId, now: OffsetDateTime) -> (Sent, Sent) {
        let (counts, minute) = (self.lock(), minute_of(now));
        (counts.agents.get(&agent).map(|tally| tally.at(minute)).unwrap_or_default(), counts.tenant.at(minute))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether neither the agent nor the tenant has a limit: then nothing is reserved.
fn is_unlimited(limits: Limits, of_tenant: Limits) -> bool {
    limits == Limits::default() && of_tenant == Limits::default()
}

/// Whether one more message may go on its way beside these.
fn fits(reserved: Sent, limits: Limits) -> bool {
    let below = |reserved: u64, most: Option<u64>| most.is_none_or(|most| reserved == 0 || reserved < most / PART);
    below(reserved.messages, limits.messages_per_minute) && below(reserved.bytes, limits.bytes_per_minute)
}

impl Counts {
    fn give_back(&mut self, id: Uuid) -> bool {
        let Some((agent, sent)) = self.reserved.remove(&id) else { return false };
        self.tenant.reserved.take_off(sent);
        if let Some(tally) = self.agents.get_mut(&agent) {
            tally.reserved.take_off(sent);
        }
        true
    }
}

/// A limit, and what was used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// Whose it is, such as `agent worker-a`.
    pub subject: String,
    /// Its name in the resources.
    pub limit: &'static str,
    /// What it is; `None`: there is none.
    pub most: Option<u64>,
    /// What was used in this minute.
    pub used: u64,
    /// How long until it is 0 again.
    pub resets_in: Duration,
}

/// The limits of this one, and what was used of them.
pub(super) fn of_limits(whose: Whose<'_>, limits: Limits, sent: Sent, now: OffsetDateTime) -> [LimitUsage; 2] {
    let messages = (MESSAGES, limits.messages_per_minute, sent.messages);
    [messages, (BYTES, limits.bytes_per_minute, sent.bytes)].map(|(limit, most, used)| LimitUsage {
        subject: whose.subject(),
        limit,
        most,
        used,
        resets_in: rest_of_minute(now),
    })
}

/// Room for some messages, as long as this lives.
pub(super) struct Reserved(pub(super) Arc<Usage>, pub(super) Vec<Uuid>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.give_back(&self.1);
    }
}

fn minute_of(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().div_euclid(MINUTE)
}

/// How long until the next minute of the log's clock begins.
pub(super) fn rest_of_minute(now: OffsetDateTime) -> Duration {
    let passed = now.unix_timestamp_nanos().rem_euclid(i128::from(MINUTE) * 1_000_000_000);
    Duration::from_secs(MINUTE.unsigned_abs()).saturating_sub(Duration::from_nanos(u64::try_from(passed).unwrap_or(0)))
}

/// Whether one more message with so many bytes may be sent.
fn check(sent: Sent, bytes: u64, limits: Limits, whose: Whose<'_>, now: OffsetDateTime) -> Result<(), Fault> {
    let messages = (MESSAGES, "messages", sent.messages, 1, limits.messages_per_minute);
    let payloads = (BYTES, "bytes", sent.bytes, bytes, limits.bytes_per_minute);
    for (limit, what, sent, more, most) in [messages, payloads] {
        let Some(most) = most.filter(|most| sent.saturating_add(more) > *most) else { continue };
        let of = match whose {
            Whose::Agent(_) => "the agent",
            Whose::Tenant(_) => "the tenant",
        };
        // What is larger than the limit itself does not go in the next minute either.
        let retry_after = (more <= most).then(|| rest_of_minute(now));
        let advice = match retry_after {
            Some(rest) => format!("try again in {} s", rest.as_secs() + 1),
            None => "it never will be, while the limit is as low".to_owned(),
        };
        let why = format!("{of} may send {most} {what} a minute, and this one is beyond that: it was not sent; {advice}");
        return Err(Fault::new(Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED", why).exhausted(Exhausted {
            subject: whose.subject(),
            limit,
            most,
            retry_after,
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::agent::Role, door::access_token::tests::agent};

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    fn at(seconds: i64) -> OffsetDateTime {
        NOON + time::Duration::seconds(seconds)
    }

    fn limited(number: u128, messages: Option<u64>, bytes: Option<u64>) -> Agent {
        let limits = Limits { messages_per_minute: messages, bytes_per_minute: bytes, ..Limits::default() };
        Agent { id: AgentId(Uuid::from_u128(number)), name: format!("a{number}"), limits, ..agent(Role::Full) }
    }

    const FREE: (&str, Limits) = ("acme", Limits { messages_per_minute: None, bytes_per_minute: None, max_agents: None });

    #[test]
    fn an_agent_sends_as_many_as_it_may_in_each_minute() {
        let (usage, alice) = (Usage::default(), limited(1, Some(3), None));
        let send = |id: u128, second| {
            let id = Uuid::from_u128(id);
            usage.reserve(id, &alice, FREE, 10, at(second))?;
            usage.logged(id, alice.id, 10, at(second), true);
            Ok::<_, Fault>(())
        };
        for id in 1..=3 {
            send(id, 30).unwrap();
        }
        let fault = send(4, 45).unwrap_err();
        let exhausted = fault.exhausted.clone().unwrap();
        assert_eq!((fault.code, fault.reason), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
        assert_eq!((exhausted.subject.as_str(), exhausted.limit, exhausted.most), ("agent a1", "messagesPerMinute", 3));
        assert_eq!(exhausted.retry_after, Some(Duration::from_secs(15)));
        send(5, 60).unwrap();
        assert_eq!(usage.sent(alice.id, at(60)).0, Sent { messages: 1, bytes: 10 });
        // Others have limits of their own.
        assert_eq!(usage.reserve(Uuid::from_u128(9), &limited(2, Some(1), None), FREE, 1, at(45)), Ok(()));
    }

    #[test]
    fn what_is_on_its_way_counts_until_it_is_seen_or_given_back() {
        let (usage, alice) = (Usage::default(), limited(1, Some(2), None));
        let reserve = |id: u128| usage.reserve(Uuid::from_u128(id), &alice, FREE, 1, at(0)).map_err(|fault| fault.reason);
        assert_eq!((reserve(1), reserve(2), reserve(3)), (Ok(()), Ok(()), Err("RATE_LIMIT_EXCEEDED")));
        // A repetition of another message counts no more.
        usage.logged(Uuid::from_u128(1), alice.id, 1, at(0), false);
        assert_eq!((reserve(4), reserve(5)), (Ok(()), Err("RATE_LIMIT_EXCEEDED")));
        usage.logged(Uuid::from_u128(2), alice.id, 1, at(0), true);
        usage.give_back(&[Uuid::from_u128(2), Uuid::from_u128(4)]);
        assert_eq!((reserve(6), reserve(7)), (Ok(()), Err("RATE_LIMIT_EXCEEDED")));
        assert_eq!(usage.lock().reserved.len(), 1);
    }

    #[test]
    fn little_of_a_limit_is_on_its_way_at_one_time() {
        let (usage, alice) = (Usage::default(), limited(1, Some(1000), None));
        let may = || usage.may_begin(alice.id, alice.limits, Limits::default());
        for id in 1..=5 {
            assert!(may(), "{id}");
            usage.reserve(Uuid::from_u128(id), &alice, FREE, 1, at(0)).unwrap();
        }
        assert!(!may());
        usage.logged(Uuid::from_u128(1), alice.id, 1, at(0), true);
        assert!(may());
        // One message always may, however small the limit and large the message.
        let bob = limited(2, Some(1), Some(1));
        assert!(usage.may_begin(bob.id, bob.limits, Limits::default()));
    }

    #[test]
    fn what_other_replicas_log_counts_too() {
        let (usage, alice) = (Usage::default(), limited(1, Some(2), None));
        usage.logged(Uuid::from_u128(1), alice.id, 1, at(1), true);
        usage.logged(Uuid::from_u128(2), alice.id, 1, at(2), true);
        assert!(usage.reserve(Uuid::from_u128(3), &alice, FREE, 1, at(3)).is_err());
    }

    #[test]
    fn bytes_and_the_tenant_are_limited_in_the_same_way() {
        let (usage, alice) = (Usage::default(), limited(1, None, Some(100)));
        usage.reserve(Uuid::from_u128(1), &alice, FREE, 60, at(0)).unwrap();
        let over = usage.reserve(Uuid::from_u128(2), &alice, FREE, 60, at(0)).unwrap_err().exhausted.unwrap();
        assert_eq!((over.limit, over.retry_after), ("bytesPerMinute", Some(Duration::from_secs(60))));
        let never = usage.reserve(Uuid::from_u128(3), &alice, FREE, 101, at(0)).unwrap_err().exhausted.unwrap();
        assert_eq!(never.retry_after, None);
        let of_tenant = ("acme", Limits { messages_per_minute: Some(1), ..Limits::default() });
        let other = limited(2, None, None);
        let all = usage.reserve(Uuid::from_u128(4), &other, of_tenant, 1, at(0)).unwrap_err().exhausted.unwrap();
        assert_eq!(all.subject, "tenant acme");
    }

    #[test]
    fn clocks_of_partitions_may_differ_and_old_minutes_are_forgotten() {
        let usage = Usage::default();
        let (alice, bob) = (limited(1, Some(1), None), limited(2, Some(1), None));
        usage.logged(Uuid::from_u128(1), alice.id, 1, at(61), true);
        // Another machine's clock is a little behind.
        usage.logged(Uuid::from_u128(2), bob.id, 1, at(59), true);
        assert_eq!(usage.sent(bob.id, at(59)), (Sent::one(1), Sent::one(1)));
        assert_eq!(usage.sent(alice.id, at(61)), (Sent::one(1), Sent::one(1)));
        // One that was read late counts for no minute that is still asked for.
        usage.logged(Uuid::from_u128(3), bob.id, 1, at(-300), true);
        assert_eq!(usage.sent(bob.id, at(59)).0, Sent::one(1));
        for minute in 2..100 {
            usage.logged(Uuid::from_u128(4), limited(minute, None, None).id, 1, at(60 * i64::try_from(minute).unwrap()), true);
        }
        assert!(usage.lock().agents.len() <= 3);
    }

    #[test]
    fn limits_of_zero_and_of_all_there_is() {
        let usage = Usage::default();
        assert!(usage.reserve(Uuid::from_u128(1), &limited(1, Some(0), None), FREE, 0, at(0)).is_err());
        let most = limited(2, Some(u64::MAX), Some(u64::MAX));
        usage.logged(Uuid::from_u128(2), most.id, u64::MAX, at(0), true);
        usage.logged(Uuid::from_u128(3), most.id, u64::MAX, at(0), true);
        assert_eq!(usage.reserve(Uuid::from_u128(4), &most, FREE, u64::MAX, at(0)), Ok(()));
    }
}
