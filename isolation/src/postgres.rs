//! Against PostgreSQL, with the login of the attacker's hub.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    attack::{Attack, Outcome, Wall},
    target::{Attacker, PostgresAccess, Victim},
};

/// Tables that hold what tenants would not want read.
const TABLES: [&str; 45] = [
    "tenant",
    "context_type",
    "retired_topic",
    "agent",
    "group_member",
    "api_key",
    "cluster_issuer",
    "oidc_issuer",
    "service_account",
    "credential_use",
    "registered_agent",
    "registered_key",
    "registration_count",
    "presence",
    "refresh_token",
    "bus_topic",
    "bus_partition",
    "bus_record",
    "mailbox",
    "mailbox_checkpoint",
    "log_cut",
    "cursor",
    "delivery",
    "dead_letter",
    "dead_letter_checkpoint",
    "lease",
    "timer",
    "message_trace",
    "upload",
    "chunk",
    "context",
    "outbox",
    "audit_record",
    "audit_node",
    "audit_growth",
    "audit_checkpoint",
    "audit_sink",
    "operator_act",
    "operator_act_kept",
    "usage_sum",
    "usage_checkpoint",
    "usage_gap",
    "usage_export",
    "stream_count",
    "encryption_key",
];

/// What must be refused with an error, or change no row: the name, what would be had, and the SQL. `{victim}`: the victim's tenant id in
/// hex; `{login}`: its login; `{name}`: its name.
const STATEMENTS: &[(&str, &str, &str)] = &[
    ("remove.own-trail", "an audit trail that is silent about what was done", "DELETE FROM acb.audit_record"),
    ("remove.own-bill", "a month that nobody pays for", "DELETE FROM acb.usage_sum WHERE period = 'month'"),
    (
        "forge.usage",
        "messages on the neighbour's bill",
        "INSERT INTO acb.usage_sum (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
         SELECT decode('{victim}', 'hex'), 'month', '2026-01-01Z', gen_random_uuid(), 'forged', 1000000, 1",
    ),
    (
        "forge.timer",
        "a message that the neighbour's hub sends later",
        "INSERT INTO acb.timer (tenant_id, timer_id, kind, subject, key, digest, content, made_at, due_at, try_at)
         SELECT decode('{victim}', 'hex'), gen_random_uuid(), 'forged', gen_random_uuid(), '', sha256(''), '', now(), now(), now()",
    ),
    (
        "forge.message",
        "a message in the neighbour's log",
        "INSERT INTO acb.bus_record (tenant_id, topic, partition, \"offset\", value, log_time)
         SELECT decode('{victim}', 'hex'), 'acb.{name}.sys.messages', 0, 9000000, '\\x00', now()",
    ),
    (
        "forge.mailbox",
        "a row in the neighbour's mailbox",
        "INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, position, log_time, expires_at)
         SELECT decode('{victim}', 'hex'), '*', 0, 0, 0, now(), now() + interval '1 day'",
    ),
    (
        "forge.refresh-token",
        "a token for the neighbour's agents",
        "INSERT INTO acb.refresh_token (tenant_id, token_hash, family, agent_id, expires_at)
         SELECT decode('{victim}', 'hex'), decode(repeat('00', 32), 'hex'), gen_random_uuid(), gen_random_uuid(), now() + interval '1 day'",
    ),
    (
        "forge.presence",
        "the neighbour's sessions ended",
        "INSERT INTO acb.presence (tenant_id, agent_id, session_epoch) SELECT decode('{victim}', 'hex'), gen_random_uuid(), 1000",
    ),
    (
        "move.own-rows",
        "rows of one's own, planted with the neighbour",
        "WITH mine AS (INSERT INTO acb.presence (tenant_id, agent_id) SELECT acb.current_tenant(), gen_random_uuid() RETURNING agent_id)
         INSERT INTO acb.presence (tenant_id, agent_id) SELECT decode('{victim}', 'hex'), agent_id FROM mine",
    ),
    (
        "update.log-position",
        "the neighbour's log stopped",
        "UPDATE acb.bus_partition SET next_offset = next_offset + 1000 WHERE tenant_id = decode('{victim}', 'hex')",
    ),
    (
        "update.every-row",
        "every tenant's sessions ended",
        "UPDATE acb.presence SET session_epoch = session_epoch + 1 WHERE tenant_id <> acb.current_tenant()",
    ),
    ("delete.log", "the neighbour's messages gone", "DELETE FROM acb.bus_record WHERE tenant_id = decode('{victim}', 'hex')"),
    ("delete.contexts", "the neighbour's contexts gone", "DELETE FROM acb.context WHERE tenant_id = decode('{victim}', 'hex')"),
    (
        "forge.audit",
        "a record in the neighbour's audit trail",
        "INSERT INTO acb.audit_record (tenant_id, number, record, at, agent, operation)
         SELECT decode('{victim}', 'hex'), 9000000, '\\x00', now(), 'nobody', 'Nothing'",
    ),
    (
        "raise.own-acts",
        "something that the operator did not do, in one's own audit trail",
        "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change)
         VALUES (acb.current_tenant(), 'forged', 'AgentChanged', 'agent nobody', 'role admin to observer')",
    ),
    (
        "change.own-acts",
        "what the operator did, told otherwise",
        "UPDATE acb.operator_act SET change = 'nothing' WHERE tenant_id = acb.current_tenant()",
    ),
    ("remove.own-acts", "what the operator did, told to nobody", "DELETE FROM acb.operator_act WHERE tenant_id = acb.current_tenant()"),
    ("truncate.log", "everyone's messages gone", "TRUNCATE acb.bus_record"),
    ("raise.own-limits", "one's own limits lifted", "UPDATE acb.tenant SET limits = '{}' WHERE tenant_id = acb.current_tenant()"),
    ("raise.own-role", "one's own agents made admin", "UPDATE acb.agent SET role = 'admin' WHERE tenant_id = acb.current_tenant()"),
    (
        "raise.own-issuer",
        "an issuer of one's own, who says of anybody that it is an agent",
        "INSERT INTO acb.cluster_issuer (tenant_id, issuer, jwks) VALUES (acb.current_tenant(), 'https://taken.example', '{}')
         ON CONFLICT (tenant_id) DO UPDATE SET issuer = excluded.issuer",
    ),
    (
        "raise.own-oidc-issuer",
        "an OpenID Connect issuer of one's own, that the platform did not allow",
        "INSERT INTO acb.oidc_issuer (tenant_id, issuer, audiences, agent)
         VALUES (acb.current_tenant(), 'https://taken.example', '{acb}', 'claims.sub')
         ON CONFLICT (tenant_id, issuer) DO UPDATE SET agent = excluded.agent",
    ),
    (
        "raise.own-account",
        "a ServiceAccount that proves an agent",
        "INSERT INTO acb.service_account (tenant_id, agent_id, namespace, name, uid)
         SELECT tenant_id, agent_id, 'taken', name, 'taken' FROM acb.agent WHERE tenant_id = acb.current_tenant()",
    ),
    ("role.operator", "the operator's rights", "SET ROLE acb_operator"),
    ("role.owner", "the owner's rights", "SET ROLE acb_owner"),
    ("role.provisioner", "the right to make logins", "SET ROLE acb_provisioner"),
    ("role.neighbour", "the neighbour's login", "SET ROLE {login}"),
    ("authorization.neighbour", "the neighbour's login", "SET SESSION AUTHORIZATION {login}"),
    ("grant.neighbour", "membership in the neighbour's role", "GRANT {login} TO CURRENT_USER"),
    ("password.neighbour", "the neighbour's login", "ALTER ROLE {login} PASSWORD 'taken'"),
    ("bypass.self", "row-level security passed by", "ALTER ROLE CURRENT_USER BYPASSRLS"),
    ("create.role", "a login of one's own making", "CREATE ROLE intruder LOGIN SUPERUSER"),
    ("disable.row-security", "row-level security off", "ALTER TABLE acb.bus_record DISABLE ROW LEVEL SECURITY"),
    ("drop.policy", "row-level security off", "DROP POLICY tenant ON acb.bus_record"),
    (
        "replace.current-tenant",
        "another answer to who asks",
        "CREATE OR REPLACE FUNCTION acb.current_tenant() RETURNS bytea LANGUAGE sql STABLE AS $$ SELECT decode('{victim}', 'hex') $$",
    ),
    ("create.function", "a function that leaks rows from under a policy", "CREATE FUNCTION public.leak(text) RETURNS bool LANGUAGE sql AS 'SELECT true'"),
    ("create.temporary", "a table that shadows another", "CREATE TEMPORARY TABLE bus_record (tenant_id bytea)"),
    // It reads what it is given: one that ends before may break the pipe, which is neither a success nor a refusal.
    ("host.program", "a shell on the database's host", "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null'"),
    ("host.file", "files of the database's host", "SELECT pg_read_file('PG_VERSION')"),
    ("host.import", "files of the database's host", "SELECT lo_import('/etc/passwd')"),
    ("host.list", "the names of files on the database's host", "SELECT pg_ls_dir('.')"),
    ("host.read-binary", "files of the database's host", "SELECT pg_read_binary_file('PG_VERSION')"),
    ("host.file-facts", "what files the database's host has", "SELECT size FROM pg_stat_file('PG_VERSION')"),
    ("host.wal-files", "how much all tenants write", "SELECT name FROM pg_ls_waldir() LIMIT 1"),
    ("host.copy", "files of the database's host, as rows", "COPY acb.presence FROM '/dev/null'"),
    ("host.login-rules", "who may log in from where", "SELECT line_number FROM pg_hba_file_rules LIMIT 1"),
    ("host.settings", "how the server is set up", "SELECT sourceline FROM pg_file_settings LIMIT 1"),
    ("host.memory", "what the server keeps of whom", "SELECT name FROM pg_shmem_allocations LIMIT 1"),
    ("host.reset-statistics", "what autovacuum goes by, forgotten", "SELECT pg_stat_reset_single_table_counters(0)"),
    // It goes with the session.
    ("replicate.slot", "every tenant's changes, as a stream", "SELECT pg_create_physical_replication_slot('intruder', false, true)"),
    ("replicate.publication", "every tenant's changes, as a stream", "CREATE PUBLICATION intruder FOR ALL TABLES"),
    (
        "replicate.subscription",
        "connections from the database's host to wherever one likes",
        "CREATE SUBSCRIPTION intruder CONNECTION 'host=127.0.0.1' PUBLICATION intruder WITH (connect = false)",
    ),
    ("create.schema", "a schema that another's search path may find", "CREATE SCHEMA intruder"),
    ("create.table", "a table that no limit counts", "CREATE TABLE public.intruder (a integer)"),
    ("create.table-among-all", "a table that the next migration trips over", "CREATE TABLE acb.intruder (a integer)"),
    ("create.index", "every tenant's writes slowed", "CREATE INDEX intruder ON acb.bus_record (log_time)"),
    (
        "create.trigger",
        "code of one's own, run in the neighbours' sessions",
        "CREATE TRIGGER intruder BEFORE UPDATE ON acb.bus_record FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    ("create.rule", "nothing deleted any more, of any tenant", "CREATE RULE intruder AS ON DELETE TO acb.bus_record DO INSTEAD NOTHING"),
    ("create.wrapper", "a way to other servers", "CREATE FOREIGN DATA WRAPPER intruder"),
    ("create.language", "code that is not held to be harmless", "CREATE LANGUAGE intruder HANDLER plpgsql_call_handler"),
    ("create.large-object", "data that no policy covers and no limit counts", "SELECT lo_create(0)"),
    ("create.large-object-of-bytes", "data that no policy covers and no limit counts", "SELECT lo_from_bytea(0, '\\x00')"),
    ("alter.database", "every session of every tenant cut short", "ALTER DATABASE acb SET statement_timeout = 1"),
    ("alter.table", "every hub's schema changed", "ALTER TABLE acb.bus_record ADD COLUMN intruder integer"),
    ("drop.table", "every tenant's rows gone", "DROP TABLE acb.message_trace"),
    ("bar.neighbour", "the neighbour's hub shut out", "ALTER ROLE {login} NOLOGIN"),
    ("bar.neighbour-by-count", "the neighbour's hub shut out", "ALTER ROLE {login} CONNECTION LIMIT 0"),
    ("bar.neighbour-by-setting", "the neighbour's hub without a write", "ALTER ROLE {login} SET default_transaction_read_only = on"),
    ("bar.neighbour-by-date", "the neighbour's hub shut out", "ALTER ROLE {login} VALID UNTIL '2000-01-01'"),
    ("take.neighbours-objects", "what the neighbour owns", "REASSIGN OWNED BY {login} TO CURRENT_USER"),
    ("take.read-all", "every row", "GRANT pg_read_all_data TO CURRENT_USER"),
    ("take.write-all", "every row", "GRANT pg_write_all_data TO CURRENT_USER"),
    ("take.files", "files of the database's host", "GRANT pg_read_server_files TO CURRENT_USER"),
    ("take.signal", "other logins cut off", "GRANT pg_signal_backend TO CURRENT_USER"),
    ("read.statistics", "values in others' rows, as the planner knows them", "SELECT stanullfrac FROM pg_statistic LIMIT 1"),
    ("read.verifiers", "every login's verifier", "SELECT passwd FROM pg_shadow LIMIT 1"),
    (
        "authorization.by-setting",
        "the neighbour's rows, with the name that policies ask for set by hand",
        "SELECT set_config('session_authorization', '{login}', true)",
    ),
    ("silence.triggers", "one's own bill made smaller, past what guards it", "SET LOCAL session_replication_role = replica"),
    ("silence.log", "statements that no log tells of", "SET LOCAL log_min_messages = panic"),
    ("lock.advisory", "the server's room for locks, used up", "SELECT pg_try_advisory_xact_lock(1)"),
    ("lock.advisory-of-session", "the server's room for locks, used up", "SELECT pg_try_advisory_lock_shared(1, 1)"),
    ("read.passwords", "every login's verifier", "SELECT count(*) FROM pg_authid"),
    ("see.locks", "what others wait for", "SELECT pid FROM pg_locks LIMIT 1"),
    ("see.locks-by-function", "what others wait for", "SELECT pid FROM pg_lock_status() LIMIT 1"),
    ("see.totals", "how much all tenants write", "SELECT n_tup_ins FROM pg_stat_user_tables LIMIT 1"),
    ("see.totals-by-function", "how much all tenants write", "SELECT pg_stat_get_tuples_inserted('acb.bus_record'::regclass)"),
    ("see.transactions", "how much all tenants do", "SELECT xact_commit FROM pg_stat_database LIMIT 1"),
    ("see.sizes", "how much all tenants store", "SELECT pg_total_relation_size('acb.bus_record')"),
    ("see.log-position", "how much all tenants write", "SELECT pg_current_wal_lsn()"),
];

/// What no transaction takes back. Only the right to it is asked for, as the server would judge it: the name, what would be had, and SQL
/// that answers with a boolean.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("host.reload", "the server's settings read anew", "SELECT has_function_privilege('pg_reload_conf()', 'EXECUTE')"),
    (
        "end.sessions",
        "other logins cut off",
        "SELECT pg_has_role('pg_signal_backend', 'USAGE') OR pg_has_role('{login}', 'USAGE')",
    ),
];

