//! Reads what PostgreSQL holds of a tenant, as the plain rows of the plan, so that the two can be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use acb_hub_pool::Pool;
use sqlx::{
    Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    EffectError,
    postgres::{StoredKey, failed, is_limit_of_login, tenant_bytes},
    postgres_excess,
    postgres_rows::{agents, number, tenant_row},
};
pub use crate::observed::LoginState;
use crate::plan::{AgentRow, TenantRow, TopicSpec};

/// Everything that the operator projected for a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedTenant {
    /// The tenant's row with its context types, ordered by name; `None` where it was never projected.
    pub tenant: Option<TenantRow>,
    /// Its generation.
    pub generation: u64,
    /// Its agents by UID, with their current groups in order.
    pub agents: BTreeMap<String, AgentRow>,
    /// What is stored of the API keys of each agent, by UID. A key that was replaced and still works for a while is not among them.
    pub api_keys: BTreeMap<String, Vec<StoredKey>>,
    /// The agents, by UID, of which a key that was replaced still works.
    pub replaced_keys: BTreeSet<String>,
    /// Topics of the PostgreSQL bus, by name.
    pub topics: BTreeMap<String, TopicSpec>,
    /// Topics, of either bus, that no resource asked for when that was looked at last, by name.
    pub retired: BTreeMap<String, RetiredTopic>,
    /// Its login; `None` where there is none.
    pub login: Option<ObservedLogin>,
    /// Which version of the login's role it is: another one after each `ALTER ROLE`. `None` where PostgreSQL does not tell.
    pub login_version: Option<u64>,
}

/// A topic that no resource asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetiredTopic {
    /// Since when, in RFC 3339.
    pub since: String,
    /// For how long it stays.
    pub retention_seconds: u64,
    /// Whether its retention has passed since.
    pub is_over: bool,
}

/// A tenant's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedLogin {
    /// Whether it may log in.
    pub enabled: bool,
    /// Its connection limit; -1 is none.
    pub connection_limit: i32,
    /// Whether it has attributes or memberships that no tenant's login needs: some let it see other tenants' rows.
    pub excess: bool,
}

/// Reads one tenant, in one snapshot.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn observe_tenant(operator: &Pool, tenant_id: &str) -> Result<ObservedTenant, EffectError> {
    let id = tenant_bytes(tenant_id)?;
    read(operator, &id, tenant_id).await.map_err(|error| failed(&format!("reading tenant {tenant_id}"), &error))
}

async fn read(operator: &Pool, id: &[u8], tenant_id: &str) -> Result<ObservedTenant, sqlx::Error> {
    let mut transaction = operator.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *transaction).await?;
    let mut observed = ObservedTenant::default();
    if let Some((generation, tenant)) = tenant_row(&mut transaction, id).await? {
        (observed.generation, observed.tenant) = (generation, Some(tenant));
    }
    observed.agents = agents(&mut transaction, id, None).await?;
    let keys: Vec<(Uuid, String, Vec<u8>)> = sqlx::query_as(
        "SELECT agent_id, prefix, hmac FROM acb.api_key WHERE tenant_id = $1 AND expires_at IS NULL ORDER BY prefix",
    )
    .bind(id)
    .fetch_all(&mut *transaction)
    .await?;
    for (agent_id, prefix, hmac) in keys {
        observed.api_keys.entry(agent_id.to_string()).or_default().push(StoredKey { prefix, hmac });
    }
    let replaced: Vec<Uuid> =
        sqlx::query_scalar("SELECT DISTINCT agent_id FROM acb.api_key WHERE tenant_id = $1 AND expires_at > clock_timestamp()")
            .bind(id)
            .fetch_all(&mut *transaction)
            .await?;
    observed.replaced_keys = replaced.iter().map(Uuid::to_string).collect();
    let topics = sqlx::query(
        "SELECT topic, partitions, retention_seconds, cleanup, max_message_bytes FROM acb.bus_topic WHERE tenant_id = $1",
    )
    .bind(id)
    .fetch_all(&mut *transaction)
    .await?;
    observed.topics = topics.iter().map(topic_spec).collect::<Result<_, _>>()?;
    let retired: Vec<(String, String, i64, bool)> = sqlx::query_as(
        "SELECT topic, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), retention_seconds,
                since + make_interval(secs => retention_seconds) <= clock_timestamp()
         FROM acb.retired_topic WHERE tenant_id = $1",
    )
    .bind(id)
    .fetch_all(&mut *transaction)
    .await?;
    let marked = |(topic, since, seconds, is_over)| (topic, RetiredTopic { since, retention_seconds: number(seconds), is_over });
    observed.retired = retired.into_iter().map(marked).collect();
    let name = format!("acb_t_{tenant_id}");
    let login: Option<(bool, i32, bool)> = sqlx::query_as(
        "SELECT rolcanlogin, rolconnlimit, has_column_privilege('pg_catalog.pg_authid', 'xmin', 'SELECT')
         FROM pg_catalog.pg_roles WHERE rolname = $1",
    )
    .bind(&name)
    .fetch_optional(&mut *transaction)
    .await?;
    // A bootstrap of an earlier version did not grant it.
    if login.is_some_and(|(_, _, may_see)| may_see) {
        let version: Option<i64> =
            sqlx::query_scalar("SELECT oid::bigint << 32 | xmin::text::bigint FROM pg_catalog.pg_authid WHERE rolname = $1")
                .bind(&name)
                .fetch_optional(&mut *transaction)
                .await?;
        observed.login_version = version.map(i64::cast_unsigned);
    }
    let excess = !postgres_excess::excess(&mut transaction, &name).await?.is_none();
    observed.login = login.map(|(enabled, connection_limit, _)| ObservedLogin { enabled, connection_limit, excess });
    transaction.commit().await?;
    Ok(observed)
}

