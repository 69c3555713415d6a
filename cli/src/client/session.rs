//! Logging in, and what is kept of it.

use std::path::{Path, PathBuf};

use acb_sdk::{ApiKey, Identity};
use serde_json::json;

use super::{Target, found, profile, refused};
use crate::output::{self, Exit, Failure, Output};

/// Exchanges an API key, and keeps it with the hub's address as a context.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The name to keep it under; it becomes the current context [default: TENANT/AGENT on a cluster].
    #[arg(short, long, required_unless_present = "tenant")]
    context: Option<String>,
    /// The hub's replicas: `https://host:port`, separated by commas.
    #[arg(short, long, value_delimiter = ',', required_unless_present = "tenant", conflicts_with = "tenant")]
    server: Vec<String>,
    /// The tenant's CA, as PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "tenant", conflicts_with = "tenant")]
    ca: Option<PathBuf>,
    /// A file that holds the API key. `-` reads it from the standard input [default: the agent's Secret on a cluster].
    #[arg(long, value_name = "FILE", required_unless_present = "tenant")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    found: found::FoundArgs,
}

impl Login {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let key = self.api_key_file.as_deref().map(read_key).transpose()?;
        let mut profile = match &self.ca {
            Some(ca) => profile::Profile {
                name: String::new(),
                servers: self.server,
                ca: read(ca)?,
                api_key: String::new(),
                tenant: String::new(),
                agent: String::new(),
                cluster: None,
            },
            None => self.found.find(key.is_none()).await?,
        };
        profile.name = self.context.unwrap_or_else(|| format!("{}/{}", profile.tenant, profile.agent));
        if let Some(key) = key {
            key.expose().clone_into(&mut profile.api_key);
        }
        let client = profile.connect_soon(&format!("login at {}", profile.servers.join(", "))).await?;
        let identity =
            client.identity().await.ok_or_else(|| Failure::failed("login: the hub did not say for whom the key speaks"))?;
        profile.tenant.clone_from(&identity.tenant);
        profile.agent.clone_from(&identity.agent);
        let name = profile.name.clone();
        let mut profiles = profile::Profiles::load()?;
        profiles.keep(profile);
        profiles.save()?;
        match output {
            Output::Json => output::json(&json!({"context": name, "tenant": identity.tenant, "agent": identity.agent})),
            Output::Table => output::line(format_args!(
                "Logged in to tenant {} as agent {}; context {name} is now the current one.",
                identity.tenant, identity.agent
            )),
        }
    }
}

fn read_key(path: &Path) -> Result<ApiKey, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::failed(format_args!("standard input: {error}")))?
    } else {
        read(path)?
    };
    text.parse().map_err(|error| refused(&format!("API key in {}", path.display()), &error))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Failure::new(exit, format_args!("{}: {error}", path.display()))
    })
}

/// Lists the kept contexts, or chooses the current one.
#[derive(Debug, clap::Args)]
pub(crate) struct Contexts {
    #[command(subcommand)]
    command: Option<ContextsCommand>,
}

#[derive(Debug, clap::Subcommand)]
enum ContextsCommand {
    /// Lists them (the default).
    List,
    /// Makes one the current one.
    Use {
        /// Its name.
        name: String,
    },
}

impl Contexts {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let mut profiles = profile::Profiles::load()?;
        match self.command {
            Some(ContextsCommand::Use { name }) => {
                profiles.choose(Some(&name))?;
                profiles.current.clone_from(&name);
                profiles.save()?;
                match output {
                    Output::Json => output::json(&json!({"context": name})),
                    Output::Table => output::line(format_args!("Context {name} is now the current one.")),
                }
            }
            None | Some(ContextsCommand::List) => list(&profiles, output),
        }
    }
}

fn list(profiles: &profile::Profiles, output: Output) -> Result<(), Failure> {
    let contexts = profiles.contexts.iter();
    match output {
        Output::Json => output::json(
            &contexts
                .map(|context| {
                    let mut shown = json!({
                        "name": context.name, "current": context.name == profiles.current,
                        "tenant": context.tenant, "agent": context.agent, "servers": context.servers,
                    });
                    if let Some(cluster) = &context.cluster {
                        shown["portForward"] = json!(cluster);
                    }
                    shown
                })
                .collect::<Vec<_>>(),
        ),
        Output::Table => output::table(
            &["CURRENT", "NAME", "TENANT", "AGENT", "SERVERS"],
            contexts
                .map(|context| {
                    let mark = if context.name == profiles.current { "*" } else { "" };
                    let (tenant, agent) = (context.tenant.clone(), context.agent.clone());
                    let way = if context.cluster.is_some() { " by port-forward" } else { "" };
                    vec![mark.to_owned(), context.name.clone(), tenant, agent, context.servers.join(",") + way]
                })
                .collect(),
        ),
    }
}

/// Shows whom the current context speaks for.
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    target: Target,
}

impl Whoami {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let identity = client.identity().await.ok_or_else(|| Failure::failed("the hub did not say for whom the key speaks"))?;
        match output {
            Output::Json => output::json(&identity),
            Output::Table => {
                let Identity { tenant, agent, agent_id } = identity;
                output::table(&["TENANT", "AGENT", "ID"], vec![vec![tenant, agent, agent_id]])
            }
        }
    }
}
