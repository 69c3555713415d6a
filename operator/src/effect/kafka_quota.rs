//! Client quotas: what a user may take of each broker.

use std::collections::BTreeMap;

use acb_kafka::kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, DescribeClientQuotasRequest,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response as described,
    },
    protocol::StrBytes,
};

use super::{
    EffectError,
    kafka::{Session, check, failed, text},
};
use crate::plan::KafkaQuota;

const USER: &str = "user";
/// The entity with exactly this name, and not a default.
const MATCH_EXACT: i8 = 0;
/// Every entity that has a name.
const MATCH_ANY: i8 = 2;

/// Each part by Kafka's key.
fn parts(quota: &KafkaQuota) -> [(&'static str, Option<u64>); 3] {
    [
        ("producer_byte_rate", quota.producer_bytes_per_second),
        ("consumer_byte_rate", quota.consumer_bytes_per_second),
        ("request_percentage", quota.request_percent),
    ]
}

impl Session<'_> {
    /// Sets what is set and removes what is not, in one request for all users.
    pub(super) async fn ensure_quotas(&mut self, quotas: &[(&str, KafkaQuota)]) -> Result<(), EffectError> {
        let entries = quotas.iter().map(|(username, quota)| {
            let entity =
                EntityData::default().with_entity_type(StrBytes::from_static_str(USER)).with_entity_name(Some(text(username)));
            let ops = parts(quota).map(|(key, most)| {
                let op = OpData::default().with_key(StrBytes::from_static_str(key));
                #[expect(clippy::cast_precision_loss, reason = "a rate of 2^53 bytes a second is none")]
                match most {
                    Some(most) => op.with_value(most as f64),
                    None => op.with_remove(true),
                }
            });
            EntryData::default().with_entity(vec![entity]).with_ops(ops.into())
        });
        let request = AlterClientQuotasRequest::default().with_entries(entries.collect());
        let answer = self.change(&request, 1).await?;
        for entry in &answer.entries {
            check(entry.error_code, entry.error_message.as_ref(), "setting the quota of a tenant")?;
        }
        Ok(())
    }

    /// What each user may take, or this one.
    pub(super) async fn quotas(&mut self, username: Option<&str>) -> Result<BTreeMap<String, KafkaQuota>, EffectError> {
        let user = ComponentData::default()
            .with_entity_type(StrBytes::from_static_str(USER))
            .with_match_type(if username.is_some() { MATCH_EXACT } else { MATCH_ANY })
            .with_match(username.map(text));
        let request = DescribeClientQuotasRequest::default().with_components(vec![user]).with_strict(true);
        let answer = self.connection().send(&request, 1).await.map_err(failed)?;
        check(answer.error_code, answer.error_message.as_ref(), "reading the quotas of tenants")?;
        let entries = answer.entries.iter().flatten();
        let named = entries.filter_map(|entry| Some((entry.entity.first()?.entity_name.as_ref()?.to_string(), quota(entry))));
        Ok(named.collect())
    }
}

/// A rate that no plan could give reads as another than it.
fn quota(entry: &described::EntryData) -> KafkaQuota {
    let value = |wanted: &str| {
        let found = entry.values.iter().find(|value| value.key.as_str() == wanted)?.value;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "such a one is another in any case")]
        Some(found.ceil() as u64)
    };
    KafkaQuota {
        producer_bytes_per_second: value("producer_byte_rate"),
        consumer_bytes_per_second: value("consumer_byte_rate"),
        request_percent: value("request_percentage"),
    }
}
