//! `acb dead-letters`: messages that nobody took.

use std::time::{Duration, SystemTime};

use acb_sdk::{
    Address, Client, Code, DeadLetter, DeadLetterOutcome, DeadLetterReason, DeadLetterState, Error, Letters, WhichLetters,
    address, system_time,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};
use serde_json::{Value, json};

use super::{Target, payload, refused};
use crate::output::{self, Exit, Failure, Output};

/// Lists, shows, replays and drops messages that nobody took.
#[derive(Debug, clap::Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Lists dead letters, in the order in which their messages were sent: those of this agent, or with the role admin everybody's.
    List(List),
    /// Shows a dead letter with its message.
    Get(Get),
    /// Sends dead letters again: each as a new message from its first sender. One that was sent again before is not sent once more.
    Replay(Replay),
    /// Drops dead letters: they are listed no more, unless with --settled, and can't be replayed.
    Drop(Drop),
}

impl DeadLetters {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        match self.command {
            Command::List(list) => list.run(output).await,
            Command::Get(get) => get.run(output).await,
            Command::Replay(replay) => replay.run(output).await,
            Command::Drop(drop) => drop.run(output).await,
        }
    }
}

/// Which.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only those of this reason.
    #[arg(long, value_enum)]
    reason: Option<Reason>,
    /// Only what this agent sent.
    #[arg(long, value_name = "AGENT")]
    from: Option<String>,
    /// Only what was in the mailbox of this agent.
    #[arg(long, value_name = "AGENT")]
    recipient: Option<String>,
    /// Only what no member of this group took.
    #[arg(long, conflicts_with = "recipient")]
    group: Option<String>,
    /// Only what was for all, and nobody took.
    #[arg(long, conflicts_with_all = ["recipient", "group"])]
    broadcast: bool,
    /// Only those that became dead letters within this time, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    newer_than: Option<Duration>,
    /// Only those that became dead letters longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    older_than: Option<Duration>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Reason {
    /// Nobody acknowledged it before it expired.
    Expired,
    /// It was tried ten times.
    Attempts,
    /// It was scheduled, and its sender could send it no more when it was due.
    SenderRefused,
    /// It was scheduled, and whom it was for was gone when it was due.
    RecipientGone,
}

impl Filter {
    fn is_empty(&self) -> bool {
        let Self { reason, from, recipient, group, broadcast, newer_than, older_than } = self;
        let named = from.is_some() || recipient.is_some() || group.is_some() || *broadcast;
        !named && reason.is_none() && newer_than.is_none() && older_than.is_none()
    }

