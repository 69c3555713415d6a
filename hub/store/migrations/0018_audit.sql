-- The audit trail: the records of the log acb.<tenant>.sys.audit in its order, and a Merkle tree over them (RFC 6962). A hub only adds; that a row
-- was changed, removed or put in between is seen by what is signed (docs/audit.md).
CREATE TABLE acb.audit_record (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- From 0, without gaps: the number of the leaf. Two that write at once can't both have it.
    number    bigint NOT NULL CHECK (number >= 0),
    -- As in the log, byte for byte.
    record    bytea  NOT NULL,
    -- What the record says, for those who look for it.
    at        timestamptz NOT NULL,
    agent     text   NOT NULL,
    operation text   NOT NULL,
    PRIMARY KEY (tenant_id, number)
);
CREATE INDEX audit_record_time ON acb.audit_record (tenant_id, at);
CREATE INDEX audit_record_agent ON acb.audit_record (tenant_id, agent, number);
CALL acb.protect('acb.audit_record', 'INSERT');

-- Nodes whose leaves are all there. They stay when records go.
CREATE TABLE acb.audit_node (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- 0: leaves.
    level     smallint NOT NULL CHECK (level BETWEEN 0 AND 63),
    index     bigint NOT NULL CHECK (index >= 0),
    hash      bytea  NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, level, index)
);
CALL acb.protect('acb.audit_node', 'INSERT');

-- Each time that the tree grew: from which records of the log.
CREATE TABLE acb.audit_growth (
    tenant_id   acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- The tree's size before it: each is grown from once.
    first       bigint NOT NULL CHECK (first >= 0),
    size        bigint NOT NULL CHECK (size > first),
    epoch       bigint NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (tenant_id, first)
);
CALL acb.protect('acb.audit_growth', 'INSERT');

-- What was signed of the tree.
CREATE TABLE acb.audit_checkpoint (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    size      bigint NOT NULL CHECK (size >= 0),
    -- The key that signed it, as a C2SP verifier key.
    verifier  text   NOT NULL,
    -- A signed note.
    note      text   NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, size)
);
CALL acb.protect('acb.audit_checkpoint', 'INSERT');

-- Which replica builds the tree. Its word has no weight: two that think so can't both grow the tree from one size.
CREATE TABLE acb.audit_sink (
    tenant_id acb.tenant_id PRIMARY KEY REFERENCES acb.tenant ON DELETE CASCADE,
    holder    uuid NOT NULL,
    until     timestamptz NOT NULL
);
CALL acb.protect('acb.audit_sink', 'INSERT, UPDATE');
