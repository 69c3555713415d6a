//! Logging in and out, and whom a login speaks for.

mod agent;
mod cluster;
mod dev;
mod oidc;

use std::path::{Path, PathBuf};

use acb_sdk::{ApiKey, Identity};
use serde_json::json;

use self::oidc::OidcArgs;
pub(super) use self::oidc::OidcLogin;
#[cfg(test)]
pub(super) use self::oidc::tests as oidc_tests;
pub(crate) use self::{
    agent::{AgentOf, agent},
    dev::{environment, keep_all},
};
use super::{Target, payload::text_of, profile, refused};
use crate::{
    output::{self, Exit, Failure, Output},
    platform::PlatformArgs,
};

/// Exchanges an API key, the token of a ServiceAccount, or that of an OpenID Connect issuer, and keeps where it is with the hub's address as a profile.
///
/// An agent of `acb dev`, or of a cluster, is named as TENANT/AGENT: its hub, CA and key are looked up. Any other hub is named by
/// --server, --ca and --api-key-file; in a pod that has a token of its ServiceAccount, by --token-file in the key's place;
/// with an issuer that the Tenant names, by --oidc.
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// The agent. Its hub, the tenant's CA and its API key are looked up. Where a hub has no address outside of its cluster, commands
    /// port-forward.
    #[arg(value_name = "TENANT/AGENT", value_parser = agent, required_unless_present_any = ["server", "tenant"])]
    agent: Option<AgentOf>,
    /// The name to keep it under; it becomes the current profile [default: TENANT/AGENT].
    #[arg(short, long, value_name = "NAME")]
    profile: Option<String>,
    /// The hub's replicas: `https://host:port`, separated by commas.
    #[arg(short, long, value_delimiter = ',', requires = "ca", requires = "credential", conflicts_with = "agent")]
    server: Vec<String>,
    /// The tenant's CA, as PEM.
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// A file that holds the API key. `-` reads it from the standard input [default: the agent's own is looked up].
    #[arg(long, value_name = "FILE", group = "credential")]
    api_key_file: Option<PathBuf>,
    /// A file that holds the token of the pod's ServiceAccount, for the audience `acb:<tenant id>`. It is read each time: the kubelet replaces it.
    #[arg(long, value_name = "FILE", group = "credential")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    oidc: OidcArgs,
    /// On a cluster: the namespace of the tenant's agents [default: as the Tenant says, or acb-TENANT].
    #[arg(long, value_name = "NAME", requires = "agent")]
    namespace: Option<String>,
    #[command(flatten)]
    platform: PlatformArgs,
    /// Was the name of what is a profile now.
    #[arg(short, long, hide = true, value_name = "NAME")]
    context: Option<String>,
    /// Were how an agent of a cluster was named.
    #[arg(long, hide = true, value_name = "NAME")]
    tenant: Option<String>,
    #[arg(long = "agent", hide = true, value_name = "NAME")]
    named: Option<String>,
}

