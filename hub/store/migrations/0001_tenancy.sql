-- Who asks. Decodes the login's name, which SET ROLE and settings can't change. NULL for every role that is not a tenant's.
CREATE FUNCTION acb.current_tenant() RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN session_user ~ '^acb_t_[0-9a-f]{20}$'
                THEN decode(substr(session_user::text, 7), 'hex') END
$$;

-- Gives a table the two policies that every tenant table has, and its grants. `writes` is what tenants may do beside SELECT:
-- empty for what the operator projects, or a hub could raise its own limits.
CREATE PROCEDURE acb.protect(tab regclass, writes text)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tab);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tab);
    EXECUTE format('CREATE POLICY tenant ON %s TO acb_tenant
                    USING (tenant_id = (SELECT acb.current_tenant()))
                    WITH CHECK (tenant_id = (SELECT acb.current_tenant()))', tab);
    EXECUTE format('CREATE POLICY operator ON %s TO acb_operator USING (true) WITH CHECK (true)', tab);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', tab);
    EXECUTE format('GRANT SELECT ON %s TO acb_tenant', tab);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO acb_operator', tab);
    IF writes <> '' THEN
        EXECUTE format('GRANT %s ON %s TO acb_tenant', writes, tab);
    END IF;
END
$$;
REVOKE ALL ON PROCEDURE acb.protect(regclass, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acb.current_tenant() TO acb_tenant, acb_operator;

CREATE DOMAIN acb.tenant_id AS bytea CHECK (octet_length(VALUE) = 10);

-- A tenant, as its hub sees it. `generation` rises with every projected change of the tenant, its agents and their limits.
CREATE TABLE acb.tenant (
    tenant_id    acb.tenant_id PRIMARY KEY,
    name         text    NOT NULL,
    tier         text    NOT NULL,
    generation   bigint  NOT NULL DEFAULT 1,
    registration text    NOT NULL DEFAULT 'Declared' CHECK (registration IN ('Declared', 'Open')),
    suspended    boolean NOT NULL DEFAULT false,
    limits       jsonb   NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now()
);
CALL acb.protect('acb.tenant', '');

CREATE TABLE acb.context_type (
    tenant_id          acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    name               text    NOT NULL,
    partitions         integer NOT NULL CHECK (partitions > 0),
    retention_seconds  bigint  NOT NULL CHECK (retention_seconds > 0),
    cleanup            text    NOT NULL CHECK (cleanup IN ('delete', 'compact')),
    max_message_bytes  integer NOT NULL,
    schema             jsonb,
    PRIMARY KEY (tenant_id, name)
);
CALL acb.protect('acb.context_type', '');
