//! What comes in, as it comes.

use std::pin::pin;

use acb_proto::v1;
use acb_sdk::{Client, Since, context_event::Kind};
use serde_json::json;

use super::{Target, exchange, payload, refused};
use crate::{
    output::{self, Failure, Output},
    stop::Stop,
};

/// Shows messages as they come, or the changes of a context type, and takes nothing: what is shown stays unread. See `acb receive`.
#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    target: Target,
    /// Only messages of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only what this agent sent.
    #[arg(long, value_name = "AGENT", conflicts_with = "contexts")]
    from: Option<String>,
    /// The changes of the contexts of this type, instead of messages.
    #[arg(long, value_name = "TYPE", conflicts_with = "topic")]
    contexts: Option<String>,
    /// With --contexts: from the oldest that the log still holds.
    #[arg(long, requires = "contexts")]
    from_start: bool,
    /// Ends after so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
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
        let mut stop = Stop::listen()?;
        let mut messages = client.watch_unread(self.from.as_deref().unwrap_or_default());
        let is_wanted = |message: &v1::Message| self.topic.as_ref().is_none_or(|topic| *topic == message.topic);
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut unread = pin!(output::unread());
        while left > 0 {
            let message = tokio::select! {
                message = messages.next() => message.map_err(|error| refused("mailbox", &error))?,
                () = stop.asked() => break,
                failure = &mut unread => return Err(failure),
            };
            if !is_wanted(&message) {
                continue;
            }
            match output {
                Output::Json => output::line(payload::message(&message))?,
                Output::Table => output::line(payload::received(&message))?,
            }
            left -= 1;
        }
        Ok(())
    }

    async fn contexts(&self, client: &Client, context_type: &str, output: Output) -> Result<(), Failure> {
        let object = format!("context type {context_type:?}");
        let since = if self.from_start { Since::Start } else { Since::Now };
        let mut stop = Stop::listen()?;
        let mut subscription = client.subscribe(context_type, since).await.map_err(|error| refused(&object, &error))?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut unread = pin!(output::unread());
        while left > 0 {
            let event = tokio::select! {
                event = subscription.next() => event.map_err(|error| refused(&object, &error))?,
                () = stop.asked() => break,
                failure = &mut unread => return Err(failure),
            };
            let what = match event.kind() {
                Kind::Created => "created",
                Kind::Updated => "updated",
                Kind::Deleted => "deleted",
                Kind::Subscribed | Kind::Bookmark | Kind::Unspecified => continue,
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
