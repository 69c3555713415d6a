-- A log that lost its last records keeps its epoch, and gives their offsets to others. So what was derived from it moves to an epoch of its own:
-- here is which epoch ended so, and which one came after it. A log that was never cut has no row.
CREATE TABLE acb.log_cut (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    ended     bigint NOT NULL,
    epoch     bigint NOT NULL,
    PRIMARY KEY (tenant_id, ended)
);
CALL acb.protect('acb.log_cut', 'INSERT');
