//! What tenant acme tries with its own login, and must not get.

use acb_operator::effect::postgres_observe::{LoginState, login_state};
use sqlx::{Connection as _, PgConnection};

use crate::world::{World, assert_refused, attempt, code, number};

crate::on_each_version!(
    other_tenants_rows,
    statements_of_others,
    settings_change_nothing,
    logins,
    foreign_keys_tell_nothing,
    leaky_conditions_tell_nothing,
    other_sessions_stay_private,
    own_work_is_allowed,
);

async fn other_tenants_rows(world: &World) {
    let mut acme = world.acme.connect().await;
    let mut superuser = world.pg.superuser().await;
    let (own, other) = (world.acme.id_hex(), world.bravo.id_hex());
    for table in &world.tables {
        // There is something to see, or seeing nothing would prove nothing.
        for id in [own, other] {
            assert!(
                number(&mut superuser, &format!("SELECT count(*) FROM {table} WHERE tenant_id = '\\x{id}'")).await > 0,
                "{table}"
            );
        }
        assert!(number(&mut acme, &format!("SELECT count(*) FROM {table}")).await > 0, "{table}");
        assert_eq!(number(&mut acme, &format!("SELECT count(*) FROM {table} WHERE tenant_id <> '\\x{own}'")).await, 0, "{table}");
        for sql in [
            format!("SELECT FROM {table} WHERE tenant_id = '\\x{other}' FOR UPDATE"),
            format!("UPDATE {table} SET tenant_id = '\\x{own}' WHERE tenant_id = '\\x{other}'"),
            format!("DELETE FROM {table} WHERE tenant_id = '\\x{other}'"),
        ] {
            match attempt(&mut acme, &sql).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{sql}"),
                Err(error) => assert_eq!(code(&error), "42501", "{sql}: {error}"),
            }
        }
        assert_refused(&mut acme, &format!("INSERT INTO {table} (tenant_id) VALUES ('\\x{other}')")).await;
        assert_refused(&mut acme, &format!("UPDATE {table} SET tenant_id = '\\x{other}'")).await;
        assert_refused(&mut acme, &format!("TRUNCATE {table} CASCADE")).await;
        assert_refused(&mut acme, &format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).await;
        assert_refused(&mut acme, &format!("SET row_security = off; SELECT count(*) FROM {table}")).await;
    }
}

