//! A Tenant on its way out is taken down in stages: first what uses the credentials, then the credentials, system by system, then (only
//! where the policy says so) the data. Each stage needs one system; one that is away holds up its own stage, and those that come last. Pure.

use acb_crds::{
    names::{TenantId, objects},
    tenant::DeletionPolicy,
};
use serde_json::Value;

use super::{
    World, access,
    namespace::{TENANT_LABEL, label},
    network, object_quota, opening, owned,
    plan::{DEPLOYMENT, admins_key, hub_key, remove},
    scaling, space,
    validate::ValidatedTenant,
};
use crate::{
    difference,
    effect::{EffectError, kubernetes::ObjectKey},
    plan::{KafkaQuota, KafkaStep, KubernetesStep, Plan, PostgresStep, Step},
    platform::Platform,
};

/// So many topics are named, of those that are left.
const NAMED: usize = 5;

/// One part of a removal.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is taken down, for people.
    pub what: &'static str,
    /// What there is to do for it now.
    pub plan: Plan,
    /// Why that is not all of it.
    pub away: Option<EffectError>,
    /// It waits until every stage before it is done: what is removed here is needed there, or could be used until then.
    pub is_last: bool,
}

/// The stages, in their order. Retained data keeps its Secrets: without the pepper and the authority it could not be adopted.
#[must_use]
pub(super) fn stages(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Vec<Stage> {
    let mut stages = vec![hub(tenant, world, platform), login(tenant, world)];
    if platform.has_kafka() {
        stages.push(user(tenant, world));
    }
    if tenant.deletion_policy == DeletionPolicy::Delete {
        if platform.has_kafka() {
            stages.push(topics(tenant, world));
        }
        stages.push(rows(tenant, world));
    }
    stages.push(namespaces(tenant, world, platform));
    stages
}

/// What a stage in the tenant's namespaces waits for.
fn cluster_away(world: &World) -> Option<EffectError> {
    let closed = world.closed.first().map(|namespace| EffectError::Closed {
        namespace: namespace.clone(),
        detail: "it was taken from the operator, and is being given back".to_owned(),
    });
    world.kubernetes.away().cloned().or(closed)
}

/// The autoscaler first: nothing is to scale what goes.
fn hub(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Stage {
    let mut steps = Vec::new();
    if tenant.owned.hub {
        let of_hub = [scaling::AUTOSCALER, DEPLOYMENT, ("v1", "Service"), network::TLS_ROUTE, scaling::DISRUPTION_BUDGET];
        for kind in of_hub {
            remove(world, &hub_key(tenant, kind), &mut steps);
        }
    }
    let opening = opening::opening(tenant, world, platform);
    let away = cluster_away(world).filter(|_| opening.is_some() || world.kubernetes.away().is_some());
    steps.splice(0..0, opening.into_iter().flat_map(|plan| plan.steps));
    Stage { what: "the hub", plan: Plan { steps }, away, is_last: false }
}

fn login(tenant: &ValidatedTenant, world: &World) -> Stage {
    let mut steps = Vec::new();
    // One that is barred, too: whether its sessions were ended is not known, and a session outlives the bar.
    if world.postgres.known().is_some_and(|observed| observed.login.is_some()) {
        steps.push(Step::Postgres(PostgresStep::DisableLogin { tenant_id: tenant.id.hex() }));
    }
    Stage { what: "the login in PostgreSQL", plan: Plan { steps }, away: world.postgres.away().cloned(), is_last: false }
}

fn user(tenant: &ValidatedTenant, world: &World) -> Stage {
    let mut steps = Vec::new();
    let has =
        |observed: &crate::observed::ObservedKafka| observed.has_user || observed.acls || observed.quota != KafkaQuota::default();
    if world.kafka.known().is_some_and(has) {
        steps.push(Step::Kafka(KafkaStep::RemoveUser { username: tenant.id.login() }));
    }
    Stage { what: "the user in Kafka", plan: Plan { steps }, away: world.kafka.away().cloned(), is_last: false }
}

/// Whose the topics are, PostgreSQL knows: a tenant that never got its name must not take another's data with it.
fn topics(tenant: &ValidatedTenant, world: &World) -> Stage {
    let prefix = tenant.name.topic_prefix();
    let known = world.kafka.known().into_iter().flat_map(|observed| observed.topics.keys());
    let under: Vec<&String> = known.filter(|name| name.starts_with(&prefix)).collect();
    let mut away = world.postgres.away().or(world.kafka.away()).cloned();
    let mut steps = Vec::new();
    if tenant.owned.topics {
        steps.extend(under.into_iter().map(|name| Step::Kafka(KafkaStep::RemoveTopic { name: name.clone() })));
    } else if tenant.owned.hub && !under.is_empty() {
        // A hub of this Tenant wrote them, and the row that says so is lost: that nothing is left is not for the operator to say.
        away = away.or_else(|| Some(unproven(&under)));
    }
    Stage { what: "the topics in Kafka", plan: Plan { steps }, away, is_last: true }
}

/// Names a few of the topics: one may have thousands.
fn unproven(topics: &[&String]) -> EffectError {
    let named: Vec<&str> = topics.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = topics.len().saturating_sub(named.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let what = format!(
        "{}{more} are there, and PostgreSQL has no row of this tenant that would say that they are its own: remove them by hand where they are, \
         or let the Tenant go with the annotation acb.dev/force-release",
        named.join(", ")
    );
    EffectError::refused("the operator", what)
}

fn rows(tenant: &ValidatedTenant, world: &World) -> Stage {
    let mut steps = Vec::new();
    // A row of this id under another name is nobody's that is being deleted here.
    let is_own = world.row().is_none() || tenant.owned.row;
    let is_there = world.postgres.known().is_some_and(|observed| observed.tenant.is_some() || observed.login.is_some());
    if is_own && is_there {
        steps.push(Step::Postgres(PostgresStep::RemoveTenant { tenant_id: tenant.id.hex() }));
    }
    Stage { what: "the rows in PostgreSQL", plan: Plan { steps }, away: world.postgres.away().cloned(), is_last: true }
}

fn namespaces(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Stage {
    let mut steps = Vec::new();
    let namespace = |name: &str| ObjectKey::new("v1", "Namespace", "", name);
    let deletes = tenant.deletion_policy == DeletionPolicy::Delete;
    if deletes && tenant.owned.namespace {
        remove(world, &ObjectKey::new("v1", "ConfigMap", &tenant.namespace, objects::CA), &mut steps);
    }
    if deletes && tenant.owned.hub {
        remove(world, &namespace(&tenant.name.hub_namespace()), &mut steps);
    }
    if !tenant.own_namespace {
        release(tenant, world, &mut steps);
    } else if deletes && tenant.owned.namespace {
        remove(world, &namespace(&tenant.namespace), &mut steps);
    }
    if deletes {
        steps.extend(authorities(tenant.id, world, platform));
    }
    let away =
        cluster_away(world).filter(|_| opening::opening(tenant, world, platform).is_some() || world.kubernetes.away().is_some());
    Stage { what: "the namespaces", plan: Plan { steps }, away, is_last: true }
}

/// A namespace that the platform gave stays, without what ACB has in it; the operator's way in goes last. What is in it is known by its own
/// label: the namespace may have lost its.
fn release(tenant: &ValidatedTenant, world: &World, steps: &mut Vec<Step>) {
    let space = world.objects.get(&ObjectKey::new("v1", "Namespace", "", &tenant.namespace));
    let Some(space) = space.filter(|space| !owned::is_anothers(space, &tenant.uid) || tenant.owned.namespace) else { return };
    let (api_version, kind) = access::ROLE_BINDING;
    let (quota_version, quota) = object_quota::RESOURCE_QUOTA;
    let own = [
        admins_key(tenant),
        ObjectKey::new(quota_version, quota, &tenant.namespace, objects::OBJECT_QUOTA),
        ObjectKey::new(api_version, kind, &tenant.namespace, objects::OPERATOR),
    ];
    let is_own = |found: &Value| label(found, TENANT_LABEL) == Some(tenant.name.as_str());
    for key in own.iter().filter(|key| world.objects.get(*key).is_some_and(is_own)) {
        remove(world, key, steps);
    }
    if space::serves(space, tenant) {
        // Marked: without a mark, an object that only has less would not differ from what is there.
        steps.push(Step::Kubernetes(KubernetesStep::Apply { object: difference::marked(space::released(tenant, space)) }));
    }
}

/// The tenant's authorities, in the operator's namespace.
fn authorities(id: TenantId, world: &World, platform: &Platform) -> impl Iterator<Item = Step> {
    let name = id.authority_secret();
    let own = world.secrets.iter().filter(move |secret| secret.namespace == platform.operator_namespace && secret.name == name);
    own.map(|secret| {
        Step::Kubernetes(KubernetesStep::Delete {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            namespace: secret.namespace.clone(),
            name: secret.object_name(),
        })
    })
}
