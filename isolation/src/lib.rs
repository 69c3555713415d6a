//! The attacks: what a tenant would try against its neighbours, run with that tenant's own credentials and nothing more.
//!
//! An attack is *refused* only where the system under attack said no, or showed nothing of what was there. Where there was nothing to try it on, that is
//! what is said of it. A connection that fails, a time-out or a missing part proves nothing: it makes the attack *inconclusive*, which is as bad as a success.

mod attack;
mod broker;
mod cluster;
mod groups;
mod hub;
mod kafka;
mod methods;
mod postgres;
mod requests;
mod run;
mod target;
mod token;

pub use attack::{Attack, Outcome, Wall};
pub use run::{Report, Row, attacks, run};
pub use target::{Attacker, HubAccess, KafkaAccess, PostgresAccess, Thing, Victim};

/// The correlation id of every call to a hub: what audit trails and logs tell an attack by.
pub const CORRELATION: &str = "acb-isolation";
