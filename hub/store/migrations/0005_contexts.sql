-- A streamed payload on its way in, and then the chunks of its context.
CREATE TABLE acb.upload (
    tenant_id    acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    upload_id    uuid    NOT NULL,
    agent_id     uuid    NOT NULL,
    -- What the context will be: type, metadata, content type, access, time to live.
    request      jsonb   NOT NULL,
    size         bigint  NOT NULL CHECK (size BETWEEN 1 AND 104857600),
    chunk_size   integer NOT NULL,
    context_id   uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    touched_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, upload_id)
);
CALL acb.protect('acb.upload', 'INSERT, UPDATE, DELETE');

CREATE TABLE acb.chunk (
    tenant_id acb.tenant_id NOT NULL,
    upload_id uuid    NOT NULL,
    index     integer NOT NULL CHECK (index >= 0),
    sha256    bytea   NOT NULL CHECK (octet_length(sha256) = 32),
    data      bytea   NOT NULL,
    PRIMARY KEY (tenant_id, upload_id, index),
    FOREIGN KEY (tenant_id, upload_id) REFERENCES acb.upload ON DELETE CASCADE
);
-- Payloads are compressed or random: compressing them again costs more than it saves.
ALTER TABLE acb.chunk ALTER COLUMN data SET STORAGE EXTERNAL;
CALL acb.protect('acb.chunk', 'INSERT, DELETE');

CREATE TABLE acb.context (
    tenant_id       acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    context_id      uuid   NOT NULL,
    type            text   NOT NULL,
    creator         uuid   NOT NULL,
    creator_name    text   NOT NULL,
    scope           text   NOT NULL CHECK (scope IN ('public', 'private', 'group', 'shared')),
    groups          text[] NOT NULL DEFAULT '{}',
    agents          text[] NOT NULL DEFAULT '{}',
    metadata        jsonb  NOT NULL DEFAULT '{}',
    version         bigint NOT NULL DEFAULT 1,
    content_type    text   NOT NULL DEFAULT '',
    -- Exactly one of the two.
    payload         bytea,
    upload_id       uuid,
    size            bigint NOT NULL,
    sha256          bytea  NOT NULL CHECK (octet_length(sha256) = 32),
    idempotency_key text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    PRIMARY KEY (tenant_id, context_id),
    UNIQUE (tenant_id, creator, idempotency_key),
    FOREIGN KEY (tenant_id, upload_id) REFERENCES acb.upload,
    CHECK ((payload IS NULL) <> (upload_id IS NULL))
);
ALTER TABLE acb.context ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX context_by_type ON acb.context (tenant_id, type, context_id);
CREATE INDEX context_expiry ON acb.context (tenant_id, expires_at) WHERE expires_at IS NOT NULL;
CALL acb.protect('acb.context', 'INSERT, UPDATE, DELETE');

-- Changes of contexts that the log does not have yet: written in the transaction of the change, removed once appended.
-- `sequence` orders the changes of one context only, which its row's lock makes safe.
CREATE TABLE acb.context_outbox (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    sequence   bigint GENERATED ALWAYS AS IDENTITY,
    context_id uuid   NOT NULL,
    type       text   NOT NULL,
    -- The envelope, as it will be appended.
    event      bytea  NOT NULL,
    PRIMARY KEY (tenant_id, sequence)
);
CREATE INDEX context_outbox_context ON acb.context_outbox (tenant_id, context_id, sequence);
CALL acb.protect('acb.context_outbox', 'INSERT, DELETE');
GRANT UPDATE ON acb.context_outbox TO acb_tenant; -- FOR UPDATE SKIP LOCKED wants it
