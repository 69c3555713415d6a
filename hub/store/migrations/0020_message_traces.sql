-- What happened to messages: a row is what one replica noted within about a second of the messages of one section of a partition. Nothing hangs on it but what
-- people are shown.
CREATE TABLE acb.message_trace (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    trace_id  uuid        NOT NULL DEFAULT gen_random_uuid(),
    epoch     bigint      NOT NULL,
    partition integer     NOT NULL CHECK (partition >= 0),
    section   bigint      NOT NULL CHECK (section >= 0),
    replica   text        NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    events    bytea       NOT NULL CHECK (octet_length(events) <= 1048576),
    PRIMARY KEY (tenant_id, trace_id)
);
CREATE INDEX message_trace_section ON acb.message_trace (tenant_id, epoch, partition, section, noted_at);
CREATE INDEX message_trace_age ON acb.message_trace (tenant_id, noted_at);
CALL acb.protect('acb.message_trace', 'INSERT, DELETE');
