-- The public keys that agents have published, so that others can seal payloads for them. The hub reads none of what they seal.
CREATE TABLE acb.encryption_key (
    tenant_id    acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- No reference: an agent may have been registered by another one. What nobody has any more goes with the next key that is published.
    agent_id     uuid  NOT NULL,
    -- SHA-256 of the key.
    key_id       bytea NOT NULL CHECK (octet_length(key_id) = 32),
    suite        text  NOT NULL,
    public_key   bytea NOT NULL CHECK (octet_length(public_key) BETWEEN 1 AND 2048),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, agent_id, key_id)
);
CALL acb.protect('acb.encryption_key', 'INSERT, UPDATE, DELETE');