pub(crate) fn attacks() -> Vec<Attack> {
    let reads = TABLES.map(|table| {
        let own = format!("SELECT count(*) FROM acb.{table} WHERE tenant_id = acb.current_tenant()");
        let theirs = format!("SELECT count(*) FROM acb.{table} WHERE tenant_id <> acb.current_tenant()");
        Attack::new(
            Wall::Postgres,
            format!("read.{table}"),
            format!("the neighbours' rows of acb.{table}"),
            move |attacker, _| {
                let (own, theirs) = (own.clone(), theirs.clone());
                Box::pin(async move { settle(read(attacker, own, theirs).await) })
            },
        )
        .once()
    });
    let statements = STATEMENTS.iter().map(|&(name, prize, sql)| {
        let attack = Attack::new(Wall::Postgres, name, prize, move |attacker, victim| {
            Box::pin(async move { settle(execute(attacker, fill(sql, victim)).await) })
        });
        if ["{victim}", "{login}", "{name}"].iter().any(|of| sql.contains(of)) { attack } else { attack.once() }
    });
    let rights = RIGHTS.iter().map(|&(name, prize, sql)| {
        let attack = Attack::new(Wall::Postgres, name, prize, move |attacker, victim| {
            Box::pin(async move { settle(right(&attacker.postgres, fill(sql, victim)).await) })
        });
        if sql.contains("{login}") { attack } else { attack.once() }
    });
    let mut attacks: Vec<Attack> = reads.into_iter().chain(statements).chain(rights).collect();
    attacks.push(
        Attack::new(Wall::Postgres, "read.others-queries", "what the neighbours' hubs ask", |attacker, _| {
            Box::pin(async move { settle(others_queries(&attacker.postgres).await) })
        })
        .once(),
    );
    attacks.push(Attack::new(
        Wall::Postgres,
        "login.neighbour",
        "the neighbour's login, by one's own password",
        |attacker, victim| Box::pin(async move { settle(log_in(attacker, &login(victim), &attacker.postgres.password).await) }),
    ));
    attacks.push(Attack::new(
        Wall::Postgres,
        "login.no-password",
        "the neighbour's login, without a password",
        |attacker, victim| Box::pin(async move { settle(log_in(attacker, &login(victim), "").await) }),
    ));
    attacks.push(
        Attack::new(Wall::Postgres, "login.operator", "the operator's login, by one's own password", |attacker, _| {
            Box::pin(async move { settle(log_in(attacker, "acb_operator", &attacker.postgres.password).await) })
        })
        .once(),
    );
    attacks.push(
        Attack::new(Wall::Postgres, "login.superuser", "the superuser's login, by one's own password", |attacker, _| {
            Box::pin(async move { settle(log_in(attacker, "postgres", &attacker.postgres.password).await) })
        })
        .once(),
    );
    attacks
}

