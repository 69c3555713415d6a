//! The effect against what can be observed after it.

use std::time::{Duration, Instant};

use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    bootstrap::{self, LeaderEpoch, Server, claim_leadership},
    effect::{
        postgres::{PostgresEffect, stored_key},
        postgres_observe::{LoginState, login_state, observe_tenant},
    },
    plan::{AgentRow, FOR_EVER, IssuerRow, PostgresStep},
};
use acb_testbed::{Postgres, Version};
use serde_json::json;
use tokio::time::sleep;

use crate::world::{World, number};

crate::on_each_version!(
    what_is_projected_is_observed,
    memberships_are_intervals,
    a_replaced_key_overlaps,
    a_retired_topic_has_its_time,
    the_issuer_before_is_known_for_a_while,
    removal_leaves_nothing
);

async fn pool(world: &World) -> Pool {
    Pool::new(world.pg.operator_options(), Limits::default())
}

async fn what_is_projected_is_observed(world: &World) {
    let pool = pool(world).await;
    let tenant = world.pg.fresh_tenant("seen").await;
    let topic = tenant.context_type("notes", 4).await;
    let row = AgentRow {
        groups: vec!["one".to_owned(), "two".to_owned()],
        capabilities: vec!["read".to_owned()],
        metadata: serde_json::json!({"team": "blue"}),
        ..tenant.agent_row("alice")
    };
    let agent = tenant.project(&row).await;
    let observed = observe_tenant(&pool, tenant.id_hex()).await.unwrap();
    assert_eq!(observed.agents.get(&row.id), Some(&row));
    assert_eq!(observed.api_keys[&row.id], vec![stored_key(tenant.pepper(), &agent.api_key).unwrap()]);
    assert_eq!(observed.topics.get(&topic.name), Some(&topic));
    assert_eq!(observed.topics.len(), 6);
    assert!(observed.login.unwrap().enabled);
    assert_eq!(observed.tenant.as_ref().unwrap().context_types[0].name, "notes");

    // The generation rose, and the log says so.
    let mut superuser = world.pg.superuser().await;
    let logged = format!(
        "SELECT convert_from(value, 'UTF8')::bigint FROM acb.bus_record WHERE tenant_id = '\\x{}' AND topic LIKE '%.sys.control'
         ORDER BY \"offset\" DESC LIMIT 1",
        tenant.id_hex()
    );
    assert_eq!(number(&mut superuser, &logged).await, i64::try_from(observed.generation).unwrap());

    // Again: nothing but the generation changes.
    tenant.project(&row).await;
    let again = observe_tenant(&pool, tenant.id_hex()).await.unwrap();
    assert_eq!((&again.agents, &again.topics, &again.api_keys), (&observed.agents, &observed.topics, &observed.api_keys));
    assert!(again.generation > observed.generation);

    // More partitions, never fewer.
    assert_eq!(tenant.ensure_topic("notes", 2).await.partitions, 2);
    assert_eq!(observe_tenant(&pool, tenant.id_hex()).await.unwrap().topics[&topic.name].partitions, 4);
}

