//! What was summed, to be listed: by hour, day or calendar month, for bills and for who wants to know.

use time::{Duration, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use super::{
    parts::Parts,
    usage::month_began,
    usage_store::{Period, SumFilter, UsageGap, UsageSum, Whose},
};
use crate::{
    directory::{
        agent::{Agent, AgentId, Permission},
        caller::lacks,
    },
    fault::Fault,
    kit::{
        clock::{from_micros, to_micros},
        page,
        quoted::quoted,
    },
};

/// Gaps of an answer.
const GAPS: usize = 100;
/// Characters of an agent's name.
const NAME: usize = 63;

/// What of the sums is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// Of this agent. Empty: of everybody whose sums the caller may see.
    pub agent: String,
    /// By which period.
    pub by: Period,
    /// From the period on that this time is in.
    pub from: Option<OffsetDateTime>,
    /// Periods that begin before.
    pub to: Option<OffsetDateTime>,
    /// Entries of a page; 0 for 100.
    pub page_size: u32,
    /// Of the page before; empty for the first.
    pub page_token: String,
}

/// Some sums, and where the next ones are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePage {
    /// By period and agent.
    pub sums: Vec<UsageSum>,
    /// Empty at the end.
    pub next_page_token: String,
    /// Where the sums of this time lack something; with the first page.
    pub gaps: Vec<UsageGap>,
}

/// Lists one tenant's sums. Clones share it.
#[derive(Clone, Debug)]
pub struct UsageSums {
    parts: Parts,
}

impl UsageSums {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }

    /// The sums that match.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `AGENT_NOT_FOUND`, `FILTER_INVALID`, `PAGE_TOKEN_INVALID`, or where the store does not answer.
    pub async fn list(&self, caller: &Agent, query: &UsageQuery) -> Result<UsagePage, Fault> {
        let whose = self.whose(caller, &query.agent)?;
        if [query.from, query.to].into_iter().flatten().any(|time| !(1970..=9999).contains(&time.year())) {
            return Err(Fault::invalid("FILTER_INVALID", "a time is out of range: from 1970 to 9999"));
        }
        let filter = SumFilter {
            whose,
            by: query.by,
            from: query.from.map(|from| begin(query.by, from)),
            to: query.to,
            after: (!query.page_token.is_empty()).then(|| after(&query.page_token)).transpose()?,
        };
        let size = page::size(query.page_size);
        let mut sums = self.parts.sums.store.sums(&filter, size + 1).await?;
        let more = page::cut(&mut sums, size, |sum| page::bytes([&sum.name]));
        let gaps =
            if filter.after.is_none() { self.parts.sums.store.gaps(filter.from, filter.to, GAPS).await? } else { Vec::new() };
        let next = sums.last().filter(|_| more).map(token).unwrap_or_default();
        Ok(UsagePage { sums, next_page_token: next, gaps })
    }

    fn whose(&self, caller: &Agent, name: &str) -> Result<Whose, Fault> {
        let snapshot = self.parts.directory.snapshot();
        let all = caller.role.allows(Permission::AllUsage);
        if !all && !name.is_empty() && name != caller.name {
            return Err(lacks(caller, &[Permission::AllUsage]));
        }
        if all && name.is_empty() {
            return Ok(Whose::All);
        }
        let name = if name.is_empty() { &caller.name } else { name };
        let known = snapshot.agent_named(name).and_then(|agent| snapshot.account(agent.id));
        match known {
            Some(agent) => Ok(Whose::Agent(agent.id)),
            // What it sent is to be found after it is gone.
            None if all && name.chars().count() <= NAME && !name.contains('\0') => Ok(Whose::Named(name.to_owned())),
            None => Err(Fault::not_found("AGENT_NOT_FOUND", format!("there is no agent {}", quoted(name)))),
        }
    }
}

/// When the period of this time begins.
fn begin(by: Period, time: OffsetDateTime) -> OffsetDateTime {
    let time = time.to_offset(UtcOffset::UTC);
    match by {
        Period::Hour => {
            time - Duration::seconds(time.unix_timestamp().rem_euclid(3600)) - Duration::nanoseconds(time.nanosecond().into())
        }
        Period::Day => time.date().midnight().assume_utc(),
        Period::Month => month_began(time),
    }
}

fn token(sum: &UsageSum) -> String {
    format!("{}.{}", to_micros(sum.starts_at), sum.agent.0.simple())
}

fn after(token: &str) -> Result<(OffsetDateTime, AgentId), Fault> {
    let parse = || {
        let (at, agent) = token.split_once('.')?;
        Some((from_micros(at.parse().ok()?)?, AgentId(Uuid::try_parse(agent).ok()?)))
    };
    parse()
        .filter(|(at, _)| (1970..=9999).contains(&at.year()))
        .ok_or_else(|| Fault::invalid("PAGE_TOKEN_INVALID", "the page token is of no list of usage"))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::messages::sent::Sent;

    #[test]
    fn a_period_begins_on_the_clock_of_utc() {
        let time = datetime!(2026-03-01 00:30:05.5 +1);
        assert_eq!(begin(Period::Hour, time), datetime!(2026-02-28 23:00 UTC));
        assert_eq!(begin(Period::Day, time), datetime!(2026-02-28 00:00 UTC));
        assert_eq!(begin(Period::Month, time), datetime!(2026-02-01 00:00 UTC));
    }

    #[test]
    fn a_page_token_is_read_as_it_was_written_and_noise_is_refused() {
        let agent = AgentId(Uuid::from_u128(7));
        let sum = UsageSum { starts_at: datetime!(2026-02-28 23:00 UTC), agent, name: String::new(), sent: Sent::default() };
        assert_eq!(after(&token(&sum)).unwrap(), (sum.starts_at, agent));
        let far = format!("{}.{}", i64::MAX, agent.0);
        for noise in ["", ".", "1", "x.y", "1.", "-99999999999999999999.0", far.as_str()] {
            assert_eq!(after(noise).unwrap_err().reason, "PAGE_TOKEN_INVALID", "{noise}");
        }
    }
}
