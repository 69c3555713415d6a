-- OpenID Connect issuers whose tokens prove agents of the tenant. The platform allows each; its keys the hub asks it for.
CREATE TABLE acb.oidc_issuer (
    tenant_id   acb.tenant_id NOT NULL REFERENCES acb.tenant ON DELETE CASCADE,
    -- What its tokens have as iss.
    issuer      text NOT NULL CHECK (issuer LIKE 'https://%'),
    audiences   text[] NOT NULL CHECK (cardinality(audiences) > 0),
    -- CEL over the claims: the name of the agent.
    agent       text NOT NULL CHECK (agent <> ''),
    -- CEL over the claims: a role that is lower than the agent's, or an empty text.
    role        text,
    -- Certificates (PEM) that its own is signed by; NULL: those of the system.
    authorities text,
    -- Private networks (CIDR) in which it may be.
    networks    text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, issuer)
);
CALL acb.protect('acb.oidc_issuer', '');
