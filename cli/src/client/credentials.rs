//! What agents prove themselves with.

use acb_sdk::{Credential, CredentialKind, system_time};
use serde_json::json;

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Lists what agents prove themselves with: which keys and accounts there are, and when each was used last.
#[derive(Debug, clap::Args)]
pub(crate) struct Credentials {
    #[command(subcommand)]
    command: CredentialsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CredentialsCommand {
    /// Lists one's own; with the role admin everybody's. No secret is shown.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        target: Target,
        /// Of this agent; takes the role admin [default: oneself, or everybody with that role].
        agent: Option<String>,
    },
}

impl Credentials {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let CredentialsCommand::List { target, agent } = self.command;
        let client = target.connect().await?;
        let found = client.credentials(&agent.unwrap_or_default()).await.map_err(|error| refused("credentials", &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&found.iter().map(document).collect::<Vec<_>>()),
            Output::Table { .. } => output::table(
                &["AGENT", "KIND", "CREDENTIAL", "CREATED", "EXPIRES", "LAST USED"],
                found.into_iter().map(row).collect(),
            ),
        }
    }
}

fn kind(credential: &Credential) -> &'static str {
    match credential.kind() {
        CredentialKind::Unspecified => "unknown",
        CredentialKind::ApiKey => "ApiKey",
        CredentialKind::ServiceAccount => "ServiceAccount",
    }
}

fn document(credential: &Credential) -> serde_json::Value {
    let at = |at| system_time(at).map(payload::time_in_seconds);
    json!({
        "agent": credential.agent, "agentId": credential.agent_id, "kind": kind(credential), "name": credential.name,
        "createdAt": at(credential.created_at), "expiresAt": at(credential.expires_at), "lastUsedAt": at(credential.last_used_at),
    })
}

fn row(credential: Credential) -> Vec<String> {
    let at = |at, unset: &str| system_time(at).map_or_else(|| unset.to_owned(), payload::time_in_seconds);
    let (created, expires) = (at(credential.created_at, ""), at(credential.expires_at, "never"));
    let used = at(credential.last_used_at, "never");
    let kind = kind(&credential).to_owned();
    vec![credential.agent, kind, credential.name, created, expires, used]
}
