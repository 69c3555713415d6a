//! Topics, users, ACLs and quotas, as the brokers keep them.

use std::collections::BTreeMap;

use acb_operator::{
    effect::EffectError,
    observed::{LoginState, ObservedKafka},
    plan::{KafkaQuota, KafkaStep, SecretRef, TopicSpec},
};

use crate::kubernetes::Kubernetes;

/// No topic takes less.
const MAX_MESSAGE_BYTES: u32 = 2 * 1024 * 1024;

#[derive(Clone, Debug, Default)]
pub(crate) struct User {
    /// The Secret whose password it has.
    password: Option<u64>,
    /// The prefixes of topics that it may use.
    pub(crate) prefixes: Vec<String>,
    pub(crate) quota: KafkaQuota,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Kafka {
    pub(crate) topics: BTreeMap<String, TopicSpec>,
    pub(crate) users: BTreeMap<String, User>,
    /// Which one of its name a topic is.
    ids: BTreeMap<String, u64>,
    made: u64,
}

impl Kafka {
    pub(crate) fn apply(&mut self, step: &KafkaStep, kubernetes: &Kubernetes) -> Result<(), EffectError> {
        match step {
            KafkaStep::EnsureTopic { topic } => {
                // Those that are there stay.
                let partitions = self.topics.get(&topic.name).map_or(0, |found| found.partitions).max(topic.partitions);
                let max_message_bytes = topic.max_message_bytes.max(MAX_MESSAGE_BYTES);
                if !self.topics.contains_key(&topic.name) {
                    self.made += 1;
                    self.ids.insert(topic.name.clone(), self.made);
                }
                self.topics.insert(topic.name.clone(), TopicSpec { partitions, max_message_bytes, ..topic.clone() });
            }
            KafkaStep::EnsureUser { username, secret } => {
                let password = kubernetes.secret(secret)?.serial;
                self.users.entry(username.clone()).or_default().password = Some(password);
            }
            KafkaStep::EnsureAcls { username, prefix } => {
                let tenant = prefix.strip_prefix("acb.").and_then(|rest| rest.strip_suffix('.'));
                if tenant.is_none_or(|tenant| tenant.is_empty() || tenant.contains('.')) {
                    return Err(EffectError::refused("ACB", format!("{prefix:?} is not a tenant's prefix")));
                }
                self.users.entry(username.clone()).or_default().prefixes = vec![prefix.clone()];
            }
            KafkaStep::EnsureQuota { username, quota } => self.users.entry(username.clone()).or_default().quota = *quota,
            KafkaStep::RemoveUser { username } => {
                self.users.remove(username);
            }
            KafkaStep::RemoveTopic { name } => {
                self.topics.remove(name);
            }
        }
        Ok(())
    }

    /// Of a topic that is there.
    pub(crate) fn id(&self, topic: &str) -> Option<u64> {
        self.topics.contains_key(topic).then(|| self.ids.get(topic).copied()).flatten()
    }

    /// What is seen of the tenant with this user and prefix. Other tenants' topics are seen, too.
    pub(crate) fn observe(&self, username: &str, prefix: &str, secret: &SecretRef, kubernetes: &Kubernetes) -> ObservedKafka {
        let user = self.users.get(username);
        let password = user.and_then(|user| user.password);
        let login = |secret: Option<&SecretRef>| match secret.and_then(|secret| kubernetes.secrets.get(secret)) {
            Some(found) if password == Some(found.serial) => LoginState::Works,
            _ => LoginState::Refused,
        };
        let newest = login(Some(secret));
        let before = secret.before();
        ObservedKafka {
            topics: self
                .topics
                .iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(name, topic)| (name.clone(), topic.clone()))
                .collect(),
            user: newest,
            previous: if newest == LoginState::Refused { login(before.as_ref()) } else { LoginState::Refused },
            has_user: password.is_some(),
            acls: user.is_some_and(|user| user.prefixes == [prefix]),
            quota: user.map(|user| user.quota).unwrap_or_default(),
            ..ObservedKafka::default()
        }
    }
}
