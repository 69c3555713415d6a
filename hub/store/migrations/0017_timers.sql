-- What is to be done later, and once. A replica that carries timers out holds their rows locked meanwhile, so that they are free again when it dies. What
-- is done with is kept for a while, without its content, so that a repeated call is told.
CREATE TABLE acb.timer (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    timer_id   uuid    NOT NULL,
    kind       text    NOT NULL CHECK (kind <> ''),
    subject    uuid    NOT NULL,
    -- Empty: a repeated call makes another one.
    key        text    NOT NULL,
    digest     bytea   NOT NULL CHECK (octet_length(digest) = 32),
    content    bytea   NOT NULL CHECK (octet_length(content) <= 65536),
    made_at    timestamptz NOT NULL,
    due_at     timestamptz NOT NULL,
    -- When it is tried next: later than it was due, where it could not be carried out then.
    try_at     timestamptz NOT NULL,
    settled_at timestamptz,
    cancelled  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, timer_id)
);
CREATE UNIQUE INDEX timer_key ON acb.timer (tenant_id, kind, subject, key) WHERE key <> '';
CREATE INDEX timer_next ON acb.timer (tenant_id, try_at) WHERE settled_at IS NULL;
CREATE INDEX timer_order ON acb.timer (tenant_id, kind, due_at, timer_id) WHERE settled_at IS NULL;
CREATE INDEX timer_settled ON acb.timer (tenant_id, settled_at) WHERE settled_at IS NOT NULL;
CALL acb.protect('acb.timer', 'INSERT, UPDATE, DELETE');

-- A scheduled message that can't be sent when it is due.
ALTER TABLE acb.dead_letter DROP CONSTRAINT dead_letter_reason_check;
ALTER TABLE acb.dead_letter ADD CONSTRAINT dead_letter_reason_check
    CHECK (reason IN ('expired', 'attempts', 'sender-refused', 'recipient-gone'));
