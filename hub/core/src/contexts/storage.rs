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

use super::ports::ContextStore;
use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::{LimitUsage, Whose},
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
/// The name of the limit in the resources.
const LIMIT: &str = "storageBytes";

/// Whose storage: an agent's with those that it registered, or everybody's.
type Account = Option<AgentId>;

#[derive(Clone, Copy, Debug)]
struct Known {
    at: Instant,
    bytes: u64,
}

/// What one replica knows of what is kept.
#[derive(Debug, Default)]
pub(crate) struct Storage(Mutex<HashMap<Account, Known>>);

impl Storage {
    /// Takes note that so many bytes more are about to be kept for this agent, or on this account, where they may. The limits of one that is gone
    /// are not known any more.
    ///
    /// # Errors
    /// `STORAGE_LIMIT_EXCEEDED`, or where the store does not answer.
    pub(crate) async fn take(
        &self,
        store: &dyn ContextStore,
        snapshot: &Snapshot,
        (tenant, agent): (&str, AgentId),
        more: u64,
    ) -> Result<(), Fault> {
        let account = snapshot.account(agent);
        let own = account.map(|account| (Some(account.id), account.limits.storage_bytes, Whose::Agent(&account.name)));
        let all = (None, snapshot.limits.storage_bytes, Whose::Tenant(tenant));
        if more > 0 {
            for (of, most, whose) in own.into_iter().chain([all]) {
                let Some(most) = most else { continue };
                if self.kept(store, snapshot, of, AGE).await?.saturating_add(more) > most {
                    let kept = self.kept(store, snapshot, of, AGAIN).await?;
                    if kept.saturating_add(more) > most {
                        return Err(refusal(whose, most, kept, more));
                    }
                }
            }
        }
        let mut known = self.lock();
        for of in [Some(account.map_or(agent, |account| account.id)), None] {
            if let Some(known) = known.get_mut(&of) {
                known.bytes = known.bytes.saturating_add(more);
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
        let own = (Some(agent.id), agent.limits.storage_bytes, Whose::Agent(&agent.name));
        let mut usage = Vec::new();
        for (of, most, whose) in [own, (None, snapshot.limits.storage_bytes, Whose::Tenant(tenant))] {
            let used = self.kept(store, snapshot, of, AGAIN).await?;
            usage.push(LimitUsage { subject: whose.subject(), limit: LIMIT, most, used, resets_in: None });
        }
        Ok(usage)
    }

    /// What is kept, as it was known so long ago at most.
    async fn kept(&self, store: &dyn ContextStore, snapshot: &Snapshot, of: Account, age: Duration) -> Result<u64, Fault> {
        if let Some(known) = self.lock().get(&of).filter(|known| known.at.elapsed() < age) {
            return Ok(known.bytes);
        }
        // Before the answer: what is stored while it is on its way may be in it, or not.
        let at = Instant::now();
        let accounts = of.map(|account| snapshot.on_account(account));
        let bytes = store.stored_bytes(accounts.as_deref()).await?;
        let mut known = self.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, known| known.at.elapsed() < AGE);
        }
        if known.len() < REMEMBERED || known.contains_key(&of) {
            known.insert(of, Known { at, bytes });
        }
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Account, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(whose: Whose<'_>, most: u64, kept: u64, more: u64) -> Fault {
    let of = whose.kind();
    let why = format!(
        "{of} may keep {most} bytes in contexts, has {kept}, and this would be {more} more: nothing was stored; delete contexts, or let them expire"
    );
    Fault::new(Code::ResourceExhausted, "STORAGE_LIMIT_EXCEEDED", why).exhausted(Exhausted {
        subject: whose.subject(),
        limit: LIMIT,
        most,
        // Nobody knows when somebody deletes something.
        retry_after: None,
    })
}
