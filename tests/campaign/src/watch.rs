//! What no single step may do, whatever came before it: looked at right before the step is carried out.

use acb_crds::names::{TenantId, annotations::ADOPT};
use acb_operator::{
    effect::kubernetes::ObjectKey,
    plan::{KafkaStep, KubernetesStep, PostgresStep, SecretContent, SecretRef, Step, TenantRow},
};
use serde_json::Value;

use crate::{
    documents::{Documents, name},
    postgres::Rows,
    systems::Systems,
};

/// Why this step may not be, as things are.
pub(crate) fn forbids(step: &Step, documents: &Documents, systems: &Systems) -> Option<String> {
    match step {
        Step::Kubernetes(step) => in_kubernetes(step, documents, systems),
        Step::Postgres(step) => in_postgres(step, documents, systems),
        Step::Kafka(step) => in_kafka(step, documents, systems),
    }
}

fn in_kubernetes(step: &KubernetesStep, documents: &Documents, systems: &Systems) -> Option<String> {
    match step {
        KubernetesStep::Delete { kind, name, .. } if kind == "Namespace" => removal_of_namespace(name, documents, systems),
        KubernetesStep::Delete { kind, namespace, name, .. } if kind == "Secret" => {
            let (name, generation) = name.rsplit_once('-')?;
            let secret = SecretRef { namespace: namespace.clone(), name: name.to_owned(), generation: generation.parse().ok()? };
            let serial = systems.kubernetes.secrets.get(&secret)?.serial;
            let login = owner_of_hub(namespace, documents, systems).filter(|_| name == "hub-postgres")?;
            let is_in_use = systems.postgres.password(&login.hex()) == Some(serial);
            is_in_use.then(|| format!("Secret {namespace}/{name} goes, and its password is the one that works"))
        }
        KubernetesStep::Delete { kind, namespace, .. } if kind == "Deployment" => {
            let of = namespace.strip_prefix("acbhub-")?;
            let stays = staying(of, documents).filter(|tenant| serves(namespace, tenant, systems));
            stays.map(|_| format!("the hub of {of} goes, which stays"))
        }
        KubernetesStep::EnsureSecret { secret, content: SecretContent::HubKeys, .. } => {
            let before = secret.before().filter(|_| secret.name == "hub-keys")?;
            let is_there = systems.kubernetes.secrets.contains_key(&before);
            is_there.then(|| format!("the pepper in {} is forgotten: no key lets an agent in", before.object_name()))
        }
        KubernetesStep::Apply { object } => {
            let key = ObjectKey::of(object)?;
            let id = owner_of_hub(&key.namespace, documents, systems).filter(|_| key.kind == "Deployment")?;
            if systems.kubernetes.objects.contains_key(&key) {
                return None;
            }
            let has_login = systems.postgres.observe(&id.hex()).login.is_some_and(|login| login.enabled);
            let has_user = systems.kafka.as_ref().is_none_or(|kafka| kafka.users.contains_key(&id.login()));
            (!has_login || !has_user).then(|| format!("the hub in {} is started without its logins", key.namespace))
        }
        _ => None,
    }
}

/// Whom a step lets in by what is not so any more: by an account that is gone, or a Tenant that is suspended again. Who knows how things are lets nobody
/// in so. A look that is old may: what was so for a moment is done late, and undone when the rest is told.
pub(crate) fn lets_in_by_what_was(step: &Step, documents: &Documents, systems: &Systems) -> Option<String> {
    let Step::Postgres(step) = step else { return None };
    match step {
        PostgresStep::ProjectTenant { tenant_id, tenant } => {
            let is_suspended = |row: &TenantRow| row.suspended && row.name == tenant.name && !tenant.suspended;
            let wants_it = staying(&tenant.name, documents).is_some_and(|document| document["spec"]["suspend"] == true);
            let has_it = systems.postgres.observe(tenant_id).tenant.is_some_and(|row| is_suspended(&row));
            (wants_it && has_it).then(|| format!("{} is let in, and suspended", tenant.name))
        }
        PostgresStep::ProjectAgent { agent, .. } => {
            let account = agent.service_account.as_ref()?;
            let there = documents.account(&account.namespace, &account.name);
            (there != Some(account.uid.as_str())).then(|| format!("agent {} is let in by an account that is gone", agent.name))
        }
        _ => None,
    }
}

