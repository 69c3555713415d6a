//! What comes in, as it comes.

use std::pin::pin;

use acb_proto::v1;
use acb_sdk::Client;

use super::{Target, context::changes::Changes, payload, refused};
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
    #[command(flatten)]
    changes: Changes,
    /// Ends after so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        match &self.changes.contexts {
            Some(context_type) => self.changes.print(&client, context_type, self.count, output).await,
            None => self.messages(&client, output).await,
        }
    }

    async fn messages(&self, client: &Client, output: Output) -> Result<(), Failure> {
        let mut stop = Stop::listen()?;
        let (from, filter) = (self.from.as_deref().unwrap_or_default(), self.changes.filter.as_deref().unwrap_or_default());
        let mut messages = client.watch_unread_matching(from, filter);
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
                Output::Document(syntax) => syntax.record(&payload::message(&message))?,
                Output::Table { .. } => output::line(payload::received(&message))?,
            }
            left -= 1;
        }
        Ok(())
    }
}
