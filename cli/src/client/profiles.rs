//! The kept profiles, from the command line.

use serde_json::json;

use super::{Target, profile::Profiles};
use crate::output::{self, Failure, Output};

/// Lists the kept profiles, chooses the current one, or removes one.
#[derive(Debug, clap::Args)]
pub(crate) struct Profile {
    #[command(subcommand)]
    command: ProfileCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ProfileCommand {
    /// Lists the profiles.
    #[command(visible_alias = "ls")]
    List,
    /// Makes one the current one.
    Use {
        /// Its name.
        name: String,
    },
    /// Removes one, and the key in it.
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name.
        name: String,
    },
}

impl Profile {
    pub(super) fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            ProfileCommand::List => list(&Profiles::load()?, output),
            ProfileCommand::Use { name } => {
                Profiles::change(|profiles| {
                    profiles.choose(Some(&name))?;
                    profiles.current.clone_from(&name);
                    Ok(())
                })?;
                match output {
                    Output::Document(syntax) => syntax.document(&json!({"profile": name})),
                    Output::Table { .. } => output::line(format_args!("Profile {name} is now the current one.")),
                }
            }
            ProfileCommand::Remove { name } => {
                Profiles::change(|profiles| profiles.remove(Some(&name)).map(drop))?;
                match output {
                    Output::Document(syntax) => syntax.document(&json!({"removed": [name]})),
                    Output::Table { .. } => output::line(format_args!("Removed profile {name}.")),
                }
            }
        }
    }
}

fn list(profiles: &Profiles, output: Output) -> Result<(), Failure> {
    let chosen = Target::from_environment().unwrap_or_else(|| profiles.current.clone());
    let kept = profiles.profiles.iter();
    match output {
        Output::Document(syntax) => syntax.document(
            &kept
                .map(|profile| {
                    let mut shown = json!({
                        "name": profile.name, "current": profile.name == chosen,
                        "tenant": profile.tenant, "agent": profile.agent, "servers": profile.servers,
                    });
                    if let Some(cluster) = &profile.cluster {
                        shown["portForward"] = json!(cluster);
                    }
                    shown
                })
                .collect::<Vec<_>>(),
        ),
        Output::Table { .. } => output::table(
            &["CURRENT", "NAME", "TENANT", "AGENT", "SERVERS"],
            kept.map(|profile| {
                let mark = if profile.name == chosen { "*" } else { "" };
                let (tenant, agent) = (profile.tenant.clone(), profile.agent.clone());
                let way = if profile.cluster.is_some() { " by port-forward" } else { "" };
                vec![mark.to_owned(), profile.name.clone(), tenant, agent, profile.servers.join(",") + way]
            })
            .collect(),
        ),
    }
}
