//! Against Kafka's topics, groups, users and rights, with the user of the attacker's hub, request by request: a client library has no
//! call for some of them, and keeps the broker's answer to others to itself.

use acb_kafka::{
    Call, Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{
            AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateAclsRequest, CreatePartitionsRequest,
            CreateTopicsRequest, DeleteAclsRequest, DeleteTopicsRequest, DescribeAclsRequest, FindCoordinatorRequest, GroupId,
            IncrementalAlterConfigsRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, TopicName,
            alter_client_quotas_request::{EntityData, EntryData, OpData},
            alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
            create_acls_request::AclCreation,
            create_partitions_request::CreatePartitionsTopic,
            create_topics_request::CreatableTopic,
            delete_acls_request::DeleteAclsFilter,
            delete_topics_request::DeleteTopicState,
            incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
            offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        },
        protocol::StrBytes,
    },
};

use tokio::time::{Duration, Instant, sleep};

use crate::{
    attack::{Attack, Outcome, Wall},
    target::{Attacker, KafkaAccess, Victim},
};

type Verdict = Result<Outcome, Error>;

const TOPIC: i8 = 2;
const PREFIXED: i8 = 4;
const ANY: i8 = 1;
const READ: i8 = 3;
const ALLOW: i8 = 3;
const SCRAM_SHA_512: i8 = 2;
const LATEST: i64 = -1;
const TIMEOUT_MS: i32 = 3000;
/// For a broker that has just begun to look after a group.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn attacks() -> Vec<Attack> {
    fn attack<F, R>(name: &str, prize: &str, attempt: F) -> Attack
    where
        F: Fn(Ground) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        Attack::new(Wall::Kafka, name, prize, move |attacker, victim| {
            Box::pin(async move {
                let verdict = match Ground::prepare(attacker, victim).await {
                    Ok(ground) => attempt(ground).await,
                    Err(why) => return Outcome::Inconclusive(format!("could not log in as oneself: {why}")),
                };
                verdict.unwrap_or_else(|error| Outcome::Inconclusive(error.to_string()))
            })
        })
    }
    let mut attacks = vec![
        attack("read.offsets", "how much the neighbour sends", |mut g: Ground| async move {
            let partition = ListOffsetsPartition::default().with_timestamp(LATEST);
            let topic = ListOffsetsTopic::default().with_name(g.messages()).with_partitions(vec![partition]);
            let answer = g.ask(&ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]), 6).await?;
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            Ok(settle(partition.map(|partition| partition.error_code), "the end of the log"))
        }),
        attack("commit.group", "the neighbour's consumer groups moved", |mut g: Ground| async move {
            let group = text(format!("acb.{}.intruder", g.victim.tenant));
            // A broker looks after a group from the first time that one asks who does. Whether one may ask, the commit shows too.
            g.ask(&FindCoordinatorRequest::default().with_key(group.clone()), 2).await?;
            // Of a topic of one's own: nothing but the group is in the way.
            let own = TopicName(text(format!("acb.{}.sys.messages", g.own_name)));
            let topic =
                OffsetCommitRequestTopic::default().with_name(own).with_partitions(vec![OffsetCommitRequestPartition::default()]);
            let commit = OffsetCommitRequest::default()
                .with_group_id(GroupId(group))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic]);
            let deadline = Instant::now() + PATIENCE;
            loop {
                let answer = g.ask(&commit, 8).await?;
                let code = answer.topics.first().and_then(|topic| topic.partitions.first()).map(|partition| partition.error_code);
                let retriable = code.and_then(ResponseError::try_from_code).is_some_and(|error| error.is_retriable());
                if !retriable || Instant::now() >= deadline {
                    return Ok(settle(code, "an offset was committed"));
                }
                sleep(Duration::from_millis(100)).await;
            }
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
            let (principal, prefix) = (text(format!("User:{}", g.access.username)), text(format!("acb.{}.", g.victim.tenant)));
            let grant = AclCreation::default()
                .with_resource_type(TOPIC)
                .with_resource_name(prefix.clone())
                .with_resource_pattern_type(PREFIXED)
                .with_principal(principal.clone())
                .with_host(text("*"))
                .with_operation(READ)
                .with_permission_type(ALLOW);
            let answer = g.ask(&CreateAclsRequest::default().with_creations(vec![grant]), 2).await?;
            let outcome = settle(answer.results.first().map(|result| result.error_code), "the right was granted");
            if matches!(outcome, Outcome::Succeeded(_)) {
                // The attack is a proof, not a vandal.
                let granted = DeleteAclsFilter::default()
                    .with_resource_type_filter(TOPIC)
                    .with_resource_name_filter(Some(prefix))
                    .with_pattern_type_filter(PREFIXED)
                    .with_principal_filter(Some(principal))
                    .with_host_filter(None)
                    .with_operation(READ)
                    .with_permission_type(ALLOW);
                g.ask(&DeleteAclsRequest::default().with_filters(vec![granted]), 2).await?;
            }
            Ok(outcome)
        }),
        attack("create.user", "a login of one's own making", |mut g: Ground| async move {
            let name = text(format!("{}-intruder", g.access.username));
            let made = ScramCredentialUpsertion::default()
                .with_name(name.clone())
                .with_mechanism(SCRAM_SHA_512)
                .with_iterations(4096)
                .with_salt(vec![0; 32].into())
                .with_salted_password(vec![0; 64].into());
            let answer = g.ask(&AlterUserScramCredentialsRequest::default().with_upsertions(vec![made]), 0).await?;
            let outcome = settle(answer.results.first().map(|result| result.error_code), "the user was made");
            if matches!(outcome, Outcome::Succeeded(_)) {
                let gone = ScramCredentialDeletion::default().with_name(name).with_mechanism(SCRAM_SHA_512);
                g.ask(&AlterUserScramCredentialsRequest::default().with_deletions(vec![gone]), 0).await?;
            }
            Ok(outcome)
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
    attacks.extend(crate::kafka::attacks());
    // The last of all: a broker can't be asked whether it would.
    attacks.push(attack("delete.topic", "the neighbour's contexts gone", |mut g: Ground| async move {
        let topic = DeleteTopicState::default().with_name(Some(g.contexts()));
        let answer = g.ask(&DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS), 6).await?;
        Ok(settle(answer.responses.first().map(|topic| topic.error_code), "the topic was deleted"))
    }));
    attacks
}

