//! Everything that Kafka holds of tenants, whoever they are.

use std::collections::BTreeSet;

use acb_crds::names::TenantId;
use acb_kafka::kafka_protocol::messages::{DescribeUserScramCredentialsRequest, MetadataRequest};

use super::{
    EffectError,
    kafka::{KafkaEffect, Session, check, failed},
};

const USER: &str = "acb_t_";
const PREFIX: &str = "acb.";

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaInventory {
    /// Users that have a password.
    pub users: BTreeSet<TenantId>,
    /// Users that are granted something.
    pub granted: BTreeSet<TenantId>,
    /// The names of the tenants under whose prefixes there are topics.
    pub topics: BTreeSet<String>,
}

fn id(user: &str) -> Option<TenantId> {
    TenantId::from_hex(user.strip_prefix(USER)?)
}

impl KafkaEffect {
    /// Lists it.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn inventory(&self) -> Result<KafkaInventory, EffectError> {
        let mut session = Session::open(self).await?;
        // Without names: everyone.
        let request = DescribeUserScramCredentialsRequest::default().with_users(None);
        let answer = session.connection().send(&request, 0).await.map_err(failed)?;
        check(answer.error_code, answer.error_message.as_ref(), "listing SCRAM users")?;
        let users = answer.results.iter().filter(|user| user.error_code == 0).filter_map(|user| id(&user.user)).collect();
        let acls = session.acls(None).await?;
        let granted = acls.iter().filter_map(|acl| id(acl.principal.strip_prefix("User:")?)).collect();
        let listed = session.connection().send(&MetadataRequest::default().with_topics(None), 12).await.map_err(failed)?;
        let names = listed.topics.iter().filter_map(|topic| topic.name.as_ref());
        let tenants = names.filter_map(|name| Some(name.0.strip_prefix(PREFIX)?.split_once('.')?.0.to_owned()));
        Ok(KafkaInventory { users, granted, topics: tenants.collect() })
    }
}
