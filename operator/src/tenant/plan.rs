//! A [`ValidatedTenant`] and the world become a plan: what differs, in an order in which nothing in between gives anyone more than the
//! start or the end. Rows and walls come before what could use them; on the way out it is the other way round.

use acb_crds::names::{SYSTEM_TOPICS, objects};
use acb_crds::tenant::DeletionPolicy;
use serde_json::{Value, json};

use super::{
    World, access, bandwidth, hub, hub_secrets::HubSecrets, network, object_quota, orphan, rotation, scaling, space,
    validate::ValidatedTenant,
};
use crate::{
    difference,
    effect::{
        kubernetes::{AUTHORITY, ObjectKey},
        postgres_observe::LoginState,
    },
    plan::{KafkaQuota, KafkaStep, KubernetesStep, Plan, PostgresStep, SecretContent, SecretRef, Step, TenantRow, TopicSpec},
    platform::{Platform, PlatformBus},
};

/// Clients and topics allow the same, so that one large record never fails its neighbours.
const TOPIC_MESSAGE_BYTES: u32 = 2 * 1_048_576;
const DAY: u64 = 86_400;
const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

/// What has to be done for this Tenant.
#[must_use]
pub fn plan(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Plan {
    if tenant.deleting {
        return Plan { steps: removal(tenant, world, platform) };
    }
    let secrets = hub::secrets(tenant, world, platform);
    let mut steps = Vec::new();
    let apply_marked = |object: Value, steps: &mut Vec<Step>| {
        let found = ObjectKey::of(&object).and_then(|key| world.objects.get(&key));
        if found.is_none_or(|found| difference::differs(&object, found)) {
            steps.push(Step::Kubernetes(KubernetesStep::Apply { object }));
        }
    };
    let apply = |object: Value, steps: &mut Vec<Step>| apply_marked(difference::marked(object), steps);
    // What lets the operator into the namespaces comes right after them: without it nothing else there would be taken from it.
    let walls = space::namespaces(tenant).into_iter().chain(access::operator(tenant, platform));
    for object in walls.chain(network::policies(tenant, platform)) {
        apply(object, &mut steps);
    }
    steps.extend(make_secrets(tenant, &secrets, world, platform));
    publish_authority(tenant, &secrets, world, &mut steps);
    // Before a login that lets a hub in, which would let them in.
    steps.extend(orphan::suspensions(tenant, world));
    postgres(tenant, &secrets, world, platform, &mut steps);
    kafka(tenant, &secrets, world, platform, &mut steps);
    let optional = |object: Option<Value>, key: ObjectKey, steps: &mut Vec<Step>| match object {
        Some(object) => apply(object, steps),
        None => remove(world, &key, steps),
    };
    optional(access::admins(tenant), admins_key(tenant), &mut steps);
    optional(scaling::autoscaler(tenant), hub_key(tenant, scaling::AUTOSCALER), &mut steps);
    for object in [
        object_quota::resource_quota(tenant),
        access::hub(tenant),
        scaling::disruption_budget(tenant),
        hub::config_map(tenant, platform),
        hub::service(tenant),
    ] {
        apply(object, &mut steps);
    }
    // Not part of the mark: an autoscaler that changes it has changed nothing of ours.
    let mut deployment = difference::marked(hub::deployment(tenant, &secrets, platform));
    deployment["spec"]["replicas"] = json!(scaling::replicas(tenant, world.objects.get(&hub_key(tenant, DEPLOYMENT))));
    apply_marked(deployment, &mut steps);
    // The last: not every cluster knows the kind, and nothing else is to wait for it.
    optional(network::tls_route(tenant), hub_key(tenant, network::TLS_ROUTE), &mut steps);
    // An object that someone else changes each time that it is applied must not keep old credentials alive. Whatever is still to be made
    // or to be told a store does.
    if steps.iter().all(|step| matches!(step, Step::Kubernetes(KubernetesStep::Apply { .. }))) {
        steps.extend(rotation::remove_replaced(tenant, world, &secrets));
    }
    Plan { steps }
}

/// An object of the hub, by what it is.
fn hub_key(tenant: &ValidatedTenant, (api_version, kind): (&str, &str)) -> ObjectKey {
    ObjectKey::new(api_version, kind, &tenant.name.hub_namespace(), objects::HUB)
}

fn admins_key(tenant: &ValidatedTenant) -> ObjectKey {
    ObjectKey::new(access::ROLE_BINDING.0, access::ROLE_BINDING.1, &tenant.namespace, objects::TENANT_ADMINS)
}

fn make_secrets(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, platform: &Platform) -> Vec<Step> {
    let login = |authorities| SecretContent::Login { username: tenant.id.login(), authorities };
    let names = hub::tls_names(tenant, platform);
    let keys = match secrets.keys.before().filter(|before| world.secrets.contains(before)) {
        Some(previous) => SecretContent::RotatedHubKeys { previous },
        None => SecretContent::HubKeys,
    };
    let mut wanted = vec![
        (&secrets.authority, SecretContent::CertificateAuthority { common_name: format!("ACB tenant {}", tenant.name) }),
        (&secrets.tls, SecretContent::TlsLeaf { authority: secrets.authority.clone(), names }),
        (&secrets.keys, keys),
        (&secrets.postgres, login(platform.postgres_authorities.clone())),
    ];
    wanted.extend(secrets.kafka.iter().map(|secret| (secret, login(platform.kafka_authorities.clone()))));
    let missing = wanted.into_iter().filter(|(secret, _)| !world.secrets.contains(secret));
    missing
        .map(|(secret, content)| {
            let asked = tenant.rotate.clone();
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret: SecretRef::clone(secret), content, asked })
        })
        .collect()
}

