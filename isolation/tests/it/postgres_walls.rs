//! PostgreSQL's walls: row-level security, roles, authentication.

use std::time::{Duration, Instant};

use acb_isolation::{Attacker, Thing, Victim, Wall};
use sqlx::{Connection as _, PgConnection};

use crate::world::{World, all_refused, all_succeeded, run, succeeds_soon};

#[tokio::test]
async fn every_wall_stands() {
    let world = World::start().await;
    let report = acb_isolation::run(&world.attacker(), &[world.victim().await], |_| {}).await;
    all_refused(&report.rows);
    assert_eq!(report.attempts(), acb_isolation::attacks().iter().filter(|attack| attack.wall != Wall::Kafka).count());
    assert_eq!(report.refused() + report.nothing(), report.attempts());
}

#[tokio::test]
async fn where_there_is_nothing_to_find_that_is_what_is_said() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    let outcomes = async |attacker: &Attacker, victim: &Victim| {
        let attacks = ["postgres.read.context", "postgres.read.dead_letter", "postgres.delete.contexts", "hub.ids.get-context"];
        let rows = run(&attacks, attacker, victim).await;
        let found = |name: &str| rows.iter().find(|row| row.attack == name).unwrap().outcome.clone();
        (attacks.map(found).map(|outcome| outcome.is_refused()), rows)
    };
    // It has a context, and no dead letter.
    let (refused, rows) = outcomes(&attacker, &victim).await;
    assert_eq!(refused, [true, false, true, true], "{rows:?}");
    all_refused(&rows);
    // Who knows nothing of the neighbour but its name knows of none.
    let attacker = Attacker { witnesses: Vec::new(), ..world.attacker() };
    let victim = Victim { invented: vec![Thing::Context], ..victim };
    let (refused, rows) = outcomes(&attacker, &victim).await;
    assert_eq!(refused, [false; 4], "{rows:?}");
    all_refused(&rows);
    // A wall that is down is seen in either case.
    for table in ["context", "dead_letter"] {
        world.sql(&format!("ALTER TABLE acb.{table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")).await;
    }
    let rows = run(&["postgres.read.context", "postgres.delete.contexts"], &attacker, &victim).await;
    let breaches = rows.iter().filter(|row| !row.outcome.is_refused() && !row.outcome.is_nothing());
    assert!(breaches.clone().any(|row| row.attack == "postgres.read.context"), "{rows:?}");
    assert!(breaches.clone().any(|row| row.attack == "postgres.delete.contexts"), "{rows:?}");
}

#[tokio::test]
async fn without_row_level_security_rows_are_read_forged_and_destroyed() {
    let world = World::start().await;
    let tables = tables(&world).await;
    let reads: Vec<String> = tables.iter().map(|table| format!("postgres.read.{table}")).collect();
    let names: Vec<String> = acb_isolation::attacks().into_iter().map(|attack| attack.name).collect();
    for read in &reads {
        assert!(names.contains(read), "there is no attack {read}: add the table to the attacks");
    }
    let mut attacks: Vec<&str> = reads.iter().map(String::as_str).collect();
    attacks.extend(["postgres.forge.", "postgres.move.", "postgres.update.", "postgres.delete."]);

    let (attacker, victim) = (world.attacker(), world.victim().await);
    furnish(&world).await;
    all_refused(&run(&attacks, &attacker, &victim).await);
    for table in &tables {
        world.sql(&format!("ALTER TABLE acb.{table} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")).await;
    }
    all_succeeded(&run(&attacks, &attacker, &victim).await);
    for table in &tables {
        world.sql(&format!("ALTER TABLE acb.{table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")).await;
    }
    all_refused(&run(&attacks, &attacker, &victim).await);
}

