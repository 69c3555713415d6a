-- Keys of agents that other agents registered. What the operator projects hubs only read; these they make themselves.
CREATE TABLE acb.registered_key (
    tenant_id  acb.tenant_id NOT NULL,
    prefix     text  NOT NULL,
    agent_id   uuid  NOT NULL,
    hmac       bytea NOT NULL CHECK (octet_length(hmac) = 32),
    -- The prefix of the key that its registrar showed: both end together, or a stolen key would live on in those that were registered by it.
    by_key     text  NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, prefix),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES acb.registered_agent ON DELETE CASCADE
);
CREATE INDEX registered_key_agent ON acb.registered_key (tenant_id, agent_id);
CALL acb.protect('acb.registered_key', 'INSERT, DELETE');

-- How often agents were registered or unregistered: added to the tenant's generation it is the directory's.
CREATE TABLE acb.registration_count (
    tenant_id acb.tenant_id PRIMARY KEY REFERENCES acb.tenant ON DELETE CASCADE,
    count     bigint NOT NULL
);
CALL acb.protect('acb.registration_count', 'INSERT, UPDATE');