fn login(victim: &Victim) -> String {
    format!("acb_t_{}", victim.tenant_id)
}

fn fill(sql: &str, victim: &Victim) -> String {
    sql.replace("{victim}", &victim.tenant_id).replace("{login}", &login(victim)).replace("{name}", &victim.tenant)
}

fn options(access: &PostgresAccess) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass();
    let options = match &access.ca_pem {
        Some(ca) => options.ssl_root_cert_from_pem(ca.clone().into_bytes()),
        None => options,
    };
    options
        .host(&access.host)
        .port(access.port)
        .database(&access.database)
        .username(&access.username)
        .password(&access.password)
        .ssl_mode(access.ssl_mode.parse().unwrap_or(PgSslMode::VerifyFull))
        .disable_statement_logging()
}

/// The server's refusals. Any other error proves nothing.
fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    // insufficient_privilege; invalid_authorization_specification and invalid_password.
    matches!(&*code, "42501" | "28000" | "28P01").then(|| format!("{code}: {}", error.message()))
}

fn settle(result: Result<Outcome, sqlx::Error>) -> Outcome {
    result.unwrap_or_else(|error| match refusal(&error) {
        Some(said) => Outcome::Refused(said),
        None => Outcome::Inconclusive(error.to_string()),
    })
}

pub(crate) async fn connect(access: &PostgresAccess) -> Result<PgConnection, Outcome> {
    // With its own credentials an attacker must get in, or nothing is proved.
    options(access).connect().await.map_err(|error| Outcome::Inconclusive(format!("could not log in as oneself: {error}")))
}

