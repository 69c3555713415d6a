//! What ends with an API key, and what does not.

use acb_hub_core::{
    directory::trail::Trail,
    door::refresh_token::{MAX_FAMILIES, MAX_FAMILY_TOKENS},
};

use acb_testbed::{AgentRow, Postgres};
use sqlx::Connection as _;

use crate::world::{SOURCE, World, reason};

#[tokio::test(flavor = "multi_thread")]
async fn everything_ends_with_the_key_that_it_came_from() {
    let world = World::new().await;
    let row = world.tenant.agent_row("alice");
    let first = world.tenant.project_key(&row, 1, 0).await;
    let granted = world.authority.exchange(&first.api_key, SOURCE).await.unwrap();
    let granted = world.authority.refresh(granted.refresh_token(), SOURCE, &Trail::default()).await.unwrap();
    world.admit(&granted.access_token).await.unwrap();

    let second = world.tenant.project_key(&row, 2, 0).await;
    assert_eq!(reason(world.authority.refresh(granted.refresh_token(), SOURCE, &Trail::default()).await), "API_KEY_GONE");
    assert_eq!(reason(world.authority.exchange(&first.api_key, SOURCE).await), "CREDENTIAL_REFUSED");
    assert_eq!(reason(world.admit(&granted.access_token).await), "TOKEN_INVALID");

    let granted = world.authority.exchange(&second.api_key, SOURCE).await.unwrap();
    world.tenant.remove(second.id).await;
    assert_eq!(reason(world.authority.refresh(granted.refresh_token(), SOURCE, &Trail::default()).await), "API_KEY_GONE");
    assert_eq!(reason(world.admit(&granted.access_token).await), "TOKEN_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_with_overlap_drops_nobody() {
    let world = World::new().await;
    let row = world.tenant.agent_row("alice");
    let first = world.tenant.project_key(&row, 1, 0).await;
    let old = world.authority.exchange(&first.api_key, SOURCE).await.unwrap();
    let second = world.tenant.project_key(&row, 2, 3600).await;
    let old = world.authority.refresh(old.refresh_token(), SOURCE, &Trail::default()).await.unwrap();
    let caller = world.admit(&old.access_token).await.unwrap();
    world.authority.exchange(&first.api_key, SOURCE).await.unwrap();
    let new = world.authority.exchange(&second.api_key, SOURCE).await.unwrap();
    assert_eq!(caller.agent.id, world.admit(&new.access_token).await.unwrap().agent.id);
    // The overlap is over.
    let mut superuser = Postgres::shared().await.superuser().await;
    let prefix = first.api_key.split('_').nth(1).unwrap();
    let moved =
        sqlx::query("UPDATE acb.api_key SET expires_at = now() WHERE prefix = $1 AND expires_at IS NOT NULL").bind(prefix);
    assert_eq!(moved.execute(&mut superuser).await.unwrap().rows_affected(), 1);
    assert_eq!(reason(world.authority.refresh(old.refresh_token(), SOURCE, &Trail::default()).await), "API_KEY_GONE");
    assert_eq!(reason(world.authority.exchange(&first.api_key, SOURCE).await), "CREDENTIAL_REFUSED");
    world.authority.refresh(new.refresh_token(), SOURCE, &Trail::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_has_so_many_families_and_a_family_so_many_tokens() {
    let world = World::new().await;
    let alice = world.tenant.agent("alice").await;
    let bob = world.tenant.agent("bob").await;
    let others = world.authority.exchange(&bob.api_key, SOURCE).await.unwrap().refresh_token().to_owned();
    let unused = world.authority.exchange(&alice.api_key, SOURCE).await.unwrap().refresh_token().to_owned();
    let mut used = world.authority.exchange(&alice.api_key, SOURCE).await.unwrap().refresh_token().to_owned();
    for _ in 0..MAX_FAMILIES - 2 {
        world.authority.exchange(&alice.api_key, SOURCE).await.unwrap();
    }
    // Old, and in use: the one that is forgotten is the one that nobody uses.
    used = world.authority.refresh(&used, SOURCE, &Trail::default()).await.unwrap().refresh_token().to_owned();
    world.authority.exchange(&alice.api_key, SOURCE).await.unwrap();
    assert_eq!(reason(world.authority.refresh(&unused, SOURCE, &Trail::default()).await), "CREDENTIAL_REFUSED");
    let families = "SELECT count(DISTINCT family) FROM acb.refresh_token WHERE agent_id = $1";
    let mut connection = world.tenant.connect().await;
    let count: i64 = sqlx::query_scalar(families).bind(alice.id).fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, i64::from(MAX_FAMILIES));
    for _ in 0..MAX_FAMILY_TOKENS + 5 {
        used = world.authority.refresh(&used, SOURCE, &Trail::default()).await.unwrap().refresh_token().to_owned();
    }
    let tokens = "SELECT count(*) FROM acb.refresh_token WHERE agent_id = $1 GROUP BY family ORDER BY 1 DESC LIMIT 1";
    let count: i64 = sqlx::query_scalar(tokens).bind(alice.id).fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, i64::from(MAX_FAMILY_TOKENS));
    world.authority.refresh(&others, SOURCE, &Trail::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_is_revoked_with_the_successor_that_is_made_at_that_moment() {
    let world = World::new().await;
    let alice = world.tenant.agent("alice").await;
    let first = world.authority.exchange(&alice.api_key, SOURCE).await.unwrap().refresh_token().to_owned();
    let second = world.authority.refresh(&first, SOURCE, &Trail::default()).await.unwrap().refresh_token().to_owned();
    // The thief's exchange has made its successor, and waits with it: a new token refers to the tenant's row.
    let mut superuser = Postgres::shared().await.superuser().await;
    let mut held = superuser.begin().await.unwrap();
    let lock = sqlx::query("SELECT FROM acb.tenant WHERE tenant_id = $1 FOR UPDATE").bind(world.tenant.id_bytes().to_vec());
    lock.execute(&mut *held).await.unwrap();
    let authority = world.authority.clone();
    let exchanged = second.clone();
    let exchange = tokio::spawn(async move { authority.refresh(&exchanged, SOURCE, &Trail::default()).await });
    world.waiting(1).await;
    let authority = world.authority.clone();
    let revoke = tokio::spawn(async move { authority.revoke(&first, SOURCE, &Trail::default()).await });
    world.waiting(2).await;
    held.rollback().await.unwrap();
    let third = exchange.await.unwrap().unwrap().refresh_token().to_owned();
    revoke.await.unwrap().unwrap();
    assert_eq!(reason(world.authority.refresh(&third, SOURCE, &Trail::default()).await), "CREDENTIAL_REFUSED");
    assert_eq!(reason(world.authority.refresh(&second, SOURCE, &Trail::default()).await), "CREDENTIAL_REFUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_listed_with_all_is_listed_by_name_before_the_directory_knows() {
    let world = World::new().await;
    let admin = world.tenant.project(&AgentRow { role: "admin".to_owned(), ..world.tenant.agent_row("adam") }).await;
    let token = world.authority.exchange(&admin.api_key, SOURCE).await.unwrap().access_token;
    let adam = world.admit(&token).await.unwrap();
    let late = world.tenant.agent("late").await;
    let all = world.credentials.list(&adam, "", 0, "").await.unwrap().credentials;
    let of_late: Vec<_> = all.into_iter().filter(|credential| credential.agent == "late").collect();
    assert_eq!(of_late.iter().map(|credential| credential.agent_id.0).collect::<Vec<_>>(), [late.id]);
    assert_eq!(world.credentials.list(&adam, "late", 0, "").await.unwrap().credentials, of_late);
    assert_eq!(reason(world.credentials.list(&adam, "nobody", 0, "").await), "AGENT_NOT_FOUND");
    assert_eq!(reason(world.credentials.list(&adam, "no\0body", 0, "").await), "AGENT_NOT_FOUND");
}
