-- In the order in which hubs lock them: they go on summing meanwhile, and one that waited for the other table would end this as a deadlock.
LOCK TABLE acb.usage_checkpoint, acb.usage_sum IN ACCESS EXCLUSIVE MODE;

-- Of an hour: its messages that the topic of usage has been told of. A sum only grows, and what it was told in says so: these are fewer than `messages` where
-- it has to be told again.
ALTER TABLE acb.usage_sum ADD COLUMN exported bigint NOT NULL DEFAULT 0;
CREATE INDEX usage_sum_unexported ON acb.usage_sum (tenant_id, starts_at, agent_id) WHERE period = 'hour' AND exported < messages;

-- The last hour that something was summed in, and where it begins: all that lies before is of earlier hours, since the clock of a partition never falls.
-- What was summed before this was kept may be of any hour until now.
ALTER TABLE acb.usage_checkpoint
    ADD COLUMN last_hour timestamptz NOT NULL DEFAULT date_trunc('hour', now(), 'UTC'),
    ADD COLUMN hour_from bigint NOT NULL DEFAULT 0;

-- Which life of the topic of usage was told. One that is made anew is told everything again.
CREATE TABLE acb.usage_export (
    tenant_id   acb.tenant_id PRIMARY KEY REFERENCES acb.tenant ON DELETE CASCADE,
    topic_epoch bigint NOT NULL
);
CALL acb.protect('acb.usage_export', 'INSERT, UPDATE');

-- What was told is no hub's to take back, as with the sums. Its retention is 400 days.
CREATE POLICY usage_is_kept ON acb.bus_record AS RESTRICTIVE FOR DELETE TO acb_tenant
    USING (topic NOT LIKE '%.sys.usage' OR log_time < now() - interval '399 days');
