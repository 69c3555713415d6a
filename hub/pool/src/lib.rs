//! A pool of connections to PostgreSQL in which every operation has a time limit. The server ends a query after its `statement_timeout`;
//! but a server that vanishes (a lost node, a cut network) says nothing any more, and TCP alone would wait for it for a quarter of an hour.
//!
//! It is not sqlx's pool, since that one asks the server before and after each use whether the connection is well: three round trips for
//! one query.

mod connections;
mod pool;
mod session;
mod timestamp;
mod transaction;

pub use connections::Limits;
pub use pool::Pool;
pub use session::Session;
pub use timestamp::Timestamp;
pub use transaction::Transaction;
