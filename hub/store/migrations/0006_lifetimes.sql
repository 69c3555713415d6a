-- The API key that a family of refresh tokens came from: the family ends with it. NULL, in rows of an earlier version, is a key that is
-- not known, and so not there: whoever holds such a token exchanges its key again.
ALTER TABLE acb.refresh_token ADD COLUMN key_prefix text;
CREATE INDEX refresh_token_agent ON acb.refresh_token (tenant_id, agent_id, issued_at);

-- Who buries an expired message holds its row until then: two replicas, or a replica and a session, must not both.
ALTER TABLE acb.mailbox ADD COLUMN claimed_until timestamptz;
