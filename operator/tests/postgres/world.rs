//! Two tenants with rows in every table.

use acb_testbed::{Postgres, TestTenant, Version};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgQueryResult};
use tokio::sync::OnceCell;

pub(crate) struct World {
    pub(crate) pg: Postgres,
    pub(crate) acme: TestTenant,
    pub(crate) bravo: TestTenant,
    /// Every tenant table, as `acb.<name>`.
    pub(crate) tables: Vec<String>,
}

static INSTALLED: OnceCell<World> = OnceCell::const_new();
static V17: OnceCell<World> = OnceCell::const_new();

pub(crate) async fn installed() -> &'static World {
    INSTALLED.get_or_init(|| World::start(Version::Installed)).await
}

pub(crate) async fn v17() -> &'static World {
    V17.get_or_init(|| World::start(Version::V17)).await
}

/// What a column gets where its type's value would break a CHECK, or where a test looks for it.
fn special(table: &str, column: &str, tenant: &TestTenant) -> Option<String> {
    Some(match (table, column) {
        ("acb.presence", "replica") => {
            if tenant.name() == "acme" {
                "'1'".to_owned()
            } else {
                "'secret-of-bravo'".to_owned()
            }
        }
        ("acb.context", "scope") => "'public'".to_owned(),
        ("acb.context", "payload") => "''".to_owned(),
        ("acb.dead_letter", "reason") => "'expired'".to_owned(),
        ("acb.audit_growth", "first") => "0".to_owned(),
        ("acb.tenant", "audit_days") => "90".to_owned(),
        ("acb.oidc_issuer", "issuer") => "'https://issuer'".to_owned(),
        ("acb.oidc_issuer", "audiences") => "'{acb}'".to_owned(),
        ("acb.usage_sum", "period") => "'hour'".to_owned(),
        (_, "role") => "'observer'".to_owned(),
        (_, "cleanup") => "'delete'".to_owned(),
        _ => return None,
    })
}

fn value_of(data_type: &str) -> &'static str {
    match data_type {
        "bytea" => "decode(repeat('00', 32), 'hex')",
        "uuid" => "'00000000-0000-4000-8000-000000000001'",
        "text" => "'x'",
        "smallint" | "integer" | "bigint" => "1",
        "boolean" => "false",
        "timestamp with time zone" => "now()",
        "jsonb" => "'{}'",
        "ARRAY" => "'{}'",
        other => panic!("world.rs knows no value of type {other}: add one"),
    }
}

impl World {
    pub(crate) async fn start(version: Version) -> Self {
        let pg = Postgres::start(version).await;
        if version == Version::V17 {
            assert_eq!(pg.server().major(), 17);
        }
        let acme = pg.tenant("acme").await;
        let bravo = pg.tenant("bravo").await;
        for tenant in [&acme, &bravo] {
            tenant.context_type("notes", 4).await;
            tenant.agent_in("alice", &["team"]).await;
        }
        let mut superuser = pg.superuser().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT format('acb.%I', relname) FROM pg_class WHERE relnamespace = 'acb'::regnamespace AND relkind IN ('r', 'p')
             AND relname <> 'schema_version' ORDER BY 1",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        // Without foreign keys: each table gets a row, whatever it refers to.
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
        for table in &tables {
            for tenant in [&acme, &bravo] {
                seed(&mut superuser, table, tenant).await;
            }
        }
        Self { pg, acme, bravo, tables }
    }
}

async fn seed(superuser: &mut PgConnection, table: &str, tenant: &TestTenant) {
    let count = format!("SELECT count(*) FROM {table} WHERE tenant_id = '\\x{}'", tenant.id_hex());
    let there: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *superuser).await.unwrap();
    if there > 0 {
        return;
    }
    let columns: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text, is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
         FROM information_schema.columns WHERE table_schema = 'acb' AND format('acb.%I', table_name) = $1 AND column_name <> 'tenant_id'",
    )
    .bind(table)
    .fetch_all(&mut *superuser)
    .await
    .unwrap();
    let (mut names, mut values) = (vec!["tenant_id".to_owned()], vec![format!("'\\x{}'", tenant.id_hex())]);
    for (name, data_type, needed) in columns {
        let value = special(table, &name, tenant).or_else(|| needed.then(|| value_of(&data_type).to_owned()));
        if let Some(value) = value {
            names.push(format!("\"{name}\""));
            values.push(value);
        }
    }
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), values.join(", "));
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(superuser).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Runs a statement in a transaction that is rolled back.
pub(crate) async fn attempt(connection: &mut PgConnection, sql: &str) -> Result<PgQueryResult, sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.unwrap();
    outcome
}

pub(crate) fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}

/// The statement must be refused for lack of rights, not for another reason.
pub(crate) async fn assert_refused(connection: &mut PgConnection, sql: &str) {
    match attempt(connection, sql).await {
        Ok(done) => panic!("{sql}: succeeded, {done:?}"),
        Err(error) => assert_eq!(code(&error), "42501", "{sql}: {error}"),
    }
}

pub(crate) async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The same, on a connection of the tenant's.
pub(crate) async fn seen_by(tenant: &TestTenant, sql: &str) -> i64 {
    number(&mut tenant.connect().await, sql).await
}
