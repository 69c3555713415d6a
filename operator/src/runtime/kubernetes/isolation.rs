//! Has the walls between tenants attacked from within: a Job in a hub's namespace, with that hub's own logins, after its Tenant is ready and
//! then again and again. What came of it is read from the status of its pod, so that the pod has no right at all; the reconcile of the Tenant
//! says it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use acb_crds::{
    Tenant,
    names::{TenantName, objects},
    tenant::IsolationStatus,
};
use kube_client::api::{DynamicObject, ListParams, PostParams};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    FIELD_MANAGER,
    cluster::Cluster,
    hub,
    kinds::{JOBS, PODS, WatchedKind},
    metrics::Metrics,
    requests::{Refusal, Requests, plain},
};
use crate::{
    difference::digest,
    effect::{EffectError, kubernetes::ObjectKey},
    platform::PlatformIsolation,
    reconcile::{self, runtime::Runtime as _},
    tenancy,
    tenant::{
        isolation::{self, DEADLINE_SECONDS, Mission},
        plan::DEPLOYMENT,
        verification::{self, Progress},
    },
};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Of all tenants together: they share the stores that they attack.
const AT_A_TIME: usize = 2;
/// What could not be started for so long is said, and not before: a right that was just given is not known everywhere at once.
const PATIENCE: Duration = Duration::from_secs(300);
/// A Job ends itself before that.
const LONGEST: Duration = Duration::from_secs(DEADLINE_SECONDS + 120);

/// A Job that is followed.
struct Followed {
    tenant: Tenant,
    job: String,
    since: Instant,
    /// What it was last seen to wait for.
    waited_for: Option<String>,
}

struct Verifier {
    cluster: Arc<Cluster>,
    requests: Requests,
    metrics: Metrics,
    isolation: PlatformIsolation,
    /// By the names of their Tenants.
    followed: BTreeMap<String, Followed>,
    /// Since when there is no Job for them, and there should be.
    failing: BTreeMap<String, Instant>,
}

/// For as long as this process leads.
pub(super) async fn verify(cluster: Arc<Cluster>, requests: Requests, metrics: Metrics) {
    let Some(isolation) = cluster.config.platform.isolation.clone() else { return };
    let closing = cluster.closing.clone();
    let (followed, failing) = (BTreeMap::new(), BTreeMap::new());
    let mut verifier = Verifier { cluster, requests, metrics, isolation, followed, failing };
    while closing.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        verifier.look().await;
    }
}

fn name(tenant: &Tenant) -> String {
    tenant.metadata.name.clone().unwrap_or_default()
}

fn hub_namespace(tenant: &Tenant) -> Option<String> {
    TenantName::parse(&name(tenant)).ok().map(|name| name.hub_namespace())
}

impl Verifier {
    async fn look(&mut self) {
        let Ok(tenancy) = self.cluster.tenancy("") else { return };
        let all: Vec<&Tenant> = tenancy.tenants.iter().collect();
        self.followed.retain(|name, _| all.iter().any(|tenant| tenant.metadata.name.as_ref() == Some(name)));
        self.failing.retain(|name, _| all.iter().any(|tenant| tenant.metadata.name.as_ref() == Some(name)));
        let is_there = |uid: &String| all.iter().any(|tenant| tenant.metadata.uid.as_ref() == Some(uid));
        self.cluster.isolation.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
        for name in self.followed.keys().cloned().collect::<Vec<_>>() {
            self.follow(&name).await;
        }
        for tenant in self.due(&all) {
            if self.followed.len() >= AT_A_TIME || self.cluster.may_act().is_err() {
                return;
            }
            self.begin(tenant, &all).await;
        }
    }

