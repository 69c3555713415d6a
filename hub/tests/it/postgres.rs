//! A PostgreSQL that answers, and not as it should: read-only after a failover, with rows or a login that somebody else changed.

use std::time::{Duration, Instant};

use acb_proto::v1::{
    Context, CreateContextRequest, GetContextRequest, ListContextsRequest, context_service_client::ContextServiceClient,
    message_service_client::MessageServiceClient,
};
use acb_testbed::{Postgres, Version};
use tonic::{Code, Status};

use crate::{
    hub::{Hub, reason, with},
    messages::to,
};

async fn share(hub: &Hub, token: &str) -> Result<Context, Status> {
    let request = CreateContextRequest { r#type: "notes".to_owned(), payload: "x".into(), ..CreateContextRequest::default() };
    ContextServiceClient::new(hub.channel()).create_context(with(token, request)).await.map(tonic::Response::into_inner)
}

/// An agent that may publish, and its token.
async fn publisher(hub: &Hub) -> (String, String) {
    hub.tenant.context_type("notes", 2).await;
    let mut row = hub.tenant.agent_row("alice");
    row.publishes = vec!["notes".to_owned()];
    row.subscribes = vec!["notes".to_owned()];
    let alice = hub.tenant.project(&row).await;
    let token = hub.exchange(&alice.api_key).await.unwrap().access_token;
    (alice.api_key, token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_takes_no_writes_is_told_at_once_and_waited_for() {
    let postgres = Postgres::start(Version::Installed).await;
    let hub = Hub::launch(postgres.tenant("acme").await, None);
    hub.until_ready().await;
    let (key, token) = publisher(&hub).await;
    let mut messages = MessageServiceClient::new(hub.channel());
    share(&hub, &token).await.unwrap();
    // For every session, and for new ones alone.
    for (begin, end) in [
        ("ALTER SYSTEM SET default_transaction_read_only = on", "ALTER SYSTEM RESET default_transaction_read_only"),
        (
            "ALTER DATABASE acb SET default_transaction_read_only = on",
            "BEGIN READ WRITE; ALTER DATABASE acb RESET default_transaction_read_only; COMMIT",
        ),
    ] {
        postgres.execute(begin).await;
        postgres.execute("SELECT pg_reload_conf()").await;
        if begin.contains("DATABASE") {
            let end =
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", hub.tenant.username());
            postgres.execute(&end).await;
        }
        let since = Instant::now();
        let body = hub.until("/readyz", |status, body| status == 503 && body.contains("takes no writes")).await;
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert!(body.contains(r#""postgres""#), "{body}");
        for outcome in [
            hub.exchange(&key).await.map(drop),
            share(&hub, &token).await.map(drop),
            messages.send_message(with(&token, to("alice", b"not taken"))).await.map(drop),
        ] {
            let status = outcome.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            assert!(!status.message().contains("cannot execute"), "PostgreSQL's own words: {}", status.message());
        }
        postgres.execute(end).await;
        postgres.execute("SELECT pg_reload_conf()").await;
        hub.until_ready().await;
        share(&hub, &token).await.unwrap();
        hub.exchange(&key).await.unwrap();
    }
    // What it refuses for another reason is told without what its tables are called.
    postgres.execute("REVOKE INSERT ON acb.bus_record FROM acb_tenant").await;
    let status = messages.send_message(with(&token, to("alice", b"not taken"))).await.unwrap_err();
    assert_eq!(reason(&status), "LOG_REFUSED");
    assert!(status.message().contains("SQLSTATE 42501") && !status.message().contains("bus_record"), "{}", status.message());
}

async fn is_told(hub: &Hub, what: &str) {
    hub.until("/readyz", |status, body| status == 503 && body.contains(what)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_serves_nobody_with_a_login_that_sees_other_tenants() {
    let postgres = Postgres::start(Version::Installed).await;
    let tenant = postgres.tenant("acme").await;
    let login = tenant.username().to_owned();
    // From its start on.
    for (break_it, what, mend) in [
        (
            format!("ALTER ROLE {login} BYPASSRLS"),
            format!("ALTER ROLE {login} NOBYPASSRLS"),
            format!("ALTER ROLE {login} NOBYPASSRLS"),
        ),
        (
            format!("GRANT acb_operator TO {login}"),
            format!("REVOKE acb_operator, acb_owner FROM {login}"),
            format!("REVOKE acb_operator FROM {login}"),
        ),
        (
            format!("ALTER ROLE {login} SUPERUSER"),
            format!("ALTER ROLE {login} NOSUPERUSER"),
            format!("ALTER ROLE {login} NOSUPERUSER"),
        ),
    ] {
        postgres.execute(&break_it).await;
        let mut hub = Hub::launch(tenant.clone(), None);
        is_told(&hub, &what).await;
        postgres.execute(&mend).await;
        hub.until_ready().await;
        // And while it serves.
        postgres.execute(&break_it).await;
        assert!(!hub.exit().await.success());
        assert!(hub.log().contains(&what), "{}", hub.log());
        postgres.execute(&mend).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_can_not_be_read_any_more_is_named() {
    let postgres = Postgres::start(Version::Installed).await;
    let hub = Hub::launch(postgres.tenant("acme").await, None);
    hub.until_ready().await;
    let (key, _) = publisher(&hub).await;
    postgres.execute("REVOKE SELECT ON acb.group_member FROM acb_tenant").await;
    postgres.execute("UPDATE acb.tenant SET generation = generation + 1").await;
    // Without agents it is looked at once a minute, or when somebody logs in.
    hub.exchange(&key).await.unwrap_err();
    let body = hub.until("/readyz", |status, body| status == 503 && body.contains("suspensions")).await;
    assert!(body.contains(r#""directory""#), "{body}");
    postgres.execute("GRANT SELECT ON acb.group_member TO acb_tenant").await;
    hub.until_ready().await;
}

#[tokio::test]
async fn a_context_that_never_expires_is_read_as_one() {
    let hub = Hub::start().await;
    let (_, token) = publisher(&hub).await;
    let context = share(&hub, &token).await.unwrap();
    let mut client = ContextServiceClient::new(hub.channel());
    let mut superuser = Postgres::shared().await.superuser().await;
    for time in ["infinity", "294276-12-31", "10000-01-01"] {
        let update = sqlx::query("UPDATE acb.context SET expires_at = $1::text::timestamptz WHERE context_id = $2::text::uuid");
        update.bind(time).bind(&context.id).execute(&mut superuser).await.unwrap();
        let got = client.get_context(with(&token, GetContextRequest { id: context.id.clone() })).await.unwrap().into_inner();
        assert!(got.expires_at.is_some_and(|at| at.seconds > 200_000_000_000), "{time}");
        let listed = client.list_contexts(with(&token, ListContextsRequest::default())).await.unwrap().into_inner();
        assert_eq!(listed.contexts.len(), 1, "{time}");
    }
    let update = sqlx::query("UPDATE acb.context SET expires_at = '-infinity' WHERE context_id = $1::text::uuid");
    update.bind(&context.id).execute(&mut superuser).await.unwrap();
    let gone = client.get_context(with(&token, GetContextRequest { id: context.id.clone() })).await.unwrap_err();
    assert_eq!(reason(&gone), "CONTEXT_NOT_FOUND");
}
