//! Who is in the tenant.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use acb_sdk::{Agent as Entry, AgentStatus, Criteria, Registration, system_time};
use futures::{Stream, TryStreamExt as _};
use serde_json::{Value, json};

use super::{Target, payload, refused};
use crate::output::{self, Exit, Failure, Output};

/// Lists, shows and discovers the agents of the tenant, as its hub knows them. `acb get agents` shows their resources.
#[derive(Debug, clap::Args)]
pub(crate) struct Agent {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AgentCommand {
    /// Lists all agents.
    #[command(visible_alias = "ls")]
    List(List),
    /// Shows an agent.
    Get(Get),
    /// Finds those that are of a type, can do something, or have some metadata.
    Discover(Discover),
    /// Registers another agent, of this agent's role, and shows its API key once. Where the Tenant's registration is Open.
    Register(Register),
    /// Removes agents that this agent registered: their keys end.
    Unregister(Unregister),
}

impl Agent {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            AgentCommand::List(list) => show(list.target.connect().await?.agents(), output).await,
            AgentCommand::Get(get) => get.run(output).await,
            AgentCommand::Discover(discover) => discover.run(output).await,
            AgentCommand::Register(register) => register.run(output).await,
            AgentCommand::Unregister(unregister) => unregister.run(output).await,
        }
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Args)]
struct Get {
    #[command(flatten)]
    target: Target,
    /// Its name.
    name: String,
}

impl Get {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let agent = client.agent(&self.name).await.map_err(|error| refused(&format!("agent {:?}", self.name), &error))?;
        let table = match output {
            Output::Document(syntax) => return syntax.document(&view(&agent)),
            Output::Table { .. } => rows(&agent),
        };
        output::table(&["FIELD", "VALUE"], table)
    }
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("criteria").required(true).multiple(true).args(["type", "capability", "metadata"]))]
struct Discover {
    #[command(flatten)]
    target: Target,
    /// Only those of this type.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only those that can do this; may be repeated.
    #[arg(long, value_name = "NAME")]
    capability: Vec<String>,
    /// Only those with this entry in their metadata, as key=value; may be repeated.
    #[arg(long, value_parser = payload::pair)]
    metadata: Vec<(String, String)>,
}

impl Discover {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let criteria = Criteria {
            agent_type: self.r#type.unwrap_or_default(),
            capabilities: self.capability,
            metadata: self.metadata.into_iter().collect(),
        };
        show(self.target.connect().await?.discover(criteria), output).await
    }
}

#[derive(Debug, clap::Args)]
struct Register {
    #[command(flatten)]
    target: Target,
    /// Its name, to which this agent's is put: `helper` of `supervisor` is `supervisor.helper`. One that was registered before is described anew, and
    /// gets another key.
    name: String,
    /// What it is.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// What it can do; may be repeated.
    #[arg(long, value_name = "NAME")]
    capability: Vec<String>,
    /// Any other fact, as key=value; may be repeated.
    #[arg(long, value_parser = payload::pair)]
    metadata: Vec<(String, String)>,
    /// Where it is.
    #[arg(long)]
    location: Option<String>,
    /// Writes the key into this file, which only its owner reads and which must not be there yet, instead of showing it.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Register {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let registration = Registration {
            name: self.name.clone(),
            agent_type: self.r#type.unwrap_or_default(),
            capabilities: self.capability,
            metadata: self.metadata.into_iter().collect(),
            location: self.location.unwrap_or_default(),
        };
        let client = self.target.connect().await?;
        // Before there is a key that could not be kept.
        let file = self.key_file.as_deref().map(|path| (path, new_private_file(path)));
        let file = file.map(|(path, file)| file.map(|file| (path, file))).transpose()?;
        let made = client.register(registration).await.map_err(|error| {
            if let Some((path, _)) = &file {
                // It holds nothing. What can't be removed is said by whoever looks for a key in it.
                let _ = std::fs::remove_file(path);
            }
            refused(&format!("agent {:?}", self.name), &error)
        })?;
        if let Some((path, mut file)) = file {
            let written = file.write_all(made.api_key.as_bytes()).and_then(|()| file.sync_all());
            written.map_err(|error| Failure::failed(format_args!("{}: {error}; register it again", path.display())))?;
            return match output {
                Output::Document(syntax) => syntax.document(&view(&made.agent)),
                Output::Table { .. } => {
                    output::line(format_args!("Registered {}; its key is in {}.", made.agent.name, path.display()))
                }
            };
        }
        match output {
            Output::Document(syntax) => {
                let mut view = view(&made.agent);
                view["apiKey"] = json!(made.api_key);
                syntax.document(&view)
            }
            Output::Table { .. } => output::line(format_args!(
                "Registered {}. Its API key, which is not shown again:\n{}",
                made.agent.name, made.api_key
            )),
        }
    }
}

