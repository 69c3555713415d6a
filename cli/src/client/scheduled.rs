//! `acb scheduled`: messages that are sent later.

use acb_sdk::{ScheduledMessage, system_time};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Lists and cancels messages that are sent later: see `acb send --in`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scheduled {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists what waits to be sent, in the order in which it is due: what this agent scheduled.
    List(List),
    /// Cancels a message that waits to be sent. With the role admin any agent's.
    Cancel(Cancel),
}

impl Scheduled {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(output).await,
            Command::Cancel(cancel) => cancel.run(output).await,
        }
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    target: Target,
    /// What all agents scheduled; takes the role admin.
    #[arg(long)]
    all: bool,
    /// At most so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl List {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let scheduled = client.scheduled(self.all).take(limit);
        let scheduled: Vec<ScheduledMessage> =
            scheduled.try_collect().await.map_err(|error| refused("scheduled messages", &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&scheduled.iter().map(view).collect::<Vec<_>>()),
            Output::Table { .. } => output::table(
                &["ID", "FROM", "TO", "TOPIC", "BYTES", "DUE"],
                scheduled
                    .iter()
                    .map(|message| {
                        let to = payload::recipient(message.to.as_ref().and_then(|to| to.to.as_ref()));
                        let due = system_time(message.due_at).map(payload::time_in_seconds).unwrap_or_default();
                        let (from, topic) = (message.from.clone(), message.topic.clone());
                        vec![message.message_id.clone(), from, to, topic, message.size.to_string(), due]
                    })
                    .collect(),
            ),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Cancel {
    #[command(flatten)]
    target: Target,
    /// As `acb send --in` and `acb scheduled list` show it.
    id: String,
}

impl Cancel {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let before = client
            .cancel_scheduled(&self.id)
            .await
            .map_err(|error| refused(&format!("scheduled message {:?}", self.id), &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&json!({"messageId": self.id, "before": before})),
            Output::Table { .. } => {
                output::line(format_args!("{}  {}", self.id, if before { "was cancelled" } else { "cancelled" }))
            }
        }
    }
}

fn view(message: &ScheduledMessage) -> Value {
    let to = message.to.as_ref().and_then(|to| to.to.as_ref());
    let kind = message.r#type().as_str_name().trim_start_matches("MESSAGE_TYPE_").to_lowercase();
    json!({
        "messageId": message.message_id, "from": message.from, "to": payload::to(to), "topic": message.topic, "type": kind,
        "bytes": message.size, "dueAt": system_time(message.due_at).map(payload::time),
        "scheduledAt": system_time(message.scheduled_at).map(payload::time),
    })
}
