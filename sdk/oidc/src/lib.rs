//! What an OpenID Connect issuer is asked over HTTPS: its discovery document, its keys, tokens. Each question has a deadline and a bound on its answer,
//! follows no redirect, and goes to no address that the caller did not allow. What an answer proves is decided elsewhere. Witnesses of audit trails are
//! asked in the same way.

pub mod address;
pub mod discovery;
pub mod https;
pub mod tokens;
pub mod url;