/// The certificate itself is made by the effect: that the ConfigMap has one, and of which authority, is all that can be seen from here.
fn publish_authority(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, steps: &mut Vec<Step>) {
    let found = world.objects.get(&ObjectKey::new("v1", "ConfigMap", &tenant.namespace, objects::CA));
    let text = |part: &str, name: &str| found.and_then(|found| found.pointer(part)?.get(name)?.as_str()).unwrap_or_default();
    let current = text("/metadata/annotations", AUTHORITY) == secrets.authority.object_name();
    if text("/data", "ca.crt").is_empty() || !current || !world.secrets.contains(&secrets.authority) {
        steps.push(Step::Kubernetes(KubernetesStep::PublishCertificate {
            namespace: tenant.namespace.clone(),
            name: objects::CA.to_owned(),
            authority: secrets.authority.clone(),
        }));
    }
}

/// The tenant's row as it should be.
#[must_use]
pub fn tenant_row(tenant: &ValidatedTenant) -> TenantRow {
    TenantRow {
        name: tenant.name.to_string(),
        tier: tenant.tier.as_str().to_owned(),
        registration: tenant.registration.as_str().to_owned(),
        suspended: tenant.suspended,
        limits: json!(tenant.limits),
        context_types: tenant.context_types.clone(),
    }
}

fn postgres(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, platform: &Platform, steps: &mut Vec<Step>) {
    let tenant_id = tenant.id.hex();
    let row = tenant_row(tenant);
    let mut add = |step| steps.push(Step::Postgres(step));
    if world.postgres.tenant.as_ref() != Some(&row) {
        add(PostgresStep::ProjectTenant { tenant_id: tenant_id.clone(), tenant: row });
    }
    if platform.bus == PlatformBus::Postgres {
        for topic in topics(tenant) {
            if world.postgres.topics.get(&topic.name) != Some(&topic) {
                add(PostgresStep::EnsureTopic { tenant_id: tenant_id.clone(), topic });
            }
        }
    }
    // A replica more than there should be is there during a rollout.
    let connection_limit = (tenant.max_replicas + 1) * 7;
    let is_right = world
        .postgres
        .login
        .is_some_and(|login| login.enabled && !login.excess && i64::from(login.connection_limit) == i64::from(connection_limit));
    let is_due = rotation::is_due(tenant, world, &secrets.postgres, world.login, world.previous_login);
    let works = world.login == LoginState::Works && world.secrets.contains(&secrets.postgres);
    if is_due || (works && !is_right) {
        add(PostgresStep::EnsureLogin { tenant_id, secret: secrets.postgres.clone(), connection_limit });
    }
}

fn kafka(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, platform: &Platform, steps: &mut Vec<Step>) {
    let (true, Some(secret)) = (platform.has_kafka(), &secrets.kafka) else { return };
    let observed = world.kafka.clone().unwrap_or_default();
    let mut add = |step| steps.push(Step::Kafka(step));
    for topic in topics(tenant) {
        if observed.topics.get(&topic.name) != Some(&topic) || observed.misconfigured.contains(&topic.name) {
            add(KafkaStep::EnsureTopic { topic });
        }
    }
    // Before there is a user that could go without.
    let quota = bandwidth::kafka_quota(tenant);
    if observed.quota != quota {
        add(KafkaStep::EnsureQuota { username: tenant.id.login(), quota });
    }
    if rotation::is_due(tenant, world, secret, observed.user, observed.previous) {
        add(KafkaStep::EnsureUser { username: tenant.id.login(), secret: secret.clone() });
    }
    if !observed.acls {
        add(KafkaStep::EnsureAcls { username: tenant.id.login(), prefix: tenant.name.topic_prefix() });
    }
}

