-- Which kind of bus the tenants of this database are on: `kafka` or `postgres`. Written by the operator's first leader. With another one it
-- would plan every tenant onto empty topics.
ALTER TABLE acb.schema_version ADD COLUMN bus_kind text CHECK (bus_kind IN ('kafka', 'postgres'));
