//! Who calls, and what the call needs.

pub mod access_token;
pub mod admission;
pub mod api_key;
pub mod authority;
pub mod keyring;
mod login_queue;
pub mod ports;
pub mod refresh_token;
pub mod rules;