async fn a_replaced_key_overlaps(world: &World) {
    let pool = pool(world).await;
    let tenant = world.pg.fresh_tenant("keys").await;
    let row = tenant.agent_row("alice");
    let mut connection = tenant.connect().await;
    let live = "SELECT count(*) FROM acb.api_key WHERE expires_at IS NULL OR expires_at > now()";
    let first = tenant.project_key(&row, 1, 3600).await;
    assert_eq!(number(&mut connection, live).await, 1);
    let second = tenant.project_key(&row, 2, 3600).await;
    assert_ne!(first.api_key, second.api_key);
    assert_eq!(number(&mut connection, live).await, 2);
    let limited =
        "SELECT count(*) FROM acb.api_key WHERE expires_at BETWEEN now() + interval '59 min' AND now() + interval '60 min'";
    assert_eq!(number(&mut connection, limited).await, 1);
    // What the plan compares with the Secret is the newest alone: a repeat changes nothing, and does not prolong the overlap.
    let current = || async { observe_tenant(&pool, tenant.id_hex()).await.unwrap().api_keys[&row.id].clone() };
    assert_eq!(current().await, vec![stored_key(tenant.pepper(), &second.api_key).unwrap()]);
    tenant.project_key(&row, 2, 7200).await;
    assert_eq!(number(&mut connection, limited).await, 1);
    // Two at the most: the newest of those that were replaced.
    let third = tenant.project_key(&row, 3, 3600).await;
    assert_eq!(number(&mut connection, live).await, 2);
    let prefixes: Vec<String> = sqlx::query_scalar("SELECT prefix FROM acb.api_key ORDER BY expires_at NULLS FIRST")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let prefix = |key: &str| stored_key(tenant.pepper(), key).unwrap().prefix;
    assert_eq!(prefixes, [prefix(&third.api_key), prefix(&second.api_key)]);
    // The newest leaked, and its Secret was deleted: the next one takes its place, and the one before is that of the Secret that is left.
    tenant.delete_key(&row, 3);
    let next = tenant.project_key(&row, 3, 3600).await;
    assert_ne!(next.api_key, third.api_key);
    let prefixes: Vec<String> = sqlx::query_scalar("SELECT prefix FROM acb.api_key ORDER BY expires_at NULLS FIRST")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(prefixes, [prefix(&next.api_key), prefix(&second.api_key)]);
    // Without an overlap, and without a key, nothing of the old ones is left.
    tenant.project_key(&row, 4, 0).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.api_key").await, 1);
    tenant.project_key(&row, 5, 3600).await;
    // Held to less, it keeps its keys; one that is not there is not made.
    let keys = number(&mut connection, "SELECT count(*) FROM acb.api_key").await;
    let before = observe_tenant(&pool, tenant.id_hex()).await.unwrap();
    let less = AgentRow { role: "observer".to_owned(), limits: json!({"messagesPerMinute": 1}), suspended: true, ..row.clone() };
    let restrain = |agent: AgentRow| PostgresStep::RestrainAgent { tenant_id: tenant.id_hex().to_owned(), agent };
    tenant.apply(&restrain(AgentRow { name: "of another name".to_owned(), ..less.clone() })).await;
    tenant.apply(&restrain(AgentRow { id: "00000000-0000-0000-0000-000000000000".to_owned(), ..less.clone() })).await;
    let after = observe_tenant(&pool, tenant.id_hex()).await.unwrap();
    assert_eq!((after.agents.len(), &after.agents[&row.id]), (before.agents.len(), &less));
    assert_eq!((after.api_keys, after.generation), (before.api_keys, before.generation + 1));
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.api_key").await, keys);
    let without = PostgresStep::ProjectAgent { tenant_id: tenant.id_hex().to_owned(), agent: row.clone(), api_key: None };
    tenant.apply(&without).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.api_key").await, 0);
}

async fn memberships_are_intervals(world: &World) {
    let tenant = world.pg.fresh_tenant("groups").await;
    let row = AgentRow { groups: vec!["team".to_owned()], ..tenant.agent_row("alice") };
    tenant.project(&row).await;
    tenant.project(&row).await;
    tenant.project(&AgentRow { groups: Vec::new(), ..row.clone() }).await;
    tenant.project(&row).await;
    let mut connection = tenant.connect().await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.group_member").await, 2);
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.group_member WHERE left_at IS NULL").await, 1);
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.group_member WHERE left_at < joined_at").await, 0);
    // One that ended before every message that still lives is forgotten.
    let mut superuser = world.pg.superuser().await;
    let old = "UPDATE acb.group_member SET joined_at = joined_at - interval '40 days', left_at = left_at - interval '40 days'
               WHERE tenant_id = decode($1, 'hex') AND left_at IS NOT NULL";
    sqlx::query(old).bind(tenant.id_hex()).execute(&mut superuser).await.unwrap();
    tenant.project(&row).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM acb.group_member").await, 1);

    // Made again under the same name: a new UID, and the old one is gone.
    let new = tenant.agent("alice").await;
    let observed = observe_tenant(&pool(world).await, tenant.id_hex()).await.unwrap();
    assert_eq!(observed.agents.keys().collect::<Vec<_>>(), [&new.id.to_string()]);
}

