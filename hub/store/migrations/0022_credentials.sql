-- When a token was last issued for a credential. Apart from the credentials themselves, which hubs only read: this they write, behind what they do.
CREATE TABLE acb.credential_use (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- The prefix of an API key, or `serviceaccount:<namespace>/<name>`.
    credential text NOT NULL,
    used_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, credential)
);
CALL acb.protect('acb.credential_use', 'INSERT, UPDATE, DELETE');
