-- Run by a superuser in the maintenance database. May be repeated.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['acb_owner', 'acb_operator', 'acb_tenant', 'acb_provisioner'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I', name);
        END IF;
    END LOOP;
END
$$;

ALTER ROLE acb_owner NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
-- NOINHERIT: what the operator may do as itself and what it may do after SET ROLE acb_owner are told apart.
ALTER ROLE acb_operator LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE acb_tenant NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE acb_provisioner NOLOGIN INHERIT NOSUPERUSER NOCREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS;

-- A leader that was paused within a transaction must not keep the next one waiting.
ALTER ROLE acb_operator SET idle_in_transaction_session_timeout = '10s';

GRANT acb_owner TO acb_operator;
-- To end the sessions of tenants, and to see which have lasted too long.
GRANT pg_signal_backend, pg_read_all_stats TO acb_provisioner;

-- From 16 on a role is altered and granted only by who holds it with ADMIN OPTION: a role that another superuser made, or that came
-- out of an upgrade or a restore, is handed over again here. On 15 CREATEROLE is enough, and a membership would only add rights.
DO $$
DECLARE
    name text;
BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        FOR name IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = 'acb_tenant' OR rolname ~ '^acb_t_[0-9a-f]{20}$' LOOP
            EXECUTE format('GRANT %I TO acb_provisioner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', name);
        END LOOP;
    END IF;
END
$$;
