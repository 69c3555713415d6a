//! The effect on Kafka: topics, SCRAM users, ACLs and quotas. Steps of one kind that follow one another are one request, and no password is ever
//! sent: the broker gets what SCRAM derives from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_kafka::{
    Call, Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{
            AlterUserScramCredentialsRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest,
            DeleteTopicsRequest, DescribeAclsRequest, IncrementalAlterConfigsRequest, MetadataRequest, MetadataResponse,
            TopicName,
            alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion},
            create_acls_request::AclCreation,
            create_partitions_request::CreatePartitionsTopic,
            create_topics_request::{CreatableTopic, CreatableTopicConfig},
            delete_acls_request::DeleteAclsFilter,
            delete_topics_request::DeleteTopicState,
            incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
            metadata_request::MetadataRequestTopic,
        },
        protocol::StrBytes,
    },
    salted_password,
};
use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::{
    EffectError, SecretReader,
    fence::Fence,
    kafka_acls::{Acl, acls_of},
    kafka_configs::{RESOURCE_TOPIC, configs},
    kafka_partitions::{are_usable, too_small},
    kafka_shared::SharedSnapshot,
    postgres_observe::LoginState,
};
use crate::plan::{KafkaQuota, KafkaStep, SecretRef, TopicSpec};

/// Kafka's least, and what its tools set where nothing is said. The passwords are random: more rounds would add nothing.
pub const COMMON_ROUNDS: u32 = 4096;
const REQUEST_TIMEOUT_MS: i32 = 3000;
/// What the controller took, brokers know a moment later.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// The operation that takes a value of a configuration away.
const REMOVE: i8 = 1;
pub(super) const SCRAM_SHA_512: i8 = 2;
const PATTERN_ANY: i8 = 1;
const ANY: i8 = 1;

/// Applies the Kafka steps of a plan.
#[derive(Clone, Debug)]
pub struct KafkaEffect {
    settings: Settings,
    replication_factor: i16,
    /// Kafka itself fences nothing: what has to be left of the lease when a change is sent.
    fence: Option<(Arc<Fence>, Duration)>,
    /// What was read for all tenants at once.
    shared: Option<Arc<SharedSnapshot>>,
}

impl KafkaEffect {
    /// As the operator's own user. `replication_factor` is `-1` for the cluster's own default.
    #[must_use]
    pub fn new(settings: Settings, replication_factor: i16) -> Self {
        Self { settings, replication_factor, fence: None, shared: None }
    }

    /// Sends a change only while more than `spare` is left of the lease.
    #[must_use]
    pub fn fenced(mut self, fence: Arc<Fence>, spare: Duration) -> Self {
        self.fence = Some((fence, spare));
        self
    }

    /// Reads for all tenants at once, and tells the others that share it what it changes.
    #[must_use]
    pub fn sharing(mut self, shared: Arc<SharedSnapshot>) -> Self {
        self.shared = Some(shared);
        self
    }

    pub(super) fn shared(&self) -> Option<&SharedSnapshot> {
        self.shared.as_deref()
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Applies steps in their order. Safe to repeat.
    ///
    /// # Errors
    /// The first step that could not be applied; those before it are.
    pub async fn apply(&self, steps: &[KafkaStep], secrets: &dyn SecretReader) -> Result<(), EffectError> {
        if steps.is_empty() {
            return Ok(());
        }
        // Until its end, however that comes about: what was sent may have been done.
        let _writing = self.shared.as_ref().map(|shared| shared.writing(steps.iter().map(whose)));
        let mut session = Session::open(self).await?;
        for run in steps.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            session.apply(run, secrets).await?;
        }
        Ok(())
    }
}

/// Rounds for one credential: other ones each time, and never those that are common. Kafka tells nothing else of a credential, so by them a
/// password that someone else sets shows without a login.
fn rounds() -> Result<u32, EffectError> {
    let mut random = [0_u8; 2];
    getrandom::fill(&mut random).map_err(|error| EffectError::unavailable("the system's randomness", error))?;
    Ok(COMMON_ROUNDS + 1 + u32::from(u16::from_be_bytes(random)) % (COMMON_ROUNDS - 1))
}

