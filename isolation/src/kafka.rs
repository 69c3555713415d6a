//! Against Kafka, with the user of the attacker's hub.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
};

use crate::{
    attack::{Attack, Outcome, Wall},
    target::{Attacker, KafkaAccess, Victim},
};

/// For one request. Twice this is below what an attack may take.
const ANSWER: Duration = Duration::from_secs(10);

type Verdict = Result<Outcome, KafkaError>;

pub(crate) fn attacks() -> Vec<Attack> {
    fn attack(name: &str, prize: &str, attempt: fn(KafkaAccess, Victim) -> Verdict) -> Attack {
        Attack::new(Wall::Kafka, name, prize, move |attacker: &Attacker, victim: &Victim| {
            let (access, victim) = (attacker.kafka.clone(), victim.clone());
            Box::pin(async move {
                let Some(access) = access else {
                    return Outcome::Inconclusive("no user of Kafka to attack with".to_owned());
                };
                // librdkafka's consumer blocks.
                match tokio::task::spawn_blocking(move || attempt(access, victim)).await {
                    Ok(verdict) => settle(verdict),
                    Err(error) => Outcome::Inconclusive(error.to_string()),
                }
            })
        })
    }
    vec![
        attack("list.topics", "the names of the neighbours' topics", |access, _| {
            let consumer: BaseConsumer = oneself(&access)?;
            let own = format!("acb.{}.", tenant_of(&access, &consumer)?);
            let metadata = consumer.fetch_metadata(None, ANSWER)?;
            let others: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).filter(|name| !name.starts_with(&own)).collect();
            Ok(if others.is_empty() {
                Outcome::Refused("only one's own topics are listed".to_owned())
            } else {
                Outcome::Succeeded(format!("sees {}", others.join(", ")))
            })
        }),
        attack("describe.messages", "the shape of the neighbour's log", |access, victim| {
            let consumer: BaseConsumer = oneself(&access)?;
            let metadata = consumer.fetch_metadata(Some(&messages(&victim)), ANSWER)?;
            let topic = metadata.topics().first();
            if let Some(error) = topic.and_then(rdkafka::metadata::MetadataTopic::error) {
                return Err(KafkaError::MetadataFetch(error.into()));
            }
            Ok(Outcome::Succeeded("the topic was described".to_owned()))
        }),
        attack("read.messages", "the neighbour's messages", |access, victim| fetch(&access, &messages(&victim))),
        attack("read.contexts", "the neighbour's contexts", |access, victim| fetch(&access, &contexts(&victim))),
        attack("read.control", "when the neighbour's rights change", |access, victim| fetch(&access, &system(&victim, "control"))),
        attack("read.offsets", "how much the neighbour sends", |access, victim| {
            let consumer: BaseConsumer = oneself(&access)?;
            let (low, high) = consumer.fetch_watermarks(&messages(&victim), 0, ANSWER)?;
            Ok(Outcome::Succeeded(format!("offsets {low} to {high}")))
        }),
        attack("forge.message", "a message in the neighbour's log", |access, victim| produce(&access, &messages(&victim))),
        attack("forge.context", "a context of the neighbour's", |access, victim| produce(&access, &contexts(&victim))),
        attack("forge.control", "the neighbour's hubs sent to reload", |access, victim| produce(&access, &system(&victim, "control"))),
        attack("commit.group", "the neighbour's consumer groups moved", |access, victim| {
            let consumer: BaseConsumer = client(&access).set("group.id", format!("acb.{}.intruder", victim.tenant)).create()?;
            known(&consumer)?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&messages(&victim), 0, Offset::Offset(0))?;
            consumer.commit(&list, CommitMode::Sync)?;
            Ok(Outcome::Succeeded("an offset was committed".to_owned()))
        }),
        attack("create.topic", "a topic under the neighbour's name", |access, victim| {
            let name = format!("acb.{}.intruder", victim.tenant);
            admin(&access, |client, options| {
                Box::pin(async move {
                    client.create_topics(&[NewTopic::new(&name, 1, TopicReplication::Fixed(1))], options).await.map(first)
                })
            })
        }),
        attack("create.own-topic", "topics beyond one's tier", |access, _| {
            let consumer: BaseConsumer = oneself(&access)?;
            let name = format!("acb.{}.intruder", tenant_of(&access, &consumer)?);
            admin(&access, |client, options| {
                Box::pin(async move {
                    client.create_topics(&[NewTopic::new(&name, 1, TopicReplication::Fixed(1))], options).await.map(first)
                })
            })
        }),
        attack("delete.topic", "the neighbour's messages gone", |access, victim| {
            admin(&access, |client, options| {
                Box::pin(async move { client.delete_topics(&[&contexts(&victim)], options).await.map(first) })
            })
        }),
        attack("grow.topic", "the neighbour's order broken", |access, victim| {
            admin(&access, |client, options| {
                Box::pin(async move { client.create_partitions(&[NewPartitions::new(&contexts(&victim), 64)], options).await.map(first) })
            })
        }),
        attack("alter.topic", "the neighbour's messages expired", |access, victim| {
            admin(&access, |client, options| {
                Box::pin(async move {
                    let topic = contexts(&victim);
                    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "1");
                    client.alter_configs(&[config], options).await.map(|results| {
                        results.into_iter().next().map_or(Err(RDKafkaErrorCode::Unknown), |result| {
                            result.map(|_| ()).map_err(|(_, code)| code)
                        })
                    })
                })
            })
        }),
        attack("login.neighbour", "the neighbour's user, by one's own password", |access, victim| {
            oneself::<BaseConsumer>(&access)?;
            let access = KafkaAccess { username: format!("acb_t_{}", victim.tenant_id), ..access };
            log_in(&client(&access))
        }),
        attack("login.anonymous", "Kafka, without a user", |access, _| {
            oneself::<BaseConsumer>(&access)?;
            let mut config = client(&access);
            config.set("security.protocol", if access.ca_pem.is_some() { "ssl" } else { "plaintext" });
            config.remove("sasl.mechanism");
            config.remove("sasl.username");
            config.remove("sasl.password");
            log_in(&config)
        }),
    ]
}

