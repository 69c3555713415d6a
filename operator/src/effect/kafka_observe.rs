//! Reads what Kafka holds of a tenant, in the terms of the plan, so that the two can be compared.

use std::collections::{BTreeMap, BTreeSet};

use acb_kafka::{
    Connection, Error, ResponseError,
    kafka_protocol::{
        messages::{
            DescribeConfigsRequest, DescribeUserScramCredentialsRequest, MetadataRequest,
            describe_configs_request::DescribeConfigsResource, describe_user_scram_credentials_request::UserName,
        },
        protocol::StrBytes,
    },
};

use super::{
    EffectError,
    kafka::{KafkaEffect, RESOURCE_TOPIC, SCRAM_SHA_512, Session, acls_of, check, configs, failed, text},
    kafka_settings,
    postgres_observe::LoginState,
};
use crate::{observed::ObservedKafka, plan::TopicSpec};

impl KafkaEffect {
    /// Reads the topics under a tenant's prefix, and the credential, ACLs and quota of its user. Whether the user's password is the right one
    /// is for [`login_state`](Self::login_state) to say.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn observe(&self, username: &str, prefix: &str) -> Result<ObservedKafka, EffectError> {
        let mut session = Session::open(self).await?;
        let (partitions, brokers) = partitions(session.connection(), prefix).await?;
        let risks = kafka_settings::risks(session.connection(), &brokers).await?;
        let (topics, mut misconfigured) = topics(session.connection(), partitions).await?;
        let names: Vec<&str> = topics.keys().map(String::as_str).collect();
        misconfigured.extend(session.weakened(&names).await?.into_keys());
        let has_user = has_user(session.connection(), username).await?;
        let held = session.acls(Some(&format!("User:{username}"))).await?;
        let acls = BTreeSet::from_iter(held) == acls_of(username, prefix);
        let quota = session.quota(username).await?;
        Ok(ObservedKafka { topics, misconfigured, has_user, acls, quota, risks, ..ObservedKafka::default() })
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

/// How many partitions each topic of the prefix has, and the ids of the brokers. Kafka has no question for a prefix: it lists all, and the
/// tenant's are taken.
async fn partitions(connection: &mut Connection, prefix: &str) -> Result<(BTreeMap<String, u32>, Vec<i32>), EffectError> {
    let answer = connection.send(&MetadataRequest::default().with_topics(None), 12).await.map_err(failed)?;
    let topics = answer.topics.iter().filter(|topic| topic.error_code == 0);
    let named = topics.filter_map(|topic| Some((topic.name.as_ref()?.0.to_string(), topic.partitions.len())));
    let own = named.filter(|(name, _)| name.starts_with(prefix));
    let own = own.map(|(name, count)| (name, u32::try_from(count).unwrap_or(u32::MAX))).collect();
    Ok((own, answer.brokers.iter().map(|broker| broker.node_id.0).collect()))
}

/// The topics as a plan would have them, and those that no plan would have as they are.
async fn topics(
    connection: &mut Connection,
    partitions: BTreeMap<String, u32>,
) -> Result<(BTreeMap<String, TopicSpec>, BTreeSet<String>), EffectError> {
    let (mut topics, mut misconfigured) = (BTreeMap::new(), BTreeSet::new());
    if partitions.is_empty() {
        return Ok((topics, misconfigured));
    }
    let keys: Vec<StrBytes> = configs(&TopicSpec::default()).map(|(key, _)| StrBytes::from_static_str(key)).into();
    let resources = partitions.keys().map(|name| {
        DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(keys.clone()))
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.collect());
    let answer = connection.send(&request, 4).await.map_err(failed)?;
    for topic in &answer.results {
        let name = topic.resource_name.to_string();
        // Removed since it was listed.
        if topic.error_code == ResponseError::UnknownTopicOrPartition.code() {
            continue;
        }
        check(topic.error_code, topic.error_message.as_ref(), &format!("reading the configuration of topic {name}"))?;
        let values: BTreeMap<&str, &str> =
            topic.configs.iter().filter_map(|config| Some((config.name.as_str(), config.value.as_ref()?.as_str()))).collect();
        let value = |key: &str| values.get(key).copied().unwrap_or_default();
        let spec = TopicSpec {
            name: name.clone(),
            partitions: partitions.get(&name).copied().unwrap_or_default(),
            // Below zero, and what can't be read, is for ever: nobody takes it for over.
            retention_seconds: value("retention.ms").parse().map_or(u64::MAX, |milliseconds: u64| milliseconds / 1000),
            cleanup: value("cleanup.policy").to_owned(),
            max_message_bytes: value("max.message.bytes").parse().unwrap_or_default(),
        };
        if configs(&spec).iter().any(|(key, wanted)| value(key) != wanted) {
            misconfigured.insert(name.clone());
        }
        topics.insert(name, spec);
    }
    Ok((topics, misconfigured))
}

async fn has_user(connection: &mut Connection, username: &str) -> Result<bool, EffectError> {
    let user = UserName::default().with_name(text(username));
    let request = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user]));
    let answer = connection.send(&request, 0).await.map_err(failed)?;
    check(answer.error_code, answer.error_message.as_ref(), "reading SCRAM credentials")?;
    let Some(user) = answer.results.first() else { return Ok(false) };
    if user.error_code == ResponseError::ResourceNotFound.code() {
        return Ok(false);
    }
    check(user.error_code, user.error_message.as_ref(), &format!("reading the credential of {username}"))?;
    Ok(user.credential_infos.iter().any(|credential| credential.mechanism == SCRAM_SHA_512))
}
