//! End to end: what an agent seals for others, neither the hub nor the log can read.

use std::{
    collections::{HashMap, HashSet},
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
    pins: HashMap<String, HashSet<EncryptionKeyId>>,
}

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

    /// Believes of this agent that it has this key, and no other but those that are pinned as well.
    #[must_use]
    pub fn pin(mut self, agent: impl Into<String>, key: EncryptionKeyId) -> Self {
        self.pins.entry(agent.into()).or_default().insert(key);
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

    /// Withdraws a public key of the agent: nobody seals for it any more, nor believes what it sealed.
    pub async fn withdraw(&self, key: EncryptionKeyId) -> Result<(), Error> {
        self.client
            .call("withdraw an encryption key", Retry::Always, Client::ATTEMPT, |line| async move {
                let request = WithdrawEncryptionKeyRequest { key_id: Bytes::copy_from_slice(&key) };
                line.encryption_keys().withdraw_encryption_key(request).await
            })
            .await?;
        Ok(())
    }

    /// The same message, which only its recipients can read: an agent, several, or those who are in a group now.
    ///
    /// Sender, recipients, topic and metadata stay as they are, for the hub needs them.
    pub async fn seal(&self, message: Message) -> Result<Message, Error> {
        let (names, group) = match message.recipients() {
            Some(To::Agent(name)) => (vec![name.clone()], String::new()),
            Some(To::Agents(names)) => (names.names.clone(), String::new()),
            Some(To::Group(name)) => (Vec::new(), name.clone()),
            _ => {
                let why =
                    "only a message to agents or to a group can be sealed: who else receives it is not known when it is sent";
                return Err(Error::Usage(why.to_owned()));
            }
        };
        let own = self.name().await?;
        let mut agents = self.list(names, group).await?;
        agents.retain(|agent| agent.agent != own);
        let (content_type, payload, topic) = message.to_seal()?;
        let content = Content { content_type, payload, from: own, topic };
        let sealed = self.seal_for_keys(content, &agents)?;
        Ok(message.bytes(SEALED, sealed))
    }

    /// A payload that only these agents can read, such as that of a context.
    pub async fn seal_for(
        &self,
        agents: impl IntoIterator<Item = impl Into<String>>,
        content_type: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Result<Bytes, Error> {
        let names: Vec<String> = agents.into_iter().map(Into::into).collect();
        let agents = self.list(names, String::new()).await?;
        let from = self.name().await?;
        let content = Content { content_type: content_type.into(), payload: payload.into(), from, topic: String::new() };
        self.seal_for_keys(content, &agents)
    }

    /// What is in a message, where it was sealed for this agent by the one that it says to be from.
    pub async fn open(&self, message: &v1::Message) -> Result<Opened, Error> {
        if message.content_type != SEALED {
            let why = format!("the message has a payload of {:?}, which is not sealed", message.content_type);
            return Err(Error::refused(Code::FailedPrecondition, "NOT_SEALED", why));
        }
        let (opened, topic) = self.open_from(&message.from, &message.payload).await?;
        if topic != message.topic {
            return Err(sealed::damaged("it was sealed for another topic than the message has"));
        }
        Ok(opened)
    }

    /// What is in a payload that this agent has sealed for others, this one among them.
    pub async fn open_payload(&self, from: &str, payload: &[u8]) -> Result<Opened, Error> {
        self.open_from(from, payload).await.map(|(opened, _)| opened)
    }

    async fn open_from(&self, from: &str, payload: &[u8]) -> Result<(Opened, String), Error> {
        let sealed = Sealed::parse(payload)?;
        let published = self.list(vec![from.to_owned()], String::new()).await?;
        let sender =
            published.iter().flat_map(|agent| self.believed(agent)).find(|key| key.id()[..] == *sealed.sender()).ok_or_else(
                || {
                    let why = format!("it was sealed by a key that is not, or no longer, known to be of agent {from}");
                    Error::refused(Code::FailedPrecondition, "SENDER_KEY_UNKNOWN", why)
                },
            )?;
        let Content { content_type, payload, from: sealed_from, topic } = sealed.open(&self.own, &sender)?;
        if sealed_from != from {
            return Err(sealed::damaged("it was sealed by another agent than it says"));
        }
        Ok((Opened { content_type, payload, sender_key: sender.id() }, topic))
    }

    fn seal_for_keys(&self, content: Content, agents: &[AgentEncryptionKeys]) -> Result<Bytes, Error> {
        let Some(own) = self.own.first() else { return Err(Error::Usage("there is no key to seal by".to_owned())) };
        let mut keys = Vec::with_capacity(agents.len());
        for agent in agents {
            // The newest one.
            let key = self.believed(agent).next().ok_or_else(|| {
                let why =
                    format!("agent {} has published no encryption key that is believed: it publishes one first", agent.agent);
                Error::refused(Code::FailedPrecondition, "ENCRYPTION_KEY_MISSING", why)
            })?;
            keys.push(key);
        }
        sealed::seal(content, own, &keys)
    }

    /// The keys of an agent that are believed to be its own, the newest first.
    fn believed<'a>(&'a self, agent: &'a AgentEncryptionKeys) -> impl Iterator<Item = PublicEncryptionKey> + 'a {
        let pins = self.pins.get(&agent.agent);
        agent
            .keys
            .iter()
            .filter(|key| key.suite == sealed::SUITE)
            .filter_map(|key| PublicEncryptionKey::from_bytes(&key.public_key).ok())
            .filter(move |key| pins.is_none_or(|pins| pins.contains(&key.id())))
    }

    async fn name(&self) -> Result<String, Error> {
        // Whoever has made a call knows who it is.
        let identity = self.client.identity().await;
        let unknown = || Error::Usage("nobody is logged in: what is sealed says by whom".to_owned());
        identity.map(|identity| identity.agent).ok_or_else(unknown)
    }

    async fn list(&self, names: Vec<String>, group: String) -> Result<Vec<AgentEncryptionKeys>, Error> {
        let mut agents = Vec::new();
        let mut group = Some(group);
        let mut chunks = names.chunks(NAMES).map(<[String]>::to_vec).collect::<Vec<_>>();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        for names in chunks {
            let request = ListEncryptionKeysRequest { agents: names, group: group.take().unwrap_or_default() };
            let listed = self
                .client
                .call("list encryption keys", Retry::Always, Client::ATTEMPT, |line| {
                    let request = request.clone();
                    async move { line.encryption_keys().list_encryption_keys(request).await }
                })
                .await?;
            agents.extend(listed.agents);
        }
        Ok(agents)
    }
}
