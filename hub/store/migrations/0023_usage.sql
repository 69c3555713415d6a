-- What agents have sent, summed by hour and by calendar month (UTC) of the log's clock. A row only grows.
CREATE TABLE acb.usage_sum (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    period    text   NOT NULL CHECK (period IN ('hour', 'month')),
    starts_at timestamptz NOT NULL,
    -- No reference: what an agent has sent is to be paid for when it is gone, too.
    agent_id  uuid   NOT NULL,
    -- Its name when it was last summed.
    agent     text   NOT NULL,
    messages  bigint NOT NULL CHECK (messages >= 0),
    -- Of their payloads.
    bytes     bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (tenant_id, period, starts_at, agent_id)
);
CALL acb.protect('acb.usage_sum', 'INSERT, UPDATE, DELETE');

-- A taken-over hub may add to its tenant's bill, and take nothing off it: what it removes is past the time for which hours are kept, and no row gets smaller.
CREATE POLICY kept ON acb.usage_sum AS RESTRICTIVE FOR DELETE TO acb_tenant
    USING (period = 'hour' AND starts_at < now() - interval '399 days');
CREATE FUNCTION acb.usage_sum_grows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.messages < OLD.messages OR NEW.bytes < OLD.bytes
       OR (NEW.period, NEW.starts_at, NEW.agent_id) <> (OLD.period, OLD.starts_at, OLD.agent_id) THEN
        RAISE EXCEPTION 'a sum of usage only grows' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER grows BEFORE UPDATE ON acb.usage_sum FOR EACH ROW EXECUTE FUNCTION acb.usage_sum_grows();

-- How far the messages log was summed. It moves in the transaction that adds to the sums, so that nothing is summed twice or left out.
CREATE TABLE acb.usage_checkpoint (
    tenant_id     acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    epoch         bigint  NOT NULL,
    partition     integer NOT NULL,
    next_position bigint  NOT NULL,
    PRIMARY KEY (tenant_id, epoch, partition)
);
CALL acb.protect('acb.usage_checkpoint', 'INSERT, UPDATE, DELETE');

-- Where the sums lack something, and why.
CREATE TABLE acb.usage_gap (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    gap_id    uuid   NOT NULL DEFAULT gen_random_uuid(),
    found_at  timestamptz NOT NULL DEFAULT now(),
    what      text   NOT NULL,
    -- Of the log. NULL: nobody knows how many.
    records   bigint,
    PRIMARY KEY (tenant_id, gap_id)
);
CREATE INDEX usage_gap_time ON acb.usage_gap (tenant_id, found_at);
CALL acb.protect('acb.usage_gap', 'INSERT');
