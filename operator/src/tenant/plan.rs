//! A [`ValidatedTenant`] and the world become a plan: what differs, in an order in which nothing in between gives anyone more than the
//! start or the end. Rows and walls come before what could use them; on the way out it is the other way round.

use acb_crds::names::{SYSTEM_TOPICS, objects};
use acb_crds::schema::Kind;
use serde_json::{Value, json};

use super::{
    World, access, adoption::Identity, bandwidth, hub, hub_secrets::HubSecrets, network, object_quota, orphan, replicas,
    retirement, rollout, rotation, scaling, space, validate::ValidatedTenant,
};
use crate::{
    difference,
    effect::kubernetes::{AUTHORITY, ObjectKey},
    observed::LoginState,
    plan::{KafkaQuota, KafkaStep, KubernetesStep, Plan, PostgresStep, SecretContent, SecretRef, Step, TenantRow, TopicSpec},
    platform::{Platform, PlatformBus},
};

/// Clients and topics allow the same, so that one large record never fails its neighbours.
const TOPIC_MESSAGE_BYTES: u32 = 2 * 1_048_576;
const DAY: u64 = 86_400;
/// As long as the sums of hours are kept, which the topic of usage can give back.
const USAGE_DAYS: u64 = 400;
/// What runs the hub.
pub(crate) const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

