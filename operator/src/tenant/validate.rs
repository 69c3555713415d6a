//! A Tenant and the world become a [`ValidatedTenant`], or a list of what is wrong. The rules of the document itself are in its
//! schema; here is what needs the tier, the platform or other resources.

use std::collections::BTreeMap;

use acb_crds::{
    Agent, AgentLimits, Retention, Tenant, TenantLimits, Tier,
    context_type::{Cleanup, ContextType, PayloadSchema},
    hub::Hub,
    names::{
        TenantId, TenantName,
        annotations::{ADOPT, ROTATE},
    },
    schema::Kind,
    tenant::{DeletionPolicy, Registration},
};
use acb_hub_core::{
    door::rules::{Operation, Requirement},
    kit::{json_keywords, json_schema::JsonSchema},
};
use serde_json::{Value, json};

use super::{
    World,
    adoption::Identity,
    hub_spec,
    namespace::{TENANT_LABEL, TENANT_UID_LABEL, adopted_id, label, served_id},
    oidc,
    owned::{Owned, owned},
    replicas,
};
use crate::{
    condition::{Problem, Reason},
    effect::kubernetes::ObjectKey,
    plan::{ContextTypeRow, IssuerRow, OidcIssuerRow},
    platform::Platform,
    tenancy::Tenancy,
    tier::{self, QuotaCeilings},
};

const PARTITIONS: u32 = 4;
const RETENTION: Retention = Retention::from_days(7);
const MAX_MESSAGE_BYTES: u32 = 1_048_576;

/// A Tenant that can be provisioned, with everything that the spec leaves out filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedTenant {
    /// Parsed.
    pub name: TenantName,
    /// Of the resource.
    pub uid: String,
    /// Of its data: from the UID, or adopted.
    pub id: TenantId,
    /// Whether the id was asked for, and does not follow from the UID alone.
    pub adopted: bool,
    /// As in the spec.
    pub tier: Tier,
    /// Of its Agents and Quotas.
    pub namespace: String,
    /// Whether the operator makes that namespace.
    pub own_namespace: bool,
    /// Listed ones and those that agents publish, by name.
    pub context_types: Vec<ContextTypeRow>,
    /// Of the hub.
    pub replicas: u32,
    /// The most that the hub may have.
    pub max_replicas: u32,
    /// The fewest and the most, where a HorizontalPodAutoscaler decides.
    pub range: Option<(u32, u32)>,
    /// As in the spec.
    pub hub: Hub,
    /// As in the spec.
    pub registration: Registration,
    /// As in the spec.
    pub deletion_policy: DeletionPolicy,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// What of what carries its name is its own, and not an earlier or an older tenant's.
    pub owned: Owned,
    /// As in the spec.
    pub suspended: bool,
    /// As in the spec.
    pub admins: Vec<acb_crds::tenant::Subject>,
    /// Effective limits of the whole tenant.
    pub limits: TenantLimits,
    /// The most calls of single operations that each agent makes in a minute.
    pub operation_limits: BTreeMap<String, i64>,
    /// Effective limits of an agent, before Quotas.
    pub agent_limits: AgentLimits,
    /// What its Quotas may say at most.
    pub ceilings: QuotaCeilings,
    /// Who issues the tokens of its agents' ServiceAccounts.
    pub issuer: Option<IssuerRow>,
    /// OpenID Connect issuers whose tokens prove its agents.
    pub oidc_issuers: Vec<OidcIssuerRow>,
    /// Days.
    pub audit_days: u32,
    /// The request for a rotation of its hub's credentials, if there is one.
    pub rotate: Option<String>,
    /// Fields that are set and that nothing acts on yet.
    pub not_acted_on: Vec<String>,
}

