//! What the operator's login tries beyond its trade: it is trusted with tenants' rows, and not with roles or the host.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::world::{World, assert_refused, attempt, code, number};

crate::on_each_version!(
    neither_superuser_nor_provisioner,
    functions_take_ids_and_verifiers_only,
    provisioner_touches_nothing_of_the_owner
);

async fn operator(world: &World) -> PgConnection {
    PgConnection::connect_with(&world.pg.operator_options()).await.unwrap()
}

async fn neither_superuser_nor_provisioner(world: &World) {
    let mut connection = operator(world).await;
    let tenant = world.acme.username();
    for role in ["", "SET ROLE acb_owner; "] {
        for sql in [
            "SET ROLE acb_provisioner",
            "SET ROLE postgres",
            "CREATE ROLE mine",
            "ALTER ROLE acb_operator SUPERUSER",
            "ALTER ROLE acb_operator CREATEROLE",
            "ALTER ROLE acb_operator BYPASSRLS",
            "GRANT acb_provisioner TO acb_operator",
            "GRANT pg_execute_server_program TO acb_operator",
            "GRANT pg_read_server_files TO acb_owner",
            "UPDATE acb_provision.leader SET epoch = 0",
            "CREATE FUNCTION acb_provision.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION acb_provision.check_epoch(bigint)",
            "CREATE FUNCTION acb.mine() RETURNS int LANGUAGE c AS 'x'",
            "CREATE SCHEMA mine",
            "CREATE TEMP TABLE mine (x int)",
            "CREATE EVENT TRIGGER mine ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "COPY (SELECT 1) TO PROGRAM 'id'",
            "COPY (SELECT 1) TO '/tmp/acb-mine'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT rolpassword FROM pg_authid",
            "SET session_replication_role = replica",
        ] {
            assert_refused(&mut connection, &format!("{role}{sql}")).await;
        }
        for sql in [
            format!("{role}SET ROLE {tenant}"),
            format!("{role}ALTER ROLE {tenant} PASSWORD 'x'"),
            format!("{role}GRANT {tenant} TO acb_operator"),
        ] {
            assert_refused(&mut connection, &sql).await;
        }
    }
    // What it is for.
    assert!(number(&mut connection, "SELECT count(DISTINCT tenant_id) FROM acb.agent").await >= 2);
}

async fn functions_take_ids_and_verifiers_only(world: &World) {
    let mut connection = operator(world).await;
    let epoch = world.pg.epoch().0;
    let id = world.acme.id_hex();
    let verifier = acb_operator::bootstrap::scram_verifier("x").unwrap();
    for (id, verifier, connections) in [
        ("postgres", verifier.as_str(), 5),
        ("0011223344556677889", verifier.as_str(), 5),
        ("0011223344556677889G", verifier.as_str(), 5),
        ("00112233445566778899\n", verifier.as_str(), 5),
        ("00112233445566778899; DROP ROLE postgres", verifier.as_str(), 5),
        (id, "password", 5),
        (id, "", 5),
        (id, "md5d41d8cd98f00b204e9800998ecf8427e", 5),
        (id, &format!("{verifier}' SUPERUSER"), 5),
        (id, verifier.as_str(), 0),
        (id, verifier.as_str(), -1),
    ] {
        let error = sqlx::query("SELECT acb_provision.ensure_login($1, $2, $3, $4)")
            .bind(epoch)
            .bind(id)
            .bind(verifier)
            .bind(connections)
            .execute(&mut connection)
            .await
            .unwrap_err();
        assert_eq!(code(&error), "22023", "{id:?}: {error}");
    }
    for call in
        ["check_epoch($)", "end_overlong($, '1 h')", "end_sessions($, 'ID')", "disable_login($, 'ID')", "drop_login($, 'ID')"]
    {
        let sql = format!("SELECT acb_provision.{}", call.replace('$', &(epoch - 1).to_string()).replace("ID", id));
        let error = attempt(&mut connection, &sql).await.unwrap_err();
        assert_eq!(code(&error), "ACB01", "{sql}: {error}");
    }
}

/// With a trigger on a table that the provisioner's functions wrote, or a function that they called, the operator could run its own
/// code as the provisioner.
async fn provisioner_touches_nothing_of_the_owner(world: &World) {
    let mut connection = operator(world).await;
    sqlx::raw_sql(
        "BEGIN; SET LOCAL ROLE acb_owner;
         CREATE FUNCTION acb.trap() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'trapped as %', current_user USING ERRCODE = 'TRAP1'; END $$;
         GRANT EXECUTE ON FUNCTION acb.trap() TO PUBLIC;",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    for table in &world.tables {
        let sql = format!(
            "CREATE TRIGGER trap BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION acb.trap()"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    let (epoch, id) = (world.pg.epoch().0, "ffffffffffffffffffff");
    let verifier = acb_operator::bootstrap::scram_verifier("x").unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!(
        "RESET ROLE; SELECT acb_provision.ensure_login({epoch}, '{id}', '{verifier}', 5); SELECT acb_provision.end_sessions({epoch}, '{id}');
         SELECT acb_provision.end_overlong({epoch}, '1 h'); SELECT acb_provision.disable_login({epoch}, '{id}');
         SELECT acb_provision.drop_login({epoch}, '{id}'); SELECT acb_provision.claim_leadership('test');"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    // The trap works, where something steps into it.
    let error = sqlx::raw_sql("UPDATE acb.tenant SET name = name").execute(&mut connection).await.unwrap_err();
    assert_eq!(code(&error), "TRAP1");
    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
}
