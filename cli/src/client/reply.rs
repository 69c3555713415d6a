//! Answers to requests, from the command line.

use std::{path::PathBuf, time::Duration};

use acb_proto::v1;
use acb_sdk::{Code, Message, MessageType, SendMessageResponse};
use serde_json::json;

use super::{Target, mailbox::Mailbox, payload, program::Program, refused};
use crate::output::{self, Failure, Output};

/// Waits for requests to this agent, and answers one after another.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("answer").required(true).args(["data", "file", "command"]))]
pub(crate) struct Reply {
    #[command(flatten)]
    target: Target,
    /// The answer to every request: text, `-` for the standard input, `@file` for a file, `@@text` for a text that begins with @.
    data: Option<String>,
    /// The answer is the content of this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The answer is what this command prints, given the request's payload as its standard input, and ACB_FROM, ACB_TOPIC and
    /// ACB_MESSAGE_ID in its environment. Where it fails, that is the answer. All that follows is the command's: give it last.
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    command: Vec<String>,
    /// Only requests of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Ends after so many answers.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// How long the command may take for one answer.
    #[arg(long, default_value = "30s", value_parser = payload::duration)]
    timeout: Duration,
    /// Takes the mailbox over from another program that receives for this agent, which ends that program's session.
    #[arg(long)]
    take_over: bool,
}

/// Where answers come from.
enum Source {
    Fixed(Vec<u8>),
    Program(Program),
}

impl Source {
    async fn answer(&self, request: &v1::Message) -> Result<Vec<u8>, String> {
        match self {
            Self::Fixed(bytes) => Ok(bytes.clone()),
            Self::Program(program) => program.answer(request).await,
        }
    }
}

impl Reply {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let source = match (&self.data, &self.file) {
            (Some(data), _) => Source::Fixed(payload::data(data)?),
            (None, Some(file)) => Source::Fixed(payload::file(file)?),
            (None, None) => Source::Program(Program { words: self.command, within: self.timeout }),
        };
        let topic = self.topic;
        let is_wanted = |message: &v1::Message| {
            message.r#type() == MessageType::Query && topic.as_ref().is_none_or(|topic| *topic == message.topic)
        };
        let client = self.target.connect().await?;
        let mut mailbox = Mailbox::open(&client, None, self.take_over).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(request) = mailbox.next(is_wanted).await? else { break };
            let Some(answer) = mailbox.unless_stopped(source.answer(request.message())).await else { break };
            let message = match &answer {
                Ok(bytes) => Message::answer().bytes(payload::content_type(bytes), bytes.clone()),
                Err(reason) => Message::failure(reason),
            };
            let object = format!("reply to {:?}", request.message().from);
            match request.reply(message).await {
                Ok(sent) => {
                    show(output, request.message(), &answer, &sent)?;
                    left -= 1;
                }
                // Whoever asked is there no more, or waits no more: the next request is not worse for it.
                Err(error) if error.code() == Code::NotFound || error.reason() == "REQUEST_OVER" => {
                    tracing::warn!("{object}: {error}")
                }
                Err(error) => return Err(refused(&object, &error)),
            }
            request.ack();
        }
        mailbox.close().await;
        Ok(())
    }
}

fn show(
    output: Output,
    request: &v1::Message,
    answer: &Result<Vec<u8>, String>,
    sent: &SendMessageResponse,
) -> Result<(), Failure> {
    match output {
        Output::Document(syntax) => {
            let mut reply = json!({"messageId": sent.message_id, "error": answer.as_ref().err()});
            if let Ok(bytes) = answer {
                payload::attach(&mut reply, bytes);
            }
            syntax.record(&json!({"request": payload::message(request), "reply": reply}))
        }
        Output::Table { .. } => {
            output::line(payload::received(request))?;
            output::line(match answer {
                Ok(bytes) => format!("  answered  {}", payload::printable(bytes)),
                Err(reason) => format!("  failed  {reason}"),
            })
        }
    }
}
