//! The sums of usage in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::{
        ports::Moved,
        position::Position,
        sent::Sent,
        usage::month_began,
        usage_store::{
            Begun, Complete, Period, Rebuild, SumFilter, Unexported, UsageAdvance, UsageGap, UsageStore, UsageSum, Whose,
        },
    },
};
use async_trait::async_trait;
use time::OffsetDateTime;

use crate::model::{ModelStore, Rows};

#[derive(Clone, Default)]
pub(crate) struct ModelUsage {
    pub(crate) next: Vec<Position>,
    hours: BTreeMap<(OffsetDateTime, AgentId), (String, Sent)>,
    gaps: Vec<UsageGap>,
    /// By partition: the last hour, and where it begins.
    latest: BTreeMap<Partition, (OffsetDateTime, Position)>,
    /// Messages that were told.
    exported: BTreeMap<(OffsetDateTime, AgentId), u64>,
}

impl ModelUsage {
    pub(crate) fn cut(&mut self, ends: &[(Partition, Position)]) {
        for (partition, end) in ends {
            if let Some(next) = self.next.get_mut(*partition as usize) {
                *next = (*next).min(*end);
            }
            if let Some((_, from)) = self.latest.get_mut(partition) {
                *from = (*from).min(*end);
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
                if let Some((hour, from)) = advance.latest
                    && usage.latest.get(&advance.partition).is_none_or(|(last, _)| *last < hour)
                {
                    usage.latest.insert(advance.partition, (hour, from));
                }
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

    async fn unexported(&self, epoch: Epoch, _: Epoch, close_after: Duration, limit: usize) -> Result<Unexported, Fault> {
        let rows = self.rows();
        if rows.cuts.contains_key(&epoch) {
            return Ok(Unexported::default());
        }
        let usage = &rows.usage;
        let closed = OffsetDateTime::now_utc() - close_after;
        let through = closed - Duration::from_nanos((closed.unix_timestamp_nanos() % 3_600_000_000_000) as u64);
        let lacks = usage.hours.iter().filter(|(key, (_, sent))| {
            key.0 <= through && usage.exported.get(key).is_none_or(|exported| *exported < sent.messages)
        });
        let mut hours: Vec<UsageSum> = lacks.map(|(key, found)| sum((*key, found.clone()))).collect();
        let has_more = hours.len() > limit;
        hours.truncate(limit);
        let below = (0..).zip(&usage.next).map(|(partition, next)| match usage.latest.get(&partition) {
            None => *next,
            Some((hour, _)) if *hour <= through => *next,
            Some((hour, from)) if *hour - time::Duration::HOUR <= through => *from,
            Some(_) => 0,
        });
        let complete = (!has_more).then(|| Complete { through, below: below.collect() });
        Ok(Unexported { hours, next: usage.next.clone(), complete })
    }

    async fn exported(&self, _: Epoch, hours: &[UsageSum]) -> Result<(), Fault> {
        let told = hours.iter().map(|sum| ((sum.starts_at, sum.agent), sum.sent.messages));
        self.rows().usage.exported.extend(told);
        Ok(())
    }

    async fn rebuild(&self, _: Epoch, from: &[Position]) -> Result<Option<Box<dyn Rebuild>>, Fault> {
        let rows = self.rows();
        if rows.usage.next != from {
            return Ok(None);
        }
        let last_hour = rows.usage.hours.keys().map(|(hour, _)| *hour).max();
        Ok(Some(Box::new(ModelRebuild { rows: self.shared(), last_hour, hours: Vec::new() })))
    }
}

struct ModelRebuild {
    rows: Arc<Mutex<Rows>>,
    last_hour: Option<OffsetDateTime>,
    hours: Vec<UsageSum>,
}

#[async_trait]
impl Rebuild for ModelRebuild {
    fn last_hour(&self) -> Option<OffsetDateTime> {
        self.last_hour
    }

    async fn raise(&mut self, hours: &[UsageSum]) -> Result<(), Fault> {
        self.hours.extend_from_slice(hours);
        Ok(())
    }

    async fn done(self: Box<Self>, next: &[Position], _: OffsetDateTime) -> Result<(), Fault> {
        let mut rows = self.rows.lock().unwrap();
        for sum in self.hours {
            let (name, sent) = rows.usage.hours.entry((sum.starts_at, sum.agent)).or_default();
            *name = sum.name;
            sent.messages = sent.messages.max(sum.sent.messages);
            sent.bytes = sent.bytes.max(sum.sent.bytes);
        }
        rows.usage.next = next.to_vec();
        Ok(())
    }
}