fn topic_spec(row: &PgRow) -> Result<(String, TopicSpec), sqlx::Error> {
    let name: String = row.try_get("topic")?;
    let spec = TopicSpec {
        name: name.clone(),
        partitions: row.try_get::<i32, _>("partitions")?.unsigned_abs(),
        retention_seconds: number(row.try_get("retention_seconds")?),
        cleanup: row.try_get("cleanup")?,
        max_message_bytes: row.try_get::<i32, _>("max_message_bytes")?.unsigned_abs(),
    };
    Ok((name, spec))
}

/// A server that says nothing for so long is as good as away.
const LOGIN_WITHIN: Duration = Duration::from_secs(5);

/// Logs in with these options, which carry user and password.
pub async fn login_state(options: &PgConnectOptions) -> LoginState {
    let Ok(tried) = timeout(LOGIN_WITHIN, PgConnection::connect_with(options)).await else { return LoginState::Unknown };
    match tried {
        Ok(connection) => {
            // It is known by now; the farewell is only polite.
            let _ = timeout(LOGIN_WITHIN, connection.close()).await;
            LoginState::Works
        }
        Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
            Some("28P01" | "28000") => LoginState::Refused,
            _ if is_limit_of_login(&error) => LoginState::Works,
            _ => LoginState::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use sqlx::postgres::PgSslMode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that refuses every login with 53300: how to reach it.
    async fn full(message: &str, routine: &str) -> PgConnectOptions {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fields = [("S", "FATAL"), ("V", "FATAL"), ("C", "53300"), ("M", message), ("R", routine)];
        let mut body: Vec<u8> = fields.iter().flat_map(|(name, value)| format!("{name}{value}\0").into_bytes()).collect();
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let answer = [b"E".as_slice(), length.as_slice(), body.as_slice()].concat();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username("a").ssl_mode(PgSslMode::Disable)
    }

    #[tokio::test]
    async fn what_a_full_login_says_is_understood_in_every_language() {
        for message in ["too many connections for role \"a\"", "zu viele Verbindungen für Rolle »a«"] {
            assert_eq!(login_state(&full(message, "InitializeSessionUserId").await).await, LoginState::Works, "{message}");
        }
        // A server that is full has not looked at the password.
        let options = full("sorry, too many clients already for role a", "InitProcess").await;
        assert_eq!(login_state(&options).await, LoginState::Unknown);
        let error = PgConnection::connect_with(&options).await.unwrap_err();
        let said = failed("reading tenant 1", &error).to_string();
        assert!(said.contains("connections that it takes are in use") && said.contains("max_connections"), "{said}");
    }
}