/// Whose a step is: the user, or the prefix of the topic.
fn whose(step: &KafkaStep) -> &str {
    match step {
        KafkaStep::EnsureTopic { topic } => prefix_of(&topic.name),
        KafkaStep::RemoveTopic { name } => prefix_of(name),
        KafkaStep::EnsureUser { username, .. }
        | KafkaStep::EnsureAcls { username, .. }
        | KafkaStep::EnsureQuota { username, .. }
        | KafkaStep::RemoveUser { username } => username,
    }
}

/// Of `acb.acme.sys.messages`: `acb.acme.`.
fn prefix_of(topic: &str) -> &str {
    let second = topic.match_indices('.').nth(1).map_or(topic.len(), |(at, _)| at + 1);
    topic.get(..second).unwrap_or(topic)
}

/// A connection for a few requests.
pub(super) struct Session<'a> {
    effect: &'a KafkaEffect,
    connection: Connection,
}

impl<'a> Session<'a> {
    pub(super) async fn open(effect: &'a KafkaEffect) -> Result<Self, EffectError> {
        let connection = Connection::open(&effect.settings).await.map_err(failed)?;
        Ok(Self { effect, connection })
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// A request that changes something. The fence is asked right before it goes out, since every wait may have been a long one, and
    /// learns of its end: the process may have been asleep between the two.
    pub(super) async fn change<C: Call>(&mut self, request: &C, version: i16) -> Result<C::Response, EffectError> {
        let _passage = self.effect.fence.as_ref().map(|(fence, spare)| fence.pass(*spare)).transpose()?;
        self.connection.send(request, version).await.map_err(failed)
    }

    async fn apply(&mut self, run: &[KafkaStep], secrets: &dyn SecretReader) -> Result<(), EffectError> {
        let mut topics = Vec::new();
        let mut users = Vec::new();
        let mut grants = Vec::new();
        let mut quotas = Vec::new();
        let mut gone_users = Vec::new();
        let mut gone_topics = Vec::new();
        for step in run {
            match step {
                KafkaStep::EnsureTopic { topic } => topics.push(topic),
                KafkaStep::EnsureUser { username, secret } => users.push((username.as_str(), secret)),
                KafkaStep::EnsureAcls { username, prefix } => grants.push((username.as_str(), prefix.as_str())),
                KafkaStep::EnsureQuota { username, quota } => quotas.push((username.as_str(), *quota)),
                KafkaStep::RemoveUser { username } => gone_users.push(username.as_str()),
                KafkaStep::RemoveTopic { name } => gone_topics.push(name.as_str()),
            }
        }
        if !topics.is_empty() {
            self.ensure_topics(&topics).await?;
        }
        if !users.is_empty() {
            self.ensure_users(&users, secrets).await?;
        }
        if !grants.is_empty() {
            self.ensure_acls(&grants).await?;
        }
        if !quotas.is_empty() {
            self.ensure_quotas(&quotas).await?;
        }
        if !gone_users.is_empty() {
            self.remove_users(&gone_users).await?;
        }
        if !gone_topics.is_empty() {
            self.remove_topics(&gone_topics).await?;
        }
        Ok(())
    }

    async fn ensure_topics(&mut self, topics: &[&TopicSpec]) -> Result<(), EffectError> {
        let create = topics.iter().map(|topic| {
            let configs = configs(topic).map(|(name, value)| {
                CreatableTopicConfig::default().with_name(StrBytes::from_static_str(name)).with_value(Some(text(value)))
            });
            CreatableTopic::default()
                .with_name(TopicName(text(&topic.name)))
                .with_num_partitions(topic.partitions.cast_signed())
                .with_replication_factor(self.effect.replication_factor)
                .with_configs(configs.into())
        });
        let request = CreateTopicsRequest::default().with_topics(create.collect()).with_timeout_ms(REQUEST_TIMEOUT_MS);
        let answer = self.change(&request, 7).await?;
        let mut known = BTreeSet::new();
        for topic in &answer.topics {
            if topic.error_code == ResponseError::TopicAlreadyExists.code() {
                known.insert(topic.name.to_string());
            } else {
                check(topic.error_code, topic.error_message.as_ref(), &format!("making topic {}", topic.name.0))?;
            }
        }
        let known: Vec<_> = topics.iter().copied().filter(|topic| known.contains(&topic.name)).collect();
        if !known.is_empty() {
            self.set_configs(&known).await?;
        }
        self.grow(topics, &known).await
    }

    async fn set_configs(&mut self, topics: &[&TopicSpec]) -> Result<(), EffectError> {
        let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let weakened = self.weakened(&names).await?;
        let resources = topics.iter().map(|topic| {
            let wanted = configs(topic).map(|(name, value)| {
                AlterableConfig::default().with_name(StrBytes::from_static_str(name)).with_value(Some(text(value)))
            });
            // Without a value of its own, the topic has the brokers'.
            let removed = weakened.get(&topic.name).into_iter().flatten().map(|name| {
                AlterableConfig::default()
                    .with_name(StrBytes::from_static_str(name))
                    .with_config_operation(REMOVE)
                    .with_value(None)
            });
            AlterConfigsResource::default()
                .with_resource_type(RESOURCE_TOPIC)
                .with_resource_name(text(&topic.name))
                .with_configs(wanted.into_iter().chain(removed).collect())
        });
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.collect());
        let answer = self.change(&request, 1).await?;
        for resource in &answer.responses {
            check(
                resource.error_code,
                resource.error_message.as_ref(),
                &format!("configuring topic {}", resource.resource_name),
            )?;
        }
        Ok(())
    }

