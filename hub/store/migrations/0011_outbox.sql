-- One outbox for every noun whose rows have something to tell the log: written in the transaction that changes the rows, removed once appended.
-- `sequence` orders the entries of one instance only, which the lock of its row makes safe.
ALTER TABLE acb.context_outbox RENAME TO outbox;
ALTER TABLE acb.outbox RENAME COLUMN context_id TO instance;
-- In the words of the noun: of a context its type.
ALTER TABLE acb.outbox RENAME COLUMN type TO topic;
-- What the noun makes the record of, at each append anew.
ALTER TABLE acb.outbox RENAME COLUMN event TO content;
-- What is there is of contexts, and so is what hubs of the earlier version write.
ALTER TABLE acb.outbox ADD COLUMN noun text NOT NULL DEFAULT 'context' CHECK (noun <> '');
-- In the numbers of the noun. NULL where a hub of the earlier version wrote the entry: the content says it.
ALTER TABLE acb.outbox ADD COLUMN kind integer;
ALTER TABLE acb.outbox RENAME CONSTRAINT context_outbox_pkey TO outbox_pkey;
CREATE INDEX outbox_instance ON acb.outbox (tenant_id, noun, instance, sequence);
DROP INDEX acb.context_outbox_context;

-- For hubs of the earlier version, until none is left: the same rows, under the names that they know.
CREATE VIEW acb.context_outbox WITH (security_invoker = true) AS
    SELECT tenant_id, sequence, instance AS context_id, topic AS type, content AS event FROM acb.outbox WHERE noun = 'context';
REVOKE ALL ON acb.context_outbox FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON acb.context_outbox TO acb_tenant;