/// Decides whether a Tenant can be provisioned.
///
/// # Errors
/// Everything that is wrong with it; nothing of it is to be applied then.
pub fn validate(tenant: &Tenant, world: &World, platform: &Platform) -> Result<ValidatedTenant, Vec<Problem>> {
    let mut problems = Vec::new();
    let invalid = |field: &str, message: String| vec![Problem::new(Reason::InvalidSpec, field, message)];
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default())
        .map_err(|error| invalid("metadata.name", error.to_string()))?;
    let uid = tenant.metadata.uid.clone().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| invalid("metadata.uid", "missing: the API server or the runtime sets it".into()))?;
    let identity = world.identity(tenant);
    let spec = &tenant.spec;
    let allowance = tier::allowance(spec.tier, &platform.tiers);
    let namespace = spec.agent_namespace.clone().unwrap_or_else(|| name.namespace());
    let deleting = tenant.metadata.deletion_timestamp.is_some();
    let hub = spec.hub.clone().unwrap_or_default();
    let (replicas, max_replicas) = replicas::of_hub(&hub);
    let range = hub.autoscaling.as_ref().map(|_| (replicas, max_replicas));

    if let Some(why) = &identity.refused {
        problems.push(Problem::new(Reason::AdoptionRefused, format!("metadata.annotations[{ADOPT}]"), why.clone()));
    }
    check_neighbours(tenant, world, &identity, &namespace, &mut problems);
    check_operators(&platform.operator_namespace, &namespace, &name.hub_namespace(), &mut problems);
    let limits = spec.limits.clone().unwrap_or_default();
    let agent_limits = spec.agent_limits.clone().unwrap_or_default();
    problems.extend(above_tier("spec.limits", limits.above(&allowance.tenant), spec.tier));
    problems.extend(above_tier("spec.agentLimits", agent_limits.above(&allowance.agent_ceiling), spec.tier));
    for (index, limit) in spec.operation_limits.iter().enumerate() {
        let is_for_agents = |operation: Operation| operation.rule().access != Requirement::Public;
        if !Operation::named(&limit.operation).is_some_and(is_for_agents) {
            let message = format!("agents have no operation {}: docs/permissions.md lists those that there are", limit.operation);
            problems.extend(invalid(&format!("spec.operationLimits[{index}].operation"), message));
        }
    }
    if max_replicas > allowance.replicas {
        let message = format!(
            "{max_replicas} replicas, and tier {} allows {}: lower it or change the tier",
            spec.tier.as_str(),
            allowance.replicas
        );
        problems.push(Problem::new(Reason::AboveTier, "spec.hub", message));
    }
    if spec.context_types.len() > allowance.context_types {
        let message = format!(
            "{} context types, and tier {} allows {}: remove some or change the tier",
            spec.context_types.len(),
            spec.tier.as_str(),
            allowance.context_types
        );
        problems.push(Problem::new(Reason::TooManyContextTypes, "spec.contextTypes", message));
    }
    hub_spec::check(&hub, platform, &mut problems);
    let oidc_issuers = oidc::issuers(tenant, platform, &mut problems);
    let mut context_types = Vec::new();
    for (index, listed) in spec.context_types.iter().enumerate() {
        // By what hubs compile it with: they would refuse every payload of the type.
        if let Some(why) = listed.payload_schema.as_ref().and_then(|listed| JsonSchema::compile(&listed.json_schema).err()) {
            let field = format!("spec.contextTypes[{index}].payloadSchema.jsonSchema");
            let message =
                format!("no JSON Schema that can be used ({why}): correct it; references to other documents are not followed");
            problems.push(Problem::new(Reason::InvalidSpec, field, message));
        }
        let field = format!("spec.contextTypes[{index}].partitions");
        context_types.push(row(
            listed,
            existing_partitions(world, platform, &name, &listed.name),
            &field,
            allowance.partitions,
            &mut problems,
        ));
    }
    let existing = world.existing_types(&name, platform);
    for extra in world.tenancy.extra_types(tenant, &allowance, &existing).0 {
        let listed = ContextType {
            name: extra.to_string(),
            partitions: None,
            retention: None,
            cleanup: None,
            max_message_bytes: None,
            payload_schema: None,
        };
        context_types.push(row(
            &listed,
            existing_partitions(world, platform, &name, &listed.name),
            "",
            allowance.partitions,
            &mut problems,
        ));
    }
    keep_types(world, platform, &mut context_types);
    context_types.sort_by(|left, right| left.name.cmp(&right.name));
    let owned = owned(&name, &uid, &identity, &namespace, world);
    // What is on its way out is taken down, however wrong its spec is.
    if !problems.is_empty() && !deleting {
        return Err(problems);
    }
    Ok(ValidatedTenant {
        not_acted_on: not_acted_on(tenant),
        rotate: tenant.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ROTATE).cloned()),
        limits: effective_limits(tenant, world, platform),
        operation_limits: operation_limits(tenant),
        agent_limits: Tenancy::agent_base(tenant, &allowance),
        ceilings: allowance.quota_ceilings(),
        issuer: issuer(world, platform),
        oidc_issuers,
        tier: spec.tier,
        own_namespace: spec.agent_namespace.is_none(),
        registration: spec.registration.unwrap_or(Registration::Declared),
        deletion_policy: spec.deletion_policy.unwrap_or(DeletionPolicy::Retain),
        suspended: spec.suspend.unwrap_or(false),
        admins: spec.admins.clone(),
        audit_days: spec.audit.as_ref().and_then(|audit| audit.retention_days).unwrap_or(90),
        name,
        uid,
        id: identity.id,
        adopted: identity.adopted,
        namespace,
        context_types,
        replicas,
        max_replicas,
        range,
        hub,
        deleting,
        owned,
    })
}

