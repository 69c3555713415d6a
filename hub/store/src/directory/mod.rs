//! Who is in the tenant.

pub(crate) mod api_keys;
mod encryption_keys;
mod presence;
mod snapshot;