async fn read(attacker: &Attacker, own: String, theirs: String) -> Result<Outcome, sqlx::Error> {
    let mut connection = match connect(&attacker.postgres).await {
        Ok(connection) => connection,
        Err(outcome) => return Ok(outcome),
    };
    if let Err(error) = sqlx::query(AssertSqlSafe(own.clone())).fetch_one(&mut connection).await {
        return Ok(Outcome::Inconclusive(format!("could not read one's own rows: {error}")));
    }
    let rows: i64 = sqlx::query(AssertSqlSafe(theirs)).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(match rows {
        0 => unseen(attacker, &own).await,
        rows => Outcome::Succeeded(format!("{rows} rows")),
    })
}

/// What it means that no row was shown: who has such rows, counted as oneself, knows whether there were any.
async fn unseen(attacker: &Attacker, own: &str) -> Outcome {
    if attacker.witnesses.is_empty() {
        return Outcome::Nothing("no rows, and it is not known here whether a neighbour has any".to_owned());
    }
    let mut hidden: i64 = 0;
    for witness in &attacker.witnesses {
        let counted = async {
            let mut connection = options(witness).connect().await?;
            let rows: i64 = sqlx::query(AssertSqlSafe(own.to_owned())).fetch_one(&mut connection).await?.try_get(0)?;
            connection.close().await?;
            Ok::<_, sqlx::Error>(rows)
        };
        match counted.await {
            Ok(rows) => hidden += rows,
            Err(error) => return Outcome::Inconclusive(format!("could not ask a neighbour whether it has such rows: {error}")),
        }
    }
    match hidden {
        0 => Outcome::Nothing("no neighbour has such rows".to_owned()),
        hidden => Outcome::Refused(format!("none of {hidden} rows")),
    }
}

