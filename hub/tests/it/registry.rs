//! Who is there.

use std::time::{Duration, Instant};

use acb_operator::plan::{PostgresStep, TenantRow};
use acb_proto::v1::{
    Address, Agent, AgentStatus, DiscoverRequest, GetAgentRequest, HeartbeatRequest, ListAgentsRequest, PullMessagesRequest,
    RefreshTokenRequest, RegisterRequest, RequestRequest, SendMessageRequest, UnregisterRequest, address::To,
    mailbox_service_client::MailboxServiceClient, message_service_client::MessageServiceClient,
};
use serde_json::json;
use tokio::time::sleep;
use tonic::Code;

use crate::{
    hub::{Hub, reason, with},
    messages::to,
};

#[tokio::test]
async fn agents_come_go_and_are_found() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let mut row = hub.tenant.agent_row("bob");
    row.r#type = "worker".to_owned();
    row.capabilities = vec!["summarise".to_owned()];
    hub.tenant.project(&row).await;
    // A new exchange reads the generation first, so this token's caller sees bob.
    let mut agents = hub.agents();
    let alice = agents.register(with(&token, RegisterRequest::default())).await.unwrap().into_inner().agent.unwrap();
    assert_eq!((alice.name.as_str(), alice.status()), ("alice", AgentStatus::Online));
    agents.heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
    let (_, token) = hub.agent("carol", "observer").await;

    let discover =
        DiscoverRequest { r#type: "worker".to_owned(), capabilities: vec!["summarise".to_owned()], ..DiscoverRequest::default() };
    let found = agents.discover(with(&token, discover)).await.unwrap().into_inner().agents;
    assert_eq!(found.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["bob"]);
    assert_eq!(found[0].status(), AgentStatus::Offline);

    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAgentsRequest { page_size: 2, page_token };
        let page = agents.list_agents(with(&token, request)).await.unwrap().into_inner();
        assert!(page.agents.len() <= 2);
        names.extend(page.agents.into_iter().map(|agent| agent.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["alice", "bob", "carol"]);

    let status = agents.get_agent(with(&token, GetAgentRequest { name: "nobody".to_owned() })).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "AGENT_NOT_FOUND"));
    let status = agents.unregister(with(&token, UnregisterRequest::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "an observer has no presence");
    let status =
        MessageServiceClient::new(hub.channel()).send_message(with(&token, SendMessageRequest::default())).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_LACKS_PERMISSION"));
}

#[tokio::test]
async fn who_can_not_be_reached_is_shown_so_and_is_not_written_to() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let mut messages = MessageServiceClient::new(hub.channel());
    let mut to_all = to("", b"x");
    to_all.message.as_mut().unwrap().to = Some(Address { to: Some(To::All(true)) });
    let alone = messages.send_message(with(&token, to_all)).await.unwrap_err();
    assert_eq!((alone.code(), reason(&alone).as_str()), (Code::FailedPrecondition, "NO_RECIPIENTS"));
    assert!(alone.message().contains("0 members"), "{}", alone.message());

    hub.agent("olaf", "observer").await;
    hub.agent("paul", "agent-producer").await;
    let mut row = hub.tenant.agent_row("susan");
    row.suspended = true;
    hub.tenant.project(&row).await;
    hub.tenant.agent("wendy").await;
    // Its exchange reads the generation: this replica knows them all.
    let (_, token) = hub.agent("albert", "agent-full").await;

    for name in ["olaf", "paul"] {
        let status = messages.send_message(with(&token, to(name, b"x"))).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RECIPIENT_CANNOT_RECEIVE"), "{name}");
    }
    let agent = async |name: &str| -> Agent {
        let request = GetAgentRequest { name: name.to_owned() };
        hub.agents().get_agent(with(&token, request)).await.unwrap().into_inner()
    };

    // What she is sent is there when she is resumed; who waits for her hears that she can't answer.
    let susan = agent("susan").await;
    assert!(susan.suspended && susan.registered_by.is_empty() && !agent("wendy").await.suspended);
    messages.send_message(with(&token, to("susan", b"for later"))).await.unwrap();
    let timeout = std::time::Duration::from_millis(300);
    let ask = |name: &str| RequestRequest { message: to(name, b"?").message, timeout: Some(timeout.try_into().unwrap()) };
    let status = messages.request(with(&token, ask("susan"))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RECIPIENT_SUSPENDED"));
    let status = messages.request(with(&token, ask("wendy"))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "NO_REPLY"));
    assert!(status.message().contains("agent wendy was never there"), "{}", status.message());
}