    /// Those whose turn it is, the longest due first.
    fn due<'a>(&self, all: &[&'a Tenant]) -> Vec<&'a Tenant> {
        let now = OffsetDateTime::now_utc();
        let is_followed = |tenant: &Tenant| self.followed.contains_key(&name(tenant));
        let mut due: Vec<(OffsetDateTime, &Tenant)> = all
            .iter()
            .filter(|tenant| !is_followed(tenant) && !self.is_told(tenant))
            .filter_map(|tenant| Some((verification::due_since(tenant, self.isolation.interval_seconds)?, *tenant)))
            .filter(|(since, _)| *since <= now)
            .collect();
        due.sort_by_key(|(since, _)| *since);
        due.into_iter().map(|(_, tenant)| tenant).collect()
    }

    /// Whether something was found that its status does not say yet.
    fn is_told(&self, tenant: &Tenant) -> bool {
        let found = self.cluster.isolation(tenant.metadata.uid.as_deref().unwrap_or_default());
        found.is_some() && found != tenant.status.as_ref().and_then(|status| status.isolation.clone())
    }

    async fn begin(&mut self, tenant: &Tenant, all: &[&Tenant]) {
        let tenant_name = name(tenant);
        match self.start(tenant, all).await {
            Ok(None) => {}
            Ok(Some(job)) => {
                self.failing.remove(&tenant_name);
                info!(tenant = tenant_name, job, "attacks on the walls begin");
                let followed = Followed { tenant: tenant.clone(), job, since: Instant::now(), waited_for: None };
                self.followed.insert(tenant_name, followed);
            }
            Err(error) => {
                let since = *self.failing.entry(tenant_name.clone()).or_insert_with(Instant::now);
                debug!(tenant = tenant_name, %error, "attacks on the walls could not be begun");
                if since.elapsed() >= PATIENCE {
                    self.failing.remove(&tenant_name);
                    self.tell(tenant, failed(format!("the Job could not be started: {error}")));
                }
            }
        }
    }

    /// A Job: the one that runs already, or a new one. `None`: not now.
    async fn start(&self, tenant: &Tenant, all: &[&Tenant]) -> Result<Option<String>, EffectError> {
        let Some(namespace) = hub_namespace(tenant) else { return Ok(None) };
        let name = name(tenant);
        // A leader before this one may have begun it.
        let jobs = self.list(&JOBS, &namespace, isolation::selector_text(&name)).await?;
        if let Some(running) = jobs.iter().find(|job| !verification::has_ended(job)) {
            return Ok(job_name(running));
        }
        let (api_version, kind) = DEPLOYMENT;
        let deployment = self.cluster.cache.get(&ObjectKey::new(api_version, kind, &namespace, objects::HUB));
        // While the hub rolls, which of its logins are the ones of now is not settled.
        let Some(deployment) = deployment.filter(|found| hub::observed(Some(found.as_ref())).rolled_out) else { return Ok(None) };
        let mission = self.mission(tenant, all)?;
        if mission.neighbours.is_empty() {
            self.tell(tenant, IsolationStatus::default());
            return Ok(None);
        }
        let seconds = OffsetDateTime::now_utc().unix_timestamp();
        let job = isolation::job(&name, &format!("{}-{seconds}", objects::ISOLATION), &deployment, &mission, &self.isolation);
        let job = job.ok_or_else(|| EffectError::refused("the operator", "the hub's Deployment has no volumes"))?;
        self.create(&namespace, &job).await
    }

    fn mission(&self, tenant: &Tenant, all: &[&Tenant]) -> Result<Mission, EffectError> {
        let agents = |tenant: &Tenant| {
            let namespace = tenancy::namespace(tenant).unwrap_or_default();
            Ok::<_, EffectError>(self.cluster.tenancy(&namespace)?.agents)
        };
        let own = agents(tenant)?;
        let salt = OffsetDateTime::now_utc().unix_timestamp_nanos();
        let drawn = isolation::draw(tenant, all, &self.isolation, |uid| digest(format!("{salt} {uid}")));
        let neighbours = drawn.into_iter().map(|neighbour| {
            let namespace = tenancy::namespace(neighbour).unwrap_or_default();
            let authority = self.cluster.cache.get(&ObjectKey::new("v1", "ConfigMap", &namespace, objects::CA));
            let authority = authority.and_then(|found| found.pointer("/data/ca.crt")?.as_str().map(str::to_owned));
            Ok(isolation::neighbour(neighbour, &authority.unwrap_or_default(), &agents(neighbour)?, &own))
        });
        let status = tenant.status.clone().unwrap_or_default();
        Ok(Mission {
            tenant_id: status.tenant_id.unwrap_or_default(),
            endpoints: status.endpoints.into_iter().map(|endpoint| endpoint.address).take(1).collect(),
            neighbours: neighbours.collect::<Result<_, EffectError>>()?,
        })
    }

    async fn create(&self, namespace: &str, job: &Value) -> Result<Option<String>, EffectError> {
        let object: DynamicObject = serde_json::from_value(job.clone())
            .map_err(|error| EffectError::refused("the operator", format!("a Job is no object: {error}")))?;
        let options = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let what = format!("Job {namespace}/{}", object.metadata.name.as_deref().unwrap_or_default());
        self.cluster.may_act()?;
        let created = self.requests.send("create", &what, self.requests.api(&JOBS, namespace).create(&options, &object)).await;
        match created {
            Ok(made) => Ok(made.metadata.name),
            // Of this second: the next look follows it.
            Err(Refusal::Exists) => Ok(None),
            Err(other) => Err(other.within(namespace)),
        }
    }

    async fn list(&self, kind: &WatchedKind, namespace: &str, selector: String) -> Result<Vec<Value>, EffectError> {
        let named = ListParams::default().labels(&selector);
        let what = format!("{}s in {namespace}", kind.kind);
        let listed = self.requests.send("list", &what, self.requests.api(kind, namespace).list(&named)).await;
        let listed = listed.map_err(|refusal| refusal.within(namespace))?;
        Ok(listed.items.iter().filter_map(|found| plain(kind.api_version, kind.kind, found)).collect())
    }

    async fn follow(&mut self, tenant: &str) {
        let Some(followed) = self.followed.get(tenant) else { return };
        let progress = self.progress(followed).await;
        let Some(followed) = self.followed.get_mut(tenant) else { return };
        let found = match progress {
            Ok(Some(Progress::Ended(found))) => *found,
            Ok(Some(Progress::Runs(waits_for))) if followed.since.elapsed() < LONGEST => {
                followed.waited_for = waits_for.or_else(|| followed.waited_for.take());
                return;
            }
            Ok(None) => failed("the Job was removed while it ran".to_owned()),
            Ok(Some(Progress::Runs(_))) => failed(format!("the Job did not end within {} s", LONGEST.as_secs())),
            // It is asked again, as long as it could run.
            Err(error) if followed.since.elapsed() < LONGEST => {
                debug!(tenant, %error, "how attacks on the walls are going could not be asked");
                return;
            }
            Err(error) => failed(error.to_string()),
        };
        let Some(followed) = self.followed.remove(tenant) else { return };
        let found = match (found.failure.clone(), followed.waited_for) {
            (Some(failure), Some(waited_for)) => {
                IsolationStatus { failure: Some(format!("{failure}; it waited for: {waited_for}")), ..found }
            }
            _ => found,
        };
        self.tell(&followed.tenant, found);
    }

    /// `None`: it is gone.
    async fn progress(&self, followed: &Followed) -> Result<Option<Progress>, EffectError> {
        let Some(namespace) = hub_namespace(&followed.tenant) else { return Ok(None) };
        let selector = isolation::selector_text(&name(&followed.tenant));
        let jobs = self.list(&JOBS, &namespace, selector.clone()).await?;
        let Some(job) = jobs.iter().find(|job| job_name(job).as_deref() == Some(&followed.job)) else { return Ok(None) };
        let pods = self.list(&PODS, &namespace, format!("{selector},batch.kubernetes.io/job-name={}", followed.job)).await?;
        Ok(Some(verification::progress(job, &pods)))
    }

    /// Has the Tenant's status say it.
    fn tell(&self, tenant: &Tenant, found: IsolationStatus) {
        let before = tenant.status.as_ref().and_then(|status| status.isolation.as_ref());
        // Where it is not known who is there, nobody is gone.
        let tenants = self.cluster.tenancy("").map(|found| found.tenants).ok();
        let is_there = |victim: &str| tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|found| name(found) == victim));
        let found = isolation::kept(before, IsolationStatus { checked_at: reconcile::now(), ..found }, is_there);
        self.metrics.attacked(&found);
        let tenant_name = name(tenant);
        match (&found.failure, found.succeeded.is_empty()) {
            (_, false) => {
                warn!(tenant = tenant_name, succeeded = found.succeeded.join("; "), "attacks on the walls were not refused")
            }
            (Some(failure), _) => warn!(tenant = tenant_name, failure, "the walls could not be attacked"),
            _ => {
                let (attacks, refused, nothing) = (found.attacks, found.refused, found.nothing);
                info!(tenant = tenant_name, attacks, refused, nothing, "attacks on the walls ended");
            }
        }
        let uid = tenant.metadata.uid.clone().unwrap_or_default();
        self.cluster.isolation.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, found);
        self.cluster.wake(tenancy::namespace(tenant).into_iter().collect());
    }
}

fn job_name(job: &Value) -> Option<String> {
    job.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned)
}

fn failed(why: String) -> IsolationStatus {
    IsolationStatus { failure: Some(why), ..IsolationStatus::default() }
}
