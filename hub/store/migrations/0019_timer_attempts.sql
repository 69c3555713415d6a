-- When it was written down that a timer is about to be carried out: from then on it may have been, whatever else its row says.
ALTER TABLE acb.timer ADD COLUMN attempted_at timestamptz;
