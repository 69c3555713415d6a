//! Agents that other agents register, where the tenant's registration is open.

use acb_hub_core::{
    directory::presence::{Criteria, Page, Registration},
    door::rules::Operation,
};

use crate::world::{World, reason};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_others_and_only_its_own() {
    let world = World::new().await;
    let (alice, bob) = (world.tenant.agent("alice").await, world.tenant.agent("bob").await);
    let mut observer = world.tenant.agent_row("olaf");
    observer.role = "observer".to_owned();
    let observer = world.tenant.project(&observer).await;
    let caller = async |key: &str| {
        let grant = world.authority.exchange(key).await.unwrap();
        world.admit(&grant.access_token).await.unwrap()
    };
    let observer = {
        let grant = world.authority.exchange(&observer.api_key).await.unwrap();
        world.admit_to(Operation::GetAgent, &grant.access_token).await.unwrap()
    };
    let (alice, bob) = (caller(&alice.api_key).await, caller(&bob.api_key).await);
    let helper = |kind: &str| Registration { name: "helper".to_owned(), kind: kind.to_owned(), ..Registration::default() };

    let made = world.registry.register(&alice, helper("one")).await.unwrap().agent;
    assert_eq!((made.role, made.kind.as_str()), (alice.agent.role, "one"));
    let again = world.registry.register(&alice, helper("two")).await.unwrap().agent;
    assert_eq!((again.id, again.kind.as_str()), (made.id, "two"));
    let names = async || {
        let (listed, _) = world.registry.list(&Criteria::default(), &Page::default()).await.unwrap();
        listed.into_iter().map(|listed| listed.agent.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["alice", "bob", "helper", "olaf"]);

    assert_eq!(reason(world.registry.register(&bob, helper("mine")).await), "AGENT_EXISTS");
    let alices = Registration { name: "alice".to_owned(), ..Registration::default() };
    assert_eq!(reason(world.registry.register(&bob, alices).await), "AGENT_EXISTS");
    assert_eq!(reason(world.registry.unregister(&bob, "helper").await), "AGENT_NOT_FOUND");
    assert_eq!(reason(world.registry.register(&observer, helper("no")).await), "ROLE_LACKS_PERMISSION");
    world.registry.unregister(&alice, "helper").await.unwrap();
    assert_eq!(names().await, ["alice", "bob", "olaf"]);
    // Registering and leaving again and again leaves nothing behind.
    let mut connection = world.tenant.connect().await;
    let left = sqlx::query_scalar("SELECT count(*) FROM acb.presence WHERE agent_id = $1").bind(made.id.0);
    let left: i64 = left.fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0);
}