async fn statements_of_others(world: &World) {
    let mut acme = world.acme.connect().await;
    let (own, other) = (world.acme.username(), world.bravo.username());
    let id = world.bravo.id_hex();
    let mut statements: Vec<String> = [
        // Limits and projections.
        "UPDATE acb.tenant SET limits = '{}'",
        "UPDATE acb.tenant SET generation = 99",
        "UPDATE acb.agent SET role = 'admin'",
        "DELETE FROM acb.agent",
        "UPDATE acb.context_type SET max_message_bytes = 1000000000",
        "DELETE FROM acb.api_key",
        "UPDATE acb.bus_topic SET partitions = 1",
        "UPDATE acb.group_member SET left_at = NULL",
        "UPDATE acb.schema_version SET version = 99",
        // Provisioning.
        "SELECT acb_provision.claim_leadership('me')",
        "SELECT acb_provision.end_overlong(1, '0 s')",
        "SELECT * FROM acb_provision.leader",
        "CALL acb.protect('acb.agent', 'UPDATE')",
        // Something of one's own.
        "CREATE TABLE acb.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE TEMP TABLE mine (x int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION acb.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION acb.current_tenant() RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'",
        "CREATE FUNCTION pg_catalog.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE VIEW acb.mine AS SELECT 1",
        "CREATE TRIGGER mine BEFORE INSERT ON acb.mailbox FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE POLICY mine ON acb.mailbox USING (true)",
        "CREATE PUBLICATION mine",
        "DO $$ BEGIN NULL; END $$",
        "DROP POLICY tenant ON acb.agent",
        "DROP TABLE acb.mailbox",
        "CREATE INDEX mine ON acb.mailbox (epoch)",
        "LOCK TABLE acb.agent IN ACCESS EXCLUSIVE MODE",
        // Roles.
        "SET ROLE acb_owner",
        "SET ROLE acb_operator",
        "SET ROLE acb_provisioner",
        "SET ROLE postgres",
        "SELECT set_config('role', 'acb_operator', false)",
        "CREATE ROLE mine",
        "GRANT acb_owner TO acb_tenant",
        "SELECT rolpassword FROM pg_authid",
        "SELECT passwd FROM pg_shadow",
        // The host.
        "COPY (SELECT 1) TO '/tmp/acb-mine'",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "COPY acb.mailbox FROM PROGRAM 'id'",
        "COPY acb.mailbox FROM '/etc/passwd'",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT pg_stat_file('/etc/passwd')",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SELECT * FROM pg_hba_file_rules",
        "ALTER SYSTEM SET log_statement = 'all'",
        "ALTER DATABASE acb SET work_mem = '1GB'",
        "SET session_replication_role = replica",
        "SET temp_file_limit = -1",
        "SET log_statement = 'none'",
    ]
    .map(str::to_owned)
    .into();
    statements.extend([
        format!("SET ROLE {other}"),
        format!("SET SESSION AUTHORIZATION {other}"),
        format!("SELECT set_config('session_authorization', '{other}', false)"),
        format!("SELECT acb_provision.ensure_login(1, '{id}', 'x', 5)"),
        format!("SELECT acb_provision.drop_login(1, '{id}')"),
        format!("ALTER ROLE {own} CONNECTION LIMIT 1000"),
        format!("ALTER ROLE {own} SUPERUSER"),
        format!("ALTER ROLE {own} BYPASSRLS"),
        format!("ALTER ROLE {own} CREATEROLE"),
        format!("ALTER ROLE {own} REPLICATION"),
        format!("ALTER ROLE {other} PASSWORD 'x'"),
        format!("ALTER ROLE {other} SET search_path = 'x'"),
        format!("GRANT {other} TO {own}"),
        format!("GRANT acb_operator TO {own}"),
        format!("DROP ROLE {other}"),
        format!("REASSIGN OWNED BY {other} TO {own}"),
    ]);
    for sql in &statements {
        // ALTER SYSTEM refuses a transaction block before it looks at rights.
        if sql.starts_with("ALTER SYSTEM") {
            let error = sqlx::raw_sql("ALTER SYSTEM SET log_statement = 'all'").execute(&mut acme).await.unwrap_err();
            assert_eq!(code(&error), "42501");
            continue;
        }
        assert_refused(&mut acme, sql).await;
    }
}

async fn settings_change_nothing(world: &World) {
    let mut acme = world.acme.connect().await;
    let other = world.bravo.id_hex();
    for setting in ["acb.tenant", "acb.tenant_id", "acb.current_tenant", "application_name", "search_path"] {
        sqlx::query("SELECT set_config($1, $2, false)").bind(setting).bind(other).execute(&mut acme).await.unwrap();
    }
    assert_eq!(number(&mut acme, &format!("SELECT count(*) FROM acb.agent WHERE tenant_id = '\\x{other}'")).await, 0);
    assert_eq!(number(&mut acme, "SELECT count(*) FROM acb.agent").await, 1);
    // On 15 a member may become acb_tenant: that is nobody in particular, and sees what the session's user sees.
    if attempt(&mut acme, "SET ROLE acb_tenant").await.is_ok() {
        sqlx::raw_sql("SET ROLE acb_tenant").execute(&mut acme).await.unwrap();
        assert_eq!(number(&mut acme, "SELECT count(*) FROM acb.agent").await, 1);
        assert_eq!(number(&mut acme, &format!("SELECT count(*) FROM acb.agent WHERE tenant_id = '\\x{other}'")).await, 0);
    }
}

