//! The store ports on PostgreSQL, as the tenant's own login: row-level security, not this code, keeps tenants apart. The migrations
//! are here too; the operator runs them, a hub never does.
//!
//! Its rooms are those of `acb-hub-core` whose ports they implement, and stand in the same order. Three stand below them: [`migrations`], [`kit`], and
//! [`readiness`], which asks whether a hub may serve with the server, the login and the schema that it was given.

mod audit;
pub mod contexts;
mod directory;
mod door;
pub mod kit;
pub mod log;
mod messages;
pub mod migrations;
pub mod readiness;
mod timers;

pub use kit::store::PgStore;
