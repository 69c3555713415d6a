//! Credentials and registration on a real PostgreSQL, as the tenant's own login.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod credentials;
mod damage;
mod registering;
mod sessions;
mod silence;
mod streams;
mod world;
