-- Who reads what was used and what was done, and no contents.
ALTER TABLE acb.agent DROP CONSTRAINT agent_role_check;
ALTER TABLE acb.agent ADD CONSTRAINT agent_role_check
    CHECK (role IN ('admin', 'agent-producer', 'agent-consumer', 'agent-full', 'observer', 'auditor'));
