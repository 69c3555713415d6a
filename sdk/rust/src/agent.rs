//! Who else is there.

use std::{collections::HashMap, time::Duration};

use acb_proto::v1::{
    Agent, DiscoverRequest, GetAgentRequest, HeartbeatRequest, ListAgentsRequest, RegisterRequest, RegisterResponse,
    UnregisterRequest,
};
use futures::Stream;
use tokio::task::JoinHandle;

use crate::{Client, Error, client::Retry, page};

/// What is said of an agent that another one registers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// At most 63 lower-case letters, digits and inner hyphens.
    pub name: String,
    /// What it is.
    pub agent_type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Anything else.
    pub metadata: HashMap<String, String>,
    /// Where it is.
    pub location: String,
}

/// An agent that was registered for another one, and the only look at its key.
#[derive(Clone, PartialEq)]
pub struct Registered {
    /// The agent.
    pub agent: Agent,
    /// What it logs in with. The hub keeps no copy, and does not say it again.
    pub api_key: String,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("agent", &self.agent.name).finish_non_exhaustive()
    }
}

/// What to look for; every given criterion must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Criteria {
    /// Empty: any type.
    pub agent_type: String,
    /// All of these.
    pub capabilities: Vec<String>,
    /// All of these entries.
    pub metadata: HashMap<String, String>,
}

/// Sends heartbeats until it is dropped.
#[derive(Debug)]
#[must_use = "heartbeats end when this is dropped"]
pub struct Heartbeats(JoinHandle<()>);

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Announces this agent as online.
    pub async fn announce(&self) -> Result<Agent, Error> {
        self.send_registration(Registration::default()).await.map(|registered| registered.agent)
    }

    /// Registers another agent of this agent's role, in a tenant whose registration is `Open`. It may do what this agent may, and ends with
    /// it. Called again under the same name it describes the agent anew, and gives it another key: the one before ends.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Registration;
    /// let helper = client.register(Registration { name: "helper".to_owned(), ..Registration::default() }).await?;
    /// // Give helper.api_key to the program that is to be the helper.
    /// client.unregister("helper").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn register(&self, registration: Registration) -> Result<Registered, Error> {
        if registration.name.is_empty() {
            return Err(Error::refused(crate::Code::InvalidArgument, "AGENT_NAME_INVALID", "register: say the new agent's name"));
        }
        self.send_registration(registration).await
    }

    async fn send_registration(&self, registration: Registration) -> Result<Registered, Error> {
        let Registration { name, agent_type, capabilities, metadata, location } = registration;
        let request = RegisterRequest { name, r#type: agent_type, capabilities, metadata, location };
        let RegisterResponse { agent, api_key } = self
            .call("register", Retry::Always, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.agents().register(request).await }
            })
            .await?;
        let missing = || Error::refused(crate::Code::Internal, "", "register: the hub answered without an agent");
        Ok(Registered { agent: agent.ok_or_else(missing)?, api_key })
    }

    /// Takes the calling agent offline where `name` is empty, or removes one that it registered.
    pub async fn unregister(&self, name: &str) -> Result<(), Error> {
        self.call("unregister", Retry::Always, Client::ATTEMPT, |line| {
            let request = UnregisterRequest { name: name.to_owned() };
            async move { line.agents().unregister(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Sends one heartbeat; says when the next is due.
    pub async fn heartbeat(&self) -> Result<Duration, Error> {
        let response = self
            .call("heartbeat", Retry::Always, Client::ATTEMPT, |line| async move {
                line.agents().heartbeat(HeartbeatRequest {}).await
            })
            .await?;
        Ok(Duration::from_secs(response.interval_seconds.max(1).into()))
    }

    /// Sends heartbeats as the hub wants them, from now on.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// client.register(acb_sdk::Registration::default()).await?;
    /// let _heartbeats = client.heartbeats();
    /// # Ok(())
    /// # }
    /// ```
    pub fn heartbeats(&self) -> Heartbeats {
        let client = self.clone();
        Heartbeats(tokio::spawn(async move {
            let mut interval = Duration::from_secs(10);
            loop {
                match client.heartbeat().await {
                    // Half of it, so that a late one is not too late.
                    Ok(due) => interval = due / 2,
                    Err(error) => tracing::warn!(%error, "a heartbeat failed"),
                }
                tokio::time::sleep(interval.max(Duration::from_secs(1))).await;
            }
        }))
    }

    /// An agent of the tenant, by name.
    pub async fn agent(&self, name: &str) -> Result<Agent, Error> {
        self.call("get agent", Retry::Always, Client::ATTEMPT, |line| {
            let request = GetAgentRequest { name: name.to_owned() };
            async move { line.agents().get_agent(request).await }
        })
        .await
    }

    /// Every agent of the tenant; page after page as it is taken.
    pub fn agents(&self) -> impl Stream<Item = Result<Agent, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let client = client.clone();
            async move {
                let request = ListAgentsRequest { page_size: 0, page_token };
                let page = client
                    .call("list agents", Retry::Always, Client::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.agents().list_agents(request).await }
                    })
                    .await?;
                Ok((page.agents, page.next_page_token))
            }
        })
    }

    /// The agents that match; page after page as it is taken.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use futures::TryStreamExt as _;
    ///
    /// let criteria = acb_sdk::Criteria { capabilities: vec!["summarize".to_owned()], ..Default::default() };
    /// let agents: Vec<_> = client.discover(criteria).try_collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn discover(&self, criteria: Criteria) -> impl Stream<Item = Result<Agent, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let (client, Criteria { agent_type, capabilities, metadata }) = (client.clone(), criteria.clone());
            async move {
                let request = DiscoverRequest { r#type: agent_type, capabilities, metadata, page_size: 0, page_token };
                let page = client
                    .call("discover", Retry::Always, Client::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.agents().discover(request).await }
                    })
                    .await?;
                Ok((page.agents, page.next_page_token))
            }
        })
    }
}
