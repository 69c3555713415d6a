//! How much each agent, and all of them together, have sent in a minute and in a calendar month, and whether they may send more.
//!
//! What is in the log is counted where every replica sees it, so all of them count the same, by the clock of the log. A month begins with what the
//! store had summed of it when the replica started; from there on the replica counts itself. Before a message is appended
//! its sender reserves room for it here. A replica does not see what the others have reserved. So each has at most a two-hundredth of a limit (and at
//! least one message) on its way into the log at one time, and with n replicas a limit is overshot by at most n - 1 times that: 2 % with five.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::{Month, OffsetDateTime, UtcOffset};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{position::Position, sent::Sent, usage_store::UsageSum};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::{LimitUsage, Limits, Whose},
    },
    fault::{Code, Exhausted, Fault},
    kit::clock::{minute_of, rest_of_minute},
    log::bus::Partition,
};

/// The part of a limit that one replica has on its way into the log at one time.
const PART: u64 = 200;
/// The names of the limits in the resources.
const MESSAGES: &str = "messagesPerMinute";
const BYTES: &str = "bytesPerMinute";
const MONTH: &str = "messagesPerMonth";
/// The reason of a refusal that is over within a minute, and of one that is over with the month.
const PER_MINUTE: &str = "RATE_LIMIT_EXCEEDED";
const PER_MONTH: &str = "MONTHLY_LIMIT_EXCEEDED";

/// Minutes or months of which is known what was sent.
const PERIODS: usize = 3;

/// What was sent in the minutes or months of the log's clock that something was sent in last: the partitions of a log may be on machines whose clocks
/// differ a little, and a clock that is set far ahead and back again must not have the present one forgotten.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// The one that something was sent in last is the first.
    periods: [Option<(i64, Sent)>; PERIODS],
    /// On its way into the log from this replica.
    reserved: Sent,
}

impl Tally {
    fn logged(&mut self, period: i64, sent: Sent) {
        let known = self.periods.iter().position(|known| known.is_some_and(|(of, _)| of == period));
        // Where there is no room the first that was sent in goes.
        let place = known.unwrap_or(PERIODS - 1);
        let mut all = known.and_then(|place| self.periods[place]).map(|(_, sent)| sent).unwrap_or_default();
        all.add(sent);
        self.periods[..=place].rotate_right(1);
        self.periods[0] = Some((period, all));
    }

    /// The period that something was sent in last.
    fn last(&self) -> Option<i64> {
        self.periods[0].map(|(period, _)| period)
    }

    /// In the log or on its way there.
    fn at(&self, period: i64) -> Sent {
        let logged = self.periods.iter().flatten().find(|(of, _)| *of == period).map(|(_, sent)| *sent);
        let mut sent = logged.unwrap_or_default();
        sent.add(self.reserved);
        sent
    }

    fn is_over(&self, period: i64) -> bool {
        self.periods.iter().flatten().all(|(of, _)| *of < period - 1) && self.reserved == Sent::default()
    }
}

/// Counts of one replica.
#[derive(Debug, Default)]
pub(super) struct Usage {
    counts: Mutex<Counts>,
    /// By partition: what is below was in the sums that the months began with.
    summed: Vec<Position>,
    /// Something is no longer on its way.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of those who sent something in these minutes.
    agents: HashMap<AgentId, Tally>,
    tenant: Tally,
    /// Of those who sent something in these months.
    months: HashMap<AgentId, Tally>,
    tenant_month: Tally,
    /// Messages that room was reserved for, and that nobody has seen in the log yet.
    reserved: HashMap<Uuid, (AgentId, Sent)>,
}

/// What was sent in the minute and in the month of one time, or is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) minute: Sent,
    /// Messages.
    pub(super) month: u64,
}

impl Usage {
    /// With months that begin with these sums, the oldest first, of all that is below these places.
    pub(super) fn new(summed: Vec<Position>, months: Vec<UsageSum>) -> Self {
        let mut counts = Counts::default();
        for UsageSum { starts_at, agent, sent, .. } in months {
            counts.logged_in_month(agent, month_of(starts_at), sent);
        }
        Self { counts: Mutex::new(counts), summed, freed: Notify::new() }
    }

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
        let mut counts = self.lock();
        check(counts.of_agent(agent.id, now), bytes, agent.limits, Whose::Agent(&agent.name), now)?;
        check(counts.of_tenant(now), bytes, of_tenant, Whose::Tenant(tenant), now)?;
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
        if counts.tenant.last().is_none_or(|last| minute > last) {
            counts.agents.retain(|_, tally| !tally.is_over(minute));
        }
        counts.agents.entry(from).or_default().logged(minute, Sent::one(bytes));
        counts.tenant.logged(minute, Sent::one(bytes));
    }

    /// The same message, where it counts. What the months began with is not counted once more.
    pub(super) fn logged_in_month(
        &self,
        (partition, position): (Partition, Position),
        from: AgentId,
        bytes: u64,
        log_time: OffsetDateTime,
    ) {
        if self.summed.get(partition as usize).is_none_or(|summed| position >= *summed) {
            self.lock().logged_in_month(from, month_of(log_time), Sent::one(bytes));
        }
    }

    /// These messages are no longer on their way.
    pub(super) fn give_back(&self, ids: &[Uuid]) {
        let mut counts = self.lock();
        let freed = ids.iter().filter(|id| counts.give_back(**id)).count();
        if freed > 0 {
            self.freed.notify_waiters();
        }
    }

    /// What an agent has sent in the minute and the month of `now`, and what all have.
    pub(super) fn sent(&self, agent: AgentId, now: OffsetDateTime) -> (Used, Used) {
        let counts = self.lock();
        (counts.of_agent(agent, now), counts.of_tenant(now))
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
    below(reserved.messages, limits.messages_per_minute)
        && below(reserved.messages, limits.messages_per_month)
        && below(reserved.bytes, limits.bytes_per_minute)
}