#[tokio::test]
async fn with_others_roles_and_at_last_a_superusers_everything_can_be_had() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    furnish(&world).await;
    let (acme, globex) = (world.acme.username(), world.globex.username());

    let roles =
        ["postgres.role.", "postgres.grant.", "postgres.truncate.", "postgres.disable.", "postgres.drop.", "postgres.replace."];
    let projected = ["postgres.raise."];
    all_refused(&run(&[roles.as_slice(), &projected].concat(), &attacker, &victim).await);
    for role in ["acb_operator", "acb_owner", "acb_provisioner", acme] {
        world.sql(&format!("GRANT {role} TO {globex} WITH ADMIN OPTION")).await;
    }
    all_succeeded(&run(&[roles.as_slice(), &projected].concat(), &attacker, &victim).await);
    for role in ["acb_operator", "acb_owner", "acb_provisioner", acme] {
        world.sql(&format!("REVOKE {role} FROM {globex}")).await;
    }
    all_refused(&run(&[roles.as_slice(), &projected].concat(), &attacker, &victim).await);

    world.sql(&format!("ALTER ROLE {globex} SUPERUSER")).await;
    let others = acb_isolation::attacks();
    let others = others.iter().map(|attack| attack.name.as_str());
    let others: Vec<&str> = others.filter(|name| name.starts_with("postgres.") && !name.starts_with("postgres.login.")).collect();
    all_succeeded(&run(&others, &attacker, &victim).await);
}

#[tokio::test]
async fn each_right_alone_is_what_refused_its_attack() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    let globex = world.globex.username();
    for (down, attack) in [
        (format!("GRANT pg_signal_backend TO {globex}"), "postgres.end.sessions"),
        (format!("GRANT pg_read_all_stats TO {globex}"), "postgres.read.others-queries"),
        (format!("GRANT pg_execute_server_program TO {globex}"), "postgres.host.program"),
        (format!("GRANT TRUNCATE ON acb.bus_record TO {globex}"), "postgres.truncate.log"),
        (format!("GRANT UPDATE ON acb.tenant TO {globex}"), "postgres.raise.own-limits"),
        (format!("GRANT UPDATE ON acb.agent TO {globex}"), "postgres.raise.own-role"),
        (format!("GRANT INSERT, UPDATE ON acb.cluster_issuer TO {globex}"), "postgres.raise.own-issuer"),
        (format!("GRANT INSERT, UPDATE ON acb.oidc_issuer TO {globex}"), "postgres.raise.own-oidc-issuer"),
        (format!("GRANT INSERT ON acb.service_account TO {globex}"), "postgres.raise.own-account"),
        (format!("GRANT INSERT ON acb.operator_act TO {globex}"), "postgres.raise.own-acts"),
        (format!("GRANT UPDATE ON acb.operator_act TO {globex}"), "postgres.change.own-acts"),
        (format!("GRANT DELETE ON acb.operator_act TO {globex}"), "postgres.remove.own-acts"),
        (format!("GRANT TEMP ON DATABASE acb TO {globex}"), "postgres.create.temporary"),
        (format!("GRANT CREATE ON SCHEMA public TO {globex}"), "postgres.create.function"),
        (format!("GRANT SELECT ON pg_authid TO {globex}"), "postgres.read.passwords"),
    ] {
        all_refused(&run(&[attack], &attacker, &victim).await);
        world.sql(&down).await;
        all_succeeded(&run(&[attack], &attacker, &victim).await);
    }
}

