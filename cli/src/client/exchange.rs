//! Messages and inline contexts that are sent from the command line.

use std::time::{Duration, SystemTime};

use acb_sdk::{Message, system_time};
use serde_json::json;

use super::{Target, payload, refused};
use crate::output::{self, Exit, Failure, Output};

/// Sends a message to an agent, several agents, a group or all.
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    #[command(flatten)]
    target: Target,
    /// The agent that it is for. With --to, --group or --all there is none: DATA comes first.
    #[arg(value_name = "TO")]
    agent: Option<String>,
    /// What it says: text, `-` for the standard input, `@file` for a file, `@@text` for a text that begins with @.
    data: Option<String>,
    /// To this agent; may be repeated, for up to 64 agents.
    #[arg(long, value_name = "AGENT", conflicts_with_all = ["group", "all"])]
    to: Vec<String>,
    /// To the members of this group.
    #[arg(long, conflicts_with = "all")]
    group: Option<String>,
    /// To every other agent of the tenant.
    #[arg(long)]
    all: bool,
    /// What receivers choose their handler by.
    #[arg(long)]
    topic: String,
    /// The data is JSON.
    #[arg(long)]
    json: bool,
    /// Further facts, as key=value; may be repeated.
    #[arg(long, value_parser = payload::pair)]
    metadata: Vec<(String, String)>,
    /// A context that it is about.
    #[arg(long, value_name = "CONTEXT_ID")]
    about: Option<String>,
    /// Goes to the dead letters where nobody took it in this time [default: 6d, which is also the most].
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    expires_in: Option<Duration>,
    /// Is sent after this time, up to 7d: see `acb scheduled`.
    #[arg(long = "in", value_name = "TIME", value_parser = payload::duration)]
    deliver_in: Option<Duration>,
    /// Is sent at this time, such as 2026-11-27T17:00:00Z, up to 7 days from now.
    #[arg(long = "at", value_name = "TIME", value_parser = payload::instant, conflicts_with = "deliver_in")]
    deliver_at: Option<SystemTime>,
}

impl Send {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let mut arguments = self.agent.into_iter().chain(self.data);
        let (mut message, recipient) = match (self.group, self.all) {
            _ if !self.to.is_empty() => {
                let named: Vec<String> = self.to.iter().map(|agent| format!("{agent:?}")).collect();
                let noun = if named.len() == 1 { "agent" } else { "agents" };
                (Message::to_agents(self.to), format!("{noun} {}", named.join(", ")))
            }
            (Some(group), _) => (Message::to_group(&group), format!("group {group:?}")),
            (None, true) => (Message::to_all(), "all".to_owned()),
            (None, false) => {
                let agent = arguments
                    .next()
                    .ok_or_else(|| Failure::new(Exit::Usage, "send: name an agent, or give --to, --group or --all"))?;
                let recipient = format!("agent {agent:?}");
                (Message::to_agent(agent), recipient)
            }
        };
        let data = arguments.next().unwrap_or_default();
        if let Some(surplus) = arguments.next() {
            return Err(Failure::new(
                Exit::Usage,
                format_args!("send: with --to, --group or --all there is no other agent to name: {surplus:?} is too much"),
            ));
        }
        message = fill(message, &data, self.json)?.topic(self.topic);
        for (key, value) in self.metadata {
            message = message.metadata(key, value);
        }
        if let Some(time) = self.expires_in {
            message = message.expires_in(time);
        }
        if let Some(context_id) = self.about {
            message = message.context(context_id);
        }
        // What is to be sent in the past is for the hub to refuse.
        let until = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
        let later = self.deliver_in.or_else(|| self.deliver_at.map(until));
        let client = self.target.connect().await?;
        if let Some(later) = later {
            let scheduled =
                client.schedule(message, later).await.map_err(|error| refused(&format!("message to {recipient}"), &error))?;
            let due = system_time(scheduled.due_at);
            return match output {
                Output::Document(syntax) => syntax.document(&json!({
                    "messageId": scheduled.message_id, "dueAt": due.map(payload::time), "deduplicated": scheduled.deduplicated,
                })),
                Output::Table { .. } => {
                    let due = due.map(payload::time_in_seconds).unwrap_or_default();
                    output::line(format_args!("Scheduled {} to {recipient} for {due}.", scheduled.message_id))
                }
            };
        }
        let sent = client.send(message).await.map_err(|error| refused(&format!("message to {recipient}"), &error))?;
        match output {
            Output::Document(syntax) => {
                syntax.document(&json!({"messageId": sent.message_id, "deduplicated": sent.deduplicated}))
            }
            Output::Table { .. } => output::line(format_args!("Sent {} to {recipient}.", sent.message_id)),
        }
    }
}

fn fill(message: Message, data: &str, is_json: bool) -> Result<Message, Failure> {
    let bytes = payload::data(data)?;
    if !is_json {
        return Ok(message.bytes(payload::content_type(&bytes), bytes));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|error| Failure::new(Exit::Usage, format_args!("the data is not JSON: {error}")))?;
    Ok(message.bytes(acb_sdk::JSON, bytes))
}

/// Sends a query to an agent and waits for its reply.
#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    #[command(flatten)]
    target: Target,
    /// The agent that is asked.
    to: String,
    /// What is asked: text, `-` for the standard input, `@file` for a file, `@@text` for a text that begins with @.
    #[arg(default_value = "")]
    data: String,
    /// What it chooses its handler by.
    #[arg(long)]
    topic: String,
    /// The data is JSON.
    #[arg(long)]
    json: bool,
    /// How long to wait, up to 5m.
    #[arg(long, default_value = "30s", value_parser = payload::duration)]
    timeout: Duration,
}

impl Request {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let message = fill(Message::to_agent(&self.to), &self.data, self.json)?.topic(self.topic);
        let client = self.target.connect().await?;
        let reply = client
            .request(message, self.timeout)
            .await
            .map_err(|error| refused(&format!("request to agent {:?}", self.to), &error))?;
        let failure = reply.failure().map(|reason| {
            let reason = payload::printable(reason.as_bytes());
            Failure::failed(format_args!("request to agent {:?}: it answers that it failed: {reason}", self.to))
        });
        match (output, failure) {
            (Output::Document(syntax), failure) => {
                syntax.document(&payload::message(reply.message()))?;
                failure.map_or(Ok(()), Err)
            }
            (Output::Table { .. }, Some(failure)) => Err(failure),
            (Output::Table { .. }, None) => output::line(payload::printable(&reply.message().payload)),
        }
    }
}
