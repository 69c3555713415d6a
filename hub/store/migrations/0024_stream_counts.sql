-- How many streams are open at each replica of a hub, as it said last: in all, and of the agents that have several. The row of one that died means
-- nothing soon.
CREATE TABLE acb.stream_count (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    replica   uuid   NOT NULL,
    until     timestamptz NOT NULL,
    streams   bigint NOT NULL CHECK (streams >= 0),
    -- By whose account they are on.
    agents    jsonb  NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, replica)
);
CALL acb.protect('acb.stream_count', 'INSERT, UPDATE, DELETE');