/// What no transaction takes back is not done, whoever may do it.
#[tokio::test]
async fn who_may_end_sessions_and_reload_settings_is_told_without_doing_either() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    let World { acme_hub, globex_hub, acme, globex, postgres, .. } = world;
    drop((acme_hub, globex_hub));
    let mut superuser = postgres.superuser().await;
    let globex = globex.username();
    let reload = "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO";
    for grant in [format!("GRANT pg_signal_backend TO {globex}"), format!("{reload} {globex}")] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut superuser).await.unwrap();
    }
    let mut session = PgConnection::connect_with(&acme.connect_options()).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    // The hubs' own sessions end, so that this is the one that an attack would find.
    let others = "SELECT count(*) FROM pg_stat_activity WHERE usename = session_user AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut session).await.unwrap() > 0 {
        assert!(Instant::now() < deadline, "the hub's sessions do not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let loaded = "SELECT pg_conf_load_time()::text";
    let before: String = sqlx::query_scalar(loaded).fetch_one(&mut superuser).await.unwrap();
    all_succeeded(&run(&["postgres.end.sessions", "postgres.host.reload"], &attacker, &victim).await);
    sqlx::query("SELECT 1").execute(&mut session).await.expect("the neighbour's session was ended");
    let mut anew = postgres.superuser().await;
    let after: String = sqlx::query_scalar(loaded).fetch_one(&mut anew).await.unwrap();
    assert_eq!(after, before, "the settings were read anew");
}

#[tokio::test]
async fn a_bill_only_grows() {
    let world = World::start().await;
    furnish(&world).await;
    let mut acme = PgConnection::connect_with(&world.acme.connect_options()).await.unwrap();
    let changed = async |acme: &mut PgConnection, sql: &'static str| {
        sqlx::query(sql).execute(acme).await.map(|done| done.rows_affected()).map_err(|error| error.to_string())
    };
    assert_eq!(changed(&mut acme, "DELETE FROM acb.usage_sum WHERE messages = 1").await, Ok(0));
    for smaller in ["messages = 0", "bytes = 0", "starts_at = '2020-01-01Z'"] {
        let sql = format!("UPDATE acb.usage_sum SET {smaller} WHERE messages = 1");
        let error = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut acme).await.unwrap_err();
        assert!(error.to_string().contains("only grows"), "{smaller}: {error}");
    }
    assert_eq!(changed(&mut acme, "UPDATE acb.usage_sum SET messages = 2 WHERE messages = 1").await, Ok(1));
}

#[tokio::test]
async fn who_watches_the_server_sees_what_a_tenant_does_not() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    all_refused(&run(&["postgres.see."], &attacker, &victim).await);
    world.sql(&format!("GRANT pg_monitor TO {}", world.globex.username())).await;
    all_succeeded(&run(&["postgres.see."], &attacker, &victim).await);
}

#[tokio::test]
async fn without_authentication_any_login_can_be_had() {
    let world = World::start().await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    all_refused(&run(&["postgres.login."], &attacker, &victim).await);
    world
        .sql(
            "DO $$ BEGIN EXECUTE format('COPY (SELECT ''host all all 127.0.0.1/32 trust'') TO %L', current_setting('hba_file')); END $$;
             SELECT pg_reload_conf()",
        )
        .await;
    succeeds_soon("postgres.login.", &attacker, &victim).await;
}

