//! Reads what Kafka holds of tenants, in the terms of the plan, so that the two can be compared.

use std::collections::{BTreeMap, BTreeSet};

use acb_kafka::{
    Connection, Error, ResponseError,
    kafka_protocol::{
        messages::{
            DescribeConfigsRequest, DescribeUserScramCredentialsRequest, MetadataRequest,
            describe_configs_request::DescribeConfigsResource, describe_configs_response::DescribeConfigsResult,
            describe_user_scram_credentials_request::UserName,
        },
        protocol::StrBytes,
    },
};

use super::{
    EffectError,
    kafka::{KafkaEffect, SCRAM_SHA_512, Session, check, failed, text},
    kafka_acls::Acl,
    kafka_configs::{RESOURCE_TOPIC, configs},
    kafka_durability::{self, weak},
    kafka_everybody::EVERYBODY,
    kafka_settings,
    kafka_snapshot::{Scope, Snapshot, Topic},
    postgres_observe::LoginState,
};
use crate::{observed::ObservedKafka, plan::TopicSpec};

/// Topics that are described in one request: an answer has less than a kilobyte for each.
const AT_ONCE: usize = 500;

impl KafkaEffect {
    /// Reads the topics under a tenant's prefix, and the credential, ACLs and quota of its user, as they are now. Whether the user's password
    /// is the right one is for [`login_state`](Self::login_state) to say.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn observe(&self, username: &str, prefix: &str) -> Result<ObservedKafka, EffectError> {
        self.read(Scope::One { username, prefix }).await?.of(username, prefix)
    }

    /// As [`observe`](Self::observe), by what was read for all tenants a moment ago, where that is shared.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn look(&self, username: &str, prefix: &str) -> Result<ObservedKafka, EffectError> {
        let Some(shared) = self.shared() else { return self.observe(username, prefix).await };
        match shared.get([username, prefix], || self.read(Scope::Everyone)).await {
            Some(snapshot) => snapshot?.of(username, prefix),
            None => self.observe(username, prefix).await,
        }
    }

    async fn read(&self, scope: Scope<'_>) -> Result<Snapshot, EffectError> {
        let mut session = Session::open(self).await?;
        let (partitions, brokers) = partitions(session.connection(), scope).await?;
        let (acls, of_everybody) = acls(&mut session, scope).await?;
        Ok(Snapshot {
            risks: kafka_settings::risks(session.connection(), &brokers).await?,
            topics: topics(session.connection(), &partitions).await?,
            users: users(session.connection(), scope).await?,
            acls,
            of_everybody,
            quotas: {
                let mut quotas = session.quotas(scope.username()).await?;
                quotas.retain(|user, _| scope.has_user(user));
                quotas
            },
        })
    }

    /// What becomes of logging in as a user.
    pub async fn login_state(&self, username: &str, password: &str) -> LoginState {
        match Connection::open(&self.settings().clone().with_login(username, password)).await {
            Ok(_) => LoginState::Works,
            Err(Error::Login(..)) => LoginState::Refused,
            Err(Error::Unreachable(..) | Error::Protocol(_)) => LoginState::Unknown,
        }
    }
}

/// The ACLs of those who are asked about, by user, and those of everybody.
async fn acls(
    session: &mut Session<'_>,
    scope: Scope<'_>,
) -> Result<(BTreeMap<String, BTreeSet<Acl>>, BTreeSet<Acl>), EffectError> {
    let mut found = match scope.username() {
        Some(username) => session.acls(Some(&format!("User:{username}"))).await?,
        None => session.acls(None).await?,
    };
    if scope.username().is_some() {
        found.extend(session.acls(Some(EVERYBODY)).await?);
    }
    let (mut acls, mut of_everybody) = (BTreeMap::<String, BTreeSet<Acl>>::new(), BTreeSet::new());
    for acl in found {
        let user = acl.principal.strip_prefix("User:").unwrap_or_default();
        if acl.principal == EVERYBODY {
            of_everybody.insert(acl);
        } else if scope.has_user(user) {
            acls.entry(user.to_owned()).or_default().insert(acl);
        }
    }
    Ok((acls, of_everybody))
}