    /// Adds partitions to known topics, and waits until the brokers know every topic as it should be: who connects next may use it.
    async fn grow(&mut self, topics: &[&TopicSpec], known: &[&TopicSpec]) -> Result<(), EffectError> {
        let grow = too_small(known, &self.described(known).await?).into_iter().map(|topic| {
            CreatePartitionsTopic::default()
                .with_name(TopicName(text(&topic.name)))
                .with_count(topic.partitions.cast_signed())
                .with_assignments(None)
        });
        let grow: Vec<_> = grow.collect();
        if !grow.is_empty() {
            let request = CreatePartitionsRequest::default().with_topics(grow).with_timeout_ms(REQUEST_TIMEOUT_MS);
            let answer = self.change(&request, 3).await?;
            for topic in &answer.results {
                check(topic.error_code, topic.error_message.as_ref(), &format!("adding partitions to {}", topic.name.0))?;
            }
        }
        let deadline = Instant::now() + KNOWN_WITHIN;
        loop {
            if are_usable(topics, &self.described(topics).await?) {
                return Ok(());
            }
            wait(deadline, "a topic that was made").await?;
        }
    }

    /// What the brokers know of these topics.
    async fn described(&mut self, topics: &[&TopicSpec]) -> Result<MetadataResponse, EffectError> {
        if topics.is_empty() {
            return Ok(MetadataResponse::default());
        }
        let named = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(TopicName(text(&topic.name)))));
        let request = MetadataRequest::default().with_topics(Some(named.collect())).with_allow_auto_topic_creation(false);
        self.connection.send(&request, 12).await.map_err(failed)
    }

    async fn ensure_users(&mut self, users: &[(&str, &SecretRef)], secrets: &dyn SecretReader) -> Result<(), EffectError> {
        let mut upsertions = Vec::with_capacity(users.len());
        let mut last = None;
        for (username, secret) in users {
            let content = secrets.read(secret).await?;
            let password = zeroize::Zeroizing::new(content.bytes(secret, "password")?.to_vec());
            last = Some((*username, zeroize::Zeroizing::new(content.text(secret, "password")?.to_owned())));
            let mut salt = [0_u8; 32];
            getrandom::fill(&mut salt).map_err(|error| EffectError::unavailable("the system's randomness", error))?;
            let rounds = rounds()?;
            let salted = tokio::task::spawn_blocking(move || salted_password(&password, &salt, rounds))
                .await
                .map_err(|error| EffectError::unavailable("the hash of a password", error))?;
            upsertions.push(
                ScramCredentialUpsertion::default()
                    .with_name(text(username))
                    .with_mechanism(SCRAM_SHA_512)
                    .with_iterations(rounds.cast_signed())
                    .with_salt(Bytes::copy_from_slice(&salt))
                    .with_salted_password(Bytes::copy_from_slice(salted.as_ref())),
            );
        }
        self.alter_users(AlterUserScramCredentialsRequest::default().with_upsertions(upsertions)).await?;
        // Brokers learn of changes in their order: who knows the last user knows the others.
        let Some((username, password)) = last else { return Ok(()) };
        let deadline = Instant::now() + KNOWN_WITHIN;
        while self.effect.login_state(username, &password).await != LoginState::Works {
            wait(deadline, "a user that was made").await?;
        }
        Ok(())
    }

    async fn alter_users(&mut self, request: AlterUserScramCredentialsRequest) -> Result<(), EffectError> {
        let answer = self.change(&request, 0).await?;
        for user in &answer.results {
            if user.error_code != ResponseError::ResourceNotFound.code() {
                check(user.error_code, user.error_message.as_ref(), &format!("setting the credential of {}", user.user))?;
            }
        }
        Ok(())
    }

    /// Makes the ACLs of these users exactly what they should be: what else they were granted goes.
    async fn ensure_acls(&mut self, grants: &[(&str, &str)]) -> Result<(), EffectError> {
        let mut wanted = BTreeSet::new();
        for (username, prefix) in grants {
            let tenant = prefix.strip_prefix("acb.").and_then(|rest| rest.strip_suffix('.'));
            if tenant.is_none_or(|tenant| tenant.is_empty() || tenant.contains('.')) {
                return Err(EffectError::refused(
                    "ACB",
                    format!("{prefix:?} is not a tenant's prefix: {username} would reach others"),
                ));
            }
            wanted.extend(acls_of(username, prefix));
        }
        let principals: BTreeSet<_> = wanted.iter().map(|acl| acl.principal.clone()).collect();
        let one = if principals.len() == 1 { principals.first().map(String::as_str) } else { None };
        let held: BTreeSet<_> = self.acls(one).await?.into_iter().filter(|acl| principals.contains(&acl.principal)).collect();
        // Less first: no state in between grants more than the start or the end.
        let extra: Vec<_> = held.difference(&wanted).map(filter_of).collect();
        self.delete_acls(extra).await?;
        let creations: Vec<_> = wanted.difference(&held).map(creation_of).collect();
        if creations.is_empty() {
            return Ok(());
        }
        let answer = self.change(&CreateAclsRequest::default().with_creations(creations), 2).await?;
        for result in &answer.results {
            check(result.error_code, result.error_message.as_ref(), "granting a tenant its topics")?;
        }
        let deadline = Instant::now() + KNOWN_WITHIN;
        while !wanted.is_subset(&self.acls(one).await?.into_iter().collect()) {
            wait(deadline, "what a tenant was granted").await?;
        }
        Ok(())
    }

    /// Every ACL, or those of one principal.
    pub(super) async fn acls(&mut self, principal: Option<&str>) -> Result<Vec<Acl>, EffectError> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(ANY)
            .with_pattern_type_filter(PATTERN_ANY)
            // Their default is the empty string, which matches nothing.
            .with_resource_name_filter(None)
            .with_host_filter(None)
            .with_principal_filter(principal.map(text))
            .with_operation(ANY)
            .with_permission_type(ANY);
        let answer = self.connection.send(&request, 2).await.map_err(failed)?;
        check(answer.error_code, answer.error_message.as_ref(), "listing ACLs")?;
        let mut acls = Vec::new();
        for resource in &answer.resources {
            acls.extend(resource.acls.iter().map(|acl| Acl {
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                resource_type: resource.resource_type,
                resource_name: resource.resource_name.to_string(),
                pattern_type: resource.pattern_type,
                operation: acl.operation,
                permission: acl.permission_type,
            }));
        }
        Ok(acls)
    }

    async fn delete_acls(&mut self, filters: Vec<DeleteAclsFilter>) -> Result<(), EffectError> {
        if filters.is_empty() {
            return Ok(());
        }
        let answer = self.change(&DeleteAclsRequest::default().with_filters(filters), 2).await?;
        for result in &answer.filter_results {
            check(result.error_code, result.error_message.as_ref(), "removing ACLs")?;
        }
        Ok(())
    }

    /// The ACLs go first: a credential without them opens nothing.
    async fn remove_users(&mut self, users: &[&str]) -> Result<(), EffectError> {
        let filters = users.iter().map(|username| {
            DeleteAclsFilter::default()
                .with_resource_type_filter(ANY)
                .with_pattern_type_filter(PATTERN_ANY)
                .with_resource_name_filter(None)
                .with_host_filter(None)
                .with_principal_filter(Some(text(format!("User:{username}"))))
                .with_operation(ANY)
                .with_permission_type(ANY)
        });
        self.delete_acls(filters.collect()).await?;
        let deletions = users
            .iter()
            .map(|username| ScramCredentialDeletion::default().with_name(text(username)).with_mechanism(SCRAM_SHA_512));
        self.alter_users(AlterUserScramCredentialsRequest::default().with_deletions(deletions.collect())).await?;
        let quotas: Vec<_> = users.iter().map(|username| (*username, KafkaQuota::default())).collect();
        self.ensure_quotas(&quotas).await
    }

    /// By their ids: a request that arrives late removes nothing that was made anew under one of the names.
    async fn remove_topics(&mut self, topics: &[&str]) -> Result<(), EffectError> {
        let ids = self.topic_ids(topics).await?;
        if ids.is_empty() {
            return Ok(());
        }
        let named = ids.keys().map(|id| DeleteTopicState::default().with_name(None).with_topic_id(*id));
        let request = DeleteTopicsRequest::default().with_topics(named.collect()).with_timeout_ms(REQUEST_TIMEOUT_MS);
        let answer = self.change(&request, 6).await?;
        for topic in &answer.responses {
            if topic.error_code != ResponseError::UnknownTopicId.code() {
                let name = ids.get(&topic.topic_id).map_or("", String::as_str);
                check(topic.error_code, topic.error_message.as_ref(), &format!("removing topic {name}"))?;
            }
        }
        Ok(())
    }

    /// The ids of those that are there, with their names.
    async fn topic_ids(&mut self, topics: &[&str]) -> Result<BTreeMap<Uuid, String>, EffectError> {
        let named = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
        let request = MetadataRequest::default().with_topics(Some(named.collect())).with_allow_auto_topic_creation(false);
        let answer = self.connection.send(&request, 12).await.map_err(failed)?;
        let mut ids = BTreeMap::new();
        for topic in &answer.topics {
            let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
            // Its partitions may be without a leader: it goes all the same.
            if topic.error_code != ResponseError::UnknownTopicOrPartition.code() {
                check(topic.error_code, None, &format!("looking for topic {name}"))?;
                ids.insert(topic.topic_id, name);
            }
        }
        Ok(ids)
    }
}

