//! Timers in memory, by the clock of this machine.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use acb_hub_core::{
    fault::Fault,
    kit::clock::truncated,
    timers::ports::{Added, Backlog, Bounds, Cancelled, Due, KNOWN, NewTimer, Outcomes, RESERVED, Timer, TimerStore},
};
use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use super::model::ModelStore;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Cancelled,
}

struct Row {
    timer: Timer,
    key: String,
    digest: [u8; 32],
    try_at: OffsetDateTime,
    attempted_at: Option<OffsetDateTime>,
    settled: Option<(OffsetDateTime, Outcome)>,
    claimed: bool,
}

/// Rows of timers. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct ModelTimers(Arc<Mutex<BTreeMap<Uuid, Row>>>);

impl ModelTimers {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Uuid, Row>> {
        self.0.lock().unwrap()
    }
}

struct Claimed {
    timers: ModelTimers,
    due: Vec<Timer>,
    now: OffsetDateTime,
}

fn now() -> OffsetDateTime {
    truncated(OffsetDateTime::now_utc())
}

#[async_trait]
impl TimerStore for ModelStore {
    async fn add(&self, timer: &NewTimer, bounds: Bounds) -> Result<Added, Fault> {
        let mut rows = self.timers.rows();
        let same = |row: &&Row| row.timer.kind == timer.kind && row.timer.subject == timer.subject && row.key == timer.key;
        if let Some(row) = rows.values().find(same).filter(|_| !timer.key.is_empty()) {
            return Ok(Added::Known { id: row.timer.id, due_at: row.timer.due_at, digest: row.digest });
        }
        let waiting = || rows.values().filter(|row| row.settled.is_none() && row.timer.kind == timer.kind);
        let each = waiting().filter(|row| row.timer.subject == timer.subject).count() as u64;
        if each >= bounds.each || waiting().count() as u64 >= bounds.all {
            return Ok(Added::Full { of_subject: each >= bounds.each });
        }
        let (made_at, due_at) = (now(), truncated(now() + timer.after));
        let made = Timer {
            id: timer.id,
            kind: timer.kind.to_owned(),
            subject: timer.subject,
            due_at,
            made_at,
            attempted: None,
            content: timer.content.clone(),
        };
        let row = Row {
            timer: made,
            key: timer.key.clone(),
            digest: timer.digest,
            try_at: due_at,
            attempted_at: None,
            settled: None,
            claimed: false,
        };
        rows.insert(timer.id, row);
        Ok(Added::Made { due_at })
    }

    async fn claim(&self, kinds: &[&str], about_to: &[Uuid]) -> Result<Option<Box<dyn Due>>, Fault> {
        let (now, mut due) = (now(), Vec::new());
        for row in self.timers.rows().values_mut() {
            let is_due = row.try_at <= now || about_to.contains(&row.timer.id);
            if row.settled.is_none() && !row.claimed && is_due && kinds.contains(&row.timer.kind.as_str()) {
                row.claimed = true;
                let attempted = row.attempted_at.map(|at| (now - at).try_into().unwrap_or_default());
                due.push(Timer { attempted, ..row.timer.clone() });
            }
        }
        due.sort_by_key(|timer| timer.due_at);
        let claimed: Box<dyn Due> = Box::new(Claimed { timers: self.timers.clone(), due, now });
        Ok(Some(claimed).filter(|claimed| !claimed.timers().is_empty()))
    }

    async fn waiting(&self, kinds: &[&str]) -> Result<Backlog, Fault> {
        let (now, mut rows) = (now(), self.timers.rows());
        rows.retain(|_, row| row.settled.is_none_or(|(at, _)| now - at < KNOWN));
        let waiting: Vec<&Row> =
            rows.values().filter(|row| row.settled.is_none() && kinds.contains(&row.timer.kind.as_str())).collect();
        let next = waiting.iter().map(|row| row.try_at).min();
        let next = next.map(|next| Duration::try_from(next - now).unwrap_or(Duration::from_millis(20)));
        Ok(Backlog { count: waiting.len() as u64, next, overdue: Duration::ZERO })
    }

    async fn list(
        &self,
        kind: &str,
        subject: Option<Uuid>,
        after: Option<(OffsetDateTime, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Timer>, Fault> {
        let rows = self.timers.rows();
        let waiting = rows.values().filter(|row| row.settled.is_none() && row.timer.kind == kind).map(|row| &row.timer);
        let of = waiting.filter(|timer| subject.is_none_or(|subject| timer.subject == subject));
        let mut timers: Vec<Timer> =
            of.filter(|timer| after.is_none_or(|after| (timer.due_at, timer.id) > after)).cloned().collect();
        timers.sort_by_key(|timer| (timer.due_at, timer.id));
        timers.truncate(limit);
        Ok(timers)
    }

    async fn find(&self, kind: &str, id: Uuid) -> Result<Option<Timer>, Fault> {
        let rows = self.timers.rows();
        let row = rows.get(&id).filter(|row| row.settled.is_none() && row.timer.kind == kind);
        Ok(row.map(|row| row.timer.clone()))
    }

    async fn cancel(&self, kind: &str, subject: Option<Uuid>, id: Uuid) -> Result<Cancelled, Fault> {
        loop {
            {
                let mut rows = self.timers.rows();
                let row = rows.get_mut(&id).filter(|row| row.timer.kind == kind);
                let Some(row) = row.filter(|row| subject.is_none_or(|subject| row.timer.subject == subject)) else {
                    return Ok(Cancelled::Unknown);
                };
                match row.settled {
                    Some((_, Outcome::Cancelled)) => return Ok(Cancelled::Before),
                    Some((_, Outcome::Done)) => return Ok(Cancelled::TooLate),
                    None if row.attempted_at.is_some() => return Ok(Cancelled::TooLate),
                    None if !row.claimed => {
                        row.settled = Some((now(), Outcome::Cancelled));
                        return Ok(Cancelled::Now);
                    }
                    None => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[async_trait]
impl Due for Claimed {
    fn timers(&self) -> &[Timer] {
        &self.due
    }

    fn now(&self) -> OffsetDateTime {
        self.now
    }

    async fn settle(self: Box<Self>, outcomes: &Outcomes) -> Result<(), Fault> {
        let mut rows = self.timers.rows();
        for id in &outcomes.done {
            rows.get_mut(id).unwrap().settled = Some((now(), Outcome::Done));
        }
        for (id, pause) in outcomes.later.iter().chain(&outcomes.untouched) {
            rows.get_mut(id).unwrap().try_at = now() + *pause;
        }
        for (id, _) in &outcomes.untouched {
            rows.get_mut(id).unwrap().attempted_at = None;
        }
        for id in &outcomes.attempted {
            let row = rows.get_mut(id).unwrap();
            (row.attempted_at, row.try_at) = (Some(now()), now() + RESERVED);
        }
        Ok(())
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        for timer in &self.due {
            if let Some(row) = self.timers.rows().get_mut(&timer.id) {
                row.claimed = false;
            }
        }
    }
}
