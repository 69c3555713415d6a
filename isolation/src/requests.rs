//! Requests to a broker as the attacker's own user, and what the answers mean.

use acb_kafka::{
    Call, Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{CreateTopicsRequest, GroupId, TopicName, create_topics_request::CreatableTopic},
        protocol::StrBytes,
    },
};

use crate::{
    attack::{Attack, Outcome, Wall},
    target::{Attacker, KafkaAccess, Victim},
};

pub(crate) type Verdict = Result<Outcome, Error>;

const TIMEOUT_MS: i32 = 3000;

/// An attack that is made of requests.
pub(crate) fn attack<F, R>(name: &str, prize: &str, attempt: F) -> Attack
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

/// What an attempt needs: a connection as oneself, which must work, or nothing is proved.
pub(crate) struct Ground {
    pub(crate) access: KafkaAccess,
    pub(crate) settings: Settings,
    own: Connection,
    pub(crate) own_name: String,
    pub(crate) victim: Victim,
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

    pub(crate) async fn ask<R: Call>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        self.own.send(request, version).await
    }

    /// Only asked for, as is all that a broker can be asked about: the attack is a proof, not a vandal.
    pub(crate) async fn create(&mut self, tenant: &str) -> Verdict {
        let name = TopicName(text(format!("acb.{tenant}.intruder")));
        let topic = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
        let answer = self.ask(&request.with_validate_only(true), 7).await?;
        Ok(settle(answer.topics.first().map(|topic| topic.error_code), "the topic would have been made"))
    }

    pub(crate) fn messages(&self) -> TopicName {
        TopicName(text(format!("acb.{}.sys.messages", self.victim.tenant)))
    }

    /// A consumer group of the neighbour's.
    pub(crate) fn group(&self) -> GroupId {
        GroupId(text(format!("acb.{}.intruder", self.victim.tenant)))
    }

    pub(crate) fn contexts(&self) -> TopicName {
        TopicName(text(format!("acb.{}.{}", self.victim.tenant, self.victim.context_type)))
    }
}

/// The name of its user.
pub(crate) fn neighbour(victim: &Victim) -> String {
    format!("acb_t_{}", victim.tenant_id)
}

pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

/// A partition that no topic has.
pub(crate) const NO_PARTITION: i32 = i32::MAX;

/// The code of an answer to a request that can't be carried out: whoever is told why would have been let do the real thing.
pub(crate) fn permitted(code: Option<i16>, told: ResponseError) -> Option<i16> {
    code.map(|code| if code == told.code() { 0 } else { code })
}

/// By the code of the broker's answer.
pub(crate) fn settle(code: Option<i16>, got: &str) -> Outcome {
    match code {
        None => Outcome::Inconclusive("the broker's answer is empty".to_owned()),
        Some(0) => Outcome::Succeeded(got.to_owned()),
        Some(code) => match ResponseError::try_from_code(code) {
            Some(
                error @ (ResponseError::ClusterAuthorizationFailed
                | ResponseError::GroupAuthorizationFailed
                | ResponseError::TopicAuthorizationFailed
                | ResponseError::TransactionalIdAuthorizationFailed),
            ) => Outcome::Refused(error.to_string()),
            Some(error) => Outcome::Inconclusive(error.to_string()),
            None => Outcome::Inconclusive(format!("code {code}")),
        },
    }
}