async fn logins(world: &World) {
    let acme = world.acme.connect_options();
    assert_eq!(login_state(&acme).await, LoginState::Works);
    assert_eq!(login_state(&acme.clone().username(world.bravo.username())).await, LoginState::Refused);
    assert_eq!(login_state(&acme.clone().username("acb_operator")).await, LoginState::Refused);
    assert_eq!(login_state(&acme.clone().username("postgres")).await, LoginState::Refused);
    assert_eq!(login_state(&acme.clone().password("")).await, LoginState::Refused);
    for role in ["acb_owner", "acb_tenant", "acb_provisioner"] {
        assert_eq!(login_state(&acme.clone().username(role)).await, LoginState::Refused);
    }
    for database in ["postgres", "template1"] {
        let error = PgConnection::connect_with(&acme.clone().database(database)).await.unwrap_err();
        assert_eq!(code(&error), "42501", "{database}: {error}");
    }
    assert_eq!(login_state(&acme.port(1)).await, LoginState::Unknown);
}

async fn foreign_keys_tell_nothing(world: &World) {
    let mut superuser = world.pg.superuser().await;
    let query = format!("SELECT agent_id::text FROM acb.agent WHERE tenant_id = '\\x{}'", world.bravo.id_hex());
    let theirs: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&mut superuser).await.unwrap();
    let nobodys = uuid::Uuid::new_v4().to_string();
    let mut acme = world.acme.connect().await;
    let mut answers = Vec::new();
    for referred in [theirs, nobodys] {
        let sql = format!(
            "INSERT INTO acb.registered_agent (tenant_id, agent_id, name, registered_by)
             VALUES ('\\x{}', gen_random_uuid(), 'probe', '{referred}')",
            world.acme.id_hex()
        );
        let error = attempt(&mut acme, &sql).await.unwrap_err();
        assert_eq!(code(&error), "23503", "{error}");
        answers.push(error.to_string().replace(&referred, ""));
    }
    assert_eq!(answers[0], answers[1]);
}

async fn leaky_conditions_tell_nothing(world: &World) {
    // Were the condition tried on bravo's row, the error would name what is in it.
    let mut acme = world.acme.connect().await;
    assert_eq!(number(&mut acme, "SELECT count(*) FROM acb.presence WHERE replica::int > 0").await, 1);
    assert_eq!(number(&mut acme, "SELECT count(*) FROM acb.presence WHERE 1 / length(replica) = 1 OR replica::int > 0").await, 1);
}

async fn other_sessions_stay_private(world: &World) {
    let mut bravo = world.bravo.connect().await;
    sqlx::raw_sql("SELECT 'bravo''s secret'").execute(&mut bravo).await.unwrap();
    let mut acme = world.acme.connect().await;
    let seen =
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%secret%'", world.bravo.username());
    assert_eq!(number(&mut world.pg.superuser().await, &seen).await, 1);
    assert_eq!(number(&mut acme, &seen).await, 0);
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", world.bravo.username());
    assert_refused(&mut acme, &end).await;
    bravo.ping().await.unwrap();
}

async fn own_work_is_allowed(world: &World) {
    let mut acme = world.acme.connect().await;
    let id = world.acme.id_hex();
    for sql in [
        format!(
            "INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, position, log_time, expires_at)
             VALUES ('\\x{id}', '*', 1, 0, 77, now(), now())"
        ),
        "UPDATE acb.presence SET online = true".to_owned(),
        "DELETE FROM acb.mailbox".to_owned(),
        "UPDATE acb.bus_partition SET next_offset = next_offset + 1".to_owned(),
        // It may lock itself out, and nobody else.
        format!("ALTER ROLE {} SET statement_timeout = '60s'", world.acme.username()),
    ] {
        let done = attempt(&mut acme, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(sql.starts_with("ALTER") || done.rows_affected() > 0, "{sql}");
    }
    assert!(number(&mut acme, "SELECT version::bigint FROM acb.schema_version").await > 0);
}
