//! What Kafka holds of one tenant or of all, and what of it is one tenant's. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    EffectError,
    kafka_acls::{Acl, acls_of},
    kafka_everybody,
};
use crate::{
    observed::ObservedKafka,
    plan::{KafkaQuota, TopicSpec},
};

/// What every tenant's user begins with.
const USERS: &str = "acb_t_";
/// What every tenant's topic begins with.
const TOPICS: &str = "acb.";

/// Of whom something is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    /// All tenants.
    Everyone,
    /// One tenant, by its user and the prefix of its topics.
    One {
        /// Its user.
        username: &'a str,
        /// The beginning of its topics' names.
        prefix: &'a str,
    },
}

impl<'a> Scope<'a> {
    /// The one user that is asked about; `None`: all.
    pub(super) fn username(&self) -> Option<&'a str> {
        match self {
            Self::Everyone => None,
            Self::One { username, .. } => Some(username),
        }
    }

    /// Whether a topic is read. Others may use the same Kafka: what is theirs is not kept.
    pub(super) fn has_topic(&self, name: &str) -> bool {
        name.starts_with(match self {
            Self::Everyone => TOPICS,
            Self::One { prefix, .. } => prefix,
        })
    }

    /// Whether a user is read.
    pub(super) fn has_user(&self, user: &str) -> bool {
        match self {
            Self::Everyone => user.starts_with(USERS),
            Self::One { username, .. } => user == *username,
        }
    }
}

/// A topic as a plan would have it.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) spec: TopicSpec,
    /// Whether it has a setting that no plan would give it.
    pub(super) is_misconfigured: bool,
}

/// What was read. What is wrong with one tenant's is an error of that tenant's alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    /// By name.
    pub(super) topics: BTreeMap<String, Result<Topic, EffectError>>,
    /// The users with a credential, and the rounds of its hash.
    pub(super) users: BTreeMap<String, Result<u32, EffectError>>,
    /// By user.
    pub(super) acls: BTreeMap<String, BTreeSet<Acl>>,
    /// By user.
    pub(super) quotas: BTreeMap<String, KafkaQuota>,
    /// What everybody is allowed.
    pub(super) of_everybody: BTreeSet<Acl>,
    /// What of the brokers' settings puts data at risk.
    pub(super) risks: Vec<String>,
}

impl Snapshot {
    /// What of it is one tenant's.
    ///
    /// # Errors
    /// What of the tenant could not be read.
    pub(super) fn of(&self, username: &str, prefix: &str) -> Result<ObservedKafka, EffectError> {
        let mut observed = ObservedKafka { risks: self.risks.clone(), ..ObservedKafka::default() };
        observed.risks.extend(kafka_everybody::risks(&self.of_everybody, prefix));
        let own = self.topics.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        for (name, topic) in own {
            let topic = topic.clone()?;
            if topic.is_misconfigured {
                observed.misconfigured.insert(name.clone());
            }
            observed.topics.insert(name.clone(), topic.spec);
        }
        let rounds = self.users.get(username).cloned().transpose()?;
        (observed.has_user, observed.credential_rounds) = (rounds.is_some(), rounds.unwrap_or_default());
        observed.acls = self.acls.get(username).is_some_and(|held| *held == acls_of(username, prefix));
        observed.quota = self.quotas.get(username).copied().unwrap_or_default();
        Ok(observed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn topic(name: &str) -> (String, Result<Topic, EffectError>) {
        let spec = TopicSpec { name: name.to_owned(), ..TopicSpec::default() };
        (name.to_owned(), Ok(Topic { spec, is_misconfigured: name.ends_with("sys.messages") }))
    }

    #[test]
    fn a_tenant_sees_its_own_and_not_that_of_one_whose_name_begins_alike() {
        let all = ["acb.acme.notes", "acb.acme.sys.messages", "acb.acme2.notes", "acb.a.notes"];
        let quota = KafkaQuota { request_percent: Some(7), ..KafkaQuota::default() };
        let snapshot = Snapshot {
            topics: all.map(topic).into(),
            users: [("acb_t_1".to_owned(), Ok(5000))].into(),
            acls: [("acb_t_1".to_owned(), acls_of("acb_t_1", "acb.acme."))].into(),
            quotas: [("acb_t_1".to_owned(), quota)].into(),
            of_everybody: BTreeSet::new(),
            risks: vec!["a risk".to_owned()],
        };
        let acme = snapshot.of("acb_t_1", "acb.acme.").unwrap();
        assert_eq!(acme.topics.keys().collect::<Vec<_>>(), ["acb.acme.notes", "acb.acme.sys.messages"]);
        assert_eq!(acme.misconfigured, BTreeSet::from(["acb.acme.sys.messages".to_owned()]));
        assert!(
            acme.has_user && acme.credential_rounds == 5000 && acme.acls && acme.quota == quota && acme.risks.len() == 1,
            "{acme:?}"
        );
        let other = snapshot.of("acb_t_2", "acb.acme2.").unwrap();
        assert_eq!(other.topics.keys().collect::<Vec<_>>(), ["acb.acme2.notes"]);
        assert!(!other.has_user && !other.acls && other.quota == KafkaQuota::default(), "{other:?}");
        assert!(!snapshot.of("acb_t_1", "acb.acme2.").unwrap().acls, "rights on another prefix are not its own");
    }

    #[test]
    fn what_can_not_be_read_of_one_tenant_is_no_error_of_another() {
        let mut snapshot = Snapshot { topics: ["acb.acme.notes", "acb.globex.notes"].map(topic).into(), ..Snapshot::default() };
        let broken = || EffectError::unavailable("Kafka", "broken");
        snapshot.topics.insert("acb.acme.broken".to_owned(), Err(broken()));
        snapshot.users.insert("acb_t_3".to_owned(), Err(broken()));
        snapshot.of("acb_t_1", "acb.acme.").unwrap_err();
        snapshot.of("acb_t_3", "acb.initech.").unwrap_err();
        assert_eq!(snapshot.of("acb_t_2", "acb.globex.").unwrap().topics.len(), 1);
    }

    #[test]
    fn what_is_others_is_not_kept() {
        let everyone = Scope::Everyone;
        assert!(everyone.has_topic("acb.acme.notes") && !everyone.has_topic("orders"));
        assert!(everyone.has_user("acb_t_0011") && !everyone.has_user("admin"));
        let one = Scope::One { username: "acb_t_1", prefix: "acb.acme." };
        assert!(one.has_topic("acb.acme.notes") && !one.has_topic("acb.acme2.notes"));
        assert!(one.has_user("acb_t_1") && !one.has_user("acb_t_11"));
    }
}
