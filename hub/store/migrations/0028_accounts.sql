-- On whose account a payload is kept, for good: the account of an agent that another one registered is that one's, also when it is unregistered. NULL: the
-- creator's own, or that of who registered it as long as that one is registered: when it is unregistered, its hub says so here.
ALTER TABLE acb.context ADD COLUMN account uuid;
ALTER TABLE acb.upload ADD COLUMN account uuid;

-- What an account keeps is asked for every ten seconds: these indexes alone are read, and of them what is its own.
CREATE INDEX context_creator ON acb.context (tenant_id, creator) INCLUDE (size) WHERE account IS NULL;
CREATE INDEX context_account ON acb.context (tenant_id, account) INCLUDE (size) WHERE account IS NOT NULL;
CREATE INDEX upload_agent ON acb.upload (tenant_id, agent_id) INCLUDE (size) WHERE context_id IS NULL AND account IS NULL;
CREATE INDEX upload_account ON acb.upload (tenant_id, account) INCLUDE (size) WHERE context_id IS NULL AND account IS NOT NULL;

-- The sums of one agent, by period: without it every hour of all agents is looked at.
CREATE INDEX usage_sum_agent ON acb.usage_sum (tenant_id, agent_id, period, starts_at);
CREATE INDEX usage_sum_name ON acb.usage_sum (tenant_id, agent, period, starts_at);
