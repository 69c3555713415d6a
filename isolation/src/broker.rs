//! Against Kafka's topics, logins and rights, with the user of the attacker's hub, request by request: a client library has no
//! call for some of them, and keeps the broker's answer to others to itself. None of them changes anything, even where it is allowed.

use acb_kafka::{
    Connection, Error, ResponseError,
    kafka_protocol::messages::{
        AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateAclsRequest, CreatePartitionsRequest,
        DeleteTopicsRequest, DescribeAclsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest,
        ProduceRequest, TopicName,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        alter_user_scram_credentials_request::ScramCredentialUpsertion,
        create_acls_request::AclCreation,
        create_partitions_request::CreatePartitionsTopic,
        delete_topics_request::DeleteTopicState,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};
use bytes::Bytes;

use crate::{
    attack::{Attack, Outcome},
    cluster, groups,
    requests::{Ground, NO_PARTITION, attack, neighbour, permitted, settle, text},
};

const TOPIC: i8 = 2;
const PREFIXED: i8 = 4;
const ANY: i8 = 1;
const READ: i8 = 3;
const ALLOW: i8 = 3;
const SCRAM_SHA_512: i8 = 2;
const LATEST: i64 = -1;
const TIMEOUT_MS: i32 = 3000;
/// What is the same, whoever the neighbour is.
const OF_ALL: [&str; 9] = [
    "kafka.create.own-topic",
    "kafka.read.rights",
    "kafka.read.quotas",
    "kafka.read.broker-settings",
    "kafka.alter.broker",
    "kafka.transact.own",
    "kafka.create.user",
    "kafka.login.anonymous",
    "kafka.list.topics",
];

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        attack("read.offsets", "how much the neighbour sends", |mut g: Ground| async move {
            let partition = ListOffsetsPartition::default().with_timestamp(LATEST);
            let topic = ListOffsetsTopic::default().with_name(g.messages()).with_partitions(vec![partition]);
            let answer = g.ask(&ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]), 6).await?;
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            Ok(settle(partition.map(|partition| partition.error_code), "the end of the log"))
        }),
        attack("create.topic", "a topic under the neighbour's name", |mut g: Ground| async move {
            let neighbour = g.victim.tenant.clone();
            g.create(&neighbour).await
        }),
        attack("create.own-topic", "topics beyond one's tier", |mut g: Ground| async move {
            let own = g.own_name.clone();
            g.create(&own).await
        }),
        attack("grow.topic", "the neighbour's order broken", |mut g: Ground| async move {
            let topic = CreatePartitionsTopic::default().with_name(g.contexts()).with_count(64).with_assignments(None);
            let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
            let answer = g.ask(&request.with_validate_only(true), 3).await?;
            Ok(settle(answer.results.first().map(|topic| topic.error_code), "the topic would have grown"))
        }),
        attack("alter.topic", "the neighbour's messages expired", |mut g: Ground| async move {
            let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let topic = AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(g.messages().0)
                .with_configs(vec![config]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![topic]).with_validate_only(true);
            let answer = g.ask(&request, 1).await?;
            Ok(settle(answer.responses.first().map(|topic| topic.error_code), "the topic would have been altered"))
        }),
        attack("read.rights", "who may do what on the cluster", |mut g: Ground| async move {
            let any = DescribeAclsRequest::default()
                .with_resource_type_filter(ANY)
                .with_pattern_type_filter(ANY)
                .with_operation(ANY)
                .with_permission_type(ANY);
            let answer = g.ask(&any, 2).await?;
            Ok(settle(Some(answer.error_code), &format!("the rights on {} resources", answer.resources.len())))
        }),
        attack("grant.self", "the right to read the neighbour's topics", |mut g: Ground| async move {
            // On a resource without a name. Whether one may grant is judged before what is granted, so that nothing is ever granted.
            let grant = AclCreation::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(""))
                .with_resource_pattern_type(PREFIXED)
                .with_principal(text(format!("User:{}", g.access.username)))
                .with_host(text("*"))
                .with_operation(READ)
                .with_permission_type(ALLOW);
            let answer = g.ask(&CreateAclsRequest::default().with_creations(vec![grant]), 2).await?;
            let code = answer.results.first().map(|result| result.error_code);
            Ok(settle(permitted(code, ResponseError::InvalidRequest), "the right would have been granted"))
        }),
        attack("create.user", "a login of one's own making", |mut g: Ground| async move {
            // With fewer rounds than a broker takes. Whether one may make users is judged before, so that none is ever made.
            let made = ScramCredentialUpsertion::default()
                .with_name(text(format!("{}-intruder", g.access.username)))
                .with_mechanism(SCRAM_SHA_512)
                .with_iterations(1)
                .with_salt(vec![0; 32].into())
                .with_salted_password(vec![0; 64].into());
            let answer = g.ask(&AlterUserScramCredentialsRequest::default().with_upsertions(vec![made]), 0).await?;
            let code = answer.results.first().map(|result| result.error_code);
            Ok(settle(permitted(code, ResponseError::UnacceptableCredential), "the user would have been made"))
        }),
        attack("throttle.neighbour", "the neighbour slowed to nothing", |mut g: Ground| async move {
            let user = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text(neighbour(&g.victim))));
            let op = OpData::default().with_key(text("producer_byte_rate")).with_value(1.0);
            let entry = EntryData::default().with_entity(vec![user]).with_ops(vec![op]);
            let answer =
                g.ask(&AlterClientQuotasRequest::default().with_entries(vec![entry]).with_validate_only(true), 1).await?;
            Ok(settle(answer.entries.first().map(|entry| entry.error_code), "the quota was taken"))
        }),
        attack("login.neighbour", "the neighbour's user, by one's own password", |g: Ground| async move {
            let name = neighbour(&g.victim);
            match Connection::open(&g.settings.with_login(&name, &g.access.password)).await {
                Ok(_) => Ok(Outcome::Succeeded(format!("logged in as {name}"))),
                Err(error @ Error::Login(..)) => Ok(Outcome::Refused(error.to_string())),
                Err(error) => Err(error),
            }
        }),
        attack("login.anonymous", "Kafka, without a user", |g: Ground| async move {
            let mut stranger = Connection::open_anonymous(&g.settings).await?;
            match stranger.send(&MetadataRequest::default().with_topics(None), 12).await {
                Ok(answer) => Ok(Outcome::Succeeded(format!("sees {} topics", answer.topics.len()))),
                // The broker hangs up on who doesn't say who it is. That one's own user still gets in shows that it is that, and no outage.
                Err(error) => Connection::open(&g.settings).await.map(|_| Outcome::Refused(error.to_string())),
            }
        }),
    ];
    attacks.extend(groups::attacks());
    attacks.extend(cluster::attacks());
    attacks.extend(crate::kafka::attacks());
    attacks.extend(["messages", "contexts", "control"].map(forge));
    attacks.push(attack("delete.topic", "the neighbour's contexts gone", |mut g: Ground| async move {
        // One below the neighbour's prefix that nobody has. Whether one may delete a topic is judged before whether it is there.
        let name = TopicName(text(format!("acb.{}.intruder", g.victim.tenant)));
        let topic = DeleteTopicState::default().with_name(Some(name));
        let answer = g.ask(&DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS), 6).await?;
        let code = answer.responses.first().map(|topic| topic.error_code);
        Ok(settle(permitted(code, ResponseError::UnknownTopicOrPartition), "the topic would have been deleted"))
    }));
    attacks.into_iter().map(|attack| if OF_ALL.contains(&attack.name.as_str()) { attack.once() } else { attack }).collect()
}

/// Asks to write into a partition that no topic has. Whether one may write to the topic is judged before, so that nothing is ever written.
fn forge(what: &'static str) -> Attack {
    let (name, prize) = match what {
        "messages" => ("forge.message", "a message in the neighbour's log"),
        "contexts" => ("forge.context", "a context of the neighbour's"),
        _ => ("forge.control", "the neighbour's hubs sent to reload"),
    };
    attack(name, prize, move |mut g: Ground| async move {
        let topic = match what {
            "messages" => g.messages(),
            "contexts" => g.contexts(),
            _ => TopicName(text(format!("acb.{}.sys.control", g.victim.tenant))),
        };
        let partition = PartitionProduceData::default().with_index(NO_PARTITION).with_records(Some(Bytes::new()));
        let topic = TopicProduceData::default().with_name(topic).with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_acks(1).with_timeout_ms(TIMEOUT_MS).with_topic_data(vec![topic]);
        let answer = g.ask(&request, 9).await?;
        let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        let code = permitted(partition.map(|partition| partition.error_code), ResponseError::UnknownTopicOrPartition);
        Ok(settle(code, "a record would have been written"))
    })
}
