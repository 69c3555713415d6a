//! `AgentRegistry`.

use acb_hub_core::{
    directory::presence::{self, Criteria, HEARTBEAT_SECONDS, Listed, Page, Registration, Registry},
    door::registration::{Registered, Registrar},
};
use acb_proto::v1::{
    Agent, AgentStatus, DiscoverRequest, DiscoverResponse, GetAgentRequest, HeartbeatRequest, HeartbeatResponse,
    ListAgentsRequest, ListAgentsResponse, RegisterRequest, RegisterResponse, UnregisterRequest, UnregisterResponse,
    agent_registry_server::AgentRegistry,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        timestamp::timestamp,
    },
    status::to_status,
};

/// Who is in the tenant.
#[derive(Clone, Debug)]
pub struct Agents {
    tenant: String,
    registry: Registry,
    registrar: Registrar,
}

impl Agents {
    /// Over this registry, and what registers agents for others.
    #[must_use]
    pub fn new(tenant: &str, registry: Registry, registrar: Registrar) -> Self {
        Self { tenant: tenant.to_owned(), registry, registrar }
    }

    fn agent(&self, listed: &Listed) -> Agent {
        let status = match listed.status(OffsetDateTime::now_utc()) {
            presence::Status::Online => AgentStatus::Online,
            presence::Status::Offline => AgentStatus::Offline,
            presence::Status::Unknown => AgentStatus::Unknown,
        };
        let agent = &listed.agent;
        Agent {
            id: agent.id.to_string(),
            name: agent.name.clone(),
            r#type: agent.kind.clone(),
            capabilities: agent.capabilities.clone(),
            groups: agent.groups.clone(),
            location: agent.location.clone(),
            metadata: agent.metadata.clone().into_iter().collect(),
            role: agent.role.as_str().to_owned(),
            status: status.into(),
            tenant: self.tenant.clone(),
            created_at: Some(timestamp(agent.created_at)),
            last_seen_at: listed.presence.map(|presence| timestamp(presence.last_seen_at)),
            suspended: agent.suspended,
            registered_by: listed.registered_by.clone().unwrap_or_default(),
        }
    }

    /// The token is the last name of the page before. Names are no secret here.
    async fn page(&self, criteria: Criteria, size: u32, token: String) -> Result<(Vec<Agent>, String), Status> {
        let (agents, next) = self.registry.list(&criteria, &Page { size, after: token }).await.map_err(to_status)?;
        Ok((agents.iter().map(|listed| self.agent(listed)).collect(), next.unwrap_or_default()))
    }
}

#[tonic::async_trait]
impl AgentRegistry for Agents {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let RegisterRequest { name, r#type, capabilities, metadata, location } = request.into_inner();
        let registration = Registration { name, kind: r#type, capabilities, metadata: metadata.into_iter().collect(), location };
        let (listed, api_key) = if Registry::is_own(&caller, &registration.name) {
            (self.registry.announce(&caller, &registration).await.map_err(to_status)?, String::new())
        } else {
            let Registered { listed, api_key } = self.registrar.register(&caller, registration).await.map_err(to_status)?;
            (listed, api_key)
        };
        trail.object("agent", &listed.agent.name);
        Ok(Response::new(RegisterResponse { agent: Some(self.agent(&listed)), api_key }))
    }

    async fn unregister(&self, request: Request<UnregisterRequest>) -> Result<Response<UnregisterResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let name = request.into_inner().name;
        let is_own = Registry::is_own(&caller, &name);
        trail.object("agent", if is_own { &caller.agent.name } else { &name });
        let gone = if is_own { self.registry.goodbye(&caller).await } else { self.registrar.unregister(&caller, &name).await };
        gone.map_err(to_status)?;
        Ok(Response::new(UnregisterResponse {}))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        self.registry.heartbeat(&caller(&request)?).await.map_err(to_status)?;
        Ok(Response::new(HeartbeatResponse { interval_seconds: HEARTBEAT_SECONDS }))
    }

    async fn discover(&self, request: Request<DiscoverRequest>) -> Result<Response<DiscoverResponse>, Status> {
        let answers = Answers::of(&request);
        let DiscoverRequest { r#type, capabilities, metadata, page_size, page_token } = request.into_inner();
        let criteria = Criteria { kind: r#type, capabilities, metadata: metadata.into_iter().collect() };
        let page = async {
            let (agents, next_page_token) = self.page(criteria, page_size, page_token).await?;
            Ok(DiscoverResponse { agents, next_page_token })
        };
        answers.page(page).await
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<Agent>, Status> {
        let listed = self.registry.get(&request.into_inner().name).await.map_err(to_status)?;
        Ok(Response::new(self.agent(&listed)))
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let answers = Answers::of(&request);
        let ListAgentsRequest { page_size, page_token } = request.into_inner();
        let page = async {
            let (agents, next_page_token) = self.page(Criteria::default(), page_size, page_token).await?;
            Ok(ListAgentsResponse { agents, next_page_token })
        };
        answers.page(page).await
    }
}
