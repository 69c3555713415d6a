//! Rows that no operator of ours wrote: a restore by another tool, a hand.

use acb_hub_core::directory::{
    presence::{Criteria, Page, Registration},
    snapshot::DirectoryStore as _,
    trail::Trail,
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, Version};
use sqlx::AssertSqlSafe;

use crate::world::{SOURCE, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_can_not_be_read_is_left_out_alone() {
    let postgres = Postgres::start(Version::Installed).await;
    let tenant = postgres.tenant("acme").await;
    let (alice, bob) = (tenant.agent("alice").await, tenant.agent("bob").await);
    tenant.agent("carol").await;
    tenant.context_type("notes", 1).await;
    tenant.context_type("free", 1).await;
    postgres.execute("ALTER TABLE acb.agent DROP CONSTRAINT agent_role_check").await;
    postgres.execute("UPDATE acb.agent SET role = 'wizard' WHERE name = 'bob'").await;
    postgres.execute(r#"UPDATE acb.agent SET metadata = '{"size": 7}' WHERE name = 'carol'"#).await;
    postgres.execute(r#"UPDATE acb.context_type SET schema = '{"id": "note"}' WHERE name = 'notes'"#).await;
    // What everyone's security hangs on comes through.
    postgres.execute("UPDATE acb.agent SET suspended = true WHERE name = 'alice'").await;
    let snapshot = PgStore::new(tenant.connect_options()).load().await.unwrap();
    assert!(snapshot.agent_named("alice").unwrap().suspended);
    let names: Vec<&str> = snapshot.agents().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["alice"]);
    // Without its schema a type would take what it must not.
    assert!(!snapshot.context_types.contains_key("notes") && snapshot.context_types.contains_key("free"));
    assert_eq!(snapshot.api_keys.len(), 3);
    drop((alice, bob));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_those_of_now_and_memberships_those_that_a_message_may_be_for() {
    let postgres = Postgres::shared().await;
    let tenant = postgres.fresh_tenant("acme").await;
    tenant.agent_in("alice", &["red", "blue"]).await;
    tenant.agent_in("bob", &[]).await;
    let ids = format!("SELECT tenant_id, agent_id FROM acb.agent WHERE tenant_id = '\\x{}' AND name = 'bob'", tenant.id_hex());
    for (group, left) in [("red", "6 days"), ("gone", "8 days")] {
        postgres
            .execute(&format!(
                "INSERT INTO acb.group_member (tenant_id, agent_id, group_name, joined_at, left_at)
                 SELECT tenant_id, agent_id, '{group}', now() - interval '30 days', now() - interval '{left}' FROM ({ids}) AS bob"
            ))
            .await;
    }
    let snapshot = PgStore::new(tenant.connect_options()).load().await.unwrap();
    assert_eq!(snapshot.agent_named("alice").unwrap().groups, ["blue", "red"]);
    assert!(snapshot.agent_named("bob").unwrap().groups.is_empty());
    assert_eq!(snapshot.memberships("red").len(), 2);
    assert!(!snapshot.has_group("gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_without_end_are_times() {
    let world = World::new().await;
    let alice = world.tenant.agent_in("alice", &["red"]).await;
    let caller = world.authority.exchange(&alice.api_key, SOURCE).await.unwrap();
    let caller = world.admit(&caller.access_token).await.unwrap();
    world.registrar.register(&caller, Registration { name: "helper".to_owned(), ..Registration::default() }).await.unwrap();
    let mut superuser = Postgres::shared().await.superuser().await;
    let store = PgStore::new(world.tenant.connect_options());
    let columns = [
        "agent.created_at",
        "group_member.joined_at",
        "group_member.left_at",
        "api_key.created_at",
        "api_key.expires_at",
        "registered_agent.created_at",
        "registered_key.created_at",
        "presence.last_seen_at",
    ];
    for time in ["infinity", "294276-12-31", "10000-01-01", "4713-01-01 BC", "-infinity"] {
        for column in columns {
            let (table, column) = column.split_once('.').unwrap();
            // One row has all times in its key.
            let sql = format!("UPDATE acb.{table} SET {column} = '{time}' WHERE tenant_id = '\\x{}'", world.tenant.id_hex());
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser).await.unwrap();
        }
        let snapshot = store.load().await.unwrap();
        assert_eq!(snapshot.agents().count(), 2, "{time}");
        let later = !time.starts_with('-') && !time.ends_with("BC");
        assert_eq!(
            snapshot.key_lives(caller.agent.id, alice.api_key.split('_').nth(1).unwrap(), time::OffsetDateTime::now_utc()),
            later
        );
        assert!(store.load().await.unwrap().agent_named("alice.helper").is_some());
        world.registry.get("alice").await.unwrap();
        world.registry.get("alice.helper").await.unwrap();
        assert_eq!(world.registry.list(&Criteria::default(), &Page::default()).await.unwrap().0.len(), 2, "{time}");
        let outcome = world.authority.exchange(&alice.api_key, SOURCE).await;
        assert_eq!(outcome.is_ok(), later, "{time}: {outcome:?}");
        if let Ok(granted) = outcome {
            let refreshed = world.authority.refresh(granted.refresh_token(), SOURCE, &Trail::default()).await.unwrap();
            let tokens = format!(
                "UPDATE acb.refresh_token SET issued_at = '{time}', expires_at = '{time}' WHERE tenant_id = '\\x{}'",
                world.tenant.id_hex()
            );
            sqlx::raw_sql(AssertSqlSafe(tokens)).execute(&mut superuser).await.unwrap();
            world.authority.refresh(refreshed.refresh_token(), SOURCE, &Trail::default()).await.unwrap();
        }
    }
}
