//! Whether the brokers are set as ACB's promises need them to be. What is not is said, and never in the way of anything: the brokers are
//! the platform's.

use std::collections::BTreeMap;

use acb_kafka::{
    Connection, Error, ResponseError,
    kafka_protocol::{
        messages::{
            DescribeConfigsRequest, MetadataRequest, TopicName, describe_configs_request::DescribeConfigsResource,
            metadata_request::MetadataRequestTopic,
        },
        protocol::StrBytes,
    },
};

use super::{
    EffectError,
    kafka::{KafkaEffect, failed, text},
    kafka_durability::{IN_SYNC, UNCLEAN},
    postgres_observe::LoginState,
};

const RESOURCE_BROKER: i8 = 4;
const AUTO_CREATE: &str = "auto.create.topics.enable";
/// From so many brokers on, a record can be on two of them although one is away.
const ENOUGH_BROKERS: usize = 3;
/// No tenant has a right to it: its name is not under any tenant's prefix.
const NOBODYS_TOPIC: &str = "acb-nobodys";

/// What is wrong with the settings of the broker that answers, each with what to do. `brokers` are the ids of all.
pub(super) async fn risks(connection: &mut Connection, brokers: &[i32]) -> Result<Vec<String>, EffectError> {
    let keys = [AUTO_CREATE, UNCLEAN, IN_SYNC].map(StrBytes::from_static_str);
    // Only the broker that is asked describes itself, and which one that is is not known here.
    let resources = brokers.iter().map(|id| {
        DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_BROKER)
            .with_resource_name(text(id.to_string()))
            .with_configuration_keys(Some(keys.to_vec()))
    });
    let request = DescribeConfigsRequest::default().with_resources(resources.collect());
    let answer = connection.send(&request, 4).await.map_err(failed)?;
    let denied = ResponseError::ClusterAuthorizationFailed.code();
    if answer.results.iter().any(|broker| broker.error_code == denied) {
        return Ok(vec![
            "the brokers' settings are not known: grant the operator's user DescribeConfigs on the cluster".to_owned(),
        ]);
    }
    let Some(broker) = answer.results.iter().find(|broker| broker.error_code == 0) else { return Ok(Vec::new()) };
    let values = broker.configs.iter().filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
    Ok(judge(&values.collect(), brokers.len()))
}

/// What a broker's settings put at risk.
fn judge(values: &BTreeMap<String, String>, brokers: usize) -> Vec<String> {
    let value = |key: &str| values.get(key).map(String::as_str).unwrap_or_default();
    let mut risks = Vec::new();
    if value(AUTO_CREATE) == "true" {
        risks.push(format!("{AUTO_CREATE}=true makes topics that no plan has: set it to false"));
    }
    if value(UNCLEAN) == "true" {
        risks.push(format!("{UNCLEAN}=true can lose what was acknowledged: set it to false"));
    }
    let in_sync: u32 = value(IN_SYNC).parse().unwrap_or(u32::MAX);
    if brokers >= ENOUGH_BROKERS && in_sync < 2 {
        risks.push(format!("{IN_SYNC}={in_sync} acknowledges what one broker alone has: set it to 2"));
    }
    risks
}

/// Said where a tenant's user gets an answer about what it has no right to.
pub const OPEN_BY_DEFAULT: &str = "a tenant's user may see topics that it was never granted: set authorizer.class.name, and leave \
     allow.everyone.if.no.acl.found at false";

impl KafkaEffect {
    /// What becomes of logging in as a tenant's user, and whether that one is let in where no ACL lets it in. Tried rather than read: the
    /// broker hides the setting.
    pub async fn try_login(&self, username: &str, password: &str) -> (LoginState, bool) {
        let mut connection = match Connection::open(&self.settings().clone().with_login(username, password)).await {
            Ok(connection) => connection,
            Err(Error::Login(..)) => return (LoginState::Refused, false),
            Err(Error::Unreachable(..) | Error::Protocol(_)) => return (LoginState::Unknown, false),
        };
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(NOBODYS_TOPIC))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = connection.send(&request, 12).await;
        let code = answer.ok().and_then(|answer| answer.topics.first().map(|topic| topic.error_code));
        let is_open = code.is_some_and(|code| code == 0 || code == ResponseError::UnknownTopicOrPartition.code());
        (LoginState::Works, is_open)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn each_setting_is_named_with_what_to_do() {
        let of = |auto: &str, unclean: &str, in_sync: &str, brokers: usize| {
            let values = [(AUTO_CREATE, auto), (UNCLEAN, unclean), (IN_SYNC, in_sync)];
            judge(&values.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), brokers)
        };
        assert_eq!(of("false", "false", "2", 3), Vec::<String>::new());
        assert_eq!(of("false", "false", "1", 2), Vec::<String>::new(), "two brokers: one may be away");
        let all = of("true", "true", "1", 3);
        assert_eq!(all.len(), 3);
        for (risk, key) in all.iter().zip([AUTO_CREATE, UNCLEAN, IN_SYNC]) {
            assert!(risk.starts_with(key) && risk.contains(": set it to"), "{risk}");
        }
        assert_eq!(judge(&BTreeMap::new(), 3), Vec::<String>::new(), "what is not told is not judged");
    }
}
