//! Who is there.

use acb_proto::v1::{
    Address, Agent, AgentStatus, DiscoverRequest, GetAgentRequest, HeartbeatRequest, ListAgentsRequest, RegisterRequest,
    RequestRequest, SendMessageRequest, UnregisterRequest, address::To, message_service_client::MessageServiceClient,
};
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
    let helper = RegisterRequest { name: "helper".to_owned(), ..RegisterRequest::default() };
    hub.agents().register(with(&token, helper)).await.unwrap();

    for name in ["olaf", "paul"] {
        let status = messages.send_message(with(&token, to(name, b"x"))).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "RECIPIENT_CANNOT_RECEIVE"), "{name}");
    }
    let status = messages.send_message(with(&token, to("helper", b"x"))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "RECIPIENT_NOT_FOUND"));
    let agent = async |name: &str| -> Agent {
        let request = GetAgentRequest { name: name.to_owned() };
        hub.agents().get_agent(with(&token, request)).await.unwrap().into_inner()
    };
    let listed = hub.agents().list_agents(with(&token, ListAgentsRequest::default())).await.unwrap().into_inner().agents;
    for helper in [agent("helper").await, listed.into_iter().find(|agent| agent.name == "helper").unwrap()] {
        assert_eq!((helper.status(), helper.registered_by.as_str()), (AgentStatus::Offline, "albert"));
    }

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
