//! Who is there, and who is found.

use std::{collections::HashMap, time::Duration};

use acb_sdk::{AgentStatus, Code, Criteria, Registered, Registration};
use futures::TryStreamExt as _;

use crate::world::{client, client_at, until};

async fn found(criteria: Criteria) -> Vec<String> {
    let agents: Vec<_> = client("acme", "asker").await.discover(criteria).try_collect().await.unwrap();
    agents.into_iter().map(|agent| agent.name).collect()
}

fn pair(key: &str, value: &str) -> HashMap<String, String> {
    HashMap::from([(key.to_owned(), value.to_owned())])
}

#[tokio::test]
async fn every_criterion_must_match() {
    let linguists = || Criteria { agent_type: "linguist".into(), ..Criteria::default() };
    assert_eq!(found(linguists()).await, ["poet", "translator"]);
    assert_eq!(found(Criteria { capabilities: vec!["rhyme".into()], ..linguists() }).await, ["poet"]);
    assert_eq!(found(Criteria { metadata: pair("rank", "1"), ..linguists() }).await, ["translator"]);
    let both = vec!["translate".to_owned(), "summarize".to_owned()];
    assert_eq!(found(Criteria { capabilities: both, ..Criteria::default() }).await, ["translator"]);
    assert!(found(Criteria { metadata: pair("rank", "2"), ..linguists() }).await.is_empty());
    assert!(found(Criteria { capabilities: vec!["translate".into(), "rhyme".into()], ..linguists() }).await.is_empty());
}

#[tokio::test]
async fn presence_is_announced_kept_and_taken_back() {
    let (here, other) = (client_at("present", 0).await, client_at("asker", 1).await);
    let seen = other.agent("present").await.unwrap();
    assert_eq!((seen.status(), seen.r#type.as_str(), seen.tenant.as_str()), (AgentStatus::Offline, "presence", "acme"));

    let registered = here.announce().await.unwrap();
    assert_eq!((registered.status(), registered.capabilities.as_slice()), (AgentStatus::Online, &["summarize".to_owned()][..]));
    // The other replica says the same.
    assert_eq!(other.agent("present").await.unwrap().status(), AgentStatus::Online);
    // What its resource says is not for it to change.
    let odd = Registration { name: "present".into(), capabilities: vec!["fly".into()], ..Registration::default() };
    assert_eq!(here.register(odd).await.unwrap_err().reason(), "AGENT_IS_DECLARED");

    assert_eq!(here.heartbeat().await.unwrap(), Duration::from_secs(30));
    let last_seen = async || {
        let seen = other.agent("present").await.unwrap().last_seen_at.unwrap();
        (seen.seconds, seen.nanos)
    };
    let before = last_seen().await;
    let heartbeats = here.heartbeats();
    until("a heartbeat is seen by the other replica", async || (last_seen().await > before).then_some(())).await;
    drop(heartbeats);

    here.unregister("").await.unwrap();
    assert_eq!(other.agent("present").await.unwrap().status(), AgentStatus::Offline);
}

#[tokio::test]
async fn an_agent_of_an_open_tenant_may_register_others() {
    let (here, other) = (client_at("elder", 0).await, client_at("asker", 1).await);
    let said = || Registration {
        name: "gadget-7".into(),
        agent_type: "gadget".into(),
        capabilities: vec!["fly".into()],
        metadata: pair("mood", "good"),
        location: "attic".into(),
    };
    let Registered { agent, api_key } = here.register(said()).await.unwrap();
    assert_eq!((agent.status(), agent.registered_by.as_str(), agent.location.as_str()), (AgentStatus::Offline, "elder", "attic"));
    let again = here.register(said()).await.unwrap();
    assert!(!format!("{again:?}").contains("acb_"), "a key is in a debug print");
    assert!(api_key.starts_with("acb_") && api_key != again.api_key && again.agent.id == agent.id);
    assert_eq!(here.register(Registration::default()).await.unwrap_err().reason(), "AGENT_NAME_INVALID");
    until("the other replica knows it", async || other.agent("elder.gadget-7").await.ok()).await;
    for criteria in [
        Criteria { agent_type: "gadget".into(), ..Criteria::default() },
        Criteria { capabilities: vec!["fly".into()], ..Criteria::default() },
        Criteria { metadata: pair("mood", "good"), ..Criteria::default() },
    ] {
        assert_eq!(found(criteria).await, ["elder.gadget-7"]);
    }
    assert_eq!(other.unregister("elder.gadget-7").await.unwrap_err().code(), Code::NotFound, "it is not the other's");
    here.unregister("gadget-7").await.unwrap();
    let gone = async || other.agent("elder.gadget-7").await.err().filter(|error| error.code() == Code::NotFound);
    until("the other replica knows that it is gone", gone).await;

    // Elsewhere only the platform says who is there.
    let declared = client("fragile", "sender").await.register(said()).await.unwrap_err();
    assert_eq!((declared.code(), declared.reason()), (Code::FailedPrecondition, "REGISTRATION_DECLARED"));
}
