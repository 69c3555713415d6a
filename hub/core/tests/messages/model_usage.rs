//! The sums of usage in memory.

use std::collections::BTreeMap;

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::{
        ports::Moved,
        position::Position,
        sent::Sent,
        usage::month_began,
        usage_store::{Begun, Period, SumFilter, UsageAdvance, UsageGap, UsageStore, UsageSum, Whose},
    },
};
use async_trait::async_trait;
use time::OffsetDateTime;

use crate::model::ModelStore;

#[derive(Clone, Default)]
pub(crate) struct ModelUsage {
    pub(crate) next: Vec<Position>,
    hours: BTreeMap<(OffsetDateTime, AgentId), (String, Sent)>,
    gaps: Vec<UsageGap>,
}

impl ModelUsage {
    pub(crate) fn cut(&mut self, ends: &[(Partition, Position)]) {
        for (partition, end) in ends {
            if let Some(next) = self.next.get_mut(*partition as usize) {
                *next = (*next).min(*end);
            }
        }
        self.gap("the messages log lost its last records", None);
    }

    fn gap(&mut self, what: &str, records: Option<u64>) {
        self.gaps.push(UsageGap { found_at: OffsetDateTime::now_utc(), what: what.to_owned(), records });
    }

    fn by(&self, period: Period) -> BTreeMap<(OffsetDateTime, AgentId), (String, Sent)> {
        let mut sums: BTreeMap<(OffsetDateTime, AgentId), (String, Sent)> = BTreeMap::new();
        for ((hour, agent), (name, sent)) in &self.hours {
            let begins = match period {
                Period::Hour => *hour,
                Period::Day => hour.date().midnight().assume_utc(),
                Period::Month => month_began(*hour),
            };
            let sum = sums.entry((begins, *agent)).or_default();
            sum.0.clone_from(name);
            sum.1.messages += sent.messages;
            sum.1.bytes += sent.bytes;
        }
        sums
    }
}

fn sum(((starts_at, agent), (name, sent)): ((OffsetDateTime, AgentId), (String, Sent))) -> UsageSum {
    UsageSum { starts_at, agent, name, sent }
}

#[async_trait]
impl UsageStore for ModelStore {
    async fn begin(&self, epoch: Epoch, indexed: &[Position], since: OffsetDateTime) -> Result<Begun, Fault> {
        let mut rows = self.rows();
        if rows.cuts.contains_key(&epoch) {
            return Err(Fault::unavailable("LOG_LIFE_OVER", "try again"));
        }
        let usage = &mut rows.usage;
        if usage.next.is_empty() {
            usage.next = indexed.to_vec();
        }
        let months: Vec<UsageSum> = usage.by(Period::Month).into_iter().map(sum).collect();
        let last = months.iter().map(|sum| sum.starts_at).max().map(|last| month_began(last - time::Duration::DAY));
        let since = last.map_or(since, |last| since.min(last));
        let months = months.into_iter().filter(|sum| sum.starts_at >= since).collect();
        Ok(Begun { next: usage.next.clone(), months, gaps: usage.gaps.len() as u64 })
    }

    async fn add(&self, epoch: Epoch, advances: &[UsageAdvance]) -> Result<(Vec<Moved>, u64), Fault> {
        let mut rows = self.rows();
        let is_over = rows.cuts.contains_key(&epoch);
        let usage = &mut rows.usage;
        let mut moved = Vec::new();
        for advance in advances {
            let next = &mut usage.next[advance.partition as usize];
            if is_over {
                moved.push(Moved::Gone);
            } else if *next == advance.from {
                *next = advance.to;
                for sum in &advance.hours {
                    let (name, sent) = usage.hours.entry((sum.starts_at, sum.agent)).or_default();
                    name.clone_from(&sum.name);
                    sent.messages += sum.sent.messages;
                    sent.bytes += sum.sent.bytes;
                }
                if advance.missing > 0 {
                    usage.gap("the log forgot records before they were summed", Some(advance.missing));
                }
                moved.push(Moved::Won);
            } else {
                moved.push(Moved::Lost(*next));
            }
        }
        Ok((moved, usage.gaps.len() as u64))
    }

    async fn sums(&self, filter: &SumFilter, limit: usize) -> Result<Vec<UsageSum>, Fault> {
        let matches = |sum: &UsageSum| {
            let whose = match &filter.whose {
                Whose::All => true,
                Whose::Agent(agent) => sum.agent == *agent,
                Whose::Named(name) => sum.name == *name,
            };
            let time = filter.from.is_none_or(|from| sum.starts_at >= from) && filter.to.is_none_or(|to| sum.starts_at < to);
            whose && time && filter.after.is_none_or(|after| (sum.starts_at, sum.agent) > after)
        };
        Ok(self.rows().usage.by(filter.by).into_iter().map(sum).filter(matches).take(limit).collect())
    }

    async fn gaps_lately(&self) -> Result<u64, Fault> {
        Ok(self.rows().usage.gaps.len() as u64)
    }

    async fn gaps(&self, from: Option<OffsetDateTime>, to: Option<OffsetDateTime>, limit: usize) -> Result<Vec<UsageGap>, Fault> {
        let rows = self.rows();
        let found = |gap: &&UsageGap| from.is_none_or(|from| gap.found_at >= from) && to.is_none_or(|to| gap.found_at < to);
        Ok(rows.usage.gaps.iter().rev().filter(found).take(limit).cloned().collect())
    }

    async fn forget_hours(&self, _: OffsetDateTime, _: usize) -> Result<u64, Fault> {
        Ok(0)
    }
}
