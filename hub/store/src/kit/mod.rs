//! What every room here uses: the pool, names and times of queries, what their failures mean, numbers.

pub mod fault;
pub(crate) mod number;
pub(crate) mod query_timer;
pub mod store;