/// Every table that holds tenants' rows.
async fn tables(world: &World) -> Vec<String> {
    let mut superuser = world.postgres.superuser().await;
    sqlx::query_scalar(
        "SELECT relname::text FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
         WHERE relnamespace = 'acb'::regnamespace AND relkind = 'r' AND attname = 'tenant_id' ORDER BY 1",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap()
}

/// Gives acme a row wherever its hub has made none yet.
async fn furnish(world: &World) {
    let (acme, alice) = (format!("'\\x{}'", world.acme.id_hex()), format!("'{}'", world.alice.id));
    let any = "'00000000-0000-4000-8000-000000000001'";
    for (table, columns, values) in [
        ("retired_topic", "topic, retention_seconds", "'acb.acme.documents', 60".to_owned()),
        ("cluster_issuer", "issuer, jwks", "'https://issuer', '{}'".to_owned()),
        ("oidc_issuer", "issuer, audiences, agent", "'https://issuer', '{acb}', 'claims.sub'".to_owned()),
        ("service_account", "agent_id, namespace, name, uid", format!("{alice}, 'acb-acme', 'alice', 'uid'")),
        ("credential_use", "credential, used_at", "'alice', now()".to_owned()),
        ("registered_agent", "agent_id, name, registered_by", format!("{any}, 'helper', {alice}")),
        ("registered_key", "prefix, agent_id, hmac, by_key", format!("'helper', {any}, decode(repeat('00', 32), 'hex'), 'own'")),
        ("registration_count", "count", "1".to_owned()),
        ("presence", "agent_id", alice.clone()),
        (
            "mailbox",
            "address, epoch, partition, position, log_time, expires_at",
            "'*', 1, 0, 0, now(), now() + '1 day'".to_owned(),
        ),
        ("mailbox_checkpoint", "epoch, partition, next_position", "99, 0, 0".to_owned()),
        ("log_cut", "ended, epoch", "98, 99".to_owned()),
        ("cursor", "agent_id, epoch, partition, acknowledged_below", format!("{alice}, 99, 0, 0")),
        ("delivery", "agent_id, epoch, partition, position, attempts", format!("{alice}, 99, 0, 0, 1")),
        (
            "dead_letter",
            "letter_id, message_id, reason, attempts, sender, sender_name, recipient, recipient_name, topic, type, size, sent_at, expires_at,
             dead_at, epoch, partition, \"offset\"",
            format!("{any}, {any}, 'expired', 0, {alice}, 'alice', '*', '', 't', 'event', 0, now(), now(), now(), 99, 0, 0"),
        ),
        ("dead_letter_checkpoint", "epoch, partition, next_offset", "99, 0, 0".to_owned()),
        ("audit_record", "number, record, at, agent, operation", "1000000, '', now(), 'alice', 'GetContext'".to_owned()),
        ("audit_node", "level, index, hash", "0, 1000000, decode(repeat('00', 32), 'hex')".to_owned()),
        ("audit_growth", "first, size, epoch, next_offset", "1000000, 1000001, 99, 1".to_owned()),
        ("audit_checkpoint", "size, verifier, note", "1000000, 'k', 'n'".to_owned()),
        (
            "usage_sum",
            "period, starts_at, agent_id, agent, messages, bytes",
            format!("'month', '2026-01-01Z', {alice}, 'alice', 1, 1"),
        ),
        ("usage_checkpoint", "epoch, partition, next_position", "99, 1000, 0".to_owned()),
        ("stream_count", "replica, until, streams", format!("{any}, now() + '1 day', 1")),
        (
            "encryption_key",
            "agent_id, key_id, suite, public_key",
            format!("{alice}, decode(repeat('00', 32), 'hex'), 'X25519', decode(repeat('00', 32), 'hex')"),
        ),
        ("usage_gap", "what", "'records'".to_owned()),
        ("usage_export", "topic_epoch", "1".to_owned()),
        ("lease", "lease, until", format!("{any}, now() + '1 day'")),
        // As of a newer hub: its alarm leaves it.
        (
            "timer",
            "timer_id, kind, subject, key, digest, content, made_at, due_at, try_at",
            format!("{any}, 'later', {any}, '', sha256(''), '', now(), now(), now()"),
        ),
        ("message_trace", "epoch, partition, section, replica, events", "99, 0, 0, 'r', ''".to_owned()),
        // Its relay has no use for what it can't read, and leaves it.
        (
            "bus_record",
            "topic, partition, \"offset\", value, log_time",
            "'acb.acme.sys.dlq', 0, 1000000, '\\x00', now()".to_owned(),
        ),
        // As of a newer hub: its relay leaves it.
        ("outbox", "noun, instance, topic, kind, content", format!("'later', {any}, 'unknown', 1, '\\x00'")),
    ] {
        world
            .sql(&format!("INSERT INTO acb.{table} (tenant_id, {columns}) VALUES ({acme}, {values}) ON CONFLICT DO NOTHING"))
            .await;
    }
}
