-- What the operator may do to roles, and nothing else. These functions run as acb_provisioner, who can make roles: they must read and
-- write nothing that acb_owner owns, or a trigger there would run the operator's code as the provisioner.
SET LOCAL ROLE acb_provisioner;

CREATE TABLE IF NOT EXISTS acb_provision.leader (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL,
    holder   text   NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO acb_provision.leader (epoch, holder) VALUES (0, '') ON CONFLICT DO NOTHING;
REVOKE ALL ON acb_provision.leader FROM PUBLIC, acb_operator;

-- A new leader's epoch. Waits for transactions of the old leader, and fails every later one of it.
CREATE OR REPLACE FUNCTION acb_provision.claim_leadership(new_holder text) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE acb_provision.leader SET epoch = epoch + 1, holder = left(new_holder, 200), since = now() RETURNING epoch
$$;

-- Holds until the end of the transaction: nobody becomes leader within it.
CREATE OR REPLACE FUNCTION acb_provision.check_epoch(mine bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM acb_provision.leader WHERE epoch = mine FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'epoch % is not the leader''s: another operator leads', mine USING ERRCODE = 'ACB01';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION acb_provision.login_name(id text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF id !~ '^[0-9a-f]{20}$' THEN
        RAISE EXCEPTION 'a tenant id is 20 hex digits' USING ERRCODE = '22023';
    END IF;
    RETURN 'acb_t_' || id;
END
$$;

CREATE OR REPLACE FUNCTION acb_provision.ensure_login(mine bigint, id text, verifier text, connections integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    login text := acb_provision.login_name(id);
    attribute text;
    held name;
BEGIN
    PERFORM acb_provision.check_epoch(mine);
    IF verifier !~ '^SCRAM-SHA-256\$[0-9]{4,7}:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$' THEN
        RAISE EXCEPTION 'not a SCRAM-SHA-256 verifier: passwords are not taken here' USING ERRCODE = '22023';
    END IF;
    IF connections NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'a connection limit is 1 to 10000' USING ERRCODE = '22023';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = login) THEN
        EXECUTE format('CREATE ROLE %I INHERIT', login);
    END IF;
    -- What lets a login see more than its tenant is taken away again where this role may: on 15 CREATEROLE, CREATEDB and memberships, from
    -- 16 on CREATEROLE. Whoever calls this looks at what is left.
    FOR attribute IN
        SELECT a.name FROM pg_catalog.pg_roles AS r, LATERAL (VALUES
            (r.rolsuper, 'NOSUPERUSER'), (r.rolbypassrls, 'NOBYPASSRLS'), (r.rolreplication, 'NOREPLICATION'),
            (r.rolcreaterole, 'NOCREATEROLE'), (r.rolcreatedb, 'NOCREATEDB')) AS a (held, name)
        WHERE r.rolname = login AND a.held
    LOOP
        BEGIN
            EXECUTE format('ALTER ROLE %I %s', login, attribute);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
    FOR held IN
        SELECT r.rolname FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.roleid
        WHERE m.member = login::regrole AND r.rolname <> 'acb_tenant'
    LOOP
        BEGIN
            EXECUTE format('REVOKE %I FROM %I', held, login);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
    EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT %s PASSWORD %L', login, connections, verifier);
    IF current_setting('server_version_num')::int >= 160000 THEN
        EXECUTE format('GRANT acb_tenant TO %I WITH INHERIT TRUE, SET FALSE, ADMIN FALSE', login);
    ELSIF NOT pg_has_role(login, 'acb_tenant', 'MEMBER') THEN
        EXECUTE format('GRANT acb_tenant TO %I', login);
    END IF;
    -- A tenant may change these for itself: the connection limit and end_overlong stand behind them.
    EXECUTE format('ALTER ROLE %I SET statement_timeout = ''30s''', login);
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''30s''', login);
END
$$;

CREATE OR REPLACE FUNCTION acb_provision.end_sessions(mine bigint, id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM acb_provision.check_epoch(mine);
    RETURN (SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE usename = acb_provision.login_name(id));
END
$$;

-- Ends tenants' sessions whose transaction has lasted longer, or that hold others off a table, and says whose, and how many. Who may change rows may lock
-- the whole table, of all tenants, and no hub does that. Made anew, since it answered otherwise before.
DROP FUNCTION IF EXISTS acb_provision.end_overlong(bigint, interval);
CREATE FUNCTION acb_provision.end_overlong(mine bigint, longer interval) RETURNS TABLE (tenant_id text, sessions bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM acb_provision.check_epoch(mine);
    RETURN QUERY
        SELECT right(usename::text, 20), count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity AS session
        WHERE usename ~ '^acb_t_[0-9a-f]{20}$'
          AND (xact_start < clock_timestamp() - longer
               OR EXISTS (SELECT FROM pg_catalog.pg_locks AS held
                          WHERE held.pid = session.pid AND held.locktype = 'relation'
                            AND held.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))
        GROUP BY 1;
END
$$;

CREATE OR REPLACE FUNCTION acb_provision.disable_login(mine bigint, id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    login text := acb_provision.login_name(id);
BEGIN
    PERFORM acb_provision.check_epoch(mine);
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = login) THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN', login);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION acb_provision.drop_login(mine bigint, id text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM acb_provision.check_epoch(mine);
    EXECUTE format('DROP ROLE IF EXISTS %I', acb_provision.login_name(id));
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA acb_provision FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    acb_provision.claim_leadership(text),
    acb_provision.check_epoch(bigint),
    acb_provision.ensure_login(bigint, text, text, integer),
    acb_provision.end_sessions(bigint, text),
    acb_provision.end_overlong(bigint, interval),
    acb_provision.disable_login(bigint, text),
    acb_provision.drop_login(bigint, text)
TO acb_operator;
RESET ROLE;
