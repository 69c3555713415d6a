-- Topics of context types that no resource asks for any more, and since when. One goes once its retention has passed since: then there is nothing
-- in it that it would have kept. A type that is asked for before that has it again, with what is in it. Written by the operator alone.
CREATE TABLE acb.retired_topic (
    tenant_id         acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    topic             text   NOT NULL,
    retention_seconds bigint NOT NULL CHECK (retention_seconds > 0),
    since             timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, topic)
);
CALL acb.protect('acb.retired_topic', '');