/// What an attempt needs: a connection as oneself, which must work, or nothing is proved.
struct Ground {
    access: KafkaAccess,
    settings: Settings,
    own: Connection,
    own_name: String,
    victim: Victim,
}

impl Ground {
    async fn prepare(attacker: &Attacker, victim: &Victim) -> Result<Self, String> {
        let access = attacker.kafka.clone().ok_or("there is no user of Kafka to attack with")?;
        let mut settings = Settings::new(&access.bootstrap_servers, &access.username, &access.password);
        if let Some(ca) = &access.ca_pem {
            settings = settings.with_tls(ca.as_bytes()).map_err(|error| error.to_string())?;
        }
        let own = Connection::open(&settings).await.map_err(|error| error.to_string())?;
        Ok(Self { access, settings, own, own_name: attacker.tenant.clone(), victim: victim.clone() })
    }

    async fn ask<R: Call>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        self.own.send(request, version).await
    }

    /// Only asked for, as is all that a broker can be asked about: the attack is a proof, not a vandal.
    async fn create(&mut self, tenant: &str) -> Verdict {
        let name = TopicName(text(format!("acb.{tenant}.intruder")));
        let topic = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.ask(&request.with_validate_only(true), 7).await?;
        Ok(settle(answer.topics.first().map(|topic| topic.error_code), "the topic would have been made"))
    }

    fn messages(&self) -> TopicName {
        TopicName(text(format!("acb.{}.sys.messages", self.victim.tenant)))
    }

    fn contexts(&self) -> TopicName {
        TopicName(text(format!("acb.{}.{}", self.victim.tenant, self.victim.context_type)))
    }
}

/// The name of its user.
fn neighbour(victim: &Victim) -> String {
    format!("acb_t_{}", victim.tenant_id)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// By the code of the broker's answer.
fn settle(code: Option<i16>, got: &str) -> Outcome {
    match code {
        None => Outcome::Inconclusive("the broker's answer is empty".to_owned()),
        Some(0) => Outcome::Succeeded(got.to_owned()),
        Some(code) => match ResponseError::try_from_code(code) {
            Some(
                error @ (ResponseError::ClusterAuthorizationFailed
                | ResponseError::GroupAuthorizationFailed
                | ResponseError::TopicAuthorizationFailed),
            ) => Outcome::Refused(error.to_string()),
            Some(error) => Outcome::Inconclusive(error.to_string()),
            None => Outcome::Inconclusive(format!("code {code}")),
        },
    }
}