/// Who issues the tokens of its agents' ServiceAccounts, where there may be any.
fn issuer(world: &World, platform: &Platform) -> Option<IssuerRow> {
    let has_account =
        |agent: &Agent| agent.spec.credentials.as_ref().is_some_and(|credentials| credentials.service_account.is_some());
    let is_used = world.tenancy.staying().any(has_account) || world.tenancy.has_unreadable(Kind::Agent);
    if !platform.has_service_accounts || !is_used {
        return None;
    }
    world.issuer(world.row().and_then(|row| row.issuer.as_ref()))
}

/// The most calls of single operations, by their names. Of two for one the smaller holds.
pub(super) fn operation_limits(tenant: &Tenant) -> BTreeMap<String, i64> {
    let mut limits = BTreeMap::new();
    for limit in &tenant.spec.operation_limits {
        let most = limits.entry(limit.operation.clone()).or_insert(limit.requests_per_minute);
        *most = limit.requests_per_minute.min(*most);
    }
    limits
}

/// Limits of the tenant as a whole. A Quota that this version can't read limits as it did: nothing is loosened for it.
pub(super) fn effective_limits(tenant: &Tenant, world: &World, platform: &Platform) -> TenantLimits {
    let limits = world.tenancy.tenant_limits(tenant, &tier::allowance(tenant.spec.tier, &platform.tiers));
    let known = world.row().and_then(|row| serde_json::from_value::<TenantLimits>(row.limits.clone()).ok());
    match known.filter(|_| world.tenancy.has_unreadable(Kind::Quota)) {
        Some(known) => limits.smallest(&known),
        None => limits,
    }
}

/// Context types stay as they are where what else decides about them is not known: how many partitions their topics have, while Kafka is
/// away, and what an Agent publishes that this version can't read.
fn keep_types(world: &World, platform: &Platform, context_types: &mut Vec<ContextTypeRow>) {
    let Some(row) = world.row() else { return };
    if platform.has_kafka() && world.kafka.away().is_some() {
        context_types.clone_from(&row.context_types);
    } else if world.tenancy.has_unreadable(Kind::Agent) {
        let unwanted = row.context_types.iter().filter(|known| context_types.iter().all(|wanted| wanted.name != known.name));
        let unwanted: Vec<ContextTypeRow> = unwanted.cloned().collect();
        context_types.extend(unwanted);
    }
}

/// The admission policies know the operator's namespace as it was when they were made: another overlay may have moved it.
fn check_operators(own: &str, space: &str, hub: &str, problems: &mut Vec<Problem>) {
    let message = format!("namespace {own} is the operator's own: choose another name, or another agentNamespace");
    if own == hub {
        problems.push(Problem::new(Reason::NamespaceNotOurs, "metadata.name", message.clone()));
    }
    if own == space {
        problems.push(Problem::new(Reason::NamespaceNotOurs, "spec.agentNamespace", message));
    }
}

