//! Messages between agents: the index over their log, who received them, and what they add up to.

mod checkpoint;
mod cursor;
mod letter;
mod life;
mod mailbox;
mod trace;
mod usage;
mod usage_export;
