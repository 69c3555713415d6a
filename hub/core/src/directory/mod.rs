//! Who is in the tenant, and what types of contexts it has.

pub mod agent;
pub mod caller;
pub mod encryption_keys;
pub mod issuer;
pub mod limits;
pub mod membership;
pub mod presence;
pub mod refresher;
pub mod request_size;
pub mod schema;
pub mod snapshot;
pub mod source;
pub mod trail;
pub mod trusted_issuer;
