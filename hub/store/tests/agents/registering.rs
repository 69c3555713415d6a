//! Agents that other agents register, where the tenant's registration is open.

use acb_hub_core::{
    directory::{
        agent::AgentId,
        caller::Caller,
        presence::{Criteria, Page, Registration},
        snapshot::DirectoryStore as _,
    },
    door::{api_key::NewKey, ports::RegistrationStore as _, rules::Operation},
};

use acb_hub_store::PgStore;
use tokio::task::JoinSet;

use crate::world::{SOURCE, World, reason};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_others_and_only_its_own() {
    let world = World::new().await;
    let (alice, bob) = (world.tenant.agent("alice").await, world.tenant.agent("bob").await);
    let mut observer = world.tenant.agent_row("olaf");
    observer.role = "observer".to_owned();
    let observer = world.tenant.project(&observer).await;
    let caller = async |key: &str| {
        let grant = world.authority.exchange(key, SOURCE).await.unwrap();
        world.admit(&grant.access_token).await.unwrap()
    };
    let observer = {
        let grant = world.authority.exchange(&observer.api_key, SOURCE).await.unwrap();
        world.admit_to(Operation::GetAgent, &grant.access_token).await.unwrap()
    };
    let (alice, bob) = (caller(&alice.api_key).await, caller(&bob.api_key).await);
    let helper = |kind: &str| Registration { name: "helper".to_owned(), kind: kind.to_owned(), ..Registration::default() };

    let made = world.registrar.register(&alice, helper("one")).await.unwrap().listed.agent;
    assert_eq!((made.role, made.kind.as_str()), (alice.agent.role, "one"));
    let again = world.registrar.register(&alice, helper("two")).await.unwrap().listed.agent;
    assert_eq!((again.id, again.kind.as_str()), (made.id, "two"));
    let names = async || {
        let (listed, _) = world.registry.list(&Criteria::default(), &Page::default()).await.unwrap();
        listed.into_iter().map(|listed| listed.agent.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["alice", "alice.helper", "bob", "olaf"]);

    // Names of one are no names of another.
    let bobs = world.registrar.register(&bob, helper("mine")).await.unwrap().listed.agent;
    assert_eq!(bobs.name, "bob.helper");
    assert_eq!(reason(world.registrar.unregister(&bob, "alice.helper").await), "AGENT_NOT_FOUND");
    world.registrar.unregister(&bob, "helper").await.unwrap();
    assert_eq!(reason(world.registrar.register(&observer, helper("no")).await), "ROLE_LACKS_PERMISSION");
    world.registry.announce(&Caller { agent: again, ..alice.clone() }, &Registration::default()).await.unwrap();
    world.registrar.unregister(&alice, "helper").await.unwrap();
    assert_eq!(names().await, ["alice", "bob", "olaf"]);
    // Registering and leaving again and again leaves nothing behind.
    let mut connection = world.tenant.connect().await;
    let left = sqlx::query_scalar("SELECT count(*) FROM acb.presence WHERE agent_id = $1").bind(made.id.0);
    let left: i64 = left.fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0);
}

/// The tenant has at most so many agents, however many ask at one time.
#[tokio::test(flavor = "multi_thread")]
async fn registrations_at_one_time_do_not_pass_the_limit() {
    let world = World::new().await;
    let alice = world.tenant.agent("alice").await;
    let store = PgStore::new(world.tenant.connect_options());
    let mut registrations = JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        let registration = Registration { name: format!("alice.helper-{number}"), ..Registration::default() };
        let key = NewKey { prefix: format!("key{number}"), hmac: [7; 32], by_key: "k1".to_owned() };
        registrations.spawn(async move { reason(store.register(AgentId(alice.id), &registration, &key, Some(4)).await) });
    }
    let mut outcomes = registrations.join_all().await;
    outcomes.sort_unstable();
    assert_eq!(outcomes, [&["TOO_MANY_AGENTS"; 5][..], &["fine"; 3]].concat());
    assert_eq!(store.load().await.unwrap().agents().count(), 4);
    // One that is there may be registered again.
    let there = store.load().await.unwrap().agents().find(|agent| agent.name != "alice").unwrap().name.clone();
    let again = Registration { name: there, ..Registration::default() };
    let key = NewKey { prefix: "again".to_owned(), hmac: [8; 32], by_key: "k1".to_owned() };
    assert_eq!(reason(store.register(AgentId(alice.id), &again, &key, Some(2)).await), "fine");
}
