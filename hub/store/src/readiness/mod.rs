//! Whether a hub may serve with the PostgreSQL that is there.

pub mod login;
pub mod schema;
