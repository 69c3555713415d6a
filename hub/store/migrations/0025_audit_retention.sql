-- How long the rows of the audit trail are kept. The nodes of the tree stay, so that what is kept is proved as before.
ALTER TABLE acb.tenant ADD COLUMN audit_days integer NOT NULL DEFAULT 90 CHECK (audit_days >= 90);

-- When the tree grew, by PostgreSQL's clock. A hub can't name another time: by it records are let go.
ALTER TABLE acb.audit_growth ADD COLUMN at timestamptz NOT NULL DEFAULT now();
REVOKE INSERT ON acb.audit_growth FROM acb_tenant;
GRANT INSERT (tenant_id, first, size, epoch, next_offset) ON acb.audit_growth TO acb_tenant;

-- The number of the first record that is kept: the first that was added within the retention. One growth with an early time, as of a server whose
-- clock was behind, lets go of nothing that was added before it and is younger. The last growth stays with its records, so that the tree goes on from
-- it. In hours: how long a day is depends on the session's time zone, which a login may set.
CREATE FUNCTION acb.audit_kept_from() RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(
        (SELECT g.first FROM acb.audit_growth AS g
         WHERE g.tenant_id = acb.current_tenant() AND g.at >= now() - make_interval(hours =>
             (SELECT 24 * t.audit_days FROM acb.tenant AS t WHERE t.tenant_id = acb.current_tenant()))
         ORDER BY g.first LIMIT 1),
        (SELECT g.first FROM acb.audit_growth AS g WHERE g.tenant_id = acb.current_tenant() ORDER BY g.first DESC LIMIT 1),
        0)
$$;
REVOKE ALL ON FUNCTION acb.audit_kept_from() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acb.audit_kept_from() TO acb_tenant;

-- A taken-over hub removes nothing that is to be kept.
GRANT DELETE ON acb.audit_record, acb.audit_growth, acb.audit_checkpoint TO acb_tenant;
CREATE POLICY kept ON acb.audit_record AS RESTRICTIVE FOR DELETE TO acb_tenant USING (number < (SELECT acb.audit_kept_from()));
CREATE POLICY kept ON acb.audit_growth AS RESTRICTIVE FOR DELETE TO acb_tenant USING (first < (SELECT acb.audit_kept_from()));
CREATE POLICY kept ON acb.audit_checkpoint AS RESTRICTIVE FOR DELETE TO acb_tenant USING (size < (SELECT acb.audit_kept_from()));
