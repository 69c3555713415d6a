//! A dead letter: a message that nobody took, as the index of the dead letters has it. Its content stays in the log.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    envelope::Envelope,
    message::{Message, MessageType},
    ports::MailboxAddress,
};
use crate::{
    directory::{agent::AgentId, snapshot::Snapshot},
    fault::Fault,
    kit::clock::truncated,
    log::{
        bus::{Epoch, Logged},
        position::LogPosition,
    },
};

/// Why a message became a dead letter.
pub(super) const REASON: &str = "acb-reason";
/// Which record of the messages log it was.
pub(super) const SOURCE: &str = "acb-source";
/// Whose mailbox it was in, where that was one agent's.
pub(super) const RECIPIENT: &str = "acb-recipient";
/// How often it was tried. Letters of an earlier version say it in [`REASON`] only.
pub(super) const ATTEMPTS: &str = "acb-attempts";

/// Names a dead letter. It follows from the message and from whose mailbox it was in, so that a message that was put into the dead letters
/// twice is one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId(pub Uuid);

impl LetterId {
    /// Of a message in this mailbox.
    #[must_use]
    pub fn of(message: Uuid, mailbox: &MailboxAddress) -> Self {
        let mut hash = Sha256::new();
        hash.update(message.as_bytes());
        hash.update(mailbox.to_text());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LetterId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let why = "a dead letter is named by its id, as ListDeadLetters gives it";
        text.parse().map(Self).map_err(|_| Fault::invalid("DEAD_LETTER_ID_INVALID", why))
    }
}

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LetterReason {
    /// Nobody took it before it expired.
    Expired,
    /// It was tried too often.
    Attempts,
    /// It was scheduled, and its sender may send it no more.
    SenderRefused,
    /// It was scheduled, and whom it was for is gone, or receives no more.
    RecipientGone,
}

impl LetterReason {
    /// As stored, and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Attempts => "attempts",
            Self::SenderRefused => "sender-refused",
            Self::RecipientGone => "recipient-gone",
        }
    }

    /// From what was stored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Expired, Self::Attempts, Self::SenderRefused, Self::RecipientGone];
        all.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What has become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// Nothing yet.
    Open,
    /// It was sent again, as the message with this id.
    Replayed(Uuid),
    /// Nobody wants it.
    Dropped,
}

/// A dead letter, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name.
    pub id: LetterId,
    /// The message.
    pub message_id: Uuid,
    /// Why it is one.
    pub reason: LetterReason,
    /// How often the message was tried; 0 where that did not end it.
    pub attempts: u32,
    /// Who sent it.
    pub sender: AgentId,
    /// The sender's name when the message was accepted.
    pub sender_name: String,
    /// Whose mailbox it was in.
    pub recipient: MailboxAddress,
    /// The name of that agent or group; empty for all.
    pub recipient_name: String,
    /// The message's.
    pub topic: String,
    /// The message's.
    pub kind: MessageType,
    /// Bytes of its payload.
    pub size: u64,
    /// When it was sent.
    pub sent_at: OffsetDateTime,
    /// When it expired, or would have.
    pub expires_at: OffsetDateTime,
    /// When it became a letter.
    pub dead_at: OffsetDateTime,
    /// Where its content is, in the log of the dead letters.
    pub place: LogPosition,
    /// What became of it.
    pub state: LetterState,
    /// When it was replayed or dropped.
    pub settled_at: Option<OffsetDateTime>,
}

impl DeadLetter {
    /// Whether this agent has it of its own mailbox. Not where its sender was refused: then only who has the letters of all may decide.
    #[must_use]
    pub fn is_own(&self, agent: AgentId) -> bool {
        self.recipient == MailboxAddress::Agent(agent) && self.reason != LetterReason::SenderRefused
    }