fn check_neighbours(tenant: &Tenant, world: &World, identity: &Identity, namespace: &str, problems: &mut Vec<Problem>) {
    if let Some((other, what)) = world.tenancy.collision(tenant) {
        let other = other.metadata.name.as_deref().unwrap_or_default();
        let message = format!("{what} is already tenant {other}'s, which is older: choose another name or namespace");
        problems.push(Problem::new(Reason::NameCollision, "metadata.name", message));
    }
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    let hub_namespace = TenantName::parse(name).map(|name| name.hub_namespace()).unwrap_or_default();
    let namespace_found = |space: &str| world.objects.get(&ObjectKey::new("v1", "Namespace", "", space));
    if let Some(retained) = &world.retained {
        let earlier = TenantId::from_hex(&retained.tenant_id).or_else(|| namespace_found(&hub_namespace).and_then(served_id));
        let message = format!(
            "data of an earlier tenant of this name (id {}) is still in {}: take it over (kubectl annotate tenant {name} {ADOPT}={}), remove it by the runbook, or choose another name",
            retained.tenant_id,
            retained.place,
            earlier.unwrap_or(identity.id)
        );
        problems.push(Problem::new(Reason::RetainedData, "metadata.name", message));
    }
    let given = tenant.spec.agent_namespace.is_some();
    for (space, field) in [(namespace, "spec.agentNamespace"), (hub_namespace.as_str(), "metadata.name")] {
        let found = namespace_found(space);
        let wanted = found.is_some() || (given && space == namespace);
        let label = |key| found.and_then(|found| label(found, key)).unwrap_or_default();
        if wanted && label(TENANT_LABEL) != name {
            let message = format!(
                "namespace {space} is missing, or lacks the label {TENANT_LABEL}={name}: the platform team makes and labels it"
            );
            problems.push(Problem::new(Reason::NamespaceNotOurs, field, message));
            continue;
        }
        let serves = label(TENANT_UID_LABEL);
        // With this UID it is this Tenant's, unless it is written that there is an adopted one's data behind it.
        let is_own = Some(serves) == tenant.metadata.uid.as_deref() && found.and_then(adopted_id).is_none();
        if let Some(earlier) = found.and_then(served_id).filter(|earlier| *earlier != identity.id && !is_own) {
            let message = format!(
                "namespace {space} serves an earlier tenant of this name (UID {serves}): take its data over (kubectl annotate tenant {name} {ADOPT}={earlier}), or remove it by the runbook"
            );
            problems.push(Problem::new(Reason::RetainedData, field, message));
        }
    }
}

/// The limits that a tier does not allow: field, limit, ceiling.
pub(crate) fn above_tier(prefix: &str, above: Vec<(&'static str, i64, i64)>, tier: Tier) -> Vec<Problem> {
    above
        .into_iter()
        .map(|(field, limit, most)| {
            let message =
                format!("{limit} is above {most}, which is what tier {} allows: lower it or change the tier", tier.as_str());
            Problem::new(Reason::AboveTier, format!("{prefix}.{field}"), message)
        })
        .collect()
}

fn existing_partitions(world: &World, platform: &Platform, tenant: &TenantName, context_type: &str) -> Option<u32> {
    let topic = format!("{}{context_type}", tenant.topic_prefix());
    world.topics(platform)?.get(&topic).map(|topic| topic.partitions)
}

fn row(listed: &ContextType, existing: Option<u32>, field: &str, most: u32, problems: &mut Vec<Problem>) -> ContextTypeRow {
    let wanted = listed.partitions.unwrap_or_else(|| existing.unwrap_or(PARTITIONS).max(PARTITIONS.min(most)));
    if let Some(existing) = existing.filter(|existing| *existing > wanted) {
        let message =
            format!("{wanted}, and the topic has {existing}: partitions can only grow; make a new context type for fewer");
        problems.push(Problem::new(Reason::PartitionsShrink, field, message));
    }
    if listed.partitions.is_some_and(|partitions| partitions > most) {
        problems.push(Problem::new(
            Reason::AboveTier,
            field,
            format!("{wanted}, and the tier allows {most}: lower it or change the tier"),
        ));
    }
    ContextTypeRow {
        name: listed.name.clone(),
        partitions: wanted,
        retention_seconds: listed.retention.unwrap_or(RETENTION).seconds(),
        cleanup: listed.cleanup.unwrap_or(Cleanup::Delete).stored().to_owned(),
        max_message_bytes: listed.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES),
        schema: listed.payload_schema.as_ref().map(stored_schema),
    }
}

/// As hubs read it from its row.
fn stored_schema(listed: &PayloadSchema) -> Value {
    json!({"id": listed.id, "version": listed.version, "schema": listed.json_schema})
}

fn not_acted_on(tenant: &Tenant) -> Vec<String> {
    let spec = &tenant.spec;
    let mut fields = Vec::new();
    if spec.auth.as_ref().is_some_and(|auth| auth.mtls.is_some()) {
        fields.push("spec.auth.mtls".to_owned());
    }
    for (index, listed) in spec.context_types.iter().enumerate() {
        let ignored = listed.payload_schema.iter().flat_map(|listed| json_keywords::ignored(&listed.json_schema));
        fields.extend(ignored.map(|place| format!("spec.contextTypes[{index}].payloadSchema.jsonSchema: {place}")));
    }
    fields
}
