//! What an attack is, and how it can end.

use std::fmt;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::target::{Attacker, Thing, Victim};

/// The wall that an attack runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wall {
    /// The hub's door.
    Hub,
    /// Row-level security, roles and authentication of PostgreSQL.
    Postgres,
    /// ACLs and authentication of Kafka.
    Kafka,
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hub => "hub",
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        })
    }
}

/// How an attack ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "lowercase")]
pub enum Outcome {
    /// The wall held, and this is what it said.
    Refused(String),
    /// There was nothing to try it on, so that nothing was shown, and this is why: the wall may stand, or not.
    Nothing(String),
    /// The wall is down, and this is what the attacker got.
    Succeeded(String),
    /// Nothing was proved, and this is why.
    Inconclusive(String),
}

impl Outcome {
    /// Whether the wall held.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Whether there was nothing to try it on.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing(_))
    }
}

/// What an attack does.
pub(crate) type Try = Box<dyn for<'a> Fn(&'a Attacker, &'a Victim) -> BoxFuture<'a, Outcome> + Send + Sync>;

/// One attack.
pub struct Attack {
    /// Stable, such as `postgres.read.agent`.
    pub name: String,
    /// Against which wall.
    pub wall: Wall,
    /// What the attacker would have, were the wall down.
    pub prize: String,
    /// What it can't be made without.
    pub(crate) needs: &'static [Need],
    /// Whether it is the same, whoever the neighbour is.
    pub(crate) is_of_all: bool,
    /// What of the neighbour's it is tried on.
    pub(crate) on: Option<Thing>,
    pub(crate) attempt: Try,
}

/// What an attack can't be made without, and not every attacker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A hub of the neighbour's that can be connected to.
    Door,
    /// The API key of an agent.
    ApiKey,
    /// The key of the hub's tokens.
    SigningKey,
}

impl Attack {
    pub(crate) fn new<F>(wall: Wall, name: impl AsRef<str>, prize: impl Into<String>, attempt: F) -> Self
    where
        F: for<'a> Fn(&'a Attacker, &'a Victim) -> BoxFuture<'a, Outcome> + Send + Sync + 'static,
    {
        let name = format!("{}.{}", wall, name.as_ref());
        Self { name, wall, prize: prize.into(), needs: &[], is_of_all: false, on: None, attempt: Box::new(attempt) }
    }

    pub(crate) fn needing(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The same against whomever: against the first of several it is made, and that is enough.
    pub(crate) fn once(self) -> Self {
        Self { is_of_all: true, ..self }
    }

    /// It is tried on this: where that is invented, a refusal shows nothing.
    pub(crate) fn on(self, thing: Thing) -> Self {
        Self { on: Some(thing), ..self }
    }

    /// Whether it can be made.
    pub(crate) fn fits(&self, attacker: &Attacker, victim: &Victim) -> bool {
        (self.wall != Wall::Kafka || attacker.kafka.is_some())
            && self.needs.iter().all(|need| match need {
                Need::Door => !victim.hub_endpoints.is_empty(),
                Need::ApiKey => attacker.hub.api_key.is_some(),
                Need::SigningKey => attacker.hub.signing_key.is_some(),
            })
    }
}

impl fmt::Debug for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attack").field("name", &self.name).field("prize", &self.prize).finish_non_exhaustive()
    }
}
