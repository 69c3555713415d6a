//! An Agent and the world become a [`ValidatedAgent`], or a list of what is wrong.

use acb_crds::{
    Agent, AgentLimits,
    names::{AgentName, TenantId, TenantName, annotations::ROTATE},
    schema::Kind,
};

use super::{World, rotation_policy, service_account};
use crate::{
    condition::{Problem, Reason},
    plan::ServiceAccountRow,
    tenant::adoption,
};

/// Bytes of all names and values of attributes, as at a registration: every list of agents has them.
const MAX_ATTRIBUTES_BYTES: usize = 16 * 1024;

/// An Agent that can be provisioned.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedAgent {
    /// Parsed.
    pub name: AgentName,
    /// What the hub knows it by: its own, or that of the one whose place it takes in adopted data.
    pub uid: String,
    /// Its tenant's name.
    pub tenant: TenantName,
    /// Its tenant's id.
    pub tenant_id: TenantId,
    /// Where it is.
    pub namespace: String,
    /// Its spec.
    pub spec: acb_crds::AgentSpec,
    /// The smallest that apply.
    pub limits: AgentLimits,
    /// Whether it is on its way out.
    pub deleting: bool,
    /// The request for a rotation of its key, if there is one.
    pub rotate: Option<String>,
    /// Whether it has an API key.
    pub has_api_key: bool,
    /// The ServiceAccount that it names, by name.
    pub account_name: Option<String>,
    /// The same, where it is there.
    pub account: Option<ServiceAccountRow>,
    /// Fields that are set and that nothing acts on yet.
    pub not_acted_on: Vec<String>,
}

/// Decides whether an Agent can be provisioned.
///
/// # Errors
/// Everything that is wrong with it. One that was provisioned before is to be suspended then: see
/// [`suspension`](super::plan::suspension).
pub fn validate(agent: &Agent, world: &World) -> Result<ValidatedAgent, Vec<Problem>> {
    let invalid = |field: &str, message: String| vec![Problem::new(Reason::InvalidSpec, field, message)];
    let name = AgentName::parse(agent.metadata.name.as_deref().unwrap_or_default())
        .map_err(|error| invalid("metadata.name", error.to_string()))?;
    let uid = agent.metadata.uid.clone().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| invalid("metadata.uid", "missing: the API server or the runtime sets it".into()))?;
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let Some(owner) = world.census.owner(&namespace) else {
        let message = format!(
            "namespace {namespace} is no tenant's: move the Agent to acb-<tenant>, or ask the platform team for a Tenant with this namespace"
        );
        return Err(vec![Problem::new(Reason::UnknownTenant, "metadata.namespace", message)]);
    };
    let tenant = &owner.tenant;
    let tenant_name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default())
        .map_err(|error| invalid("metadata.namespace", error.to_string()))?;
    let standing = owner.standing(agent);
    let deleting = agent.metadata.deletion_timestamp.is_some();

    let mut problems = Vec::new();
    if !deleting {
        if let Some((most, by)) = &standing.crowded_out {
            let message =
                format!("{by} allows {most} agents, and older ones take them all: remove one of them or raise the limit");
            problems.push(Problem::new(Reason::TooManyAgents, "metadata.name", message));
        }
        let refused = |name: &String| owner.refused_types.contains(name);
        for (index, name) in agent.spec.publishes.iter().enumerate().filter(|(_, name)| refused(name)) {
            let message = format!(
                "the Tenant does not list {name}, and its {} context types are all in use: use a listed one or ask the platform team{}",
                owner.allowance.context_types,
                idle(&owner.idle_types)
            );
            problems.push(Problem::new(Reason::TooManyContextTypes, format!("spec.publishes[{index}]"), message));
        }
        let bytes: usize = agent.spec.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_ATTRIBUTES_BYTES {
            let message = format!(
                "its names and values have {bytes} bytes together, and may have {MAX_ATTRIBUTES_BYTES}: keep what others look for, and share the rest as a context"
            );
            problems.push(Problem::new(Reason::InvalidSpec, "spec.attributes", message));
        }
        problems.extend(rotation_policy::problem(&agent.spec));
        problems.extend(service_account::problem(agent, world));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (account_name, account) = service_account::account(agent, world);
    Ok(ValidatedAgent {
        has_api_key: agent.spec.credentials.as_ref().is_none_or(|credentials| credentials.api_key.is_some()),
        account_name,
        account,
        tenant_id: world.tenant_id.unwrap_or_else(|| adoption::own(tenant)),
        tenant: tenant_name,
        spec: agent.spec.clone(),
        limits: known_limits(world, standing.limits),
        not_acted_on: not_acted_on(agent, world),
        rotate: agent.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ROTATE).cloned()),
        name,
        uid: world.id.clone().unwrap_or(uid),
        namespace,
        deleting,
    })
}

/// So many are named.
const NAMED: usize = 5;

/// What takes room although nobody asks for it.
fn idle(types: &[String]) -> String {
    if types.is_empty() {
        return String::new();
    }
    let named = types.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = types.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!(
        "; {named}{more} are in use until their topics go, each once its retention has passed since nobody publishes it any more: publishing one of these again is allowed"
    )
}

/// A Quota that this version can't read limits as it did: nothing is loosened for it.
fn known_limits(world: &World, limits: AgentLimits) -> AgentLimits {
    let row = world.row.as_ref().filter(|_| world.census.tenancy().has_unreadable(Kind::Quota));
    match row.and_then(|row| serde_json::from_value::<AgentLimits>(row.limits.clone()).ok()) {
        Some(known) => limits.smallest(&known),
        None => limits,
    }
}

fn not_acted_on(agent: &Agent, world: &World) -> Vec<String> {
    let Some(credentials) = &agent.spec.credentials else { return Vec::new() };
    let fields = [
        ("serviceAccount", credentials.service_account.is_some() && !world.census.has_service_accounts()),
        ("external", credentials.external.is_some()),
        ("clientCertificate", credentials.client_certificate.is_some()),
    ];
    fields.into_iter().filter(|(_, set)| *set).map(|(field, _)| format!("spec.credentials.{field}")).collect()
}