/// Every id that the data of a Tenant may have: its own, the one that it asks for, and the one that was granted.
pub(crate) fn ids(tenant: &Value, systems: &Systems) -> Vec<TenantId> {
    let space = format!("acbhub-{}", tenant["metadata"]["name"].as_str().unwrap_or_default());
    let space = systems.kubernetes.objects.get(&crate::kubernetes::namespace(&space)).map(|space| &space["metadata"]);
    let is_served = |space: &&Value| space["labels"]["acb.dev/tenant-uid"] == tenant["metadata"]["uid"];
    let granted = space.filter(is_served).and_then(|space| space["annotations"]["acb.dev/tenant-id"].as_str());
    let asked = tenant["metadata"]["annotations"][ADOPT].as_str();
    let own = TenantId::from_uid(tenant["metadata"]["uid"].as_str().unwrap_or_default());
    [own].into_iter().chain([granted, asked].into_iter().flatten().filter_map(TenantId::from_hex)).collect()
}

/// The Tenant whose own id this is, or else those that may have it.
pub(crate) fn tenants_of<'a>(id: &str, documents: &'a Documents, systems: &Systems) -> Vec<(&'a str, &'a Value)> {
    let all = || documents.of_kind("Tenant").map(|((.., name), tenant)| (name.as_str(), tenant));
    if let Some(own) = all().find(|(_, tenant)| documents.id(tenant).hex() == id) {
        return vec![own];
    }
    all().filter(|(_, tenant)| ids(tenant, systems).iter().any(|asked| asked.hex() == id)).collect()
}

/// The id of a Tenant's data: of those that it may have the one that its row has, or else its own.
pub(crate) fn identity(tenant: &Value, systems: &Systems) -> TenantId {
    let ids = ids(tenant, systems);
    let is_its = |id: &&TenantId| {
        let row = systems.postgres.observe(&id.hex()).tenant;
        row.is_some_and(|row| tenant["metadata"]["name"] == row.name)
    };
    *ids.iter().find(is_its).unwrap_or(&ids[0])
}

/// The id of the Tenant whose hub is in a namespace.
fn owner_of_hub(namespace: &str, documents: &Documents, systems: &Systems) -> Option<TenantId> {
    let document = documents.get(&name("Tenant", "", namespace.strip_prefix("acbhub-")?))?;
    Some(identity(document, systems))
}

/// The Tenant that is there under a name, and stays.
fn staying<'a>(tenant: &str, documents: &'a Documents) -> Option<&'a Value> {
    documents.get(&name("Tenant", "", tenant)).filter(|document| document["metadata"]["deletionTimestamp"].is_null())
}

/// Whether what a namespace says of its Tenant is said of this one.
pub(crate) fn serves(space: &str, tenant: &Value, systems: &Systems) -> bool {
    let found = systems.kubernetes.objects.get(&crate::kubernetes::namespace(space));
    let text = |pointer: &str| found.and_then(|found| found.pointer(pointer)).and_then(Value::as_str);
    let asks = |id: &str| tenant["metadata"]["annotations"][ADOPT] == id;
    let is_its = |serves: &str| tenant["metadata"]["uid"] == serves || asks(&TenantId::from_uid(serves).hex());
    match text("/metadata/labels/acb.dev~1tenant-uid") {
        // One that lost it is told by the rows.
        None => true,
        Some(serves) => is_its(serves) || text("/metadata/annotations/acb.dev~1tenant-id").is_some_and(asks),
    }
}

/// The Tenant whose data an id is of, where that one is there and stays: nothing that lets it in may be taken from it.
fn is_of_staying(id: &str, documents: &Documents, systems: &Systems) -> bool {
    let all = documents.of_kind("Tenant").filter(|(_, document)| document["metadata"]["deletionTimestamp"].is_null());
    let mut ids = all.map(|(_, document)| identity(document, systems).hex());
    ids.any(|of| of == id)
}