    fn letters(self) -> Letters {
        let ago = |time: Duration| SystemTime::now().checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut letters = Letters::all();
        letters = match self.reason {
            Some(Reason::Expired) => letters.reason(DeadLetterReason::Expired),
            Some(Reason::Attempts) => letters.reason(DeadLetterReason::Attempts),
            Some(Reason::SenderRefused) => letters.reason(DeadLetterReason::SenderRefused),
            Some(Reason::RecipientGone) => letters.reason(DeadLetterReason::RecipientGone),
            None => letters,
        };
        if let Some(sender) = self.from {
            letters = letters.from(sender);
        }
        letters = match (self.recipient, self.group) {
            (Some(agent), _) => letters.to_agent(agent),
            (None, Some(group)) => letters.to_group(group),
            (None, None) if self.broadcast => letters.to_all(),
            (None, None) => letters,
        };
        if let Some(time) = self.newer_than {
            letters = letters.since(ago(time));
        }
        if let Some(time) = self.older_than {
            letters = letters.until(ago(time));
        }
        letters
    }
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    filter: Filter,
    /// Also those that were replayed or dropped.
    #[arg(long)]
    settled: bool,
    /// At most so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl List {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let mut letters = self.filter.letters();
        if self.settled {
            letters = letters.include_settled();
        }
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let letters = client.dead_letters(letters).take(limit);
        let letters: Vec<DeadLetter> = letters.try_collect().await.map_err(|error| refused("dead letters", &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&letters.iter().map(view).collect::<Vec<_>>()),
            Output::Table { .. } => output::table(
                &["ID", "REASON", "FROM", "TO", "TOPIC", "BYTES", "SINCE", "STATE"],
                letters
                    .into_iter()
                    .map(|letter| {
                        let (reason, to, state) =
                            (reason(&letter), recipient(&letter), state(letter.state(), &letter.replayed_as));
                        let since = system_time(letter.dead_at).map(payload::time_in_seconds).unwrap_or_default();
                        vec![letter.id, reason, letter.sender, to, letter.topic, letter.size.to_string(), since, state]
                    })
                    .collect(),
            ),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Get {
    #[command(flatten)]
    target: Target,
    /// Its id, as `acb dead-letters list` shows it.
    id: String,
}

impl Get {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let object = format!("dead letter {:?}", self.id);
        let (letter, received) = client.dead_letter(&self.id).await.map_err(|error| refused(&object, &error))?;
        let message = received.message();
        match output {
            Output::Document(syntax) => {
                let mut value = view(&letter);
                value["message"] = payload::message(message);
                syntax.document(&value)
            }
            Output::Table { .. } => {
                let time = |at| system_time(at).map(payload::time_in_seconds).unwrap_or_default();
                let facts = [
                    ("id", letter.id.clone()),
                    ("message", letter.message_id.clone()),
                    ("reason", reason(&letter)),
                    ("from", letter.sender.clone()),
                    ("to", recipient(&letter)),
                    ("topic", letter.topic.clone()),
                    ("sent", time(letter.sent_at)),
                    ("since", time(letter.dead_at)),
                    ("state", state(letter.state(), &letter.replayed_as)),
                    ("content type", message.content_type.clone()),
                ];
                for (name, value) in facts {
                    output::line(format_args!("{name:<12}   {value}"))?;
                }
                output::line(format_args!("\n{}", payload::printable(&message.payload)))
            }
        }
    }
}

/// Which letters something is done with.
#[derive(Debug, clap::Args)]
struct Selected {
    /// Their ids, as `acb dead-letters list` shows them.
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All open ones.
    #[arg(long)]
    all: bool,
}

impl Selected {
    fn which(self, what: &str) -> Result<WhichLetters, Failure> {
        let usage = |why| Failure::new(Exit::Usage, format_args!("dead-letters {what}: {why}"));
        match (self.ids.is_empty(), self.filter.is_empty()) {
            (false, true) if !self.all => Ok(WhichLetters::Named(self.ids)),
            (false, _) => Err(usage("give ids, or say which by --reason, --from and the like: not both")),
            (true, true) if !self.all => Err(usage("give ids, or say which by --reason, --from and the like, or --all")),
            (true, _) => Ok(WhichLetters::Matching(self.filter.letters())),
        }
    }
}

#[derive(Debug, clap::Args)]
struct Replay {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    which: Selected,
    /// To this agent, rather than to whom they were for. Takes the role admin.
    #[arg(long, value_name = "AGENT")]
    to: Option<String>,
    /// To this group, rather than to whom they were for. Takes the role admin.
    #[arg(long, value_name = "GROUP", conflicts_with = "to")]
    to_group: Option<String>,
}

impl Replay {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let which = self.which.which("replay")?;
        let to = match (self.to, self.to_group) {
            (Some(agent), _) => Some(address::To::Agent(agent)),
            (None, group) => group.map(address::To::Group),
        };
        let to = to.map(|to| Address { to: Some(to) });
        let client = self.target.connect().await?;
        tell(client.replay_dead_letters(which, to), output).await
    }
}

#[derive(Debug, clap::Args)]
struct Drop {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    which: Selected,
}

impl Drop {
    async fn run(self, output: Output) -> Result<(), Failure> {
        let which = self.which.which("drop")?;
        let client: Client = self.target.connect().await?;
        tell(client.drop_dead_letters(which), output).await
    }
}