fn new_private_file(path: &Path) -> Result<File, Failure> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| Failure::new(Exit::Usage, format_args!("{}: {error}", path.display())))
}

#[derive(Debug, clap::Args)]
struct Unregister {
    #[command(flatten)]
    target: Target,
    /// Their names.
    #[arg(required = true)]
    names: Vec<String>,
}

impl Unregister {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        for name in &self.names {
            client.unregister(name).await.map_err(|error| refused(&format!("agent {name:?}"), &error))?;
            match output {
                Output::Document(syntax) => syntax.record(&json!({"unregistered": name}))?,
                Output::Table { .. } => output::line(format_args!("Unregistered {name}."))?,
            }
        }
        Ok(())
    }
}

async fn show(agents: impl Stream<Item = Result<Entry, acb_sdk::Error>>, output: Output) -> Result<(), Failure> {
    let agents: Vec<Entry> = agents.try_collect().await.map_err(|error| refused("agents", &error))?;
    match output {
        Output::Document(syntax) => syntax.document(&agents.iter().map(view).collect::<Vec<_>>()),
        Output::Table { wide } => {
            let header = ["NAME", "TYPE", "STATUS", "ROLE", "GROUPS", "CAPABILITIES", "LOCATION", "LAST SEEN", "ID"];
            let columns = if wide { header.len() } else { header.len() - 3 };
            let row = |agent: Entry| {
                let (status, seen) = (shown(&agent), time(system_time(agent.last_seen_at)));
                let (groups, capabilities) = (agent.groups.join(","), agent.capabilities.join(","));
                let mut row =
                    vec![agent.name, agent.r#type, status, agent.role, groups, capabilities, agent.location, seen, agent.id];
                row.truncate(columns);
                row
            };
            output::table(&header[..columns], agents.into_iter().map(row).collect())
        }
    }
}

fn time(at: Option<std::time::SystemTime>) -> String {
    at.map(payload::time_in_seconds).unwrap_or_default()
}

fn status(agent: &Entry) -> &'static str {
    match agent.status() {
        AgentStatus::Online => "online",
        AgentStatus::Offline => "offline",
        AgentStatus::Unknown | AgentStatus::Unspecified => "unknown",
    }
}

/// What a person is to know first: that nobody is there to be written to.
fn shown(agent: &Entry) -> String {
    if agent.suspended { "suspended" } else { status(agent) }.to_owned()
}

fn rows(agent: &Entry) -> Vec<Vec<String>> {
    let mut rows = vec![
        ("name", agent.name.clone()),
        ("id", agent.id.clone()),
        ("tenant", agent.tenant.clone()),
        ("type", agent.r#type.clone()),
        ("status", shown(agent)),
        ("role", agent.role.clone()),
        ("registered by", agent.registered_by.clone()),
        ("groups", agent.groups.join(",")),
        ("capabilities", agent.capabilities.join(",")),
        ("location", agent.location.clone()),
        ("created", time(system_time(agent.created_at))),
        ("last seen", time(system_time(agent.last_seen_at))),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let metadata: std::collections::BTreeMap<_, _> = agent.metadata.iter().collect();
    let metadata = metadata.into_iter().map(|(key, value)| vec![format!("metadata {key}"), value.clone()]);
    rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).chain(metadata).collect()
}

fn view(agent: &Entry) -> Value {
    json!({
        "id": agent.id, "name": agent.name, "type": agent.r#type, "status": status(agent), "role": agent.role,
        "suspended": agent.suspended, "registeredBy": Some(&agent.registered_by).filter(|by| !by.is_empty()),
        "groups": agent.groups, "capabilities": agent.capabilities, "location": agent.location,
        "metadata": agent.metadata, "tenant": agent.tenant,
        "createdAt": system_time(agent.created_at).map(payload::time),
        "lastSeenAt": system_time(agent.last_seen_at).map(payload::time),
    })
}
