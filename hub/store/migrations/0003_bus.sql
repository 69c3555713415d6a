-- The log, where the bus is PostgreSQL. Topics are made by the operator; hubs append to them.
CREATE TABLE acb.bus_topic (
    tenant_id         acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    topic             text    NOT NULL,
    partitions        integer NOT NULL CHECK (partitions > 0),
    epoch             bigint  NOT NULL,
    retention_seconds bigint  NOT NULL CHECK (retention_seconds > 0),
    cleanup           text    NOT NULL DEFAULT 'delete' CHECK (cleanup IN ('delete', 'compact')),
    max_message_bytes integer NOT NULL DEFAULT 2097152 CHECK (max_message_bytes > 0),
    PRIMARY KEY (tenant_id, topic)
);
CALL acb.protect('acb.bus_topic', '');

-- Offsets are dense: next_offset is taken under the row's lock in the transaction that inserts the records, never from a
-- sequence, so that a reader who remembers an offset can't skip a late commit.
CREATE TABLE acb.bus_partition (
    tenant_id    acb.tenant_id NOT NULL,
    topic        text    NOT NULL,
    partition    integer NOT NULL,
    first_offset bigint  NOT NULL DEFAULT 0,
    next_offset  bigint  NOT NULL DEFAULT 0,
    last_time    timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, topic, partition),
    FOREIGN KEY (tenant_id, topic) REFERENCES acb.bus_topic ON DELETE CASCADE
);
CALL acb.protect('acb.bus_partition', 'UPDATE');

CREATE TABLE acb.bus_record (
    tenant_id   acb.tenant_id NOT NULL,
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    "offset"    bigint  NOT NULL,
    key         bytea,
    -- Pairs of name and value: {name, value, name, value, …}.
    headers     bytea[] NOT NULL DEFAULT '{}',
    -- NULL is a tombstone.
    value       bytea,
    -- When it was appended: never falls within a partition.
    log_time    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, topic, partition, "offset"),
    FOREIGN KEY (tenant_id, topic, partition) REFERENCES acb.bus_partition ON DELETE CASCADE
);
ALTER TABLE acb.bus_record ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX bus_record_time ON acb.bus_record (tenant_id, topic, partition, log_time);
CALL acb.protect('acb.bus_record', 'INSERT, DELETE');
