-- When a token was last issued for a credential. Apart from the credentials themselves, which hubs only read: this they write, behind what they do.
CREATE TABLE acb.credential_use (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- The prefix of an API key, or `serviceaccount:<namespace>/<name>`.
    credential text NOT NULL,
    used_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, credential)
);
CALL acb.protect('acb.credential_use', 'INSERT, UPDATE, DELETE');

-- Raised where rows went back, as by a restore. What was issued under another one ends: a family of refresh tokens that was revoked in between
-- must not live again.
ALTER TABLE acb.tenant ADD COLUMN credential_epoch bigint NOT NULL DEFAULT 0;
ALTER TABLE acb.refresh_token ADD COLUMN epoch bigint NOT NULL DEFAULT 0;