fn messages(victim: &Victim) -> String {
    system(victim, "messages")
}

fn system(victim: &Victim, name: &str) -> String {
    format!("acb.{}.sys.{name}", victim.tenant)
}

fn contexts(victim: &Victim) -> String {
    format!("acb.{}.{}", victim.tenant, victim.context_type)
}

fn client(access: &KafkaAccess) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &access.bootstrap_servers)
        .set("security.protocol", if access.ca_pem.is_some() { "sasl_ssl" } else { "sasl_plaintext" })
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", &access.username)
        .set("sasl.password", &access.password)
        .set("group.id", "acb-isolation")
        .set("enable.auto.commit", "false")
        .set("message.timeout.ms", "8000")
        .set("log_level", "0");
    if let Some(ca) = &access.ca_pem {
        config.set("ssl.ca.pem", ca);
    }
    config
}

/// A client with the attacker's own credentials, which must get in, or nothing is proved.
fn oneself<C: rdkafka::config::FromClientConfig + Known>(access: &KafkaAccess) -> Result<C, KafkaError> {
    let client: C = client(access).create()?;
    client.known()?;
    Ok(client)
}

trait Known {
    fn known(&self) -> Result<(), KafkaError>;
}

impl Known for BaseConsumer {
    fn known(&self) -> Result<(), KafkaError> {
        known(self)
    }
}

fn known(consumer: &BaseConsumer) -> Result<(), KafkaError> {
    consumer.fetch_metadata(None, ANSWER).map(|_| ())
}

