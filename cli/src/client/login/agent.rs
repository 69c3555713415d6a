//! How an agent is named on the command line.

use acb_crds::names::{AgentName, TenantName};

/// An agent of a tenant.
#[derive(Clone, Debug)]
pub(crate) struct AgentOf {
    pub(super) tenant: TenantName,
    pub(super) agent: AgentName,
}

/// Reads `TENANT/AGENT`.
pub(crate) fn agent(text: &str) -> Result<AgentOf, String> {
    let (tenant, agent) = text.split_once('/').ok_or("write TENANT/AGENT, such as acme/supervisor")?;
    let tenant = TenantName::parse(tenant).map_err(|error| error.to_string())?;
    let agent = AgentName::parse(agent).map_err(|error| error.to_string())?;
    Ok(AgentOf { tenant, agent })
}