fn helper() -> RegisterRequest {
    RegisterRequest { name: "helper".to_owned(), r#type: "gadget".to_owned(), ..RegisterRequest::default() }
}

#[tokio::test]
async fn who_was_registered_logs_in_is_written_to_and_ends_with_its_registrar() {
    let hub = Hub::start().await;
    let (albert, token) = hub.agent("albert", "agent-full").await;
    let (_, wendy) = hub.agent("wendy", "agent-full").await;
    let mut agents = hub.agents();
    let made = agents.register(with(&token, helper())).await.unwrap().into_inner();
    let agent = made.agent.unwrap();
    let shown = (agent.role.as_str(), agent.registered_by.as_str(), agent.r#type.as_str(), agent.status());
    assert_eq!(shown, ("agent-full", "albert", "gadget", AgentStatus::Offline));
    assert!(!hub.log().contains(&made.api_key), "a key is in the log");

    let tokens = hub.exchange(&made.api_key).await.unwrap();
    assert_eq!((tokens.agent.as_str(), tokens.agent_id.as_str()), ("albert.helper", agent.id.as_str()));
    let own = tokens.access_token;
    agents.register(with(&own, RegisterRequest::default())).await.unwrap();
    let listed = agents.list_agents(with(&token, ListAgentsRequest::default())).await.unwrap().into_inner().agents;
    let online = listed.into_iter().find(|agent| agent.name == "albert.helper").unwrap();
    assert_eq!((online.status(), online.registered_by.as_str()), (AgentStatus::Online, "albert"));
    MessageServiceClient::new(hub.channel()).send_message(with(&wendy, to("albert.helper", b"hello"))).await.unwrap();
    let pull = PullMessagesRequest { receiver: "program".to_owned(), max_messages: 1, ..PullMessagesRequest::default() };
    let pulled = MailboxServiceClient::new(hub.channel()).pull_messages(with(&own, pull)).await.unwrap().into_inner();
    assert_eq!(&pulled.deliveries[0].message.as_ref().unwrap().payload[..], b"hello");

    // It is its registrar's alone, and has none of its own.
    let refused =
        async |token: &str, request: RegisterRequest| reason(&hub.agents().register(with(token, request)).await.unwrap_err());
    let another = || RegisterRequest { name: "another".to_owned(), ..RegisterRequest::default() };
    assert_eq!(refused(&own, another()).await, "REGISTRAR_IS_REGISTERED");
    let named = |name: &str| RegisterRequest { name: name.to_owned(), ..helper() };
    assert_eq!(refused(&wendy, named("albert.helper")).await, "AGENT_NAME_INVALID");
    assert_eq!(
        refused(&wendy, RegisterRequest { capabilities: vec![String::new(); 100_000], ..helper() }).await,
        "REGISTRATION_INVALID"
    );
    let unregister = || UnregisterRequest { name: "albert.helper".to_owned() };
    assert_eq!(reason(&agents.unregister(with(&wendy, unregister())).await.unwrap_err()), "AGENT_NOT_FOUND");

    // Its key is replaced.
    let second = agents.register(with(&token, helper())).await.unwrap().into_inner();
    assert_eq!(second.agent.unwrap().id, agent.id);
    assert_eq!(reason(&hub.exchange(&made.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
    assert_eq!(reason(&agents.heartbeat(with(&own, HeartbeatRequest {})).await.unwrap_err()), "TOKEN_INVALID");
    let renewed = RefreshTokenRequest { refresh_token: tokens.refresh_token };
    assert_eq!(reason(&hub.auth().refresh_token(renewed).await.unwrap_err()), "API_KEY_GONE");
    let own = hub.exchange(&second.api_key).await.unwrap().access_token;

    // It is suspended with its registrar, and resumed.
    let project = async |suspended| {
        let mut row = hub.tenant.agent_row("albert");
        (row.id, row.suspended) = (albert.id.to_string(), suspended);
        let step = PostgresStep::RestrainAgent { tenant_id: hub.tenant.id_hex().to_owned(), agent: row };
        hub.tenant.apply(&step).await;
    };
    project(true).await;
    assert_eq!(reason(&hub.exchange(&second.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
    project(false).await;
    hub.exchange(&second.api_key).await.unwrap();
    agents.unregister(with(&token, unregister())).await.unwrap();
    assert_eq!(reason(&agents.heartbeat(with(&own, HeartbeatRequest {})).await.unwrap_err()), "TOKEN_INVALID");
    let status =
        MessageServiceClient::new(hub.channel()).send_message(with(&wendy, to("albert.helper", b"x"))).await.unwrap_err();
    assert_eq!(reason(&status), "RECIPIENT_NOT_FOUND");
    let third = agents.register(with(&token, helper())).await.unwrap().into_inner();
    hub.exchange(&third.api_key).await.unwrap();
    // By an administrator, too.
    let (_, root) = hub.agent("root", "admin").await;
    agents.unregister(with(&root, unregister())).await.unwrap();
    assert_eq!(reason(&hub.exchange(&third.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
    let third = agents.register(with(&token, helper())).await.unwrap().into_inner();
    hub.tenant.remove(albert.id).await;
    assert_eq!(reason(&hub.exchange(&third.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
}

#[tokio::test]
async fn who_was_registered_counts_and_goes_where_registration_is_declared() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("albert", "agent-full").await;
    let tenant = |registration: &str, limits| PostgresStep::ProjectTenant {
        tenant_id: hub.tenant.id_hex().to_owned(),
        tenant: TenantRow {
            name: hub.tenant.name().to_owned(),
            tier: "Enterprise".to_owned(),
            registration: registration.to_owned(),
            suspended: false,
            limits,
            operation_limits: std::collections::BTreeMap::new(),
            audit_days: 90,
            context_types: Vec::new(),
            issuer: None,
            oidc_issuers: Vec::new(),
        },
    };
    let register = async |name: &str| {
        let request = RegisterRequest { name: name.to_owned(), ..RegisterRequest::default() };
        // The generation is read before: by a token that was just issued.
        hub.agents().register(with(&token, request)).await.map(tonic::Response::into_inner)
    };
    hub.tenant.apply(&tenant("Open", json!({"maxAgents": 3}))).await;
    hub.agent("wendy", "agent-full").await;
    register("helper").await.unwrap();
    let status = register("one-more").await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_AGENTS"));
    assert!(status.message().contains("there would be 4 agents, of 3"), "{}", status.message());
    let helper = register("helper").await.expect("it is there already");
    let own = hub.exchange(&helper.api_key).await.unwrap().access_token;

    hub.tenant.apply(&tenant("Declared", json!({}))).await;
    assert_eq!(reason(&hub.exchange(&helper.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
    // This replica looks within seconds.
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Ok(response) = hub.agents().heartbeat(with(&own, HeartbeatRequest {})).await {
        assert!(Instant::now() < deadline, "still let in: {response:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(reason(&register("helper").await.unwrap_err()), "REGISTRATION_DECLARED");
    // It is gone, and not only hidden.
    hub.tenant.apply(&tenant("Open", json!({}))).await;
    assert_eq!(reason(&hub.exchange(&helper.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
}

/// Whoever stole a key must have nothing left once it is replaced.
#[tokio::test]
async fn a_key_ends_with_the_key_that_it_was_registered_by() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("albert", "agent-full").await;
    let made = hub.agents().register(with(&token, helper())).await.unwrap().into_inner();
    let own = hub.exchange(&made.api_key).await.unwrap().access_token;
    // Its resource is applied anew with another key.
    hub.agent("albert", "agent-full").await;
    assert_eq!(reason(&hub.exchange(&made.api_key).await.unwrap_err()), "CREDENTIAL_REFUSED");
    assert_eq!(reason(&hub.agents().heartbeat(with(&own, HeartbeatRequest {})).await.unwrap_err()), "TOKEN_INVALID");
}
