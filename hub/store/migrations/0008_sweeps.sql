-- A row that others refer to is deleted after a look for those who do: without an index that look walks through all of them.
CREATE INDEX context_upload ON acb.context (tenant_id, upload_id) WHERE upload_id IS NOT NULL;
CREATE INDEX group_member_agent ON acb.group_member (tenant_id, agent_id);
CREATE INDEX api_key_agent ON acb.api_key (tenant_id, agent_id);
CREATE INDEX registered_agent_by ON acb.registered_agent (tenant_id, registered_by);

-- What the removal of abandoned uploads looks at: not those that became a context.
CREATE INDEX upload_unfinished ON acb.upload (tenant_id, touched_at) WHERE context_id IS NULL;

-- Rows of an earlier life of the log have expired long ago, and must not stand before those that are due.
CREATE INDEX mailbox_due ON acb.mailbox (tenant_id, epoch, expires_at);
DROP INDEX acb.mailbox_expiry;
