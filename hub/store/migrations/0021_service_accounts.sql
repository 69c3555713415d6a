-- Who says of a token that it is a Kubernetes ServiceAccount's: the cluster, by its public keys. No row where no agent of the tenant has one.
CREATE TABLE acb.cluster_issuer (
    tenant_id acb.tenant_id PRIMARY KEY REFERENCES acb.tenant ON DELETE CASCADE,
    issuer    text  NOT NULL CHECK (issuer <> ''),
    -- A JSON Web Key Set (RFC 7517).
    jwks      jsonb NOT NULL
);
CALL acb.protect('acb.cluster_issuer', '');

-- ServiceAccounts that prove agents, as long as they are there. One proves one agent.
CREATE TABLE acb.service_account (
    tenant_id acb.tenant_id NOT NULL,
    agent_id  uuid NOT NULL,
    namespace text NOT NULL,
    name      text NOT NULL,
    -- One that is deleted and made again has another.
    uid       text NOT NULL CHECK (uid <> ''),
    -- Since when it proves the agent.
    since     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id),
    UNIQUE (tenant_id, namespace, name),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES acb.agent ON DELETE CASCADE
);
CALL acb.protect('acb.service_account', '');