/// The attacker's own name, by the one topic that everyone has.
fn tenant_of(_: &KafkaAccess, consumer: &BaseConsumer) -> Result<String, KafkaError> {
    let metadata = consumer.fetch_metadata(None, ANSWER)?;
    metadata
        .topics()
        .iter()
        .find_map(|topic| topic.name().strip_prefix("acb.")?.strip_suffix(".sys.control").map(str::to_owned))
        .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition))
}

fn fetch(access: &KafkaAccess, topic: &str) -> Verdict {
    let consumer: BaseConsumer = oneself(access)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    match consumer.poll(ANSWER) {
        Some(Ok(_)) => Ok(Outcome::Succeeded("a record was read".to_owned())),
        Some(Err(error)) => Err(error),
        // Reading an empty partition is allowed or refused without a word: ask for its end.
        None => consumer
            .fetch_watermarks(topic, 0, ANSWER)
            .map(|(low, high)| Outcome::Succeeded(format!("may read it: offsets {low} to {high}"))),
    }
}

fn produce(access: &KafkaAccess, topic: &str) -> Verdict {
    oneself::<BaseConsumer>(access)?;
    let producer: FutureProducer = client(access).create()?;
    let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).partition(0).payload(b"forged");
    match futures::executor::block_on(producer.send(record, ANSWER)) {
        Ok(_) => Ok(Outcome::Succeeded("a record was written".to_owned())),
        Err((error, _)) => Err(error),
    }
}

fn log_in(config: &ClientConfig) -> Verdict {
    let consumer: BaseConsumer = config.create()?;
    match known(&consumer) {
        Ok(()) => Ok(Outcome::Succeeded("logged in".to_owned())),
        // The broker hangs up on who can't say who it is; librdkafka tells of it only in its log, and goes on trying. That the attacker's
        // own login went through the moment before is what makes this a refusal.
        Err(KafkaError::MetadataFetch(code)) => Ok(Outcome::Refused(code.to_string())),
        Err(error) => Err(error),
    }
}

fn first<T>(results: Vec<Result<T, (T, RDKafkaErrorCode)>>) -> Result<(), RDKafkaErrorCode> {
    results.into_iter().next().map_or(Err(RDKafkaErrorCode::Unknown), |result| result.map(|_| ()).map_err(|(_, code)| code))
}

type AdminAnswer<'a> = futures::future::BoxFuture<'a, Result<Result<(), RDKafkaErrorCode>, KafkaError>>;

fn admin<F>(access: &KafkaAccess, request: F) -> Verdict
where
    F: for<'a> FnOnce(&'a AdminClient<DefaultClientContext>, &'a AdminOptions) -> AdminAnswer<'a>,
{
    oneself::<BaseConsumer>(access)?;
    let admin: AdminClient<DefaultClientContext> = client(access).create()?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    match futures::executor::block_on(request(&admin, &options))? {
        Ok(()) => Ok(Outcome::Succeeded("the request was carried out".to_owned())),
        Err(code) => Err(KafkaError::AdminOp(code)),
    }
}

/// The broker's refusals. For a topic that one may not describe, that it does not exist is the refusal. Any other error proves nothing.
fn settle(verdict: Verdict) -> Outcome {
    use RDKafkaErrorCode::{
        BrokerNotAvailable, ClusterAuthorizationFailed, GroupAuthorizationFailed, SaslAuthenticationFailed, TopicAuthorizationFailed,
        UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
    };
    verdict.unwrap_or_else(|error| match error.rdkafka_error_code() {
        Some(
            code @ (ClusterAuthorizationFailed
            | GroupAuthorizationFailed
            | SaslAuthenticationFailed
            | TopicAuthorizationFailed
            | UnknownPartition
            | UnknownTopic
            | UnknownTopicOrPartition),
        ) => Outcome::Refused(code.to_string()),
        Some(BrokerNotAvailable) | None | Some(_) => Outcome::Inconclusive(error.to_string()),
    })
}
