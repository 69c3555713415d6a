//! What the operator does is recorded in the transaction that does it, and stays until the hub has it.

use std::collections::BTreeMap;

use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    bootstrap::LeaderEpoch,
    effect::postgres::PostgresEffect,
    plan::{AgentRow, OidcIssuerRow, PostgresStep, ServiceAccountRow, TenantRow},
};
use acb_testbed::TestTenant;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::world::{World, attempt, code, number};

crate::on_each_version!(
    what_changes_is_recorded_and_what_does_not_is_not,
    a_tenant_and_its_issuers_are_recorded,
    nothing_is_recorded_of_what_was_not_done,
    the_operator_adds_and_changes_none,
    what_waits_has_a_bound,
);

/// What was recorded of a tenant since it was asked for last.
async fn told(world: &World, tenant: &TestTenant) -> Vec<String> {
    let mut superuser = world.pg.superuser().await;
    let sql = "WITH gone AS (DELETE FROM acb.operator_act WHERE tenant_id = $1 RETURNING *)
               SELECT format('%s %s: %s', operation, object, change) FROM gone ORDER BY sequence";
    sqlx::query_scalar(sql).bind(tenant.id_bytes()).fetch_all(&mut superuser).await.unwrap()
}

fn prefix(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

async fn what_changes_is_recorded_and_what_does_not_is_not(world: &World) {
    let tenant = world.pg.fresh_tenant("told").await;
    told(world, &tenant).await;
    let row = AgentRow { groups: vec!["ops".to_owned()], ..tenant.agent_row("planner") };
    let first = tenant.project(&row).await;
    let added = format!("AgentAdded agent planner: uid {}; role agent-full; groups ops", row.id);
    let issued = format!("ApiKeyIssued agent planner: key {}", prefix(&first.api_key));
    assert_eq!(told(world, &tenant).await, [added, issued]);
    tenant.project(&row).await;
    assert_eq!(told(world, &tenant).await, [""; 0], "nothing changed");

    let account = ServiceAccountRow { namespace: "acb-told".to_owned(), name: "planner".to_owned(), uid: "u1".to_owned() };
    let row = AgentRow { role: "admin".to_owned(), groups: Vec::new(), service_account: Some(account.clone()), ..row };
    let second = tenant.project_key(&row, 2, 3600).await;
    assert_eq!(
        told(world, &tenant).await,
        [
            "AgentChanged agent planner: role agent-full to admin; groups ops to none; serviceaccount none to acb-told/planner (uid u1)".to_owned(),
            format!(
                "ApiKeyRotated agent planner: key {} in place of {}, which works for a while yet",
                prefix(&second.api_key),
                prefix(&first.api_key)
            ),
        ]
    );
    // Another agent has the account from now on.
    let other = AgentRow { service_account: Some(account), ..tenant.agent_row("other") };
    tenant.project_without_key(&other).await;
    let told_now = told(world, &tenant).await;
    assert_eq!(told_now.len(), 2, "{told_now:?}");
    assert!(
        told_now.contains(&"AgentChanged agent planner: serviceaccount acb-told/planner (uid u1) to none".to_owned()),
        "{told_now:?}"
    );

    let less = AgentRow { limits: json!({"messagesPerMinute": 1}), suspended: true, service_account: None, ..row.clone() };
    tenant.apply(&PostgresStep::RestrainAgent { tenant_id: tenant.id_hex().to_owned(), agent: less.clone() }).await;
    let restrained = ["AgentSuspended agent planner: ", "LimitsChanged agent planner: messagesPerMinute none to 1"];
    assert_eq!(told(world, &tenant).await, restrained);
    tenant.apply(&PostgresStep::RestrainAgent { tenant_id: tenant.id_hex().to_owned(), agent: less.clone() }).await;
    assert_eq!(told(world, &tenant).await, [""; 0]);
    tenant.project_without_key(&less).await;
    let withdrawn = told(world, &tenant).await;
    assert!(
        withdrawn.iter().all(|told| told.starts_with("ApiKeyWithdrawn agent planner: key ")) && withdrawn.len() == 2,
        "{withdrawn:?}"
    );

    // Made again under its name, then removed.
    let again = tenant.agent_row("planner");
    tenant.project_without_key(&again).await;
    let made_again = [
        format!("AgentRemoved agent planner: uid {}", row.id),
        format!("AgentAdded agent planner: uid {}; role agent-full", again.id),
    ];
    assert_eq!(told(world, &tenant).await, made_again);
    tenant.remove(again.id.parse().unwrap()).await;
    assert_eq!(told(world, &tenant).await, [format!("AgentRemoved agent planner: uid {}", again.id)]);
    tenant.remove(again.id.parse().unwrap()).await;
    assert_eq!(told(world, &tenant).await, [""; 0]);
}

fn row(tenant: &TestTenant) -> TenantRow {
    TenantRow {
        name: tenant.name().to_owned(),
        tier: "Enterprise".to_owned(),
        registration: "Open".to_owned(),
        suspended: false,
        limits: json!({}),
        operation_limits: BTreeMap::new(),
        audit_days: 90,
        context_types: Vec::new(),
        issuer: None,
        oidc_issuers: Vec::new(),
    }
}

async fn a_tenant_and_its_issuers_are_recorded(world: &World) {
    let tenant = world.pg.fresh_tenant("issuers").await;
    let object = format!("tenant {}", tenant.name());
    assert_eq!(told(world, &tenant).await, [format!("TenantAdded {object}: tier Enterprise; registration Open")]);
    let agent = tenant.agent("registrar").await;
    told(world, &tenant).await;
    let registered = format!(
        "INSERT INTO acb.registered_agent (tenant_id, agent_id, name, registered_by)
         VALUES ('\\x{}', gen_random_uuid(), 'helper', '{}')",
        tenant.id_hex(),
        agent.id
    );
    world.pg.execute(&registered).await;
    let project = async |row: &TenantRow| {
        tenant.apply(&PostgresStep::ProjectTenant { tenant_id: tenant.id_hex().to_owned(), tenant: row.clone() }).await;
        told(world, &tenant).await
    };
    let issuer = OidcIssuerRow {
        issuer: "https://id.example".to_owned(),
        audiences: vec!["acb".to_owned()],
        agent: "claims.sub".to_owned(),
        role: None,
        authorities: None,
        networks: Vec::new(),
    };
    let changed = TenantRow {
        registration: "Declared".to_owned(),
        suspended: true,
        limits: json!({"agents": 3}),
        oidc_issuers: vec![issuer],
        ..row(&tenant)
    };
    assert_eq!(
        project(&changed).await,
        [
            format!("TenantChanged {object}: registration Open to Declared"),
            format!("TenantSuspended {object}: "),
            format!("LimitsChanged {object}: agents none to 3"),
            "IssuerAdded issuer https://id.example: audiences acb; agent claims.sub".to_owned(),
            format!("RegistrationsEnded {object}: agents 1"),
        ]
    );
    assert_eq!(project(&changed).await, [""; 0], "nothing changed");
    let back = TenantRow { suspended: false, oidc_issuers: Vec::new(), ..changed };
    let told_now = [format!("TenantResumed {object}: "), "IssuerRemoved issuer https://id.example: ".to_owned()];
    assert_eq!(project(&back).await, told_now);
}

async fn nothing_is_recorded_of_what_was_not_done(world: &World) {
    let tenant = world.pg.fresh_tenant("undone").await;
    told(world, &tenant).await;
    let pool = Pool::new(world.pg.operator_options(), Limits::default());
    let earlier = PostgresEffect::new(pool, LeaderEpoch(world.pg.epoch().0 - 1), world.pg.secrets());
    let agent = tenant.agent_row("planner");
    let step = PostgresStep::ProjectAgent { tenant_id: tenant.id_hex().to_owned(), agent, api_key: None };
    earlier.apply(&step).await.unwrap_err();
    assert_eq!(told(world, &tenant).await, [""; 0]);
}

async fn the_operator_adds_and_changes_none(world: &World) {
    let tenant = world.pg.fresh_tenant("kept").await;
    let own = format!("tenant_id = '\\x{}'", tenant.id_hex());
    let mut operator = PgConnection::connect_with(&world.pg.operator_options()).await.unwrap();
    for denied in [
        format!("UPDATE acb.operator_act SET change = '' WHERE {own}"),
        "TRUNCATE acb.operator_act CASCADE".to_owned(),
        // When it was, PostgreSQL says; and the hub, that it has it.
        format!(
            "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change, at) VALUES ('\\x{}', '', 'x', '', '', now())",
            tenant.id_hex()
        ),
        format!("INSERT INTO acb.operator_act_kept (tenant_id, act) SELECT tenant_id, act FROM acb.operator_act WHERE {own}"),
        format!("UPDATE acb.operator_act_kept SET at = now() - interval '1 day' WHERE {own}"),
        format!("DELETE FROM acb.operator_act_kept WHERE {own}"),
    ] {
        let error = attempt(&mut operator, &denied).await.unwrap_err();
        assert_eq!(code(&error), "42501", "{denied}: {error}");
    }
    let added = format!(
        "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change) VALUES ('\\x{}', 'me', 'x', '', '')",
        tenant.id_hex()
    );
    assert_eq!(attempt(&mut operator, &added).await.unwrap().rows_affected(), 1);

    // It takes none away before the hub has it since an hour.
    let removal = format!("DELETE FROM acb.operator_act WHERE {own}");
    assert_eq!(attempt(&mut operator, &removal).await.unwrap().rows_affected(), 0);
    let mut hub = tenant.connect().await;
    let mark = "INSERT INTO acb.operator_act_kept (tenant_id, act) SELECT tenant_id, act FROM acb.operator_act";
    sqlx::query(mark).execute(&mut hub).await.unwrap();
    assert_eq!(attempt(&mut operator, &removal).await.unwrap().rows_affected(), 0);
    let there = "SELECT count(*) FROM acb.operator_act";
    assert_eq!(number(&mut hub, there).await, 1, "that of the tenant itself");
    world.pg.execute(&format!("UPDATE acb.operator_act_kept SET at = at - interval '61 min' WHERE {own}")).await;
    tenant.agent("next").await;
    assert_eq!(number(&mut hub, there).await, 2, "with the next act those go that the hub has for long");

    // With the tenant all of them go.
    tenant.apply(&PostgresStep::RemoveTenant { tenant_id: tenant.id_hex().to_owned() }).await;
    let left = format!("SELECT count(*) FROM acb.operator_act WHERE {own}");
    assert_eq!(world.pg.number(&left).await, 0);
}

async fn what_waits_has_a_bound(world: &World) {
    let tenant = world.pg.fresh_tenant("full").await;
    let fill = format!(
        "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change)
         SELECT '\\x{}', 'test', 'x', '', '' FROM generate_series(2, 9998)",
        tenant.id_hex()
    );
    world.pg.execute(&fill).await;
    // It is shut out all the same.
    let agent = tenant.agent("planner").await;
    tenant.remove(agent.id).await;
    let mut hub = tenant.connect().await;
    assert_eq!(number(&mut hub, "SELECT count(*) FROM acb.agent").await, 0);
    let last = "SELECT operation FROM acb.operator_act ORDER BY sequence DESC LIMIT 2";
    let last: Vec<String> = sqlx::query_scalar(last).fetch_all(&mut hub).await.unwrap();
    assert_eq!(last, ["ActsNotRecorded", "AgentAdded"]);
    assert_eq!(number(&mut hub, "SELECT count(*) FROM acb.operator_act").await, 10_000);
    // Once the hub has some there is room.
    let mark = "INSERT INTO acb.operator_act_kept (tenant_id, act) SELECT tenant_id, act FROM acb.operator_act ORDER BY sequence LIMIT 10";
    sqlx::query(mark).execute(&mut hub).await.unwrap();
    tenant.project_without_key(&tenant.agent_row("planner")).await;
    let last: String = sqlx::query_scalar("SELECT operation FROM acb.operator_act ORDER BY sequence DESC LIMIT 1")
        .fetch_one(&mut hub)
        .await
        .unwrap();
    assert_eq!(last, "AgentAdded");
}
