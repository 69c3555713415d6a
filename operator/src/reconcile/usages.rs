//! What tenants have used, as it was read last: a tenancy that is looked at again and again asks PostgreSQL seldom.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use acb_hub_pool::Pool;
use tracing::debug;

use crate::{effect::postgres_usage, observed::ObservedUsage};

/// For how long what was read is taken for current.
const AGE: Duration = Duration::from_secs(30);
/// What was not asked for so long is of a tenant that is gone.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default)]
pub(super) struct Usages(Mutex<HashMap<String, (Instant, ObservedUsage)>>);

impl Usages {
    /// What a tenant's agents have used. `None` where PostgreSQL does not say: what was shown before stays.
    pub(super) async fn of(&self, operator: &Pool, tenant_id: &str) -> Option<ObservedUsage> {
        if let Some((at, usage)) = self.lock().get(tenant_id)
            && at.elapsed() < AGE
        {
            return Some(usage.clone());
        }
        match postgres_usage::usage(operator, tenant_id).await {
            Ok(usage) => {
                let mut known = self.lock();
                known.retain(|_, (at, _)| at.elapsed() < FORGOTTEN);
                known.insert(tenant_id.to_owned(), (Instant::now(), usage.clone()));
                Some(usage)
            }
            Err(error) => {
                debug!(tenant_id, %error, "its usage is not known now");
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, ObservedUsage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
