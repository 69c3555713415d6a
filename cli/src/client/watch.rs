//! What comes in, as it comes.

use acb_sdk::{Client, Since, context_event::Kind};
use serde_json::json;

use super::{Target, exchange, payload, refused};
use crate::output::{self, Failure, Output};

/// Prints messages as they come, and acknowledges them; or the changes of a context type.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    target: Target,
    /// Only messages of this topic; others stay in the mailbox.
    #[arg(long)]
    topic: Option<String>,
    /// The changes of the contexts of this type, instead of messages.
    #[arg(long, value_name = "TYPE", conflicts_with = "topic")]
    contexts: Option<String>,
    /// With --contexts: from the oldest that the log still holds.
    #[arg(long, requires = "contexts")]
    from_start: bool,
    /// Ends after so many.
    #[arg(long)]
    count: Option<u64>,
}

impl Watch {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        match &self.contexts {
            Some(context_type) => self.contexts(&client, context_type, output).await,
            None => self.messages(&client, output).await,
        }
    }

    async fn messages(&self, client: &Client, output: Output) -> Result<(), Failure> {
        let mut session = client.session().open().await.map_err(|error| refused("mailbox", &error))?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let received = tokio::select! {
                received = session.next() => received.map_err(|error| refused("mailbox", &error))?,
                _ = tokio::signal::ctrl_c() => break,
            };
            let message = received.message();
            if self.topic.as_ref().is_some_and(|topic| *topic != message.topic) {
                continue;
            }
            match output {
                Output::Json => output::line(payload::message(message))?,
                Output::Table => {
                    let (from, topic) =
                        (payload::printable(message.from.as_bytes()), payload::printable(message.topic.as_bytes()));
                    output::line(format_args!("{from}  {topic}  {}", payload::printable(&message.payload)))?;
                }
            }
            // Only what was printed is acknowledged.
            received.ack();
            left -= 1;
        }
        session.close().await;
        Ok(())
    }

    async fn contexts(&self, client: &Client, context_type: &str, output: Output) -> Result<(), Failure> {
        let object = format!("context type {context_type:?}");
        let since = if self.from_start { Since::Start } else { Since::Now };
        let mut subscription = client.subscribe(context_type, since).await.map_err(|error| refused(&object, &error))?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let event = tokio::select! {
                event = subscription.next() => event.map_err(|error| refused(&object, &error))?,
                _ = tokio::signal::ctrl_c() => break,
            };
            let what = match event.kind() {
                Kind::Created => "created",
                Kind::Updated => "updated",
                Kind::Deleted => "deleted",
                Kind::Subscribed | Kind::Unspecified => continue,
            };
            let context = event.context.unwrap_or_default();
            match output {
                Output::Json => output::line(json!({"event": what, "context": exchange::view(&context)}))?,
                Output::Table => output::line(format_args!(
                    "{what}  {}  v{}  {} bytes  by {}",
                    context.id, context.version, context.size, context.creator
                ))?,
            }
            left -= 1;
        }
        Ok(())
    }
}
