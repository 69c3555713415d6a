//! Who is there.

use acb_proto::v1::{
    AgentStatus, DiscoverRequest, GetAgentRequest, HeartbeatRequest, ListAgentsRequest, RegisterRequest, SendMessageRequest,
    UnregisterRequest, message_service_client::MessageServiceClient,
};
use tonic::Code;

use crate::hub::{Hub, reason, with};

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
