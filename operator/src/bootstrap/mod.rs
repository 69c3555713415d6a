//! What a DBA runs once, and again after a major upgrade or a restore: roles, the database, and the functions through which the
//! operator makes tenants' logins. Needs a superuser; everything after it does not.

mod bus;
mod leader;
mod migrate;
mod scram;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};

pub(crate) use self::leader::max_connections;
pub use self::{
    bus::keep_bus,
    leader::{LeaderEpoch, claim_leadership},
    migrate::{MigrateError, migrate},
    scram::scram_verifier,
};

/// The database that holds everything of ACB.
pub const DATABASE: &str = "acb";
/// The operator's login.
pub const OPERATOR: &str = "acb_operator";

const OLDEST: i32 = 150_000;

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// ACB's alone: tenants are barred from its other databases, too.
    Exclusive,
    /// Others use it: its other databases are left alone, and named in a warning where tenants could connect to them.
    Shared,
}

/// Why the bootstrap failed. It can be run again.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// PostgreSQL said no, or does not answer.
    #[error("bootstrap of PostgreSQL: {what}: {source}")]
    Sql {
        /// Which part.
        what: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// Too old.
    #[error("PostgreSQL {0} is too old: 15 or later is needed")]
    TooOld(String),
    /// Not a superuser.
    #[error("bootstrap needs a superuser, and {0:?} is none: have a DBA run it")]
    NotSuperuser(String),
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

fn sql(what: &'static str) -> impl FnOnce(sqlx::Error) -> BootstrapError {
    move |source| BootstrapError::Sql { what, source }
}

/// Makes roles, database and functions, or brings them up to date. `superuser` connects to any database. Answers with warnings for the
/// DBA.
///
/// # Errors
/// What could not be made. Nothing that a second run would not mend is left behind.
pub async fn bootstrap(
    superuser: &PgConnectOptions,
    operator_password: &str,
    server: Server,
) -> Result<Vec<String>, BootstrapError> {
    // This process logs no statement, however slow: a verifier is in the text of one.
    let superuser = superuser.clone().disable_statement_logging();
    let mut connection = PgConnection::connect_with(&superuser).await.map_err(sql("connecting"))?;
    check(&mut connection).await?;
    // PostgreSQL logs the text of failed and of slow statements: it gets a verifier, never a password.
    let verifier = scram_verifier(operator_password).map_err(BootstrapError::Random)?;
    sqlx::raw_sql(include_str!("roles.sql")).execute(&mut connection).await.map_err(sql("making roles"))?;
    sqlx::raw_sql(AssertSqlSafe(format!("ALTER ROLE {OPERATOR} PASSWORD '{verifier}'")))
        .execute(&mut connection)
        .await
        .map_err(sql("setting the operator's password"))?;

    let exists = sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await
        .map_err(sql("looking for the database"))?;
    if !exists {
        // Locale C: no index depends on the collations of the host's C library, which change with its upgrades.
        sqlx::raw_sql("CREATE DATABASE acb TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
            .execute(&mut connection)
            .await
            .map_err(sql("making the database"))?;
    }
    if server == Server::Exclusive {
        sqlx::raw_sql("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
            .execute(&mut connection)
            .await
            .map_err(sql("closing the other databases"))?;
    }
    let warnings = warnings(&mut connection).await?;
    let _ = connection.close().await;

    let mut connection = PgConnection::connect_with(&superuser.database(DATABASE)).await.map_err(sql("connecting to acb"))?;
    let mut transaction = connection.begin().await.map_err(sql("beginning"))?;
    sqlx::raw_sql(include_str!("database.sql")).execute(&mut *transaction).await.map_err(sql("making schemas"))?;
    sqlx::raw_sql(include_str!("provision.sql")).execute(&mut *transaction).await.map_err(sql("making functions"))?;
    transaction.commit().await.map_err(sql("committing"))?;
    let _ = connection.close().await;
    Ok(warnings)
}

/// Numbers that were never given before, also where the backup is older than the last time. A hub that goes on reads what is newer than what it has.
const END_TOKENS: &str = "
    UPDATE acb.tenant SET credential_epoch = greatest(credential_epoch + 1, now.seconds), generation = greatest(generation + 1, now.seconds)
    FROM (SELECT extract(epoch FROM clock_timestamp())::bigint AS seconds) AS now RETURNING tenant_id, name, credential_epoch";

/// Ends every token that was issued until now, of all tenants, and says of how many. After a restore: what was revoked since the backup would live
/// again. API keys and ServiceAccounts log in as before.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn end_tokens(superuser: &PgConnectOptions) -> Result<u64, BootstrapError> {
    let options = superuser.clone().database(DATABASE);
    let mut connection = PgConnection::connect_with(&options).await.map_err(sql("connecting to acb"))?;
    check(&mut connection).await?;
    // What is restored may be of before there were acts: the operator brings its schema up to date only later.
    let has_acts: bool = sqlx::query_scalar("SELECT to_regclass('acb.operator_act') IS NOT NULL")
        .fetch_one(&mut connection)
        .await
        .map_err(sql("looking at the schema"))?;
    let end = if has_acts {
        format!(
            "WITH ended AS ({END_TOKENS})
             INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change)
             SELECT tenant_id, 'acb bootstrap', 'TokensEnded', format('tenant %s', name),
                    format('all that were issued before; credential epoch %s', credential_epoch) FROM ended"
        )
    } else {
        END_TOKENS.to_owned()
    };
    let ended = sqlx::query(AssertSqlSafe(end)).execute(&mut connection).await.map_err(sql("ending tokens"))?;
    let _ = connection.close().await;
    Ok(ended.rows_affected())
}

async fn check(connection: &mut PgConnection) -> Result<(), BootstrapError> {
    let (number, version, user, superuser): (i32, String, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), session_user::text,
                current_setting('is_superuser')::bool",
    )
    .fetch_one(connection)
    .await
    .map_err(sql("reading the version"))?;
    if number < OLDEST {
        return Err(BootstrapError::TooOld(version));
    }
    if !superuser {
        return Err(BootstrapError::NotSuperuser(user));
    }
    Ok(())
}

async fn warnings(connection: &mut PgConnection) -> Result<Vec<String>, BootstrapError> {
    let open: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_catalog.pg_database
         WHERE datallowconn AND datname <> $1 AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1",
    )
    .bind(DATABASE)
    .fetch_all(&mut *connection)
    .await
    .map_err(sql("looking at other databases"))?;
    let trusting: Vec<String> = sqlx::query_scalar(
        "SELECT format('line %s: %s %s %s %s', line_number, type, database, user_name, coalesce(address, ''))
         FROM pg_catalog.pg_hba_file_rules WHERE auth_method IN ('trust', 'password', 'md5')",
    )
    .fetch_all(connection)
    .await
    .map_err(sql("looking at pg_hba.conf"))?;
    let open = open.into_iter().map(|name| {
        format!(
            "tenants can connect to database {name:?}: where nothing needs it, REVOKE CONNECT ON DATABASE \"{name}\" FROM PUBLIC"
        )
    });
    let trusting =
        trusting.into_iter().map(|rule| format!("pg_hba.conf, {rule}: not scram-sha-256; a tenant could log in as another"));
    Ok(open.chain(trusting).collect())
}