    /// Reads a record of the dead letters, and the message in it. `None` for what is no letter.
    #[must_use]
    pub(super) fn read(logged: &Logged, epoch: Epoch, snapshot: &Snapshot) -> Option<(Self, Message)> {
        let message = Envelope::decode(logged.record.value.as_ref()?).ok()?.message;
        let header = |name: &str| {
            let (_, value) = logged.record.headers.iter().find(|(known, _)| known == name)?;
            std::str::from_utf8(value).ok()
        };
        let reason = header(REASON)?;
        let attempts = header(ATTEMPTS).and_then(|text| text.parse().ok()).or_else(|| in_words(reason));
        let recipient = match header(RECIPIENT) {
            Some(agent) => MailboxAddress::Agent(AgentId(agent.parse().ok()?)),
            // What is for several agents has a letter for each of them, which says for whom.
            None => <[MailboxAddress; 1]>::try_from(MailboxAddress::all_of(&message)).ok()?.into_iter().next()?,
        };
        let recipient_name = match &recipient {
            MailboxAddress::Agent(agent) => match message.recipient_name(*agent) {
                Some(name) => name.to_owned(),
                None => snapshot.agent(*agent).map(|agent| agent.name.clone()).unwrap_or_default(),
            },
            MailboxAddress::Group(name) => name.clone(),
            MailboxAddress::All => String::new(),
        };
        let letter = Self {
            id: LetterId::of(message.id, &recipient),
            message_id: message.id,
            reason: match attempts {
                Some(_) => LetterReason::Attempts,
                None => LetterReason::parse(reason).unwrap_or(LetterReason::Expired),
            },
            attempts: attempts.unwrap_or(0),
            sender: message.from_id,
            sender_name: message.from.clone(),
            recipient,
            recipient_name,
            topic: message.topic.clone(),
            kind: message.kind,
            size: message.payload.len() as u64,
            sent_at: message.sent_at,
            expires_at: message.expires_at,
            dead_at: truncated(logged.log_time),
            place: LogPosition { epoch, partition: logged.partition, offset: logged.offset },
            state: LetterState::Open,
            settled_at: None,
        };
        Some((letter, message))
    }
}

fn in_words(reason: &str) -> Option<u32> {
    reason.strip_prefix("not acknowledged after ")?.strip_suffix(" attempts")?.parse().ok()
}

/// For whom a letter was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterRecipient {
    /// The agent with this UID.
    Own(AgentId),
    /// An agent that had this name.
    Agent(String),
    /// A whole group.
    Group(String),
    /// All agents.
    All,
}

/// Which letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// In the mailbox of this agent alone, whatever else is asked for.
    pub own: Option<AgentId>,
    /// Of this reason.
    pub reason: Option<LetterReason>,
    /// For this recipient.
    pub recipient: Option<LetterRecipient>,
    /// From the agent that had this name.
    pub sender: Option<String>,
    /// That became letters at this time, or later.
    pub since: Option<OffsetDateTime>,
    /// That became letters before this time.
    pub until: Option<OffsetDateTime>,
    /// Also those that were replayed or dropped.
    pub settled: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_letter_is_named_by_its_message_and_its_mailbox() {
        let (message, agent) = (Uuid::from_u128(1), AgentId(Uuid::from_u128(2)));
        let id = LetterId::of(message, &MailboxAddress::Agent(agent));
        assert_eq!(id, LetterId::of(message, &MailboxAddress::Agent(agent)));
        assert_ne!(id, LetterId::of(message, &MailboxAddress::All));
        assert_ne!(id, LetterId::of(Uuid::from_u128(3), &MailboxAddress::Agent(agent)));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("x".parse::<LetterId>().unwrap_err().reason, "DEAD_LETTER_ID_INVALID");
    }

    #[test]
    fn attempts_are_read_from_letters_of_an_earlier_version() {
        assert_eq!(in_words("not acknowledged after 10 attempts"), Some(10));
        assert_eq!(in_words("expired"), None);
        assert_eq!(
            ["expired", "attempts", "sender-refused", "recipient-gone", ""].map(LetterReason::parse),
            [
                Some(LetterReason::Expired),
                Some(LetterReason::Attempts),
                Some(LetterReason::SenderRefused),
                Some(LetterReason::RecipientGone),
                None
            ]
        );
    }
}
