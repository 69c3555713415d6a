//! What is unread in a mailbox, without taking it.

use std::time::Duration;

use acb_proto::v1;
use acb_sdk::system_time;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Shows what is unread in the mailbox, and takes none of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Unread {
    #[command(flatten)]
    target: Target,
    /// Only what this agent sent.
    #[arg(long, value_name = "AGENT")]
    from: Option<String>,
    /// Only how much it is, by sender. Counts at most 10,000.
    #[arg(long, conflicts_with_all = ["wait", "limit"])]
    count: bool,
    /// Where nothing is unread: waits so long for a message, up to 20s.
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    wait: Option<Duration>,
    /// At most so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Unread {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let from = self.from.unwrap_or_default();
        let failed = |error| refused("mailbox", &error);
        if self.count {
            let count = client.count_unread(&from).await.map_err(failed)?;
            return match output {
                Output::Document(syntax) => {
                    syntax.document(&json!({"messages": count.messages, "from": count.by_sender, "more": count.more}))
                }
                Output::Table { .. } => {
                    let more = if count.more { "+" } else { "" };
                    let mut senders: Vec<(String, u64)> = count.by_sender.into_iter().collect();
                    senders.sort();
                    let mut rows: Vec<Vec<String>> =
                        senders.into_iter().map(|(sender, messages)| vec![sender, messages.to_string()]).collect();
                    rows.push(vec!["(all)".to_owned(), format!("{}{more}", count.messages)]);
                    output::table(&["FROM", "UNREAD"], rows)
                }
            };
        }
        if let Some(wait) = self.wait {
            client.wait_for_unread(&from, "", wait).await.map_err(failed)?;
        }
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let messages: Vec<v1::Message> = client.unread(&from).take(limit).try_collect().await.map_err(failed)?;
        match output {
            Output::Document(syntax) => syntax.document(&messages.iter().map(payload::message).collect::<Vec<_>>()),
            Output::Table { .. } => output::table(
                &["ID", "FROM", "TOPIC", "TYPE", "BYTES", "SENT"],
                messages
                    .into_iter()
                    .map(|message| {
                        let kind = payload::kind(&message);
                        let sent = system_time(message.sent_at).map(payload::time_in_seconds).unwrap_or_default();
                        vec![message.id, message.from, message.topic, kind, message.payload.len().to_string(), sent]
                    })
                    .collect(),
            ),
        }
    }
}
