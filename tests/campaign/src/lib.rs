//! A campaign against the operator's decisions: thousands of seeded histories of documents, with crashes, systems that are away and changes by
//! others, on models of Kubernetes, PostgreSQL and Kafka. `docs/testing.md` says what is tried, and how a failure is replayed.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod asleep;
mod cache;
mod documents;
mod history;
mod kafka;
mod kubernetes;
mod look;
mod operator;
mod postgres;
mod promises;
mod properties;
mod random;
mod retained;
mod rivals;
mod seeded;
mod snapshot;
mod stale;
mod sweep;
mod systems;
mod trial;
mod values;
mod watch;
mod writes;