impl Counts {
    fn of_agent(&self, agent: AgentId, now: OffsetDateTime) -> Used {
        let minute = self.agents.get(&agent).copied().unwrap_or_default();
        let month = self.months.get(&agent).copied().unwrap_or_default();
        Used::of(minute, month, now)
    }

    fn of_tenant(&self, now: OffsetDateTime) -> Used {
        Used::of(self.tenant, self.tenant_month, now)
    }

    fn logged_in_month(&mut self, agent: AgentId, month: i64, sent: Sent) {
        // Not where the clock jumps: it may be set back again.
        if self.tenant_month.last().is_some_and(|last| month == last + 1) {
            self.months.retain(|_, tally| !tally.is_over(month));
        }
        self.months.entry(agent).or_default().logged(month, sent);
        self.tenant_month.logged(month, sent);
    }

    fn give_back(&mut self, id: Uuid) -> bool {
        let Some((agent, sent)) = self.reserved.remove(&id) else { return false };
        self.tenant.reserved.take_off(sent);
        if let Some(tally) = self.agents.get_mut(&agent) {
            tally.reserved.take_off(sent);
        }
        true
    }
}

impl Used {
    /// What is on its way is in the tally of the minutes alone.
    fn of(minute: Tally, month: Tally, now: OffsetDateTime) -> Self {
        let logged = month.at(month_of(now)).messages;
        Self { minute: minute.at(minute_of(now)), month: logged.saturating_add(minute.reserved.messages) }
    }
}

/// The limits of this one, and what was used of them.
pub(super) fn of_limits(whose: Whose<'_>, limits: Limits, used: Used, now: OffsetDateTime) -> [LimitUsage; 3] {
    let usage =
        |limit, most, used, resets_in| LimitUsage { subject: whose.subject(), limit, most, used, resets_in: Some(resets_in) };
    [
        usage(MESSAGES, limits.messages_per_minute, used.minute.messages, rest_of_minute(now)),
        usage(BYTES, limits.bytes_per_minute, used.minute.bytes, rest_of_minute(now)),
        usage(MONTH, limits.messages_per_month, used.month, rest_of_month(now)),
    ]
}

/// Room for some messages, as long as this lives.
pub(super) struct Reserved(pub(super) Arc<Usage>, pub(super) Vec<Uuid>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.give_back(&self.1);
    }
}

/// Which calendar month it is, UTC: months are numbered without gaps.
fn month_of(time: OffsetDateTime) -> i64 {
    let date = time.to_offset(UtcOffset::UTC).date();
    i64::from(date.year()) * 12 + i64::from(u8::from(date.month())) - 1
}

/// When the month of a time began, UTC.
#[must_use]
pub fn month_began(time: OffsetDateTime) -> OffsetDateTime {
    let date = time.to_offset(UtcOffset::UTC).date();
    date.replace_day(1).unwrap_or(date).midnight().assume_utc()
}

/// When the month before that began.
pub(super) fn month_before_began(time: OffsetDateTime) -> OffsetDateTime {
    month_began(month_began(time).saturating_sub(time::Duration::DAY))
}

/// How long until the next month of the log's clock begins.
fn rest_of_month(now: OffsetDateTime) -> Duration {
    let began = month_began(now);
    let year = if began.month() == Month::December { began.year() + 1 } else { began.year() };
    let next = began.replace_month(began.month().next()).and_then(|next| next.replace_year(year)).unwrap_or(began);
    (next - now).try_into().unwrap_or_default()
}

/// Whether one more message with so many bytes may be sent.
fn check(used: Used, bytes: u64, limits: Limits, whose: Whose<'_>, now: OffsetDateTime) -> Result<(), Fault> {
    let minute = (PER_MINUTE, "a minute", rest_of_minute as fn(OffsetDateTime) -> Duration);
    let month = (PER_MONTH, "a month", rest_of_month as fn(OffsetDateTime) -> Duration);
    // First the one that is over last: whoever is told to wait a minute would come again for nothing.
    for (limit, what, used, more, most, (reason, period, rest)) in [
        (MONTH, "messages", used.month, 1, limits.messages_per_month, month),
        (MESSAGES, "messages", used.minute.messages, 1, limits.messages_per_minute, minute),
        (BYTES, "bytes", used.minute.bytes, bytes, limits.bytes_per_minute, minute),
    ] {
        let Some(most) = most.filter(|most| used.saturating_add(more) > *most) else { continue };
        let of = whose.kind();
        // What is larger than the limit itself does not go in the next minute either.
        let retry_after = (more <= most).then(|| rest(now));
        let advice = match retry_after {
            Some(rest) if reason == PER_MONTH => {
                format!(
                    "the next month begins {} (UTC)",
                    now.saturating_add(rest.try_into().unwrap_or_default()).to_offset(UtcOffset::UTC).date()
                )
            }
            Some(rest) => format!("try again in {} s", rest.as_secs() + 1),
            None => "it never will be, while the limit is as low".to_owned(),
        };
        let why = format!("{of} may send {most} {what} {period}, and this one is beyond that: it was not sent; {advice}");
        return Err(Fault::new(Code::ResourceExhausted, reason, why).exhausted(Exhausted {
            subject: whose.subject(),
            limit,
            most,
            retry_after,
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
