-- What the operator did to the tenant, in the transaction that did it, until the sink of the audit trail has it. The operator adds rows and changes none;
-- hubs only read them. When something was done, and in which order, PostgreSQL says.
CREATE TABLE acb.operator_act (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- The call of its audit record, by which the record is found in the log.
    act       uuid NOT NULL DEFAULT gen_random_uuid(),
    sequence  bigint GENERATED ALWAYS AS IDENTITY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Which operator.
    operator  text NOT NULL,
    operation text NOT NULL CHECK (operation <> ''),
    -- What it was about, such as `agent planner`, and what changed about that.
    object    text NOT NULL,
    change    text NOT NULL,
    PRIMARY KEY (tenant_id, act)
);
CREATE INDEX operator_act_sequence ON acb.operator_act (tenant_id, sequence);
CALL acb.protect('acb.operator_act', '');

-- Acts that are in the tree, written with their leaves.
CREATE TABLE acb.operator_act_kept (
    tenant_id acb.tenant_id NOT NULL,
    act       uuid NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, act),
    FOREIGN KEY (tenant_id, act) REFERENCES acb.operator_act ON DELETE CASCADE
);
CALL acb.protect('acb.operator_act_kept', '');
GRANT INSERT (tenant_id, act) ON acb.operator_act_kept TO acb_tenant;

-- The operator can't say that an act is in the tree, nor when it was done, and takes none away that is not in the tree since an hour: by then no
-- replica can still be adding it to the log.
REVOKE INSERT, UPDATE, DELETE ON acb.operator_act_kept FROM acb_operator;
REVOKE INSERT, UPDATE ON acb.operator_act FROM acb_operator;
GRANT INSERT (tenant_id, operator, operation, object, change) ON acb.operator_act TO acb_operator;
CREATE POLICY kept ON acb.operator_act AS RESTRICTIVE FOR DELETE TO acb_operator USING (EXISTS (
    SELECT FROM acb.operator_act_kept AS k
    WHERE k.tenant_id = operator_act.tenant_id AND k.act = operator_act.act AND k.at < now() - interval '1 hour'));