fn is_being_deleted(document: &Value) -> bool {
    !document["metadata"]["deletionTimestamp"].is_null() && document["spec"]["deletionPolicy"] == "Delete"
}

/// It goes with the data of its Tenant alone, and last.
fn removal_of_namespace(space: &str, documents: &Documents, systems: &Systems) -> Option<String> {
    let of = space.strip_prefix("acbhub-").or_else(|| space.strip_prefix("acb-"));
    let Some(document) = of.and_then(|of| documents.get(&name("Tenant", "", of))).filter(|document| is_being_deleted(document))
    else {
        return Some(format!("namespace {space} goes, and no Tenant goes with its data"));
    };
    if !serves(space, document, systems) {
        return Some(format!("namespace {space} goes, and is another's"));
    }
    let (id, prefix) = (identity(document, systems), format!("acb.{}.", of?));
    // What has its name and another's UID is another's.
    let rows = systems.postgres.observe(&id.hex());
    if rows.login.is_some() || rows.tenant.is_some() {
        return Some(format!("namespace {space} goes, and PostgreSQL still has its tenant's rows or login"));
    }
    let kafka = systems.kafka.as_ref()?;
    let is_left = kafka.users.contains_key(&id.login()) || kafka.topics.keys().any(|topic| topic.starts_with(&prefix));
    is_left.then(|| format!("namespace {space} goes, and Kafka still has its tenant's user or topics"))
}

fn in_postgres(step: &PostgresStep, documents: &Documents, systems: &Systems) -> Option<String> {
    match step {
        PostgresStep::RemoveTenant { tenant_id } => {
            let row = systems.postgres.observe(tenant_id).tenant;
            let is_its = |tenant: &str| row.as_ref().is_none_or(|row| row.name == tenant);
            let mut leaving =
                tenants_of(tenant_id, documents, systems).into_iter().filter(|(_, document)| is_being_deleted(document));
            let Some((tenant, _)) = leaving.find(|(tenant, _)| is_its(tenant)) else {
                return Some(format!("the rows of {tenant_id} go, and no Tenant goes with its data"));
            };
            let hub = crate::kubernetes::hub(&format!("acbhub-{tenant}"));
            let prefix = format!("acb.{tenant}.");
            let kafka = systems.kafka.as_ref();
            if systems.kubernetes.objects.contains_key(&hub) {
                return Some(format!("the rows of {tenant} go, and its hub runs"));
            }
            kafka
                .is_some_and(|kafka| kafka.topics.keys().any(|topic| topic.starts_with(&prefix)))
                .then(|| format!("the rows of {tenant} go before the topics that they say are its own"))
        }
        PostgresStep::RemoveTopic { tenant_id, topic } => {
            let rows = systems.postgres.observe(tenant_id);
            let is_over = rows.retired.get(topic).is_some_and(|retired| retired.is_over);
            (!is_over || is_wanted(topic, documents))
                .then(|| format!("topic {topic} goes, which is wanted or within its retention"))
        }
        PostgresStep::DisableLogin { tenant_id } if is_of_staying(tenant_id, documents, systems) => {
            Some(format!("the login of {tenant_id} is barred, whose Tenant stays"))
        }
        PostgresStep::ProjectTenant { tenant_id, tenant } => {
            let row = systems.postgres.observe(tenant_id).tenant;
            let other = row.filter(|row| row.name != tenant.name);
            if let Some(other) = other {
                return Some(format!("the rows of {} become those of {}", other.name, tenant.name));
            }
            let is_named = |rows: &Rows| rows.observed.tenant.as_ref().is_some_and(|row| row.name == tenant.name);
            if systems.postgres.tenants.iter().any(|(id, rows)| id != tenant_id && is_named(rows)) {
                return Some(format!("there are rows of two tenants {}", tenant.name));
            }
            // Pods have tokens of the issuer before for a while.
            let issuers = [systems.postgres.observe(tenant_id).tenant.and_then(|row| row.issuer), tenant.issuer.clone()];
            if let [Some(before), Some(now)] = issuers
                && before.issuer != now.issuer
                && now.previous.as_ref() != Some(&before.issuer)
            {
                return Some(format!("all tokens of {} end at once", before.issuer));
            }
            let owners = tenants_of(tenant_id, documents, systems);
            let is_its = owners.iter().any(|(owner, _)| *owner == tenant.name);
            let owners: Vec<&str> = owners.into_iter().map(|(owner, _)| owner).collect();
            (!is_its).then(|| format!("{} gets a row under the id of {owners:?}", tenant.name))
        }
        PostgresStep::EnsureLogin { tenant_id, secret, .. } => {
            let row = systems.postgres.observe(tenant_id).tenant;
            let mut owners = tenants_of(tenant_id, documents, systems).into_iter();
            let owner = owners.find(|(owner, _)| row.as_ref().is_none_or(|row| row.name == *owner));
            let Some((of, _)) = owner else {
                return Some(format!("a login is made for {tenant_id}, which no Tenant has"));
            };
            let (space, password) = (format!("acbhub-{of}"), systems.postgres.password(tenant_id)?);
            let mounted = systems.kubernetes.mounted(&space);
            let is_mounted = |secret: &SecretRef| mounted.contains(&secret.object_name());
            let works = systems.postgres.observe(tenant_id).login.is_some_and(|login| login.enabled)
                && systems.kubernetes.secrets.iter().any(|(secret, found)| found.serial == password && is_mounted(secret));
            (works && !is_mounted(secret)).then(|| format!("PostgreSQL takes a password that the pods of {of} do not have"))
        }
        PostgresStep::ProjectAgent { tenant_id, agent, api_key: Some(api_key) } => {
            let before = systems.postgres.key_of(tenant_id, &agent.id)?;
            let is_there = systems.kubernetes.secrets.iter().find(|(secret, found)| {
                found.serial == before && secret.namespace == api_key.secret.namespace && **secret != api_key.secret
            });
            let (of, _) = is_there.filter(|_| api_key.before.is_none())?;
            Some(format!("the key of agent {} in {} ends with its rotation", agent.name, of.object_name()))
        }
        _ => None,
    }
}

