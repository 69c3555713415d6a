//! Two tenants: `acme`, whose two replicas nobody touches, and `fragile`, whose replicas a test ends.

use std::time::Duration;

use acb_sdk::{Client, Received, Session};
use acb_testbed::standalone::Standalone;
use tokio::time::{Instant, sleep, timeout};

/// More than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Tests of one process share the tenant, never an agent that receives.
const ACME: [(&str, &str); 15] = [
    ("asker", "{type: person, role: AgentFull, subscribes: [documents]}"),
    ("author", "{type: worker, role: AgentFull, publishes: [documents]}"),
    ("librarian", "{type: worker, role: AgentFull, subscribes: [documents]}"),
    ("picky", "{type: worker, role: AgentFull}"),
    ("failing", "{type: worker, role: AgentFull}"),
    ("slow", "{type: worker, role: AgentFull}"),
    ("present", "{type: presence, role: AgentFull, capabilities: [summarize], attributes: {team: red}}"),
    ("translator", "{type: linguist, role: AgentFull, capabilities: [translate, summarize], attributes: {team: red, rank: '1'}}"),
    ("poet", "{type: linguist, role: AgentFull, capabilities: [rhyme], attributes: {team: red}}"),
    ("lonely", "{type: worker, role: AgentFull}"),
    ("lazy", "{type: worker, role: AgentFull}"),
    ("eager", "{type: worker, role: AgentFull}"),
    ("pulls", "{type: worker, role: AgentFull}"),
    ("elder", "{type: worker, role: AgentFull}"),
    ("outrun", "{type: worker, role: AgentFull}"),
];
const FRAGILE: [(&str, &str); 7] = [
    ("sender", "{type: worker, role: AgentFull}"),
    ("receiver", "{type: worker, role: AgentFull}"),
    ("speaker", "{type: worker, role: AgentFull}"),
    ("held-up", "{type: worker, role: AgentFull}"),
    ("waiting", "{type: worker, role: AgentFull}"),
    ("moving", "{type: worker, role: AgentFull}"),
    ("bystander", "{type: worker, role: AgentFull}"),
];

fn tenant(name: &str, registration: &str, agents: &[(&str, &str)]) -> String {
    let mut yaml = format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\n\
         spec: {{tier: Professional, registration: {registration}, hub: {{replicas: 2}}, contextTypes: [{{name: documents}}]}}\n"
    );
    for (agent, spec) in agents {
        yaml.push_str(&format!(
            "---\napiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {agent}, namespace: acb-{name}}}\nspec: {spec}\n"
        ));
    }
    yaml
}

pub(crate) async fn dev() -> &'static Standalone {
    Standalone::shared(&[("acme.yaml", tenant("acme", "Open", &ACME)), ("fragile.yaml", tenant("fragile", "Declared", &FRAGILE))])
        .await
}

/// An agent, over all replicas of its tenant.
pub(crate) async fn client(tenant: &str, agent: &str) -> Client {
    let endpoints = dev().await.tenant(tenant).unwrap().endpoints.clone();
    client_of(tenant, agent, &endpoints).await
}

/// An agent of `acme`, that knows one replica only.
pub(crate) async fn client_at(agent: &str, replica: usize) -> Client {
    let endpoint = dev().await.tenant("acme").unwrap().endpoints[replica].clone();
    client_of("acme", agent, &[endpoint]).await
}

/// An agent that is connected to this replica, or that knows only this one.
pub(crate) async fn client_on(tenant: &str, agent: &str, endpoint: &str, knows_others: bool) -> Client {
    if !knows_others {
        return client_of(tenant, agent, &[endpoint.to_owned()]).await;
    }
    // Each client begins with any of them.
    until("a client is connected to one replica", async || {
        let client = client(tenant, agent).await;
        (client.endpoint().await.unwrap() == endpoint).then_some(client)
    })
    .await
}

pub(crate) async fn client_of(tenant: &str, agent: &str, endpoints: &[String]) -> Client {
    let access = dev().await.tenant(tenant).unwrap();
    let key = access.api_key(agent).unwrap().parse().unwrap();
    Client::builder().endpoints(endpoints).ca_pem(access.ca_pem.clone()).api_key(key).connect().await.unwrap()
}

pub(crate) async fn next(session: &mut Session) -> Received {
    timeout(LONG, session.next()).await.expect("a message comes").unwrap()
}

pub(crate) async fn until<T>(what: &str, mut looked: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = looked().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waiting until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
