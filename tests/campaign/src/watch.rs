//! What no single step may do, whatever came before it: looked at right before the step is carried out.

use acb_crds::names::TenantId;
use acb_operator::{
    effect::kubernetes::ObjectKey,
    plan::{KafkaStep, KubernetesStep, PostgresStep, SecretContent, SecretRef, Step},
};
use serde_json::Value;

use crate::{
    documents::{Documents, name},
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
            let login = owner_of_hub(namespace, documents).filter(|_| name == "hub-postgres")?;
            let is_in_use = systems.postgres.password(&login.hex()) == Some(serial);
            is_in_use.then(|| format!("Secret {namespace}/{name} goes, and its password is the one that works"))
        }
        KubernetesStep::EnsureSecret { secret, content: SecretContent::HubKeys, .. } => {
            let before = secret.before().filter(|_| secret.name == "hub-keys")?;
            let is_there = systems.kubernetes.secrets.contains_key(&before);
            is_there.then(|| format!("the pepper in {} is forgotten: no key lets an agent in", before.object_name()))
        }
        KubernetesStep::Apply { object } => {
            let key = ObjectKey::of(object)?;
            let id = owner_of_hub(&key.namespace, documents).filter(|_| key.kind == "Deployment")?;
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

/// The id of the Tenant whose hub is in a namespace.
fn owner_of_hub(namespace: &str, documents: &Documents) -> Option<TenantId> {
    let document = documents.get(&name("Tenant", "", namespace.strip_prefix("acbhub-")?))?;
    Some(documents.id(document))
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
    let (id, prefix) = (documents.id(document), format!("acb.{}.", of?));
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
            let Some((tenant, _)) = documents.tenant_of(tenant_id).filter(|(_, document)| is_being_deleted(document)) else {
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
            (!is_over).then(|| format!("topic {topic} goes before its retention has passed"))
        }
        PostgresStep::EnsureLogin { tenant_id, secret, .. } => {
            let (of, _) = documents.tenant_of(tenant_id)?;
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
    let KafkaStep::RemoveTopic { name: topic } = step else { return None };
    let tenant = topic.split('.').nth(1)?;
    let document = documents.get(&name("Tenant", "", tenant));
    let row = document.map(|document| systems.postgres.observe(&documents.id(document).hex())).unwrap_or_default();
    let is_own = row.tenant.as_ref().is_some_and(|row| row.name == tenant);
    let is_over = row.retired.get(topic).is_some_and(|retired| retired.is_over);
    let is_allowed = is_own && (is_over || document.is_some_and(is_being_deleted));
    (!is_allowed).then(|| format!("topic {topic} goes, which is another's, retained, or within its retention"))
}
