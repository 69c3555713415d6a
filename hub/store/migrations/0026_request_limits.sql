-- What each agent may ask for in a minute of single operations, by their names.
ALTER TABLE acb.tenant ADD COLUMN operation_limits jsonb NOT NULL DEFAULT '{}';

-- Requests of the minute at each replica, as it said last, where that matters to the others.
ALTER TABLE acb.stream_count ADD COLUMN requests jsonb NOT NULL DEFAULT '{}';
