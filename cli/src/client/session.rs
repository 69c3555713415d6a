//! Logging in, and what is kept of it.

use std::path::{Path, PathBuf};

use acb_sdk::{ApiKey, Identity};
use serde_json::json;

use super::{Target, profile, refused};
use crate::output::{self, Exit, Failure, Output};

/// Exchanges an API key, and keeps it with the hub's address as a context.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The name to keep it under; it becomes the current context.
    #[arg(short, long)]
    context: String,
    /// The hub's replicas: `https://host:port`, separated by commas.
    #[arg(short, long, value_delimiter = ',', required = true)]
    server: Vec<String>,
    /// The tenant's CA, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// A file that holds the API key. `-` reads it from the standard input.
    #[arg(long, value_name = "FILE")]
    api_key_file: PathBuf,
}

impl Login {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let key = if self.api_key_file == Path::new("-") {
            std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::failed(format_args!("standard input: {error}")))?
        } else {
            read(&self.api_key_file)?
        };
        let key: ApiKey = key.parse().map_err(|error| refused(&format!("API key in {}", self.api_key_file.display()), &error))?;
        let mut profile = profile::Profile {
            name: self.context,
            servers: self.server,
            ca: read(&self.ca)?,
            api_key: key.expose().to_owned(),
            tenant: String::new(),
            agent: String::new(),
        };
        let client =
            profile.connect_soon().await.map_err(|error| refused(&format!("login at {}", profile.servers.join(", ")), &error))?;
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
                    json!({
                        "name": context.name, "current": context.name == profiles.current,
                        "tenant": context.tenant, "agent": context.agent, "servers": context.servers,
                    })
                })
                .collect::<Vec<_>>(),
        ),
        Output::Table => output::table(
            &["CURRENT", "NAME", "TENANT", "AGENT", "SERVERS"],
            contexts
                .map(|context| {
                    let mark = if context.name == profiles.current { "*" } else { "" };
                    let (tenant, agent) = (context.tenant.clone(), context.agent.clone());
                    vec![mark.to_owned(), context.name.clone(), tenant, agent, context.servers.join(",")]
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
