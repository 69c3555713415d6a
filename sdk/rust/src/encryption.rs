//! End to end: what an agent seals for others, neither the hub nor the log can read.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use acb_proto::v1::{
    self, AgentEncryptionKeys, ListEncryptionKeysRequest, PublishEncryptionKeyRequest, WithdrawEncryptionKeyRequest, address::To,
};
use bytes::Bytes;
use tonic::Code;

use crate::{
    Client, Error, Message,
    client::Retry,
    sealed::{self, Content, EncryptionKey, EncryptionKeyId, PublicEncryptionKey, SEALED, Sealed},
};

/// Names that one call asks for.
const NAMES: usize = 64;

/// What was in a sealed payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What it is.
    pub content_type: String,
    /// The payload.
    pub payload: Bytes,
    /// The key of the agent that sealed it.
    pub sender_key: EncryptionKeyId,
}

/// Seals payloads for other agents, and opens what they sealed for this one.
///
/// Whose a key is, the hub says: whoever has taken it over could give out keys of its own. [`pin`](Self::pin) keeps it from that.
pub struct Encryption {
    client: Client,
    /// The first one is the one to seal by.
    own: Vec<EncryptionKey>,
    /// Keys of agents that the hub is not asked for: the first one of each is the one to seal for.
    pins: HashMap<String, Vec<PublicEncryptionKey>>,
}

/// An agent with its keys, the one to seal for first.
type Keys = (String, Vec<PublicEncryptionKey>);

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Client {
    /// Seals and opens with this key of the agent.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::{EncryptionKey, Message};
    ///
    /// let encryption = client.encryption(EncryptionKey::generate());
    /// encryption.publish().await?;
    /// let message = encryption.seal(Message::to_agent("bob").topic("plans").text("for your eyes only")).await?;
    /// client.send(message).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn encryption(&self, key: EncryptionKey) -> Encryption {
        Encryption { client: self.clone(), own: vec![key], pins: HashMap::new() }
    }
}

impl Encryption {
    /// Opens also what was sealed for a key of before: after a rotation, until nothing for it is on its way any more.
    #[must_use]
    pub fn and_before(mut self, key: EncryptionKey) -> Self {
        self.own.push(key);
        self
    }

    /// Believes of this agent that it has this key, and no other but those that are pinned as well. The one that is pinned first is the one to seal for.
    /// The hub is not asked for its keys any more. A group is sealed for only where each of its members is pinned, as soon as anybody is.
    #[must_use]
    pub fn pin(mut self, agent: impl Into<String>, key: PublicEncryptionKey) -> Self {
        self.pins.entry(agent.into()).or_default().push(key);
        self
    }

