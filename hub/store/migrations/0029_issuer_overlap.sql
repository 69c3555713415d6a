-- Pods have tokens of the issuer before for a while after the cluster got another one.
ALTER TABLE acb.cluster_issuer
    ADD COLUMN previous       text CHECK (previous <> ''),
    ADD COLUMN previous_until timestamptz,
    ADD CHECK ((previous IS NULL) = (previous_until IS NULL));
