//! Messages, taken as they come.

use std::pin::pin;

use acb_proto::v1;

use super::{Target, mailbox::Mailbox, payload};
use crate::output::{self, Failure, Output};

/// Takes messages as they come: prints and acknowledges them.
#[derive(Debug, clap::Args)]
pub(crate) struct Receive {
    #[command(flatten)]
    target: Target,
    /// Only messages of this topic. Others are not acknowledged: they come again, and go to the dead letters after ten deliveries.
    #[arg(long)]
    topic: Option<String>,
    /// Only what matches: a CEL expression, such as `message.topic == "orders"`. Other messages stay unread.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Ends after so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Takes the mailbox over from another program that receives for this agent, which ends that program's session.
    #[arg(long)]
    take_over: bool,
}

impl Receive {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let mut mailbox = Mailbox::open(&client, self.filter.as_deref(), self.take_over).await?;
        let is_wanted = |message: &v1::Message| self.topic.as_ref().is_none_or(|topic| *topic == message.topic);
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut unread = pin!(output::unread());
        while left > 0 {
            let received = tokio::select! {
                received = mailbox.next(is_wanted) => received?,
                failure = &mut unread => return Err(failure),
            };
            let Some(received) = received else { break };
            let message = received.message();
            match output {
                Output::Document(syntax) => syntax.record(&payload::message(message))?,
                Output::Table { .. } => output::line(payload::received(message))?,
            }
            // Only what was printed is acknowledged.
            received.ack();
            left -= 1;
        }
        mailbox.close().await;
        Ok(())
    }
}