/// What has to be done for this Tenant, as far as the systems are there that it needs.
#[must_use]
pub fn plan(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Plan {
    let mut steps = restraint(tenant, world, platform);
    // Without the Secrets' names no generation is known. And whether an earlier tenant's data is there under this name, PostgreSQL alone
    // knows: until it was asked once, nothing is made.
    let is_unproven = world.postgres.away().is_some() && !tenant.owned.hub;
    if world.kubernetes.away().is_some() || is_unproven {
        return Plan { steps };
    }
    let secrets = hub::secrets(tenant, world, platform);
    let apply_marked = |object: Value, steps: &mut Vec<Step>| {
        let found = ObjectKey::of(&object).and_then(|key| world.objects.get(&key));
        if found.is_none_or(|found| difference::differs(&object, found)) {
            steps.push(Step::Kubernetes(KubernetesStep::Apply { object }));
        }
    };
    let apply = |object: Value, steps: &mut Vec<Step>| apply_marked(difference::marked(object), steps);
    // What lets the operator into the namespaces comes right after them: without it nothing else there would be taken from it.
    let walls = space::namespaces(tenant).into_iter().chain(access::operator(tenant, platform));
    for object in walls.chain(network::policies(tenant, platform)).filter(|object| !is_kept(object, world)) {
        apply(object, &mut steps);
    }
    steps.extend(make_secrets(tenant, &secrets, world, platform));
    publish_authority(tenant, &secrets, world, &mut steps);
    postgres(tenant, &secrets, world, platform, &mut steps);
    kafka(tenant, &secrets, world, platform, &mut steps);
    steps.extend(retirement::steps(tenant, world, platform));
    let optional = |object: Option<Value>, key: ObjectKey, steps: &mut Vec<Step>| match object {
        Some(object) => apply(object, steps),
        None => remove(world, &key, steps),
    };
    optional(network::to_issuers(tenant), network::to_issuers_key(tenant), &mut steps);
    optional(access::admins(tenant), admins_key(tenant), &mut steps);
    optional(scaling::autoscaler(tenant), hub_key(tenant, scaling::AUTOSCALER), &mut steps);
    for object in of_isolation(tenant, platform) {
        let Some(key) = ObjectKey::of(&object) else { continue };
        optional(platform.isolation.is_some().then_some(object), key, &mut steps);
    }
    for object in [
        object_quota::resource_quota(tenant),
        access::hub(tenant),
        scaling::disruption_budget(tenant),
        hub::config_map(tenant, platform),
        hub::service(tenant),
    ] {
        if !is_kept(&object, world) {
            apply(object, &mut steps);
        }
    }
    // Not part of the mark: an autoscaler that changes it has changed nothing of ours.
    let known = world.objects.get(&hub_key(tenant, DEPLOYMENT));
    // A hub is first started when every store has a login for it.
    let mut deployment = hub::deployment(tenant, &secrets, platform);
    let deployment = if world.held {
        rollout::as_applied(deployment, tenant, world)
    } else {
        rollout::mark(&mut deployment, tenant, world);
        (known.is_some() || world.away().is_empty()).then(|| difference::marked(deployment))
    };
    if let Some(mut deployment) = deployment {
        deployment["spec"]["replicas"] = json!(scaling::replicas(tenant, known));
        apply_marked(deployment, &mut steps);
    }
    // The last: not every cluster knows the kind, and nothing else is to wait for it.
    optional(network::tls_route(tenant), hub_key(tenant, network::TLS_ROUTE), &mut steps);
    // An object that someone else changes each time that it is applied must not keep old credentials alive. Whatever is still to be made
    // or to be told a store does.
    let is_apply = |step: &Step| matches!(step, Step::Kubernetes(KubernetesStep::Apply { .. }));
    if world.away().is_empty() && steps.iter().all(is_apply) {
        steps.extend(rotation::remove_replaced(tenant, world, &secrets));
    }
    Plan { steps }
}

/// What the Jobs need that attack the walls.
fn of_isolation(tenant: &ValidatedTenant, platform: &Platform) -> Vec<Value> {
    let mut objects = vec![access::isolation(tenant, platform), access::account(tenant, objects::ISOLATION)];
    objects.extend(network::of_isolation(tenant, platform));
    objects
}

/// Whether an object stays as it is until the hub's turn comes: the hub that runs needs what the platform wanted before. A foreign hand's
/// change of what is still wanted goes at once.
fn is_kept(object: &Value, world: &World) -> bool {
    let is_meant = match object["kind"].as_str() {
        Some("NetworkPolicy") => object["metadata"]["name"] == network::TO_PLATFORM,
        Some("ConfigMap") => object["metadata"]["name"] == objects::HUB_CONFIG,
        _ => false,
    };
    let found = ObjectKey::of(object).and_then(|key| world.objects.get(&key));
    world.held && is_meant && found.is_some_and(|found| difference::is_of_another(object, found))
}

/// What takes something away comes first: nothing that is refused on the way may hold it up. Agents that nobody stands for also have to be
/// shut out before a login lets a hub in, which would let them in.
fn restraint(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Vec<Step> {
    let mut steps = Vec::new();
    if world.row().is_some() {
        project(tenant, world, &mut steps);
    }
    let identity = Identity { id: tenant.id, adopted: tenant.adopted, refused: None };
    steps.extend(orphan::suspensions(&identity, world));
    let quota = changed_quota(tenant, world).filter(|(_, takes_away)| *takes_away && platform.has_kafka());
    steps.extend(quota.map(|(quota, _)| Step::Kafka(KafkaStep::EnsureQuota { username: tenant.id.login(), quota })));
    steps
}

/// What the tenant's user may take of the brokers, where that differs from what it may now, and whether that is less of anything.
fn changed_quota(tenant: &ValidatedTenant, world: &World) -> Option<(KafkaQuota, bool)> {
    let observed = world.kafka.known()?;
    let mut quota = bandwidth::kafka_quota(tenant);
    // A Quota that this version can't read limits as it did.
    if observed.has_user && world.tenancy.has_unreadable(Kind::Quota) {
        quota = bandwidth::smaller(quota, observed.quota);
    }
    let takes_away = observed.has_user && bandwidth::smaller(observed.quota, quota) != observed.quota;
    (quota != observed.quota).then_some((quota, takes_away))
}

/// Sets the tenant's row, where it differs.
fn project(tenant: &ValidatedTenant, world: &World, steps: &mut Vec<Step>) {
    let row = tenant_row(tenant);
    if world.row() != Some(&row) {
        steps.push(Step::Postgres(PostgresStep::ProjectTenant { tenant_id: tenant.id.hex(), tenant: row }));
    }
}

/// An object of the hub, by what it is.
pub(super) fn hub_key(tenant: &ValidatedTenant, (api_version, kind): (&str, &str)) -> ObjectKey {
    ObjectKey::new(api_version, kind, &tenant.name.hub_namespace(), objects::HUB)
}

pub(super) fn admins_key(tenant: &ValidatedTenant) -> ObjectKey {
    ObjectKey::new(access::ROLE_BINDING.0, access::ROLE_BINDING.1, &tenant.namespace, objects::TENANT_ADMINS)
}

fn make_secrets(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, platform: &Platform) -> Vec<Step> {
    let login = |authorities| SecretContent::Login { username: tenant.id.login(), authorities };
    let names = secrets.tls_names.clone();
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
        operation_limits: tenant.operation_limits.clone(),
        audit_days: tenant.audit_days,
        context_types: tenant.context_types.clone(),
        issuer: tenant.issuer.clone(),
        oidc_issuers: tenant.oidc_issuers.clone(),
    }
}

fn postgres(tenant: &ValidatedTenant, secrets: &HubSecrets, world: &World, platform: &Platform, steps: &mut Vec<Step>) {
    let Some(observed) = world.postgres.known() else { return };
    if observed.tenant.is_none() {
        // A row says that the topics under this name are this tenant's: not before it was seen that there are no others.
        if platform.has_kafka() && world.kafka.away().is_some() {
            return;
        }
        project(tenant, world, steps);
    }
    let tenant_id = tenant.id.hex();
    let mut add = |step| steps.push(Step::Postgres(step));
    if platform.bus == PlatformBus::Postgres {
        for topic in topics(tenant) {
            if observed.topics.get(&topic.name) != Some(&topic) {
                add(PostgresStep::EnsureTopic { tenant_id: tenant_id.clone(), topic });
            }
        }
    }
    let connection_limit = replicas::connection_limit(tenant.max_replicas);
    let is_right = observed
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
    let Some(observed) = world.kafka.known() else { return };
    // Its row comes first: topics without one are taken for an earlier tenant's. Who has a user has a row, also while that can't be read.
    if world.postgres.away().is_some() && !observed.has_user {
        return;
    }
    let mut add = |step| steps.push(Step::Kafka(step));
    for topic in topics(tenant) {
        if observed.topics.get(&topic.name) != Some(&topic) || observed.misconfigured.contains(&topic.name) {
            add(KafkaStep::EnsureTopic { topic });
        }
    }
    // Before there is a user that could go without.
    if let Some((quota, false)) = changed_quota(tenant, world) {
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
            "usage" => (1, USAGE_DAYS),
            _ => (1, 30),
        };
        topic(tenant.name.system_topic(name), partitions, days * DAY, "delete")
    });
    let context = tenant.context_types.iter().map(|row| {
        topic(format!("{}{}", tenant.name.topic_prefix(), row.name), row.partitions, row.retention_seconds, &row.cleanup)
    });
    system.chain(context).collect()
}

pub(super) fn remove(world: &World, key: &ObjectKey, steps: &mut Vec<Step>) {
    if world.objects.contains_key(key) {
        steps.push(Step::Kubernetes(KubernetesStep::Delete {
            api_version: key.api_version.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }));
    }
}
