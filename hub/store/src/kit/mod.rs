//! What every room here uses: the pool, names and times of queries, what their failures mean, numbers, and the server's clock.

pub mod fault;
pub(crate) mod number;
pub(crate) mod query_timer;
pub(crate) mod server_clock;
pub mod store;
