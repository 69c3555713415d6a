-- Agents, projected from their resources.
CREATE TABLE acb.agent (
    tenant_id    acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    agent_id     uuid    NOT NULL,
    name         text    NOT NULL,
    type         text    NOT NULL DEFAULT '',
    capabilities text[]  NOT NULL DEFAULT '{}',
    location     text    NOT NULL DEFAULT '',
    metadata     jsonb   NOT NULL DEFAULT '{}',
    role         text    NOT NULL CHECK (role IN ('admin', 'agent-producer', 'agent-consumer', 'agent-full', 'observer')),
    publishes    text[]  NOT NULL DEFAULT '{}',
    subscribes   text[]  NOT NULL DEFAULT '{}',
    limits       jsonb   NOT NULL DEFAULT '{}',
    suspended    boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id),
    UNIQUE (tenant_id, name)
);
CALL acb.protect('acb.agent', '');

-- Membership as intervals: a member receives what was logged in [joined_at, left_at).
CREATE TABLE acb.group_member (
    tenant_id  acb.tenant_id NOT NULL,
    group_name text NOT NULL,
    agent_id   uuid NOT NULL,
    joined_at  timestamptz NOT NULL DEFAULT now(),
    left_at    timestamptz,
    PRIMARY KEY (tenant_id, group_name, agent_id, joined_at),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES acb.agent ON DELETE CASCADE
);
CALL acb.protect('acb.group_member', '');

-- HMAC-SHA-256 of API keys under the tenant's pepper. Never a key.
CREATE TABLE acb.api_key (
    tenant_id  acb.tenant_id NOT NULL,
    prefix     text  NOT NULL,
    agent_id   uuid  NOT NULL,
    hmac       bytea NOT NULL CHECK (octet_length(hmac) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, prefix),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES acb.agent ON DELETE CASCADE
);
CALL acb.protect('acb.api_key', '');

-- Agents that other agents registered, where the tenant's registration is Open.
CREATE TABLE acb.registered_agent (
    tenant_id     acb.tenant_id NOT NULL,
    agent_id      uuid   NOT NULL,
    name          text   NOT NULL,
    type          text   NOT NULL DEFAULT '',
    capabilities  text[] NOT NULL DEFAULT '{}',
    location      text   NOT NULL DEFAULT '',
    metadata      jsonb  NOT NULL DEFAULT '{}',
    registered_by uuid   NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id),
    UNIQUE (tenant_id, name),
    FOREIGN KEY (tenant_id, registered_by) REFERENCES acb.agent ON DELETE CASCADE
);
CALL acb.protect('acb.registered_agent', 'INSERT, UPDATE, DELETE');

-- Who was seen, and the one receiving session that an agent has: a newer session_epoch ends the older session.
CREATE TABLE acb.presence (
    tenant_id     acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    agent_id      uuid   NOT NULL,
    online        boolean NOT NULL DEFAULT false,
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    session_epoch bigint NOT NULL DEFAULT 0,
    -- Whether a receiving session is open, or ended without saying so: what it delivered last is then not known.
    receiving     boolean NOT NULL DEFAULT false,
    replica       text   NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, agent_id)
);
CALL acb.protect('acb.presence', 'INSERT, UPDATE, DELETE');

-- SHA-256 of refresh tokens. A used one keeps used_at, so that reuse is seen and revokes the family.
CREATE TABLE acb.refresh_token (
    tenant_id  acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    token_hash bytea NOT NULL CHECK (octet_length(token_hash) = 32),
    family     uuid  NOT NULL,
    agent_id   uuid  NOT NULL,
    issued_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz,
    revoked    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, token_hash)
);
CREATE INDEX refresh_token_family ON acb.refresh_token (tenant_id, family);
CREATE INDEX refresh_token_expiry ON acb.refresh_token (tenant_id, expires_at);
CALL acb.protect('acb.refresh_token', 'INSERT, UPDATE, DELETE');