/// How many partitions each topic has, and the ids of the brokers. Kafka has no question for a prefix: it lists all, and those that are
/// asked for are taken.
async fn partitions(connection: &mut Connection, scope: Scope<'_>) -> Result<(BTreeMap<String, u32>, Vec<i32>), EffectError> {
    let answer = connection.send(&MetadataRequest::default().with_topics(None), 12).await.map_err(failed)?;
    let topics = answer.topics.iter().filter(|topic| topic.error_code == 0);
    let named = topics.filter_map(|topic| Some((topic.name.as_ref()?.0.as_str(), topic.partitions.len())));
    let own = named.filter(|(name, _)| scope.has_topic(name));
    let own = own.map(|(name, count)| (name.to_owned(), u32::try_from(count).unwrap_or(u32::MAX))).collect();
    Ok((own, answer.brokers.iter().map(|broker| broker.node_id.0).collect()))
}

/// The topics as a plan would have them.
async fn topics(
    connection: &mut Connection,
    partitions: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, Result<Topic, EffectError>>, EffectError> {
    let keys = configs(&TopicSpec::default()).map(|(key, _)| key).into_iter().chain(kafka_durability::KEYS);
    let keys: Vec<StrBytes> = keys.map(StrBytes::from_static_str).collect();
    let (mut topics, names) = (BTreeMap::new(), partitions.keys().collect::<Vec<_>>());
    for names in names.chunks(AT_ONCE) {
        let resources = names.iter().map(|name| {
            DescribeConfigsResource::default()
                .with_resource_type(RESOURCE_TOPIC)
                .with_resource_name(text(name))
                .with_configuration_keys(Some(keys.clone()))
        });
        // With the values that would hold if a topic had none of its own.
        let request = DescribeConfigsRequest::default().with_resources(resources.collect()).with_include_synonyms(true);
        let answer = connection.send(&request, 4).await.map_err(failed)?;
        for topic in &answer.results {
            let name = topic.resource_name.to_string();
            // Removed since it was listed.
            if topic.error_code == ResponseError::UnknownTopicOrPartition.code() {
                continue;
            }
            let what = || format!("reading the configuration of topic {name}");
            let known = check(topic.error_code, topic.error_message.as_ref(), &what());
            let known = known.map(|()| described(topic, partitions.get(&name).copied().unwrap_or_default()));
            topics.insert(name, known);
        }
    }
    Ok(topics)
}

fn described(topic: &DescribeConfigsResult, partitions: u32) -> Topic {
    let values: BTreeMap<&str, &str> =
        topic.configs.iter().filter_map(|config| Some((config.name.as_str(), config.value.as_ref()?.as_str()))).collect();
    let value = |key: &str| values.get(key).copied().unwrap_or_default();
    let spec = TopicSpec {
        name: topic.resource_name.to_string(),
        partitions,
        // Below zero, and what can't be read, is for ever: nobody takes it for over.
        retention_seconds: value("retention.ms").parse().map_or(u64::MAX, |milliseconds: u64| milliseconds / 1000),
        cleanup: value("cleanup.policy").to_owned(),
        max_message_bytes: value("max.message.bytes").parse().unwrap_or_default(),
    };
    let is_other = configs(&spec).iter().any(|(key, wanted)| value(key) != wanted);
    Topic { spec, is_misconfigured: is_other || !weak(topic).is_empty() }
}

/// The users that have a credential, and the rounds of its hash.
async fn users(connection: &mut Connection, scope: Scope<'_>) -> Result<BTreeMap<String, Result<u32, EffectError>>, EffectError> {
    // Without names: everyone.
    let named = scope.username().map(|username| vec![UserName::default().with_name(text(username))]);
    let request = DescribeUserScramCredentialsRequest::default().with_users(named);
    let answer = connection.send(&request, 0).await.map_err(failed)?;
    check(answer.error_code, answer.error_message.as_ref(), "reading SCRAM credentials")?;
    let mut users = BTreeMap::new();
    for user in answer.results.iter().filter(|user| scope.has_user(&user.user)) {
        let name = user.user.to_string();
        if user.error_code == ResponseError::ResourceNotFound.code() {
            continue;
        }
        let known = check(user.error_code, user.error_message.as_ref(), &format!("reading the credential of {name}"));
        let credential = user.credential_infos.iter().find(|credential| credential.mechanism == SCRAM_SHA_512);
        match (known, credential) {
            (Err(why), _) => drop(users.insert(name, Err(why))),
            (Ok(()), Some(credential)) => drop(users.insert(name, Ok(credential.iterations.unsigned_abs()))),
            (Ok(()), None) => {}
        }
    }
    Ok(users)
}
