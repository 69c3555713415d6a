//! Looks for what belongs to no Tenant, at the beginning of each term and every hour, and takes away what lets someone in. What is left
//! behind by a deletion, or could not be looked at, is looked for sooner.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use acb_crds::schema::Kind;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::{
    cluster::{Cluster, is_let_go},
    metrics::Metrics,
};
use crate::{
    effect::{EffectError, kafka::KafkaEffect, kubernetes, postgres_inventory},
    orphans::{Inventory, Orphan, OrphanFound, OrphanReport, System, orphans},
    plan::Step,
    reconcile::{self, jitter, runtime::Runtime as _},
    tenancy::{Tenancy, Unreadable},
    tenant::namespace::{TENANT_UID_LABEL, label},
};

/// The reconciles of a new term come first.
const FIRST_AFTER: Duration = Duration::from_secs(5);
const EVERY: Duration = Duration::from_secs(3600);
/// Where something could not be looked at, or not be taken away.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Sweeps until this process leads no more.
pub(super) async fn sweep(cluster: Arc<Cluster>, metrics: Metrics) {
    let soon = |wait: Duration| Instant::now() + wait.mul_f64(0.9 + 0.2 * jitter());
    let mut due = soon(FIRST_AFTER);
    let mut known: BTreeMap<System, Vec<String>> = BTreeMap::new();
    loop {
        tokio::select! {
            () = cluster.closing.cancelled() => break,
            () = sleep_until(due) => {}
            // What was away when that happened most likely still is. Many of them put nothing off.
            () = cluster.left_behind.notified() => {
                due = due.min(soon(AGAIN_AFTER));
                continue;
            }
        }
        let swept = once(&cluster, &metrics, &mut known).await;
        due = soon(if swept { EVERY } else { AGAIN_AFTER });
    }
    // The next leader counts for itself.
    System::ALL.into_iter().for_each(|system| metrics.orphans(system, 0));
}

/// Kafka, as a sweep found it; `None`: the log is in PostgreSQL.
type Reached<'a> = Result<Option<&'a KafkaEffect>, &'a EffectError>;

/// One look. Whether all was looked at, and all that could be taken away was.
pub(super) async fn once(cluster: &Cluster, metrics: &Metrics, known: &mut BTreeMap<System, Vec<String>>) -> bool {
    let kafka = cluster.kafka();
    let kafka = kafka.as_ref().map(Option::as_ref);
    let (inventory, mut all) = take(cluster, kafka).await;
    // After the inventory: who is made in between has nothing in it yet.
    let tenancy = match everyone(cluster).await {
        Ok(tenancy) => tenancy,
        Err(error) => {
            warn!(%error, "the Tenants could not be listed: nothing is taken away now");
            return false;
        }
    };
    let mut left: BTreeMap<System, Vec<Orphan>> = inventory.judged().into_iter().map(|system| (system, Vec::new())).collect();
    for orphan in orphans(&tenancy, &inventory) {
        match finish(cluster, &orphan, kafka).await {
            Ok(true) => {
                info!(%orphan, system = orphan.system.as_str(), "belonged to no Tenant, and was taken away");
                metrics.orphan_finished(orphan.system);
                continue;
            }
            Ok(false) => {}
            Err(error) => {
                all = false;
                warn!(%orphan, system = orphan.system.as_str(), %error, "belongs to no Tenant, and could not be taken away");
            }
        }
        left.entry(orphan.system).or_default().push(orphan);
    }
    let away = System::ALL.into_iter().filter(|system| *system != System::Kafka || cluster.platform().has_kafka());
    let away = away.filter(|system| !left.contains_key(system)).collect();
    let found = left.values().flatten().map(OrphanFound::from).collect();
    *cluster.orphans.lock().unwrap_or_else(PoisonError::into_inner) =
        OrphanReport { looked_at: Some(reconcile::now()), away, orphans: found };
    for (system, orphans) in left {
        // A Kafka may serve others than ACB, and that is nothing to be alarmed about.
        let counts = |orphan: &&Orphan| orphan.is_ours || system != System::Kafka;
        metrics.orphans(system, orphans.iter().filter(counts).count());
        let orphans: Vec<String> = orphans.iter().map(ToString::to_string).collect();
        // Said once for each time that it changes.
        if known.get(&system).unwrap_or(&Vec::new()) != &orphans {
            warn!(system = system.as_str(), orphans = orphans.join(", "), "belongs to no Tenant: see docs/day-two.md#orphans");
        }
        known.insert(system, orphans);
    }
    all
}

/// Who is there: what the watch told, and what the API server says now. A watch may be behind the stores, which are read as they are.
async fn everyone(cluster: &Cluster) -> Result<Tenancy, EffectError> {
    let listed = cluster.objects.tenants().await?;
    let mut tenancy = cluster.tenancy("")?;
    let there = listed.into_iter().filter(|metadata| !is_let_go(metadata));
    tenancy.unreadable.extend(there.map(|metadata| Unreadable::new(Kind::Tenant, metadata)));
    Ok(tenancy)
}

/// Lists what there is, and whether every system answered.
async fn take(cluster: &Cluster, kafka: Reached<'_>) -> (Inventory, bool) {
    let mut inventory = Inventory { objects: cluster.cache.list(""), ..Inventory::default() };
    let marked = inventory.objects.iter().filter(|(_, object)| label(object, TENANT_UID_LABEL).is_some());
    let marked: Vec<String> = marked.map(|(key, _)| key.name.clone()).collect();
    for namespace in marked {
        inventory.objects.extend(cluster.cache.list(&namespace));
    }
    let mut all = true;
    let mut answered = |what: &str, error: EffectError| {
        all = false;
        info!(what, %error, "not looked through for orphans");
    };
    match cluster.database_in_use().await {
        Ok(None) => {}
        Ok(Some(database)) => match postgres_inventory::inventory(&database.reader.pool).await {
            Ok(found) => inventory.postgres = Some(found),
            Err(error) => answered("PostgreSQL", error),
        },
        Err(error) => answered("PostgreSQL", error),
    }
    match kafka {
        Ok(None) => {}
        Ok(Some(kafka)) => match kafka.inventory().await {
            Ok(found) => inventory.kafka = Some(found),
            Err(error) => answered("Kafka", error),
        },
        Err(error) => answered("Kafka", error.clone()),
    }
    (inventory, all)
}

/// Takes it away; false: that is for people to do.
async fn finish(cluster: &Cluster, orphan: &Orphan, kafka: Reached<'_>) -> Result<bool, EffectError> {
    for step in &orphan.steps {
        cluster.may_act()?;
        match step {
            Step::Kubernetes(step) => kubernetes::apply(cluster.objects(), step).await?,
            Step::Postgres(step) => cluster.database().await?.effect.apply(step).await?,
            Step::Kafka(step) => match kafka.map_err(Clone::clone)? {
                Some(kafka) => kafka.apply(std::slice::from_ref(step), cluster.objects()).await?,
                None => return Ok(false),
            },
        }
    }
    Ok(!orphan.steps.is_empty())
}
