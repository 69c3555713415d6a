-- An index over the dead letters in the log. Any replica makes it after the fact; what became of a letter is kept here alone.
CREATE TABLE acb.dead_letter (
    tenant_id      acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- Follows from the message and the recipient.
    letter_id      uuid    NOT NULL,
    message_id     uuid    NOT NULL,
    reason         text    NOT NULL CHECK (reason IN ('expired', 'attempts')),
    attempts       integer NOT NULL,
    sender         uuid    NOT NULL,
    sender_name    text    NOT NULL,
    -- As in acb.mailbox.
    recipient      text    NOT NULL,
    recipient_name text    NOT NULL,
    topic          text    NOT NULL,
    type           text    NOT NULL,
    size           bigint  NOT NULL,
    sent_at        timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    dead_at        timestamptz NOT NULL,
    -- Where the content is.
    epoch          bigint  NOT NULL,
    partition      integer NOT NULL,
    "offset"       bigint  NOT NULL,
    replayed_as    uuid,
    dropped        boolean NOT NULL DEFAULT false,
    settled_at     timestamptz,
    PRIMARY KEY (tenant_id, letter_id)
);
CREATE INDEX dead_letter_order ON acb.dead_letter (tenant_id, message_id, letter_id);
CREATE INDEX dead_letter_open ON acb.dead_letter (tenant_id, message_id, letter_id) WHERE settled_at IS NULL;
CREATE INDEX dead_letter_recipient ON acb.dead_letter (tenant_id, recipient, message_id, letter_id);
CREATE INDEX dead_letter_sender ON acb.dead_letter (tenant_id, sender_name, message_id, letter_id);
CREATE INDEX dead_letter_place ON acb.dead_letter (tenant_id, epoch, partition, "offset");
CALL acb.protect('acb.dead_letter', 'INSERT, UPDATE, DELETE');

-- How far that index goes.
CREATE TABLE acb.dead_letter_checkpoint (
    tenant_id   acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    epoch       bigint  NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (tenant_id, epoch, partition)
);
CALL acb.protect('acb.dead_letter_checkpoint', 'INSERT, UPDATE, DELETE');

-- Who sent it, so that what is unread can be counted without reading it. NULL: indexed by an earlier version.
ALTER TABLE acb.mailbox ADD COLUMN sender uuid;

-- Which program has the receiving session, and in which process of the hub. NULL: the session was closed, or is of an earlier version.
ALTER TABLE acb.presence
    ADD COLUMN receiver text,
    ADD COLUMN lease    uuid;

-- A process of the hub that lives. Sessions of one that did not say so in time are over.
CREATE TABLE acb.lease (
    tenant_id acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    lease     uuid NOT NULL,
    until     timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, lease)
);
CALL acb.protect('acb.lease', 'INSERT, UPDATE, DELETE');
