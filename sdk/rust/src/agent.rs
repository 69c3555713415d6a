//! Who else is there.

use std::{collections::HashMap, time::Duration};

use acb_proto::v1::{
    Agent, DiscoverRequest, GetAgentRequest, HeartbeatRequest, ListAgentsRequest, RegisterRequest, RegisterResponse,
    UnregisterRequest,
};
use futures::Stream;
use tokio::task::JoinHandle;

use crate::{Client, Error, client::Retry, page};

/// What an agent says of itself when it registers. Empty fields leave what its resource says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// Empty: the calling agent itself.
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
    /// Announces an agent as online.
    pub async fn register(&self, registration: Registration) -> Result<Agent, Error> {
        let Registration { name, agent_type, capabilities, metadata, location } = registration;
        let request = RegisterRequest { name, r#type: agent_type, capabilities, metadata, location };
        let RegisterResponse { agent } = self
            .call("register", Retry::Always, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.agents().register(request).await }
            })
            .await?;
        agent.ok_or_else(|| Error::refused(crate::Code::Internal, "", "register: the hub answered without an agent"))
    }

    /// Takes an agent offline; the calling one where `name` is empty.
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
