//! What every table must have, read from the catalogue, so that a new one is covered from its first day.

use acb_hub_pool::{Limits, Pool};
use sqlx::AssertSqlSafe;

use crate::world::World;

crate::on_each_version!(every_table_is_walled, every_policy_uses_an_index, every_sweep_uses_an_index, migrations_run_once);

/// Each of these lists what breaks a rule, and must be empty.
const RULES: &[(&str, &str)] = &[
    (
        "tables without forced row-level security",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'acb'::regnamespace AND relkind IN ('r', 'p')
         AND relname <> 'schema_version' AND NOT (relrowsecurity AND relforcerowsecurity)",
    ),
    (
        // One that restricts lets nobody see more.
        "tables without exactly the two policies that permit",
        "SELECT c.relname::text FROM pg_class c WHERE relnamespace = 'acb'::regnamespace AND relkind IN ('r', 'p')
         AND relname <> 'schema_version'
         AND (SELECT array_agg(format('%s %s %s %s', policyname, roles, qual, with_check) ORDER BY policyname) FROM pg_policies p
              WHERE p.schemaname = 'acb' AND p.tablename = c.relname AND p.permissive = 'PERMISSIVE') IS DISTINCT FROM ARRAY[
             'operator {acb_operator} true true',
             'tenant {acb_tenant} ((tenant_id)::bytea = ( SELECT acb.current_tenant() AS current_tenant)) '
             || '((tenant_id)::bytea = ( SELECT acb.current_tenant() AS current_tenant))']",
    ),
    (
        "indexes that do not lead with tenant_id",
        "SELECT indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
         WHERE relnamespace = 'acb'::regnamespace AND relname <> 'schema_version'
         AND (SELECT attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0]) IS DISTINCT FROM 'tenant_id'",
    ),
    (
        "foreign keys without tenant_id",
        "SELECT conname::text FROM pg_constraint k WHERE contype = 'f' AND connamespace = 'acb'::regnamespace
         AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND attname = 'tenant_id')",
    ),
    (
        "foreign keys without an index that leads with their columns",
        "SELECT conname::text FROM pg_constraint k WHERE contype = 'f' AND connamespace = 'acb'::regnamespace
         AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid
                         AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)",
    ),
    (
        "views that do not run as who asks",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'acb'::regnamespace AND relkind IN ('v', 'm')
         AND NOT coalesce(reloptions @> '{security_invoker=true}', false)",
    ),
    (
        "functions of acb_owner that run as it, or that everyone may run",
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'acb'::regnamespace
         AND (prosecdef OR has_function_privilege('public', oid, 'EXECUTE'))",
    ),
    (
        "functions of acb_provisioner without a fixed search_path, or that everyone may run",
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'acb_provision'::regnamespace
         AND (NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false) OR has_function_privilege('public', oid, 'EXECUTE'))",
    ),
    (
        "things in schema acb that are not acb_owner's",
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'acb'::regnamespace AND relowner <> 'acb_owner'::regrole",
    ),
    (
        "roles with more than they need",
        "SELECT rolname::text FROM pg_roles WHERE rolname ~ '^acb_' AND (rolsuper OR rolbypassrls OR rolcreatedb OR rolreplication
         OR rolcreaterole <> (rolname = 'acb_provisioner'))",
    ),
];

async fn every_table_is_walled(world: &World) {
    let mut superuser = world.pg.superuser().await;
    assert!(world.tables.len() > 15);
    for (rule, sql) in RULES {
        let breaking: Vec<String> = sqlx::query_scalar(*sql).fetch_all(&mut superuser).await.unwrap();
        assert!(breaking.is_empty(), "{rule}: {breaking:?}");
    }
}

async fn every_policy_uses_an_index(world: &World) {
    let mut acme = world.acme.connect().await;
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut acme).await.unwrap();
    for table in &world.tables {
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN SELECT * FROM {table}"))).fetch_all(&mut acme).await.unwrap();
        assert!(plan.iter().any(|line| line.contains("Index Cond") && line.contains("tenant_id")), "{table}: {plan:#?}");
    }
}

/// What hubs look for again and again: each names the columns that its index must narrow.
const SWEEPS: &[(&str, &[&str])] = &[
    ("acb.upload WHERE context_id IS NULL AND touched_at < now()", &["touched_at"]),
    ("acb.context WHERE expires_at <= now() ORDER BY expires_at", &["expires_at"]),
    ("acb.mailbox WHERE epoch = 1 AND expires_at <= now() ORDER BY expires_at", &["epoch", "expires_at"]),
    ("acb.mailbox WHERE epoch = 1", &["epoch"]),
    ("acb.refresh_token WHERE expires_at < now()", &["expires_at"]),
    (
        "acb.outbox WHERE (noun, instance) > ('', '00000000-0000-0000-0000-000000000000') ORDER BY noun, instance, sequence LIMIT 1",
        &["noun", "instance"],
    ),
];

async fn every_sweep_uses_an_index(world: &World) {
    let mut acme = world.acme.connect().await;
    sqlx::raw_sql("SET enable_seqscan = off").execute(&mut acme).await.unwrap();
    for (sweep, columns) in SWEEPS {
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN SELECT FROM {sweep}"))).fetch_all(&mut acme).await.unwrap();
        let narrows = |line: &String| line.contains("Index Cond") && columns.iter().all(|column| line.contains(column));
        assert!(plan.iter().any(narrows), "{sweep}: {plan:#?}");
    }
}

async fn migrations_run_once(world: &World) {
    let pool = Pool::new(world.pg.operator_options(), Limits::default());
    let epoch = world.pg.epoch();
    let (one, two) = tokio::join!(acb_operator::bootstrap::migrate(&pool, epoch), acb_operator::bootstrap::migrate(&pool, epoch));
    assert_eq!(one.unwrap(), acb_hub_store::migrations::LATEST);
    assert_eq!(two.unwrap(), acb_hub_store::migrations::LATEST);
}

#[tokio::test]
async fn an_operator_before_an_upgrade_works_with_what_only_expanded() {
    use acb_hub_store::migrations::LATEST;
    use acb_operator::bootstrap::{MigrateError, migrate};
    let postgres = acb_testbed::Postgres::start(acb_testbed::Version::Installed).await;
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    postgres.execute("UPDATE acb.schema_version SET version = version + 2").await;
    assert_eq!(migrate(&pool, postgres.epoch()).await.unwrap(), LATEST + 2);
    postgres.execute("UPDATE acb.schema_version SET version = version + 1").await;
    assert!(matches!(migrate(&pool, postgres.epoch()).await, Err(MigrateError::Newer { .. })));
}
