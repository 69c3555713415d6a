-- A record of the messages log holds up to 64 messages: what was counted in records is counted in places of messages. The first message of the
-- record at offset n has the place 64 n.

-- The owner of these tables has no row of them: for these statements it has all.
ALTER TABLE acb.mailbox_checkpoint NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.mailbox NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.delivery NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.cursor NO FORCE ROW LEVEL SECURITY;

UPDATE acb.mailbox_checkpoint SET next_offset = next_offset * 64;
UPDATE acb.mailbox SET "offset" = "offset" * 64;
UPDATE acb.delivery SET "offset" = "offset" * 64;
UPDATE acb.cursor SET watermark = watermark * 64, exceptions = ARRAY(SELECT x * 64 FROM unnest(exceptions) AS x);

ALTER TABLE acb.mailbox_checkpoint RENAME COLUMN next_offset TO next_position;
ALTER TABLE acb.mailbox RENAME COLUMN "offset" TO position;
ALTER TABLE acb.delivery RENAME COLUMN "offset" TO position;

ALTER TABLE acb.mailbox_checkpoint FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.mailbox FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.delivery FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.cursor FORCE ROW LEVEL SECURITY;
