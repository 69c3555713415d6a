-- A record of the messages log holds up to 64 messages: what was counted in records is counted in places of messages. The first message of the
-- record at offset n has the place 64 n.

-- The owner of these tables has no row of them: for these statements it has all.
ALTER TABLE acb.mailbox_checkpoint NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.mailbox NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.delivery NO FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.cursor NO FORCE ROW LEVEL SECURITY;

UPDATE acb.mailbox_checkpoint SET next_offset = next_offset * 64;
-- Below zero first: the key of a row is checked at once, and 64 n may be the offset of another row.
UPDATE acb.mailbox SET "offset" = -1 - "offset" * 64;
UPDATE acb.mailbox SET "offset" = -1 - "offset";
UPDATE acb.delivery SET "offset" = -1 - "offset" * 64;
UPDATE acb.delivery SET "offset" = -1 - "offset";
UPDATE acb.cursor SET watermark = watermark * 64, exceptions = ARRAY(SELECT x * 64 FROM unnest(exceptions) AS x);

-- A hub of the version before must fail, and not write offsets for positions.
ALTER TABLE acb.cursor RENAME COLUMN watermark TO acknowledged_below;
ALTER TABLE acb.mailbox_checkpoint RENAME COLUMN next_offset TO next_position;
ALTER TABLE acb.mailbox RENAME COLUMN "offset" TO position;
ALTER TABLE acb.delivery RENAME COLUMN "offset" TO position;

ALTER TABLE acb.mailbox_checkpoint FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.mailbox FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.delivery FORCE ROW LEVEL SECURITY;
ALTER TABLE acb.cursor FORCE ROW LEVEL SECURITY;