/// The rows of one's own in the table that a statement changes.
fn own_rows(sql: &str) -> Option<String> {
    let table = sql.strip_prefix("UPDATE ").or_else(|| sql.strip_prefix("DELETE FROM "))?.split_whitespace().next()?;
    Some(format!("SELECT count(*) FROM {table} WHERE tenant_id = acb.current_tenant()"))
}

async fn execute(attacker: &Attacker, sql: String) -> Result<Outcome, sqlx::Error> {
    let mut connection = match connect(&attacker.postgres).await {
        Ok(connection) => connection,
        Err(outcome) => return Ok(outcome),
    };
    let mut transaction = connection.begin().await?;
    let own = own_rows(&sql);
    let selects = sql.starts_with("SELECT");
    let rows = transaction.execute(AssertSqlSafe(sql)).await?.rows_affected();
    // Whatever it did, it is not kept: the attack is a proof, not a vandal.
    transaction.rollback().await?;
    connection.close().await?;
    Ok(match (rows, own) {
        (0, Some(own)) => unseen(attacker, &own).await,
        (0, None) if selects => Outcome::Inconclusive("there was nothing to try it on".to_owned()),
        (rows, _) => Outcome::Succeeded(format!("the statement ran ({rows} rows)")),
    })
}

async fn right(access: &PostgresAccess, sql: String) -> Result<Outcome, sqlx::Error> {
    let mut connection = match connect(access).await {
        Ok(connection) => connection,
        Err(outcome) => return Ok(outcome),
    };
    let is_held: bool = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut connection).await?.try_get(0)?;
    connection.close().await?;
    Ok(match is_held {
        false => Outcome::Refused("the server says that one has no right to it".to_owned()),
        true => Outcome::Succeeded("the server says that one has the right to it".to_owned()),
    })
}

