//! What any server could use. Knows no noun of ACB.

pub mod attempts;
pub mod budget;
pub mod claims;
pub mod clock;
pub mod crowds;
pub mod filter;
pub mod hmac;
pub mod json_keywords;
pub mod json_schema;
pub mod labels;
pub mod lag;
mod metered;
pub(crate) mod page;
pub mod quoted;
pub(crate) mod random;
pub mod readiness;
pub(crate) mod retries;
pub mod spans;
pub(crate) mod strict_json;
pub mod supervisor;
