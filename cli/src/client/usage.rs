//! What an agent may use, and has used.

use acb_sdk::system_time;
use serde_json::json;

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Shows the limits of the agent and of its tenant, what was used of them, and when that begins anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    #[command(flatten)]
    target: Target,
    /// Of this agent; takes the role admin [default: oneself].
    agent: Option<String>,
}

impl Usage {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let used = client.usage(&self.agent.unwrap_or_default()).await.map_err(|error| refused("usage", &error))?;
        let resets_at = |usage: &acb_sdk::Usage| system_time(usage.resets_at).map(payload::time_in_seconds).unwrap_or_default();
        match output {
            Output::Document(syntax) => {
                let usage = used.iter().map(|usage| {
                    json!({
                        "subject": usage.subject, "limit": usage.limit, "most": usage.most, "used": usage.used,
                        "resetsAt": resets_at(usage),
                    })
                });
                syntax.document(&usage.collect::<Vec<_>>())
            }
            Output::Table { .. } => output::table(
                &["OF", "LIMIT", "USED", "MOST", "RESETS AT"],
                used.iter()
                    .map(|usage| {
                        let most = usage.most.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
                        vec![usage.subject.clone(), usage.limit.clone(), usage.used.to_string(), most, resets_at(usage)]
                    })
                    .collect(),
            ),
        }
    }
}
