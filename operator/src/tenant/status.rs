//! What became of a Tenant, for its status. The same input gives the same status, so that nothing is written where nothing changed.

use acb_crds::{
    QuotaLimits, Tenant, TenantStatus,
    common::CredentialStatus,
    names::{TenantId, objects},
    tenant::{ContextTypeStatus, DeletionPolicy, Endpoint, HubStatus, IsolationStatus, Placement, TenantEffective},
};

use super::validate::ValidatedTenant;
use crate::{
    condition::{self, Basis, Outcome},
    observed::{ObservedHub, ObservedUsage},
    platform::Platform,
    usage::Used,
};

/// What the runtime saw beside the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Each way to the hub.
    pub endpoints: Vec<Endpoint>,
    /// How many Agents there are.
    pub agents: i64,
    /// What the hub logs in and signs with, as planned; empty where that was not decided.
    pub credentials: Vec<CredentialStatus>,
    /// What of the brokers' settings puts its data at risk; `None` where that was not looked at.
    pub risks: Option<Vec<String>>,
    /// What others change each time that it was set right.
    pub conflicts: Vec<String>,
    /// How its hub is doing; `None` where that was not looked at.
    pub hub: Option<ObservedHub>,
    /// Context types that have a topic, and that nobody asks for.
    pub retired: Vec<ContextTypeStatus>,
    /// Why its hub waits to roll for the platform's sake.
    pub waits_to_roll: Option<String>,
    /// What its agents have used; `None` where that was not looked at.
    pub usage: Option<ObservedUsage>,
    /// When every system was last seen to have what its spec says, in RFC 3339.
    pub last_sync: Option<String>,
    /// What attacks on its walls found since; `None`: what is known of them holds.
    pub isolation: Option<IsolationStatus>,
}

/// The status after a reconcile. `now` is RFC 3339.
#[must_use]
pub fn status(
    tenant: &Tenant,
    validated: Option<&ValidatedTenant>,
    outcome: &Outcome,
    seen: &Seen,
    platform: &Platform,
    now: &str,
) -> TenantStatus {
    let previous = tenant.status.clone().unwrap_or_default();
    let not_acted_on = validated.map(|validated| validated.not_acted_on.clone()).unwrap_or_default();
    let generation = tenant.metadata.generation;
    let basis = Basis {
        generation,
        previous: &previous.conditions,
        suspended: validated.is_some_and(|validated| validated.suspended),
        hub: seen.hub.as_ref(),
        not_acted_on: &not_acted_on,
    };
    let mut conditions = condition::conditions(outcome, &basis);
    conditions.extend(match &seen.risks {
        Some(risks) => condition::at_risk(risks),
        None => previous.conditions.iter().find(|before| before.r#type == condition::KAFKA_AT_RISK).cloned(),
    });
    conditions.extend(condition::conflicting(&seen.conflicts));
    let limits = validated.map(|validated| QuotaLimits::from(validated.limits.clone()));
    let used = seen.usage.as_ref().zip(limits).map(|(usage, limits)| (Used::of_all(usage, seen.agents), limits));
    conditions.extend(match &used {
        Some((used, limits)) => used.near(limits).condition(),
        None => previous.conditions.iter().find(|before| before.r#type == condition::NEAR_LIMIT).cloned(),
    });
    let isolation = seen.isolation.clone().or_else(|| previous.isolation.clone()).filter(|_| platform.isolation.is_some());
    conditions.extend(isolation.as_ref().map(condition::isolation_verified));
    conditions.extend(condition::rollout_pending(seen.waits_to_roll.as_deref()));
    let mut status = TenantStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        agent_count: Some(seen.agents),
        last_sync_time: seen.last_sync.clone(),
        fields_not_acted_on: not_acted_on,
        isolation,
        // What was provisioned before stays said while the spec is wrong.
        ..TenantStatus { conditions: Vec::new(), ..previous }
    };
    if let Some((used, limits)) = &used {
        status.usage = Some(used.shown(limits).of_tenant());
    }
    let Some(validated) = validated else { return status };
    if !seen.credentials.is_empty() {
        status.credentials.clone_from(&seen.credentials);
    }
    status.tenant_id = Some(TenantId::hex(&validated.id));
    status.namespace = Some(validated.namespace.clone());
    status.hub_namespace = Some(validated.name.hub_namespace());
    status.effective = Some(TenantEffective {
        limits: validated.limits.clone(),
        agent_limits: validated.agent_limits.clone(),
        hub_replicas: validated.replicas,
        registration: validated.registration.as_str().to_owned(),
        deletion_policy: match validated.deletion_policy {
            DeletionPolicy::Retain => "Retain".to_owned(),
            DeletionPolicy::Delete => "Delete".to_owned(),
        },
    });
    status.placement = Some(Placement {
        bus: if platform.has_kafka() { "kafka" } else { "postgres" }.to_owned(),
        kafka: platform.has_kafka().then(|| "default".to_owned()),
        postgres: "default".to_owned(),
    });
    status.endpoints.clone_from(&seen.endpoints);
    status.ca_config_map = Some(objects::CA.to_owned());
    status.context_types = context_types(tenant, validated);
    status.context_types.extend(seen.retired.iter().cloned());
    if let Some(hub) = seen.hub.as_ref().filter(|_| !validated.deleting) {
        status.hub = Some(HubStatus {
            replicas: hub.replicas,
            ready_replicas: hub.ready,
            version: version(&hub.image).map(str::to_owned),
            image: hub.image.clone(),
        });
    }
    status
}

fn context_types(tenant: &Tenant, validated: &ValidatedTenant) -> Vec<ContextTypeStatus> {
    let listed = |name: &str| tenant.spec.context_types.iter().any(|listed| listed.name == name);
    let types = validated.context_types.iter().map(|row| ContextTypeStatus {
        name: row.name.clone(),
        origin: if listed(&row.name) { "Tenant" } else { "Agent" }.to_owned(),
        topic: format!("{}{}", validated.name.topic_prefix(), row.name),
        partitions: row.partitions,
        unwanted_since: None,
    });
    types.collect()
}

/// What an image's tag says. A digest says nothing.
fn version(image: &str) -> Option<&str> {
    let (name, _) = image.split_once('@').unwrap_or((image, ""));
    let (_, tag) = name.rsplit('/').next()?.split_once(':')?;
    Some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_the_tag_says() {
        for (image, expected) in [
            ("acb-hub:0.1.0", Some("0.1.0")),
            ("registry.example:5000/acb/acb-hub:0.1.0-next", Some("0.1.0-next")),
            ("registry.example:5000/acb/acb-hub:0.1.0@sha256:0123", Some("0.1.0")),
            ("registry.example:5000/acb/acb-hub", None),
            ("acb-hub@sha256:0123", None),
            ("", None),
        ] {
            assert_eq!(version(image), expected, "{image}");
        }
    }
}
