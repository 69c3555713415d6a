-- Run by a superuser in the database acb, in one transaction. May be repeated.
REVOKE ALL ON DATABASE acb FROM PUBLIC;
GRANT CONNECT ON DATABASE acb TO acb_operator, acb_tenant;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- A tenant must own nothing: large objects have no policies, and whoever owns one can't be dropped. No code of a tenant's own either. And nothing of
-- ACB uses advisory locks: all of a server's share one table of locks, which one login could fill for everybody.
REVOKE ALL ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO acb_owner, acb_provisioner;
DO $$
DECLARE
    routine regprocedure;
BEGIN
    FOR routine IN
        SELECT oid::regprocedure FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname ~ '^(lo_|loread$|lowrite$|pg_(try_)?advisory_)'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', routine);
    END LOOP;
END
$$;

-- What the server shows of all locks and tables together is nothing for a tenant: what others wait for, and how much all of them write and store. Whoever
-- watches the server keeps it. A view shows what those who read it may call, so that the functions alone would do; the views make the refusal plain.
-- The list of sessions stays: a hub finds its own in it, and ends one that it lost before it appends again.
DO $$
DECLARE
    shown record;
BEGIN
    FOR shown IN
        SELECT 'EXECUTE' AS privilege, 'FUNCTION ' || oid::regprocedure AS item FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace
          AND ((proname ~ '^pg_stat_get_' AND proname <> 'pg_stat_get_activity')
               OR proname IN ('pg_lock_status', 'pg_blocking_pids', 'pg_current_wal_lsn', 'pg_current_wal_insert_lsn',
                              'pg_current_wal_flush_lsn', 'pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size'))
        UNION ALL
        SELECT 'SELECT', 'TABLE ' || oid::regclass FROM pg_catalog.pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'v'
          AND ((relname ~ '^pg_stat(io)?_' AND relname <> 'pg_stat_activity') OR relname = 'pg_locks')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', shown.item);
        EXECUTE format('GRANT %s ON %s TO pg_read_all_stats', shown.privilege, shown.item);
    END LOOP;
END
$$;

-- By these the operator sees that someone changed a login, without trying its password at each look. They tell nothing of the password.
GRANT SELECT (oid, rolname, xmin) ON pg_catalog.pg_authid TO acb_operator;

CREATE SCHEMA IF NOT EXISTS acb AUTHORIZATION acb_owner;
ALTER SCHEMA acb OWNER TO acb_owner;
REVOKE ALL ON SCHEMA acb FROM PUBLIC;
GRANT USAGE ON SCHEMA acb TO acb_operator, acb_tenant;
ALTER DEFAULT PRIVILEGES FOR ROLE acb_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE acb_provisioner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE SCHEMA IF NOT EXISTS acb_provision AUTHORIZATION acb_provisioner;
ALTER SCHEMA acb_provision OWNER TO acb_provisioner;
REVOKE ALL ON SCHEMA acb_provision FROM PUBLIC;
GRANT USAGE ON SCHEMA acb_provision TO acb_operator;

-- How far the schema is. One row: migrations run under its lock.
SET LOCAL ROLE acb_owner;
CREATE TABLE IF NOT EXISTS acb.schema_version (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version    integer NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO acb.schema_version (version) VALUES (0) ON CONFLICT DO NOTHING;
REVOKE ALL ON acb.schema_version FROM PUBLIC;
GRANT SELECT ON acb.schema_version TO acb_operator, acb_tenant;
RESET ROLE;
