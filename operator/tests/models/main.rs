//! The campaign's models of PostgreSQL and Kafka, held to the real ones: the same random steps go to both, and what is read back has to be the same.
//! Where they differ the model is wrong, and `tests/campaign` plays a game of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

#[path = "../../../tests/campaign/src/kafka.rs"]
mod kafka;
#[path = "../../../tests/campaign/src/kubernetes.rs"]
mod kubernetes;
mod on_kafka;
mod on_postgres;
#[path = "../../../tests/campaign/src/postgres.rs"]
mod postgres;
#[path = "../../../tests/campaign/src/random.rs"]
mod random;
mod secrets;

use acb_operator::effect::EffectError;

/// What a step came to: errors are the same where they mean the same to who decides what next.
fn outcome(result: &Result<(), EffectError>) -> &'static str {
    match result {
        Ok(()) => "done",
        Err(EffectError::MissingSecret(_)) => "a Secret is missing",
        Err(EffectError::Refused { .. }) => "refused",
        Err(_) => "something else",
    }
}
