//! Who is in the tenant.

use acb_sdk::{Agent, AgentStatus, Criteria, system_time};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Lists the agents of the tenant.
#[derive(Debug, clap::Args)]
pub(crate) struct Agents {
    #[command(flatten)]
    target: Target,
    /// Only those of this type.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only those that can do this; may be repeated.
    #[arg(long)]
    capability: Vec<String>,
}

impl Agents {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let all = self.r#type.is_none() && self.capability.is_empty();
        let agents = if all {
            client.agents().left_stream()
        } else {
            let criteria =
                Criteria { agent_type: self.r#type.unwrap_or_default(), capabilities: self.capability, ..Criteria::default() };
            client.discover(criteria).right_stream()
        };
        let agents: Vec<Agent> = agents.try_collect().await.map_err(|error| refused("agents", &error))?;
        match output {
            Output::Json => output::json(&agents.iter().map(view).collect::<Vec<_>>()),
            Output::Table => output::table(
                &["NAME", "TYPE", "STATUS", "ROLE", "GROUPS", "CAPABILITIES"],
                agents
                    .into_iter()
                    .map(|agent| {
                        let status = shown(&agent);
                        vec![agent.name, agent.r#type, status, agent.role, agent.groups.join(","), agent.capabilities.join(",")]
                    })
                    .collect(),
            ),
        }
    }
}

fn status(agent: &Agent) -> &'static str {
    match agent.status() {
        AgentStatus::Online => "online",
        AgentStatus::Offline => "offline",
        AgentStatus::Unknown | AgentStatus::Unspecified => "unknown",
    }
}

/// What a person is to know first: that nobody is there to be written to.
fn shown(agent: &Agent) -> String {
    match (agent.registered_by.as_str(), agent.suspended) {
        (_, true) => "suspended".to_owned(),
        ("", false) => status(agent).to_owned(),
        (by, false) => format!("via {by}"),
    }
}

fn view(agent: &Agent) -> Value {
    json!({
        "id": agent.id, "name": agent.name, "type": agent.r#type, "status": status(agent), "role": agent.role,
        "suspended": agent.suspended, "registeredBy": Some(&agent.registered_by).filter(|by| !by.is_empty()),
        "groups": agent.groups, "capabilities": agent.capabilities, "location": agent.location,
        "metadata": agent.metadata, "tenant": agent.tenant,
        "createdAt": system_time(agent.created_at).map(payload::time),
        "lastSeenAt": system_time(agent.last_seen_at).map(payload::time),
    })
}