/// Prints what became of each as it is known: one line, or one JSON document a line. Fails at the end where one failed.
async fn tell(outcomes: impl Stream<Item = Result<DeadLetterOutcome, Error>>, output: Output) -> Result<(), Failure> {
    pin_mut!(outcomes);
    let (mut done, mut failed) = (0_u64, Vec::new());
    while let Some(outcome) = outcomes.try_next().await.map_err(|error| refused("dead letters", &error))? {
        match &outcome.failure {
            None => {
                done += 1;
                match output {
                    Output::Document(syntax) => syntax.record(&json!({
                        "id": outcome.id, "state": state_name(outcome.state()), "replayedAs": named(&outcome.replayed_as),
                        "before": outcome.before,
                    }))?,
                    Output::Table { .. } => {
                        let was = if outcome.before { "was " } else { "" };
                        output::line(format_args!("{}  {was}{}", outcome.id, state(outcome.state(), &outcome.replayed_as)))?;
                    }
                }
            }
            Some(failure) => {
                if let Output::Document(syntax) = output {
                    syntax.record(&json!({"id": outcome.id, "error": failure.message, "reason": failure.reason}))?;
                }
                failed.push(Error::refused(Code::from(failure.code), failure.reason.clone(), failure.message.clone()));
            }
        }
    }
    match failed.first() {
        None if done == 0 && !output.is_document() => output::line("No dead letters match."),
        None => Ok(()),
        Some(first) => {
            let object = if failed.len() == 1 && done == 0 {
                "dead letter".to_owned()
            } else {
                format!("{} of {} dead letters failed, the first", failed.len(), done + failed.len() as u64)
            };
            Err(refused(&object, first))
        }
    }
}

fn reason(letter: &DeadLetter) -> String {
    match letter.reason() {
        DeadLetterReason::Expired => "expired".to_owned(),
        DeadLetterReason::Attempts => format!("{} attempts", letter.attempts),
        DeadLetterReason::SenderRefused => "sender refused".to_owned(),
        DeadLetterReason::RecipientGone => "recipient gone".to_owned(),
        DeadLetterReason::Unspecified => "unknown".to_owned(),
    }
}

fn recipient(letter: &DeadLetter) -> String {
    payload::recipient(letter.recipient.as_ref().and_then(|address| address.to.as_ref()))
}

fn state_name(state: DeadLetterState) -> &'static str {
    match state {
        DeadLetterState::Open => "open",
        DeadLetterState::Replayed => "replayed",
        DeadLetterState::Dropped => "dropped",
        DeadLetterState::Unspecified => "unknown",
    }
}

fn state(state: DeadLetterState, replayed_as: &str) -> String {
    if replayed_as.is_empty() { state_name(state).to_owned() } else { format!("replayed as {replayed_as}") }
}

fn named(id: &str) -> Option<&str> {
    Some(id).filter(|id| !id.is_empty())
}

fn view(letter: &DeadLetter) -> Value {
    let to = letter.recipient.as_ref().and_then(|address| address.to.as_ref());
    let kind = letter.r#type().as_str_name().trim_start_matches("MESSAGE_TYPE_").to_lowercase();
    let reason = letter.reason().as_str_name().trim_start_matches("DEAD_LETTER_REASON_").to_lowercase();
    json!({
        "id": letter.id, "messageId": letter.message_id, "reason": reason, "attempts": letter.attempts, "from": letter.sender,
        "to": payload::to(to), "topic": letter.topic, "type": kind, "bytes": letter.size,
        "sentAt": system_time(letter.sent_at).map(payload::time), "expiresAt": system_time(letter.expires_at).map(payload::time),
        "deadAt": system_time(letter.dead_at).map(payload::time), "state": state_name(letter.state()),
        "replayedAs": named(&letter.replayed_as), "settledAt": system_time(letter.settled_at).map(payload::time),
    })
}
