-- An index over the messages log, made after the fact by any replica, and made again from the log where it is lost.
-- Address: `a:<agent id>`, `g:<group>` or `*`. A message to a group or to all is one row.
CREATE TABLE acb.mailbox (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    address    text    NOT NULL,
    epoch      bigint  NOT NULL,
    partition  integer NOT NULL,
    "offset"   bigint  NOT NULL,
    log_time   timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, address, epoch, partition, "offset")
);
CREATE INDEX mailbox_expiry ON acb.mailbox (tenant_id, expires_at);
CALL acb.protect('acb.mailbox', 'INSERT, UPDATE, DELETE');

-- How far the index goes. Its update is conditional on the old value; the loser drops its batch.
CREATE TABLE acb.mailbox_checkpoint (
    tenant_id   acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    epoch       bigint  NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (tenant_id, epoch, partition)
);
CALL acb.protect('acb.mailbox_checkpoint', 'INSERT, UPDATE, DELETE');

-- What an agent has acknowledged: everything below the watermark, and the exceptions above it.
CREATE TABLE acb.cursor (
    tenant_id     acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    agent_id      uuid    NOT NULL,
    epoch         bigint  NOT NULL,
    partition     integer NOT NULL,
    watermark     bigint  NOT NULL,
    exceptions    bigint[] NOT NULL DEFAULT '{}' CHECK (cardinality(exceptions) <= 1000),
    PRIMARY KEY (tenant_id, agent_id, epoch, partition)
);
CALL acb.protect('acb.cursor', 'INSERT, UPDATE, DELETE');

-- How often a message was delivered without being acknowledged. A row is made at the first redelivery.
CREATE TABLE acb.delivery (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    agent_id  uuid    NOT NULL,
    epoch     bigint  NOT NULL,
    partition integer NOT NULL,
    "offset"  bigint  NOT NULL,
    attempts  integer NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, epoch, partition, "offset")
);
CALL acb.protect('acb.delivery', 'INSERT, UPDATE, DELETE');
