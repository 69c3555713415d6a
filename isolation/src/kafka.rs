//! Against the records of Kafka, with the user of the attacker's hub, as any client would read them.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    attack::{Attack, Outcome, Wall},
    target::{Attacker, KafkaAccess, Victim},
};

/// For one request. Twice this is below what an attack may take.
const ANSWER: Duration = Duration::from_secs(10);

type Verdict = Result<Outcome, KafkaError>;

/// What an attempt needs.
struct Ground {
    access: KafkaAccess,
    /// The attacker's name.
    own: String,
    victim: Victim,
}

pub(crate) fn attacks() -> Vec<Attack> {
    fn attack(name: &str, prize: &str, attempt: fn(Ground) -> Verdict) -> Attack {
        Attack::new(Wall::Kafka, name, prize, move |attacker: &Attacker, victim: &Victim| {
            let (access, own, victim) = (attacker.kafka.clone(), attacker.tenant.clone(), victim.clone());
            Box::pin(async move {
                let Some(access) = access else {
                    return Outcome::Inconclusive("there is no user of Kafka to attack with".to_owned());
                };
                // librdkafka's consumer blocks.
                match tokio::task::spawn_blocking(move || attempt(Ground { access, own, victim })).await {
                    Ok(verdict) => settle(verdict),
                    Err(error) => Outcome::Inconclusive(error.to_string()),
                }
            })
        })
    }
    vec![
        attack("list.topics", "the names of the neighbours' topics", |g| {
            let consumer = oneself(&g)?;
            let own = format!("acb.{}.", g.own);
            let metadata = consumer.fetch_metadata(None, ANSWER)?;
            let names = metadata.topics().iter().map(|topic| topic.name());
            let (own, others): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with(&own));
            Ok(if !others.is_empty() {
                Outcome::Succeeded(format!("sees {}", others.join(", ")))
            } else if own.is_empty() {
                Outcome::Inconclusive("not even one's own topics are listed".to_owned())
            } else {
                Outcome::Refused("only one's own topics are listed".to_owned())
            })
        }),
        attack("describe.messages", "the shape of the neighbour's log", |g| {
            described(&oneself(&g)?, &messages(&g.victim))?;
            Ok(Outcome::Succeeded("the topic was described".to_owned()))
        }),
        attack("read.messages", "the neighbour's messages", |g| fetch(&g, &messages(&g.victim))),
        attack("read.contexts", "the neighbour's contexts", |g| fetch(&g, &contexts(&g.victim))),
        attack("read.control", "when the neighbour's rights change", |g| fetch(&g, &system(&g.victim, "control"))),
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

fn client(Ground { access, own, .. }: &Ground) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &access.bootstrap_servers)
        .set("security.protocol", if access.ca_pem.is_some() { "sasl_ssl" } else { "sasl_plaintext" })
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", &access.username)
        .set("sasl.password", &access.password)
        // A group of one's own, though none is joined: else it would be the group that is refused, and not the topic.
        .set("group.id", format!("acb.{own}.isolation"))
        .set("enable.auto.commit", "false")
        .set("log_level", "0");
    if let Some(ca) = &access.ca_pem {
        config.set("ssl.ca.pem", ca);
    }
    config
}

/// A client with the attacker's own credentials, which must get in, or nothing is proved.
fn oneself(ground: &Ground) -> Result<BaseConsumer, KafkaError> {
    let consumer = client(ground).create()?;
    known(&consumer)?;
    Ok(consumer)
}

fn known(consumer: &BaseConsumer) -> Result<(), KafkaError> {
    consumer.fetch_metadata(None, ANSWER).map(|_| ())
}

/// Who may read or write a topic may also describe it, so that a client asks for that first, and waits without a word where it is refused.
fn described(consumer: &BaseConsumer, topic: &str) -> Result<(), KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
    let error = metadata.topics().first().and_then(rdkafka::metadata::MetadataTopic::error);
    error.map_or(Ok(()), |error| Err(KafkaError::MetadataFetch(error.into())))
}

fn fetch(ground: &Ground, topic: &str) -> Verdict {
    described(&oneself(ground)?, topic)?;
    // Else nothing would tell an empty partition from a slow answer.
    let consumer: BaseConsumer = client(ground).set("enable.partition.eof", "true").create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&list)?;
    match consumer.poll(ANSWER) {
        // Where a partition ends one may know without the right to read it.
        Some(Err(KafkaError::PartitionEOF(_))) => Ok(Outcome::Inconclusive("there is no record to try it on".to_owned())),
        Some(Ok(_)) => Ok(Outcome::Succeeded("a record was read".to_owned())),
        Some(Err(error)) => Err(error),
        None => Ok(Outcome::Inconclusive(format!("no answer within {} s", ANSWER.as_secs()))),
    }
}

/// The broker's refusals. Any other error proves nothing: a broker says of a topic that one may not describe that one may not, and not
/// whether it exists.
fn settle(verdict: Verdict) -> Outcome {
    verdict.unwrap_or_else(|error| match error.rdkafka_error_code() {
        Some(code @ RDKafkaErrorCode::TopicAuthorizationFailed) => Outcome::Refused(code.to_string()),
        _ => Outcome::Inconclusive(error.to_string()),
    })
}
