-- The JSON Schema that the payload of a context met. NULL: its type had none, or it was made by an earlier version.
ALTER TABLE acb.context
    ADD COLUMN schema_id text,
    ADD COLUMN schema_version text,
    ADD CHECK ((schema_id IS NULL) = (schema_version IS NULL));