/// All topics of a tenant: ACB's own first.
#[must_use]
pub fn topics(tenant: &ValidatedTenant) -> Vec<TopicSpec> {
    let topic = |name: String, partitions: u32, retention_seconds: u64, cleanup: &str| TopicSpec {
        name,
        partitions,
        retention_seconds,
        cleanup: cleanup.to_owned(),
        max_message_bytes: TOPIC_MESSAGE_BYTES,
    };
    let system = SYSTEM_TOPICS.iter().map(|name| {
        let (partitions, days) = match *name {
            "messages" => (8, 7),
            "control" => (1, 1),
            "audit" => (1, u64::from(tenant.audit_days)),
            _ => (1, 30),
        };
        topic(tenant.name.system_topic(name), partitions, days * DAY, "delete")
    });
    let context = tenant.context_types.iter().map(|row| {
        topic(format!("{}{}", tenant.name.topic_prefix(), row.name), row.partitions, row.retention_seconds, &row.cleanup)
    });
    system.chain(context).collect()
}

fn remove(world: &World, key: &ObjectKey, steps: &mut Vec<Step>) {
    if world.objects.contains_key(key) {
        steps.push(Step::Kubernetes(KubernetesStep::Delete {
            api_version: key.api_version.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }));
    }
}

/// A namespace that the platform gave stays, without what ACB has in it; the operator's way in goes last.
fn release(tenant: &ValidatedTenant, world: &World, steps: &mut Vec<Step>) {
    remove(world, &admins_key(tenant), steps);
    let (api_version, kind) = object_quota::RESOURCE_QUOTA;
    remove(world, &ObjectKey::new(api_version, kind, &tenant.namespace, objects::OBJECT_QUOTA), steps);
    let (api_version, kind) = access::ROLE_BINDING;
    remove(world, &ObjectKey::new(api_version, kind, &tenant.namespace, objects::OPERATOR), steps);
    let found = world.objects.get(&ObjectKey::new("v1", "Namespace", "", &tenant.namespace));
    if found.is_some_and(|found| space::serves(found, tenant)) {
        // Marked: without a mark, an object that only has less would not differ from what is there.
        steps.push(Step::Kubernetes(KubernetesStep::Apply { object: difference::marked(space::released(tenant)) }));
    }
}

/// First what uses the credentials, then the credentials, then (only where the policy says so) the data. Retained data keeps its
/// Secrets: without the pepper and the authority it could not be adopted.
fn removal(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Vec<Step> {
    let (space, tenant_id) = (tenant.name.hub_namespace(), tenant.id.hex());
    let mut steps = Vec::new();
    // The autoscaler first: nothing is to scale what goes.
    let of_hub = [scaling::AUTOSCALER, DEPLOYMENT, ("v1", "Service"), network::TLS_ROUTE, scaling::DISRUPTION_BUDGET];
    for kind in of_hub.into_iter().filter(|_| tenant.owns_names) {
        remove(world, &hub_key(tenant, kind), &mut steps);
    }
    if world.postgres.login.is_some_and(|login| login.enabled) {
        steps.push(Step::Postgres(PostgresStep::DisableLogin { tenant_id: tenant_id.clone() }));
    }
    let observed = world.kafka.clone().unwrap_or_default();
    if platform.has_kafka() && (observed.has_user || observed.acls || observed.quota != KafkaQuota::default()) {
        steps.push(Step::Kafka(KafkaStep::RemoveUser { username: tenant.id.login() }));
    }
    if tenant.deletion_policy == DeletionPolicy::Retain {
        return steps;
    }
    // A tenant that never got its name must not take another's data with it.
    let topics = observed.topics.keys().filter(|name| tenant.owns_names && name.starts_with(&tenant.name.topic_prefix()));
    for name in topics {
        steps.push(Step::Kafka(KafkaStep::RemoveTopic { name: name.clone() }));
    }
    if world.postgres.tenant.is_some() || world.postgres.login.is_some() {
        steps.push(Step::Postgres(PostgresStep::RemoveTenant { tenant_id }));
    }
    if tenant.owns_names {
        remove(world, &ObjectKey::new("v1", "ConfigMap", &tenant.namespace, objects::CA), &mut steps);
        remove(world, &ObjectKey::new("v1", "Namespace", "", &space), &mut steps);
        if tenant.own_namespace {
            remove(world, &ObjectKey::new("v1", "Namespace", "", &tenant.namespace), &mut steps);
        } else {
            release(tenant, world, &mut steps);
        }
    }
    let authority = world.secret(&platform.operator_namespace, &tenant.id.authority_secret());
    if world.secrets.contains(&authority) {
        steps.push(Step::Kubernetes(KubernetesStep::Delete {
            api_version: "v1".to_owned(),
            kind: "Secret".to_owned(),
            namespace: authority.namespace.clone(),
            name: authority.object_name(),
        }));
    }
    steps
}
