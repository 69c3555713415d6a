//! Against what Kafka keeps of all tenants together: users, quotas, settings.

use acb_kafka::kafka_protocol::messages::{
    DeleteRecordsRequest, DescribeClientQuotasRequest, DescribeConfigsRequest, DescribeUserScramCredentialsRequest,
    IncrementalAlterConfigsRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    describe_client_quotas_request::ComponentData,
    describe_configs_request::DescribeConfigsResource,
    describe_user_scram_credentials_request::UserName,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use crate::{
    attack::Attack,
    requests::{Ground, Verdict, attack, neighbour, settle, text},
};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const TIMEOUT_MS: i32 = 3000;
/// Of quotas: of each name.
const ANY_NAME: i8 = 2;

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        attack("read.user", "how the neighbour's password is kept", |mut g: Ground| async move {
            // By name: to who asks for all, and may not, a broker gives no answer at all.
            let user = UserName::default().with_name(text(neighbour(&g.victim)));
            let answer = g.ask(&DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user])), 0).await?;
            Ok(settle(Some(answer.error_code), "the user's mechanisms and rounds"))
        }),
        attack("read.quotas", "what each tenant may take", |mut g: Ground| async move {
            let users = ComponentData::default().with_entity_type(text("user")).with_match_type(ANY_NAME).with_match(None);
            let answer = g.ask(&DescribeClientQuotasRequest::default().with_components(vec![users]), 1).await?;
            Ok(settle(Some(answer.error_code), "the quotas"))
        }),
        attack("read.broker-settings", "how the brokers are set up", |mut g: Ground| async move {
            settings(&mut g, BROKER, "").await
        }),
        attack("read.topic-settings", "how long the neighbour keeps what", |mut g: Ground| async move {
            let topic = g.messages().0.to_string();
            settings(&mut g, TOPIC, &topic).await
        }),
        attack("alter.broker", "every tenant's messages expired", |mut g: Ground| async move {
            let config = AlterableConfig::default().with_name(text("log.retention.ms")).with_value(Some(text("1000")));
            let broker = AlterConfigsResource::default().with_resource_type(BROKER).with_configs(vec![config]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![broker]).with_validate_only(true);
            let answer = g.ask(&request, 1).await?;
            Ok(settle(answer.responses.first().map(|broker| broker.error_code), "the brokers would have been altered"))
        }),
        attack("cut.log", "the neighbour's messages gone", |mut g: Ground| async move {
            // Those below the first, of which there are none: the attack is a proof, not a vandal.
            let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(0);
            let topic = DeleteRecordsTopic::default().with_name(g.messages()).with_partitions(vec![partition]);
            let answer = g.ask(&DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS), 2).await?;
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            Ok(settle(partition.map(|partition| partition.error_code), "records could have been deleted"))
        }),
    ]
}

async fn settings(g: &mut Ground, resource_type: i8, name: &str) -> Verdict {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name.to_owned()))
        .with_configuration_keys(None);
    let answer = g.ask(&DescribeConfigsRequest::default().with_resources(vec![resource]), 4).await?;
    Ok(settle(answer.results.first().map(|found| found.error_code), "the settings"))
}