async fn removal_leaves_nothing(world: &World) {
    let tenant = world.pg.fresh_tenant("gone").await;
    let agent = tenant.agent_in("alice", &["team"]).await;
    let bob = tenant.agent("bob").await;
    let (mut superuser, id) = (world.pg.superuser().await, tenant.id_hex());
    let child = uuid::Uuid::from_u128(7);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO acb.registered_agent (tenant_id, agent_id, name, registered_by) VALUES ('\\x{id}', '{child}', 'child', '{0}');
         INSERT INTO acb.presence (tenant_id, agent_id) VALUES ('\\x{id}', '{child}'), ('\\x{id}', '{0}'), ('\\x{id}', '{1}')",
        agent.id, bob.id
    )))
    .execute(&mut superuser)
    .await
    .unwrap();
    tenant.remove(agent.id).await;
    let seen = format!("SELECT count(*) FROM acb.presence WHERE tenant_id = '\\x{id}' AND agent_id");
    assert_eq!(
        number(&mut superuser, &format!("{seen} <> '{}'", bob.id)).await,
        0,
        "of whom is gone nobody asks when it was seen"
    );
    assert_eq!(number(&mut superuser, &format!("{seen} = '{}'", bob.id)).await, 1);
    let mut session = tenant.connect().await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM acb.agent").await, 1);
    tenant.apply(&PostgresStep::DisableLogin { tenant_id: tenant.id_hex().to_owned() }).await;
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut session).await.is_err(), "the session outlived its login");
    assert_eq!(login_state(&tenant.connect_options()).await, LoginState::Refused);
    // A context that refers to its upload: both go.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO acb.upload (tenant_id, upload_id, agent_id, request, size, chunk_size)
             VALUES ('\\x{id}', '{0}', '{0}', '{{}}', 1, 1);
         INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, upload_id, size, sha256)
             VALUES ('\\x{id}', '{0}', 'x', '{0}', 'x', 'public', '{0}', 1, decode(repeat('00', 32), 'hex'));",
        agent.id
    )))
    .execute(&mut superuser)
    .await
    .unwrap();
    let step = PostgresStep::RemoveTenant { tenant_id: id.to_owned() };
    tenant.apply(&step).await;
    tenant.apply(&step).await;
    for table in &world.tables {
        assert_eq!(
            number(&mut superuser, &format!("SELECT count(*) FROM {table} WHERE tenant_id = '\\x{id}'")).await,
            0,
            "{table}"
        );
    }
    assert_eq!(observe_tenant(&pool(world).await, id).await.unwrap(), Default::default());
}

async fn the_issuer_before_is_known_for_a_while(world: &World) {
    let (pool, tenant) = (pool(world).await, world.pg.fresh_tenant("issued").await);
    let row = IssuerRow { previous: Some("https://one".to_owned()), ..IssuerRow::new("https://two", json!({"keys": []})) };
    let observed = async || observe_tenant(&pool, tenant.id_hex()).await.unwrap().tenant.unwrap().issuer.unwrap();
    tenant.issuer(Some(row.clone())).await;
    assert_eq!(observed().await, row);
    let mut superuser = world.pg.superuser().await;
    let mut left = async || {
        let left = "SELECT extract(epoch FROM previous_until - clock_timestamp())::bigint FROM acb.cluster_issuer";
        number(&mut superuser, &format!("{left} WHERE tenant_id = '\\x{}'", tenant.id_hex())).await
    };
    assert!((3500..=3600).contains(&left().await));
    // Other keys make its time no longer.
    let pass = format!(
        "UPDATE acb.cluster_issuer SET previous_until = previous_until - interval '50 min' WHERE tenant_id = '\\x{}'",
        tenant.id_hex()
    );
    let mut other = world.pg.superuser().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(pass.clone())).execute(&mut other).await.unwrap();
    tenant.issuer(Some(IssuerRow { jwks: json!({"keys": [{"kid": "a"}]}), ..row.clone() })).await;
    assert!((500..=600).contains(&left().await) && observed().await.previous == row.previous);
    sqlx::raw_sql(sqlx::AssertSqlSafe(pass)).execute(&mut other).await.unwrap();
    assert_eq!(observed().await.previous, None, "it is over");
    // The next change begins another.
    tenant
        .issuer(Some(IssuerRow { previous: Some("https://two".to_owned()), ..IssuerRow::new("https://three", json!({})) }))
        .await;
    assert!((3500..=3600).contains(&left().await));
}

