//! Every method of the hub's descriptors, called as each role, and as those who may nothing: the door lets in whom the table of
//! `hub/core/src/door/rules.rs` names, and nobody else.

use std::{fs, sync::Arc, time::Duration};

use crate::{
    bad_input::post,
    hub::{Hub, reason},
};
use acb_hub_core::{
    directory::{
        agent::{Agent, AgentId, Role},
        limits::Limits,
        source::Source,
    },
    door::{
        access_token::{Grounds, Tokens},
        api_key::key_prefix,
        keyring::Keyring,
        rules::{Requirement, Rule, of_grpc},
    },
};
use acb_operator::plan::PostgresStep;
use acb_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use time::OffsetDateTime;
use tokio::{task::JoinSet, time::timeout};

/// After which a call without an answer was not refused.
const WAITS: Duration = Duration::from_secs(1);

/// The path of each method of ACB's own services.
fn methods() -> Vec<String> {
    let mut paths = Vec::new();
    for file in FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file {
        for service in &file.service {
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            paths.extend(service.method.iter().map(|method| path(method.name())));
        }
    }
    paths
}

/// Why the door refused a call with an empty request; `None` where it let it in.
async fn refusal(hub: &Hub, path: &str, token: &str) -> Option<String> {
    let response = post(hub, path, token, &[], 0).await.unwrap();
    // Without a status the answer has begun.
    let status = tonic::Status::from_header_map(response.headers())?;
    let reason = reason(&status);
    let at_the_door = ["TOKEN_REQUIRED", "TOKEN_INVALID", "TOKEN_EXPIRED", "TENANT_SUSPENDED", "ROLE_LACKS_PERMISSION"];
    at_the_door.contains(&reason.as_str()).then_some(reason)
}

/// Whether a role may call it.
pub fn needed(rule: &Rule, role: Role) -> bool {
    match rule.access {
        Requirement::Public => true,
        Requirement::AnyOf(any_of) => any_of.iter().any(|permission| role.allows(*permission)),
    }
}

/// A token that the hub itself might have issued two hours ago.
pub fn expired(hub: &Hub, agent: AgentId, key: &str) -> String {
    let file = |name: &str| fs::read(hub.dir().join("keys").join(name)).unwrap();
    let pem = String::from_utf8(file("signing.key")).unwrap();
    let keyring = Keyring::new(&pem, file("pepper"), file("refresh.key"), &[]).unwrap();
    let agent = Agent {
        id: agent,
        name: "alice".to_owned(),
        kind: String::new(),
        capabilities: Vec::new(),
        groups: Vec::new(),
        location: String::new(),
        metadata: std::collections::BTreeMap::new(),
        role: Role::Admin,
        publishes: Vec::new(),
        subscribes: Vec::new(),
        limits: Limits::default(),
        suspended: false,
        created_at: OffsetDateTime::UNIX_EPOCH,
    };
    let then = OffsetDateTime::now_utc() - time::Duration::hours(2);
    let source = key_prefix(key).map(|prefix| Source::ApiKey(prefix.to_owned()));
    Tokens::new(hub.tenant.name(), hub.tenant.id_hex(), keyring)
        .issue(&agent, Grounds { source, ..Grounds::default() }, then)
        .unwrap()
        .0
}

/// Who may nothing: a name for the report, the token, and what is said.
async fn strangers(hub: &Hub) -> Vec<(&'static str, String, &'static str)> {
    let (alice, own) = hub.agent("alice", "admin").await;
    let (_, foreign) = Hub::start().await.agent("alice", "admin").await;
    let (removed, revoked) = hub.agent("removed", "admin").await;
    hub.tenant
        .apply(&PostgresStep::RemoveAgent { tenant_id: hub.tenant.id_hex().to_owned(), agent_id: removed.id.to_string() })
        .await;
    let (agent, of_suspended) = hub.agent("suspended", "admin").await;
    let mut suspended = hub.tenant.agent_row("suspended");
    suspended.id = agent.id.to_string();
    suspended.suspended = true;
    hub.tenant
        .apply(&PostgresStep::ProjectAgent { tenant_id: hub.tenant.id_hex().to_owned(), agent: suspended, api_key: None })
        .await;
    let expired = expired(hub, AgentId(alice.id), &alice.api_key);
    vec![
        ("no token", String::new(), "TOKEN_INVALID"),
        ("an API key as the token", alice.api_key, "TOKEN_INVALID"),
        ("a changed token", format!("{own}x"), "TOKEN_INVALID"),
        ("another tenant's", foreign, "TOKEN_INVALID"),
        ("an expired token", expired, "TOKEN_EXPIRED"),
        ("a removed agent's", revoked, "TOKEN_INVALID"),
        ("a suspended agent's", of_suspended, "TOKEN_INVALID"),
    ]
}

#[tokio::test]
async fn every_method_lets_in_the_roles_of_the_table_and_nobody_else() {
    let hub = Arc::new(Hub::start().await);
    let mut callers = Vec::new();
    for (name, token, said) in strangers(&hub).await {
        callers.push((name.to_owned(), None, token, said));
    }
    for role in Role::ALL {
        let (_, token) = hub.agent(&format!("as-{}", role.as_str()), role.as_str()).await;
        callers.push((role.as_str().to_owned(), Some(role), token, "ROLE_LACKS_PERMISSION"));
    }
    let methods = methods();
    assert!(methods.len() > 30, "{methods:?}");
    let mut calls = JoinSet::new();
    for path in methods {
        let (hub, callers) = (hub.clone(), callers.clone());
        calls.spawn(async move {
            let rule = of_grpc(&path).unwrap();
            for (name, role, token, said) in callers {
                let public = rule.access == Requirement::Public;
                let may = public || role.is_some_and(|role| needed(rule, role));
                let refusal = refusal(&hub, &path, &token);
                if may {
                    // Some of them wait for something. The door has then let them in.
                    let refused = timeout(WAITS, refusal).await.unwrap_or_default();
                    assert_eq!(refused, None, "{path} as {name}");
                } else {
                    assert_eq!(refusal.await.as_deref(), Some(said), "{path} as {name}");
                }
            }
        });
        // A few at a time: a stranger may have only so many connections.
        if calls.len() == 4 {
            calls.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}
