//! Who calls, and what the call needs.

pub mod access_token;
pub mod admission;
pub mod api_key;
pub mod authority;
pub mod call;
pub mod count_exchange;
pub mod credential;
pub mod credential_use;
pub mod credentials;
pub mod issuer_keys;
mod issuer_queues;
pub mod keyring;
mod login_queue;
pub mod meter;
pub(crate) mod oidc_token;
pub mod open_calls;
mod open_connections;
pub mod open_counts;
pub mod origin;
pub mod ports;
pub mod refresh_token;
pub mod registration;
pub mod replica_counts;
pub mod request_counts;
pub mod rules;
pub mod subject_token;
