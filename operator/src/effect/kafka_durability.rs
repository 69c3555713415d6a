//! Topics that are less safe than the brokers' own settings have them: a value that someone gave the topic itself.

use std::collections::BTreeMap;

use acb_kafka::kafka_protocol::{
    messages::{
        DescribeConfigsRequest, describe_configs_request::DescribeConfigsResource,
        describe_configs_response::DescribeConfigsResult,
    },
    protocol::StrBytes,
};

use super::{
    EffectError,
    kafka::{Session, failed, text},
    kafka_configs::RESOURCE_TOPIC,
};

pub(super) const UNCLEAN: &str = "unclean.leader.election.enable";
pub(super) const IN_SYNC: &str = "min.insync.replicas";
/// Where a value comes from: the topic itself.
const OF_TOPIC: i8 = 1;
/// What is looked at.
pub(super) const KEYS: [&str; 2] = [UNCLEAN, IN_SYNC];

impl Session<'_> {
    /// What of these topics is less safe than the brokers have it, by topic. One that is gone has nothing.
    pub(super) async fn weakened(&mut self, topics: &[&str]) -> Result<BTreeMap<String, Vec<&'static str>>, EffectError> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let keys = KEYS.map(StrBytes::from_static_str);
        let resources = topics.iter().map(|name| {
            DescribeConfigsResource::default()
                .with_resource_type(RESOURCE_TOPIC)
                .with_resource_name(text(name))
                .with_configuration_keys(Some(keys.to_vec()))
        });
        // With the values that would hold if the topic had none of its own.
        let request = DescribeConfigsRequest::default().with_resources(resources.collect()).with_include_synonyms(true);
        let answer = self.connection().send(&request, 4).await.map_err(failed)?;
        let known = answer.results.iter().filter(|topic| topic.error_code == 0);
        let weak = known.map(|topic| (topic.resource_name.to_string(), weak(topic)));
        Ok(weak.filter(|(_, weak)| !weak.is_empty()).collect())
    }
}

/// What of a topic is less safe than the brokers have it, by an answer with the values that would hold if it had none of its own.
pub(super) fn weak(topic: &DescribeConfigsResult) -> Vec<&'static str> {
    let own = |key: &str| {
        let config = topic.configs.iter().find(|config| config.name.as_str() == key && config.config_source == OF_TOPIC)?;
        let brokers = config.synonyms.iter().find(|synonym| synonym.source != OF_TOPIC)?;
        Some((config.value.as_ref()?.to_string(), brokers.value.as_ref()?.to_string()))
    };
    let mut weak = Vec::new();
    if own(UNCLEAN).is_some_and(|(own, brokers)| own == "true" && brokers != "true") {
        weak.push(UNCLEAN);
    }
    let number = |text: String| text.parse::<u32>().unwrap_or_default();
    if own(IN_SYNC).is_some_and(|(own, brokers)| number(own) < number(brokers)) {
        weak.push(IN_SYNC);
    }
    weak
}

#[cfg(test)]
mod tests {
    use acb_kafka::kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};

    use super::*;

    fn topic(key: &str, own: &str, source: i8, brokers: &str) -> DescribeConfigsResult {
        let synonym = |value: &str, source| DescribeConfigsSynonym::default().with_source(source).with_value(Some(text(value)));
        let config = DescribeConfigsResourceResult::default()
            .with_name(text(key))
            .with_config_source(source)
            .with_value(Some(text(own)))
            .with_synonyms(vec![synonym(own, source), synonym(brokers, 5)]);
        DescribeConfigsResult::default().with_configs(vec![config])
    }

    #[test]
    fn only_what_is_less_safe_than_the_brokers_is_taken_away() {
        assert_eq!(weak(&topic(IN_SYNC, "1", OF_TOPIC, "2")), [IN_SYNC]);
        assert_eq!(weak(&topic(IN_SYNC, "3", OF_TOPIC, "2")), [""; 0]);
        assert_eq!(weak(&topic(IN_SYNC, "1", 5, "1")), [""; 0], "the brokers' own");
        assert_eq!(weak(&topic(UNCLEAN, "true", OF_TOPIC, "false")), [UNCLEAN]);
        assert_eq!(weak(&topic(UNCLEAN, "false", OF_TOPIC, "true")), [""; 0]);
    }
}