fn in_kafka(step: &KafkaStep, documents: &Documents, systems: &Systems) -> Option<String> {
    if let KafkaStep::RemoveUser { username } = step {
        let is_staying = username.strip_prefix("acb_t_").is_some_and(|id| is_of_staying(id, documents, systems));
        return is_staying.then(|| format!("{username} goes, whose Tenant stays"));
    }
    let KafkaStep::RemoveTopic { name: topic } = step else { return None };
    let tenant = topic.split('.').nth(1)?;
    let document = documents.get(&name("Tenant", "", tenant));
    let row = document.map(|document| systems.postgres.observe(&identity(document, systems).hex()));
    let row = row.unwrap_or_default();
    let is_own = row.tenant.as_ref().is_some_and(|row| row.name == tenant);
    let is_over = row.retired.get(topic).is_some_and(|retired| retired.is_over);
    let is_nobodys = is_over && !is_wanted(topic, documents);
    let is_allowed = is_own && (is_nobodys || document.is_some_and(is_being_deleted));
    (!is_allowed).then(|| format!("topic {topic} goes, which is another's, wanted, retained, or within its retention"))
}

/// Whether a Tenant that stays lists the context type of a topic, or an Agent of its publishes it.
fn is_wanted(topic: &str, documents: &Documents) -> bool {
    let mut parts = topic.splitn(3, '.').skip(1);
    let (Some(tenant), Some(context_type)) = (parts.next(), parts.next()) else { return false };
    let Some(document) = staying(tenant, documents) else { return false };
    let own = format!("acb-{tenant}");
    let space = document["spec"]["agentNamespace"].as_str().unwrap_or(&own);
    let mut agents = documents.of_kind("Agent").filter(|((_, of, _), _)| of == space);
    let names = |list: &Value, field: &str| {
        let mut items = list.as_array().map(Vec::as_slice).unwrap_or_default().iter();
        items.any(|item| if field.is_empty() { item == context_type } else { item[field] == context_type })
    };
    names(&document["spec"]["contextTypes"], "name") || agents.any(|(_, agent)| names(&agent["spec"]["publishes"], ""))
}