async fn others_queries(access: &PostgresAccess) -> Result<Outcome, sqlx::Error> {
    let mut connection = match connect(access).await {
        Ok(connection) => connection,
        Err(outcome) => return Ok(outcome),
    };
    let seen: i64 = sqlx::query(
        "SELECT count(*) FROM pg_stat_activity
         WHERE usename <> session_user AND coalesce(query, '') NOT IN ('', '<insufficient privilege>')",
    )
    .fetch_one(&mut connection)
    .await?
    .try_get(0)?;
    connection.close().await?;
    Ok(match seen {
        0 => Outcome::Refused("no query of another login is shown".to_owned()),
        seen => Outcome::Succeeded(format!("{seen} queries of other logins")),
    })
}

async fn log_in(attacker: &Attacker, username: &str, password: &str) -> Result<Outcome, sqlx::Error> {
    if let Err(outcome) = connect(&attacker.postgres).await {
        return Ok(outcome);
    }
    let access = PostgresAccess { username: username.to_owned(), password: password.to_owned(), ..attacker.postgres.clone() };
    options(&access).connect().await?.close().await?;
    Ok(Outcome::Succeeded(format!("logged in as {username}")))
}

/// An agent of one's own.
pub(crate) struct OwnAgent {
    pub(crate) id: uuid::Uuid,
    pub(crate) name: String,
    /// What is known of the tenant now: a hub that knows less reads first.
    pub(crate) generation: i64,
    /// Tokens of another epoch are no longer valid.
    pub(crate) epoch: i64,
}

/// Whether one has an agent with this name, in a manifest or registered.
pub(crate) async fn has_agent(access: &PostgresAccess, name: &str) -> Result<bool, String> {
    let mut connection = connect(access).await.map_err(|outcome| format!("{outcome:?}"))?;
    let row = sqlx::query(
        "SELECT EXISTS (SELECT FROM acb.agent WHERE tenant_id = acb.current_tenant() AND name = $1)
             OR EXISTS (SELECT FROM acb.registered_agent WHERE tenant_id = acb.current_tenant() AND name = $1)",
    );
    let row = row.bind(name).fetch_one(&mut connection).await;
    row.and_then(|row| row.try_get(0)).map_err(|error| format!("could not read one's own agents: {error}"))
}

/// The agent of one's own that may do the most.
pub(crate) async fn own_agent(access: &PostgresAccess) -> Result<OwnAgent, String> {
    let mut connection = connect(access).await.map_err(|outcome| format!("{outcome:?}"))?;
    let row = sqlx::query(
        "SELECT agent_id, agent.name, credential_epoch, generation FROM acb.agent JOIN acb.tenant USING (tenant_id) WHERE NOT agent.suspended
         ORDER BY array_position(ARRAY['admin', 'agent-full', 'agent-producer', 'agent-consumer', 'observer', 'auditor'], role), agent.name LIMIT 1",
    );
    let row = row.fetch_optional(&mut connection).await.map_err(|error| format!("could not read one's own agents: {error}"))?;
    let row = row.ok_or("the tenant has no agent that its hub lets in: add one, or its door can't be tried")?;
    let read = || {
        Ok::<_, sqlx::Error>(OwnAgent {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            epoch: row.try_get(2)?,
            generation: row.try_get(3)?,
        })
    };
    read().map_err(|error| error.to_string())
}
