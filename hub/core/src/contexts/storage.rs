//! How much agents keep in contexts, and whether they may keep more.
//!
//! What is kept is asked of the store now and then, and what this replica added since is added to that. Before anybody is refused the store is asked
//! again. So a limit is overshot by what other replicas stored within [`AGE`] at most, and by what is on its way at that moment.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::ports::{ContextStore, Kept};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::{LimitUsage, Limits, Whose},
        snapshot::Snapshot,
    },
    fault::{Code, Exhausted, Fault},
};

/// How long what the store said is taken for current.
const AGE: Duration = Duration::from_secs(10);
/// How soon it is asked again where somebody has no room.
const AGAIN: Duration = Duration::from_secs(1);
/// Agents of whom it is remembered.
const REMEMBERED: usize = 1000;
/// The names of the limits in the resources.
const BYTES: &str = "storageBytes";
const CONTEXTS: &str = "contexts";

/// Whose storage: an agent's with those that it registered, or everybody's.
type Account = Option<AgentId>;

#[derive(Clone, Copy, Debug)]
struct Known {
    at: Instant,
    kept: Kept,
}

/// What one replica knows of what is kept.
#[derive(Debug, Default)]
pub(crate) struct Storage(Mutex<HashMap<Account, Known>>);

impl Storage {
    /// Takes note that so much more is about to be kept for this agent, or on this account, where it may. The limits of one that is gone are not
    /// known any more.
    ///
    /// # Errors
    /// `STORAGE_LIMIT_EXCEEDED`, `CONTEXT_LIMIT_EXCEEDED`, or where the store does not answer.
    pub(crate) async fn take(
        &self,
        store: &dyn ContextStore,
        snapshot: &Snapshot,
        (tenant, agent): (&str, AgentId),
        more: Kept,
    ) -> Result<(), Fault> {
        let account = snapshot.account(agent);
        let own = account.map(|account| (Some(account.id), account.limits, Whose::Agent(&account.name)));
        let all = (None, snapshot.limits, Whose::Tenant(tenant));
        for (of, limits, whose) in own.into_iter().chain([all]) {
            if !asks_for(limits, more) {
                continue;
            }
            if beyond(limits, self.kept(store, snapshot, of, AGE).await?, more).is_some() {
                let kept = self.kept(store, snapshot, of, AGAIN).await?;
                if let Some(beyond) = beyond(limits, kept, more) {
                    return Err(beyond.refusal(whose));
                }
            }
        }
        let mut known = self.lock();
        for of in [Some(account.map_or(agent, |account| account.id)), None] {
            if let Some(known) = known.get_mut(&of) {
                known.kept = known.kept.with(more);
            }
        }
        Ok(())
    }

    /// The limits of an agent and of the tenant, with what is kept now.
    pub(crate) async fn usage(
        &self,
        store: &dyn ContextStore,
        snapshot: &Snapshot,
        (tenant, agent): (&str, &Agent),
    ) -> Result<Vec<LimitUsage>, Fault> {
        let own = (Some(agent.id), agent.limits, Whose::Agent(&agent.name));
        let mut usage = Vec::new();
        for (of, limits, whose) in [own, (None, snapshot.limits, Whose::Tenant(tenant))] {
            let kept = self.kept(store, snapshot, of, AGAIN).await?;
            for (limit, most, used) in [(BYTES, limits.storage_bytes, kept.bytes), (CONTEXTS, limits.contexts, kept.contexts)] {
                usage.push(LimitUsage { subject: whose.subject(), limit, most, used, resets_in: None });
            }
        }
        Ok(usage)
    }

    /// What is kept, as it was known so long ago at most.
    async fn kept(&self, store: &dyn ContextStore, snapshot: &Snapshot, of: Account, age: Duration) -> Result<Kept, Fault> {
        if let Some(known) = self.lock().get(&of).filter(|known| known.at.elapsed() < age) {
            return Ok(known.kept);
        }
        // Before the answer: what is stored while it is on its way may be in it, or not.
        let at = Instant::now();
        let accounts = of.map(|account| snapshot.on_account(account));
        let kept = store.kept(accounts.as_deref()).await?;
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, known| known.at.elapsed() < AGE);
        }
        if known.len() < REMEMBERED || known.contains_key(&of) {
            known.insert(of, Known { at, kept });
        }
        Ok(kept)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Account, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether any of these limits is one of what is to be kept.
fn asks_for(limits: Limits, more: Kept) -> bool {
    (more.bytes > 0 && limits.storage_bytes.is_some()) || (more.contexts > 0 && limits.contexts.is_some())
}

/// A limit that would be passed.
struct Beyond {
    limit: &'static str,
    reason: &'static str,
    /// What is counted.
    of: &'static str,
    most: u64,
    kept: u64,
    more: u64,
}

/// The limit that would be passed by so much more beside what is kept.
fn beyond(limits: Limits, kept: Kept, more: Kept) -> Option<Beyond> {
    [
        (BYTES, "STORAGE_LIMIT_EXCEEDED", "bytes in contexts", limits.storage_bytes, kept.bytes, more.bytes),
        (CONTEXTS, "CONTEXT_LIMIT_EXCEEDED", "contexts", limits.contexts, kept.contexts, more.contexts),
    ]
    .into_iter()
    // What adds nothing is never refused: a limit that got smaller must not keep a context from being changed.
    .filter(|(.., more)| *more > 0)
    .find_map(|(limit, reason, of, most, kept, more)| {
        let most = most.filter(|most| kept.saturating_add(more) > *most)?;
        Some(Beyond { limit, reason, of, most, kept, more })
    })
}

impl Beyond {
    fn refusal(self, whose: Whose<'_>) -> Fault {
        let Self { limit, reason, of, most, kept, more } = self;
        let kind = whose.kind();
        let why = format!(
            "{kind} may keep {most} {of}, has {kept}, and this would be {more} more: nothing was stored; delete contexts, or let them expire"
        );
        Fault::new(Code::ResourceExhausted, reason, why).exhausted(Exhausted {
            subject: whose.subject(),
            limit,
            most,
            // Nobody knows when somebody deletes something.
            retry_after: None,
        })
    }
}