async fn a_retired_topic_has_its_time(world: &World) {
    let pool = pool(world).await;
    let tenant = world.pg.fresh_tenant("retired").await;
    let topic = tenant.context_type("notes", 2).await.name;
    let tenant_id = tenant.id_hex().to_owned();
    let retire = |retention_seconds: u64| PostgresStep::RetireTopic {
        tenant_id: tenant_id.clone(),
        topic: topic.clone(),
        retention_seconds,
    };
    tenant.apply(&retire(60)).await;
    let first = observe_tenant(&pool, &tenant_id).await.unwrap().retired[&topic].clone();
    assert!(!first.is_over && first.since.ends_with('Z') && first.since.starts_with("20"), "{first:?}");
    // Said again it begins nothing anew: its time has passed, and stays so.
    let mut superuser = world.pg.superuser().await;
    let earlier = format!("UPDATE acb.retired_topic SET since = since - interval '61 s' WHERE tenant_id = '\\x{tenant_id}'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(earlier)).execute(&mut superuser).await.unwrap();
    tenant.apply(&retire(60)).await;
    assert!(observe_tenant(&pool, &tenant_id).await.unwrap().retired[&topic].is_over);
    // Who keeps it for longer meanwhile, even for ever, is heard.
    tenant.apply(&retire(u64::MAX)).await;
    let longer = observe_tenant(&pool, &tenant_id).await.unwrap().retired[&topic].clone();
    assert!(!longer.is_over && longer.retention_seconds == FOR_EVER, "{longer:?}");
    tenant.apply(&PostgresStep::ReviveTopic { tenant_id: tenant_id.clone(), topic: topic.clone() }).await;
    let observed = observe_tenant(&pool, &tenant_id).await.unwrap();
    assert!(observed.retired.is_empty() && observed.topics.contains_key(&topic));

    tenant.apply(&retire(60)).await;
    let fill = format!(
        "INSERT INTO acb.bus_record (tenant_id, topic, partition, \"offset\", value, log_time)
         SELECT '\\x{tenant_id}', '{topic}', 0, n, 'x', now() FROM generate_series(0, 4999) AS n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut superuser).await.unwrap();
    let others = observed.topics.len() - 1;
    tenant.apply(&PostgresStep::RemoveTopic { tenant_id: tenant_id.clone(), topic: topic.clone() }).await;
    let observed = observe_tenant(&pool, &tenant_id).await.unwrap();
    assert!(observed.retired.is_empty() && !observed.topics.contains_key(&topic) && observed.topics.len() == others);
    let left = format!("SELECT count(*) FROM acb.bus_record WHERE tenant_id = '\\x{tenant_id}' AND topic = '{topic}'");
    assert_eq!(number(&mut superuser, &left).await, 0);
}

async fn leaders(version: Version) {
    let pg = Postgres::start(version).await;
    let tenant = pg.tenant("acme").await;
    let step = PostgresStep::RemoveAgent { tenant_id: tenant.id_hex().to_owned(), agent_id: uuid::Uuid::new_v4().to_string() };
    let pool = Pool::new(pg.operator_options(), Limits::default());
    pg.effect().apply(&step).await.unwrap();
    let next = claim_leadership(&pool, "next").await.unwrap();
    assert_eq!(next, LeaderEpoch(pg.epoch().0 + 1));
    let error = pg.effect().apply(&step).await.unwrap_err();
    assert!(error.to_string().contains("another operator leads"), "{error}");
    PostgresEffect::new(pool.clone(), next, pg.secrets()).apply(&step).await.unwrap();

    // A claim waits for the old leader's open transaction.
    let mut old = pool.begin().await.unwrap();
    sqlx::query("SELECT acb_provision.check_epoch($1)").bind(next.0).execute(&mut *old).await.unwrap();
    let waiting = pool.clone();
    let claim = tokio::spawn(async move { claim_leadership(&waiting, "third").await });
    let mut superuser = pg.superuser().await;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%claim_leadership%'";
    while number(&mut superuser, blocked).await == 0 {
        assert!(std::time::Instant::now() < deadline && !claim.is_finished());
    }
    old.commit().await.unwrap();
    assert_eq!(claim.await.unwrap().unwrap(), LeaderEpoch(next.0 + 1));

    // Once more, with another password: roles, rows and logins stay.
    bootstrap::bootstrap(pg.server().superuser(), "another", Server::Exclusive).await.unwrap();
    assert_eq!(login_state(&pg.operator_options()).await, LoginState::Refused);
    assert_eq!(login_state(&pg.operator_options().password("another")).await, LoginState::Works);
    assert_eq!(login_state(&tenant.connect_options()).await, LoginState::Works);
}

#[tokio::test]
async fn a_new_leader_fences_the_old_on_the_installed_version() {
    leaders(Version::Installed).await;
}

#[tokio::test]
async fn a_new_leader_fences_the_old_on_17() {
    leaders(Version::V17).await;
}

#[tokio::test]
async fn a_session_whose_transaction_lasts_too_long_is_ended_by_name() {
    let pg = Postgres::start(Version::Installed).await;
    let (acme, bravo) = (pg.tenant("acme").await, pg.tenant("bravo").await);
    let (mut long, mut quiet) = (acme.connect().await, bravo.connect().await);
    // As a tenant may.
    sqlx::raw_sql("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; BEGIN; SELECT 1")
        .execute(&mut long)
        .await
        .unwrap();
    let pool = Pool::new(pg.operator_options(), Limits::default());
    let epoch = claim_leadership(&pool, "leader").await.unwrap();
    let effect = PostgresEffect::new(pool, epoch, pg.secrets());
    assert_eq!(effect.end_overlong(3600).await.unwrap(), []);
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        let ended = effect.end_overlong(1).await.unwrap();
        if !ended.is_empty() {
            break ended;
        }
        assert!(Instant::now() < deadline, "not ended");
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((ended[0].tenant.as_deref(), ended[0].count, ended.len()), (Some("acme"), 1, 1));
    assert!(sqlx::raw_sql("SELECT 1").execute(&mut long).await.is_err(), "the session goes on");
    sqlx::raw_sql("SELECT 1").execute(&mut quiet).await.unwrap();
}

#[tokio::test]
async fn whoever_holds_others_off_a_table_is_ended_at_once() {
    let pg = Postgres::start(Version::Installed).await;
    let (acme, bravo) = (pg.tenant("acme").await, pg.tenant("bravo").await);
    let (mut first, mut second, mut honest) = (acme.connect().await, acme.connect().await, bravo.connect().await);
    let pool = Pool::new(pg.operator_options(), Limits::default());
    let epoch = claim_leadership(&pool, "leader").await.unwrap();
    let effect = PostgresEffect::new(pool, epoch, pg.secrets());
    // What hubs do locks no table.
    sqlx::raw_sql("BEGIN; DELETE FROM acb.mailbox; SELECT agent_id FROM acb.presence FOR UPDATE")
        .execute(&mut honest)
        .await
        .unwrap();
    assert_eq!(effect.end_overlong(3600).await.unwrap(), []);
    sqlx::raw_sql("BEGIN; LOCK TABLE acb.presence IN SHARE ROW EXCLUSIVE MODE").execute(&mut first).await.unwrap();
    // This one only waits for its lock, and others wait behind it all the same.
    let waiting = tokio::spawn(async move {
        sqlx::raw_sql("BEGIN; LOCK TABLE acb.presence IN ACCESS EXCLUSIVE MODE").execute(&mut second).await.map(drop)
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ended = 0;
    while ended < 2 {
        for sessions in effect.end_overlong(3600).await.unwrap() {
            assert_eq!(sessions.tenant.as_deref(), Some("acme"));
            ended += sessions.count;
        }
        assert!(Instant::now() < deadline, "{ended} ended");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(waiting.await.unwrap().is_err() && sqlx::raw_sql("SELECT 1").execute(&mut first).await.is_err());
    sqlx::raw_sql("COMMIT").execute(&mut honest).await.unwrap();
}

#[tokio::test]
async fn a_server_that_falls_silent_holds_nobody_up() {
    // Takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(silent.local_addr().unwrap().port())
        .username("acb_operator")
        .password("x");
    let began = Instant::now();
    let reader = acb_operator::tenant::fetch::PostgresReader::lazy(options.clone(), options.clone());
    let error = observe_tenant(&reader.pool, &"0".repeat(20)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(login_state(&options).await, LoginState::Unknown);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