impl Login {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        if self.context.is_some() {
            return Err(Failure::new(Exit::Usage, "`--context` (`-c`) is now `--profile` (`-p`)"));
        }
        if let (Some(tenant), Some(agent)) = (&self.tenant, &self.named) {
            let hint = format!("`acb login --tenant {tenant} --agent {agent}` is now `acb login {tenant}/{agent} --cluster`");
            return Err(Failure::new(Exit::Usage, hint));
        }
        let key = self.api_key_file.as_deref().map(read_key).transpose()?;
        let token_file = self.token_file.as_deref().map(std::path::absolute).transpose();
        let token_file = token_file.map_err(|error| Failure::failed(format_args!("login: {error}")))?;
        let looks_up_key = key.is_none() && token_file.is_none() && !self.oidc.is_given();
        let mut profile = match (&self.agent, &self.ca) {
            (Some(agent), _) if self.platform.is_cluster() => {
                self.platform.say(output);
                cluster::find(&self.platform, agent, self.namespace.as_deref(), looks_up_key).await?
            }
            (Some(_), _) if token_file.is_some() => {
                let hint = "`acb dev` has no ServiceAccounts: leave --token-file out, and the agent's API key is looked up";
                return Err(Failure::new(Exit::Usage, hint));
            }
            (Some(agent), _) => {
                self.platform.say(output);
                dev::find(&self.platform.state, agent, looks_up_key)?
            }
            (None, Some(ca)) => profile::Profile::at(self.server, text_of(ca)?),
            (None, None) => {
                return Err(Failure::new(Exit::Usage, "login: name an agent as TENANT/AGENT, or give --server and --ca"));
            }
        };
        if let Some(key) = key {
            key.expose().clone_into(&mut profile.api_key);
        }
        profile.token_file = token_file;
        profile.oidc = self.oidc.log_in(output).await?;
        let client = profile.connect_soon(&format!("login at {}", profile.servers.join(", "))).await?;
        let identity =
            client.identity().await.ok_or_else(|| Failure::failed("login: the hub did not say for whom the key speaks"))?;
        if let Some(named) = self.agent.as_ref().filter(|named| profile.oidc.is_some() && named.agent.as_str() != identity.agent)
        {
            let message = format!("login: the token is of agent {}, and not of {}: name that one", identity.agent, named.agent);
            return Err(Failure::new(Exit::Usage, message));
        }
        profile.tenant.clone_from(&identity.tenant);
        profile.agent.clone_from(&identity.agent);
        profile.name = self.profile.unwrap_or_else(|| format!("{}/{}", profile.tenant, profile.agent));
        let name = profile.name.clone();
        let servers = profile.servers.clone();
        let mut replaced = None;
        profile::Profiles::change(|profiles| {
            replaced = profiles.keep(profile);
            Ok(())
        })?;
        if let Some(before) = replaced.filter(|before| before.servers != servers) {
            let before = before.servers.join(", ");
            output::note(
                output,
                &format!("It takes the place of the profile of that name for {before}; --profile gives another name."),
            );
        }
        match output {
            Output::Document(syntax) => {
                syntax.document(&json!({"profile": name, "tenant": identity.tenant, "agent": identity.agent}))
            }
            Output::Table { .. } => output::line(format_args!(
                "Logged in to tenant {} as agent {}; profile {name} is now the current one.",
                identity.tenant, identity.agent
            )),
        }
    }
}

fn read_key(path: &Path) -> Result<ApiKey, Failure> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::failed(format_args!("standard input: {error}")))?
    } else {
        text_of(path)?
    };
    text.parse().map_err(|error| refused(&format!("API key in {}", path.display()), &error))
}

/// Forgets a profile and the key in it. The key itself goes on to be valid.
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// Which [default: the current one].
    #[arg(value_name = "PROFILE")]
    name: Option<String>,
    /// All that are kept.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

impl Logout {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        let mut gone = Vec::new();
        profile::Profiles::change(|profiles| {
            // The one that commands of this shell use.
            let name = self.name.or_else(Target::from_environment);
            gone = if self.all { profiles.clear() } else { vec![profiles.remove(name.as_deref())?] };
            Ok(())
        })?;
        match output {
            Output::Document(syntax) => syntax.document(&json!({"removed": gone})),
            Output::Table { .. } if gone.is_empty() => output::line("No profile was kept."),
            Output::Table { .. } => gone.iter().try_for_each(|name| output::line(format_args!("Forgot profile {name}."))),
        }
    }
}

/// Shows whom the current profile speaks for.
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
            Output::Document(syntax) => syntax.document(&identity),
            Output::Table { .. } => {
                let Identity { tenant, agent, agent_id } = identity;
                output::table(&["TENANT", "AGENT", "ID"], vec![vec![tenant, agent, agent_id]])
            }
        }
    }
}