    /// Publishes the public key: others seal for it from now on.
    pub async fn publish(&self) -> Result<(), Error> {
        let Some(key) = self.own.first() else { return Ok(()) };
        let request = PublishEncryptionKeyRequest { suite: sealed::SUITE.to_owned(), public_key: key.public().to_bytes().into() };
        self.client
            .call("publish an encryption key", Retry::Always, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.encryption_keys().publish_encryption_key(request).await }
            })
            .await?;
        Ok(())
    }

    /// Withdraws a public key of the agent, where it is there: nobody seals for it any more, nor believes what it sealed.
    pub async fn withdraw(&self, key: EncryptionKeyId) -> Result<(), Error> {
        let withdrawn = self
            .client
            .call("withdraw an encryption key", Retry::Always, Client::ATTEMPT, |line| async move {
                let request = WithdrawEncryptionKeyRequest { key_id: Bytes::copy_from_slice(&key) };
                line.encryption_keys().withdraw_encryption_key(request).await
            })
            .await;
        match withdrawn {
            // Also by an attempt before, whose answer was lost.
            Err(error) if error.reason() != "ENCRYPTION_KEY_NOT_FOUND" => Err(error),
            _ => Ok(()),
        }
    }

    /// The same message, which only its recipients can read: an agent, several, or those who are in a group now.
    ///
    /// Sender, recipients, topic and metadata stay as they are, for the hub needs them.
    pub async fn seal(&self, message: Message) -> Result<Message, Error> {
        let own = self.name().await?;
        let recipients = match message.recipients() {
            Some(To::Agent(name)) => self.keys_of(std::slice::from_ref(name)).await?,
            Some(To::Agents(names)) => self.keys_of(&names.names).await?,
            // A message to a group does not come back to its sender.
            Some(To::Group(name)) => self.keys_of_group(name, &own).await?,
            _ => {
                let why =
                    "only a message to agents or to a group can be sealed: who else receives it is not known when it is sent";
                return Err(Error::Usage(why.to_owned()));
            }
        };
        let (content_type, payload, topic) = message.to_seal()?;
        let content = Content { content_type, payload, from: own, purpose: as_message(&topic) };
        let sealed = self.seal_for_keys(content, &recipients)?;
        Ok(message.bytes(SEALED, sealed))
    }

    /// A payload that only these agents can read, such as that of a context. What it is about, such as the context's name, the recipients have to say
    /// again: nobody can pass it off for another one.
    pub async fn seal_for(
        &self,
        agents: impl IntoIterator<Item = impl Into<String>>,
        about: &str,
        content_type: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, Error> {
        let names: Vec<String> = agents.into_iter().map(Into::into).collect();
        let recipients = self.keys_of(&names).await?;
        let from = self.name().await?;
        let content = Content { content_type: content_type.into(), payload: payload.into(), from, purpose: as_payload(about) };
        self.seal_for_keys(content, &recipients)
    }

    /// What is in a message, where it was sealed for this agent, by the one that it says to be from, and as a message of its topic.
    pub async fn open(&self, message: &v1::Message) -> Result<Opened, Error> {
        if message.content_type != SEALED {
            let why = format!("the message has a payload of {:?}, which is not sealed", message.content_type);
            return Err(Error::refused(Code::FailedPrecondition, "NOT_SEALED", why));
        }
        self.open_as(&message.from, &as_message(&message.topic), &message.payload).await
    }

    /// What is in a payload that this agent sealed about this.
    pub async fn open_payload(&self, from: &str, about: &str, payload: &[u8]) -> Result<Opened, Error> {
        self.open_as(from, &as_payload(about), payload).await
    }

    async fn open_as(&self, from: &str, purpose: &str, payload: &[u8]) -> Result<Opened, Error> {
        let sealed = Sealed::parse(payload)?;
        let names = [from.to_owned()];
        let known = self.keys_of(&names).await?;
        let sender = known.iter().flat_map(|(_, keys)| keys).find(|key| key.id()[..] == *sealed.sender()).ok_or_else(|| {
            let why = format!("it was sealed by a key that is not, or no longer, known to be of agent {from}");
            Error::refused(Code::FailedPrecondition, "SENDER_KEY_UNKNOWN", why)
        })?;
        let content = sealed.open(&self.own, sender)?;
        if content.from != from {
            return Err(sealed::damaged("it was sealed by another agent than it says"));
        }
        if content.purpose != purpose {
            return Err(sealed::damaged(
                "it was sealed as something else than it is here: another topic, or about something else",
            ));
        }
        Ok(Opened { content_type: content.content_type, payload: content.payload, sender_key: sender.id() })
    }

    fn seal_for_keys(&self, content: Content, recipients: &[Keys]) -> Result<Bytes, Error> {
        let Some(own) = self.own.first() else { return Err(Error::Usage("there is no key to seal by".to_owned())) };
        let mut keys = Vec::with_capacity(recipients.len());
        for (agent, of_agent) in recipients {
            let key = of_agent.first().ok_or_else(|| {
                let why = format!("agent {agent} has published no encryption key: it publishes one first, or its key is pinned");
                Error::refused(Code::FailedPrecondition, "ENCRYPTION_KEY_MISSING", why)
            })?;
            keys.push(key.clone());
        }
        if keys.is_empty() {
            return Err(Error::Usage("there is nobody to seal for".to_owned()));
        }
        sealed::seal(content, own, &keys)
    }

    /// The keys of these agents, and of nobody else, whatever the hub answers.
    async fn keys_of(&self, names: &[String]) -> Result<Vec<Keys>, Error> {
        let names: BTreeSet<&String> = names.iter().collect();
        let unknown: Vec<String> =
            names.iter().filter(|name| !self.pins.contains_key(**name)).map(|name| (*name).clone()).collect();
        let mut listed = HashMap::new();
        for chunk in unknown.chunks(NAMES) {
            for agent in self.list(chunk.to_vec(), String::new()).await? {
                listed.insert(agent.agent.clone(), published(&agent));
            }
        }
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let of_agent = self.pins.get(name).cloned().or_else(|| listed.remove(name));
            keys.push((name.clone(), of_agent.unwrap_or_default()));
        }
        Ok(keys)
    }

    /// Those of who is in a group now, as the hub says.
    async fn keys_of_group(&self, group: &str, own: &str) -> Result<Vec<Keys>, Error> {
        let mut members = self.list(Vec::new(), group.to_owned()).await?;
        members.retain(|member| member.agent != own);
        let keys = |member: AgentEncryptionKeys| match self.pins.get(&member.agent) {
            Some(pinned) => Ok((member.agent, pinned.clone())),
            None if self.pins.is_empty() => Ok((member.agent.clone(), published(&member))),
            None => {
                let why = format!("agent {} is in the group {group}, as the hub says, and no key of it is pinned", member.agent);
                Err(Error::refused(Code::FailedPrecondition, "ENCRYPTION_KEY_MISSING", why))
            }
        };
        members.into_iter().map(keys).collect()
    }

    async fn name(&self) -> Result<String, Error> {
        // Whoever has made a call knows who it is.
        let identity = self.client.identity().await;
        let unknown = || Error::Usage("nobody is logged in: what is sealed says by whom".to_owned());
        identity.map(|identity| identity.agent).ok_or_else(unknown)
    }

    async fn list(&self, agents: Vec<String>, group: String) -> Result<Vec<AgentEncryptionKeys>, Error> {
        let request = ListEncryptionKeysRequest { agents, group };
        let listed = self
            .client
            .call("list encryption keys", Retry::Always, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.encryption_keys().list_encryption_keys(request).await }
            })
            .await?;
        Ok(listed.agents)
    }
}

/// What a message is sealed as.
fn as_message(topic: &str) -> String {
    format!("message {topic}")
}

/// What any other payload is sealed as.
fn as_payload(about: &str) -> String {
    format!("payload {about}")
}

/// The keys that an agent published, the newest first.
fn published(agent: &AgentEncryptionKeys) -> Vec<PublicEncryptionKey> {
    let of_suite = agent.keys.iter().filter(|key| key.suite == sealed::SUITE);
    of_suite.filter_map(|key| PublicEncryptionKey::from_bytes(&key.public_key).ok()).collect()
}