/// A moment, before it is looked for again.
async fn wait(deadline: Instant, what: &str) -> Result<(), EffectError> {
    if Instant::now() >= deadline {
        return Err(EffectError::unavailable("Kafka", format!("{what} is not known to the brokers yet")));
    }
    sleep(Duration::from_millis(20)).await;
    Ok(())
}

fn creation_of(acl: &Acl) -> AclCreation {
    AclCreation::default()
        .with_resource_type(acl.resource_type)
        .with_resource_name(text(&acl.resource_name))
        .with_resource_pattern_type(acl.pattern_type)
        .with_principal(text(&acl.principal))
        .with_host(text(&acl.host))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission)
}

fn filter_of(acl: &Acl) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(acl.resource_type)
        .with_resource_name_filter(Some(text(&acl.resource_name)))
        .with_pattern_type_filter(acl.pattern_type)
        .with_principal_filter(Some(text(&acl.principal)))
        .with_host_filter(Some(text(&acl.host)))
        .with_operation(acl.operation)
        .with_permission_type(acl.permission)
}

pub(super) fn text(value: impl AsRef<str>) -> StrBytes {
    StrBytes::from_string(value.as_ref().to_owned())
}

pub(super) fn failed(error: Error) -> EffectError {
    match error {
        Error::Unreachable(brokers, why) => EffectError::unavailable(format!("Kafka at {brokers}"), why),
        Error::Login(user, why) => EffectError::refused("Kafka", format!("the login of {user} ({why}): check its password")),
        // Another broker, or what is behind the address a moment later, may speak as Kafka does.
        Error::Protocol(_) => EffectError::unavailable("Kafka", error),
    }
}

/// Whether an answer that Kafka itself does not call retriable may be another one later: a broker is away, so that there are too few for
/// the replicas or one did not know how many partitions there are, or something went wrong within it.
fn may_pass(error: ResponseError) -> bool {
    matches!(
        error,
        ResponseError::InvalidReplicationFactor
            | ResponseError::InvalidPartitions
            | ResponseError::UnknownServerError
            | ResponseError::BrokerNotAvailable
            | ResponseError::ReassignmentInProgress
    )
}

/// What a broker's code means for a step.
pub(super) fn check(code: i16, message: Option<&StrBytes>, what: &str) -> Result<(), EffectError> {
    let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
    let detail = format!("{what}: {error}{}", message.map(|message| format!(" ({message})")).unwrap_or_default());
    Err(if error.is_retriable() || may_pass(error) {
        EffectError::unavailable("Kafka", detail)
    } else {
        EffectError::refused("Kafka", detail)
    })
}
