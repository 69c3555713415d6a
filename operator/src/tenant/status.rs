//! What became of a Tenant, for its status. The same input gives the same status, so that nothing is written where nothing changed.

use acb_crds::{
    Tenant, TenantStatus,
    common::CredentialStatus,
    names::{TenantId, objects},
    tenant::{DeletionPolicy, Endpoints, Placement, TenantEffective},
};

use super::validate::ValidatedTenant;
use crate::{
    condition::{self, Basis, Outcome},
    observed::ObservedHub,
    platform::Platform,
};

/// What the runtime saw beside the outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `host:port` of each way to the hub.
    pub endpoints: Vec<String>,
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
    /// When every system was last seen to have what its spec says, in RFC 3339.
    pub last_sync: Option<String>,
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
    let mut status = TenantStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        agents: Some(seen.agents),
        last_sync_time: seen.last_sync.clone(),
        fields_not_acted_on: not_acted_on,
        // What was provisioned before stays said while the spec is wrong.
        ..TenantStatus { conditions: Vec::new(), ..previous }
    };
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
        context_types: validated.context_types.iter().map(|row| row.name.clone()).collect(),
    });
    status.placement = Some(Placement {
        bus: if platform.has_kafka() { "kafka" } else { "postgres" }.to_owned(),
        kafka: platform.has_kafka().then(|| "default".to_owned()),
        postgres: "default".to_owned(),
    });
    status.endpoints = Some(Endpoints { grpc: seen.endpoints.clone(), ca_config_map: objects::CA.to_owned() });
    status
}
