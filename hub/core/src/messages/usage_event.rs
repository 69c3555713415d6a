//! What the topic of usage says of one agent and hour: a CloudEvent 1.0, as JSON in structured mode. A later one of the same agent and hour has a higher
//! revision, and holds; one that is told again has the same id.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    position::Position,
    sent::Sent,
    usage_store::{Complete, UsageSum},
};
use crate::{
    directory::agent::AgentId,
    kit::clock::rfc3339,
    log::bus::{Epoch, Record},
};

/// The type of these events.
pub const TYPE: &str = "dev.acb.usage.hour.v1";
/// What a record's header `content-type` says, by the binding of CloudEvents to Kafka.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// What one agent has sent in one hour, as far as it is summed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent {
    /// Whose, when, and how much.
    pub sum: UsageSum,
    /// In which life of the messages log.
    pub epoch: Epoch,
    /// By partition of it: what lies below is in this sum, and nothing else.
    pub next: Vec<Position>,
    /// What the topic has with this event.
    pub complete: Option<Complete>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    datacontenttype: String,
    data: Data,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    agent: String,
    agent_id: Uuid,
    hour: String,
    messages: u64,
    bytes: u64,
    revision: u64,
    log: Log,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    complete: Option<Told>,
}

#[derive(Serialize, Deserialize)]
struct Log {
    /// As text: it has 64 bits, and a number of JSON has fewer in many a reader.
    epoch: String,
    next: Vec<Position>,
}

#[derive(Serialize, Deserialize)]
struct Told {
    through: String,
    below: Vec<Position>,
}

impl UsageEvent {
    /// A sum only grows, and with it this: also where PostgreSQL went back, and would count anew how often something was told.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.sum.sent.messages
    }

    /// Of the same totals, hour, agent and life of the log the same.
    #[must_use]
    pub fn id(&self) -> String {
        let UsageSum { starts_at, agent, sent: Sent { messages, bytes }, .. } = &self.sum;
        format!("{}.{}.{messages}.{bytes}.{:016x}", rfc3339(*starts_at), agent.0, self.epoch)
    }

    /// The record of it.
    #[must_use]
    pub fn record(&self, tenant: &str, time: OffsetDateTime) -> Record {
        let agent = self.sum.name.clone();
        let complete = self.complete.as_ref();
        let envelope = Envelope {
            specversion: "1.0".to_owned(),
            id: self.id(),
            source: source(tenant),
            kind: TYPE.to_owned(),
            // An event has no empty one.
            subject: if agent.is_empty() { self.sum.agent.0.to_string() } else { agent.clone() },
            time: rfc3339(time),
            datacontenttype: "application/json".to_owned(),
            data: Data {
                agent,
                agent_id: self.sum.agent.0,
                hour: rfc3339(self.sum.starts_at),
                messages: self.sum.sent.messages,
                bytes: self.sum.sent.bytes,
                revision: self.revision(),
                log: Log { epoch: self.epoch.to_string(), next: self.next.clone() },
                complete: complete.map(|told| Told { through: rfc3339(told.through), below: told.below.clone() }),
            },
        };
        Record {
            key: None,
            headers: vec![("content-type".to_owned(), Bytes::from_static(CONTENT_TYPE.as_bytes()))],
            // Texts and numbers are always JSON.
            value: Some(serde_json::to_vec(&envelope).unwrap_or_default().into()),
        }
    }

    /// Reads a record. `None` where it is no such event of this tenant: a later version may tell of more.
    #[must_use]
    pub fn decode(tenant: &str, record: &Record) -> Option<Self> {
        let Envelope { kind, source: of, data, .. } = serde_json::from_slice(record.value.as_ref()?).ok()?;
        if kind != TYPE || of != source(tenant) {
            return None;
        }
        let complete = match data.complete {
            Some(told) => Some(Complete { through: hour(&told.through)?, below: told.below }),
            None => None,
        };
        let sent = Sent { messages: data.messages, bytes: data.bytes };
        Some(Self {
            sum: UsageSum { starts_at: hour(&data.hour)?, agent: AgentId(data.agent_id), name: data.agent, sent },
            epoch: data.log.epoch.parse().ok()?,
            next: data.log.next,
            complete,
        })
    }
}

fn source(tenant: &str) -> String {
    format!("/acb/tenants/{tenant}")
}

/// The beginning of an hour.
fn hour(text: &str) -> Option<OffsetDateTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(UtcOffset::UTC);
    let is_whole = time.unix_timestamp().rem_euclid(3600) == 0 && time.nanosecond() == 0;
    ((1970..=9999).contains(&time.year()) && is_whole).then_some(time)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn event() -> UsageEvent {
        UsageEvent {
            sum: UsageSum {
                starts_at: datetime!(2026-11-27 12:00 UTC),
                agent: AgentId(Uuid::from_u128(7)),
                name: "worker-a".to_owned(),
                sent: Sent { messages: 120, bytes: 48_000 },
            },
            epoch: u64::MAX,
            next: vec![640, 0],
            complete: Some(Complete { through: datetime!(2026-11-27 12:00 UTC), below: vec![512, 0] }),
        }
    }

    #[test]
    fn it_is_a_cloud_event() {
        let record = event().record("acme", datetime!(2026-11-27 13:02:05.5 UTC));
        assert_eq!(record.headers, [("content-type".to_owned(), Bytes::from_static(b"application/cloudevents+json"))]);
        let found: serde_json::Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0",
            "id": "2026-11-27T12:00:00Z.00000000-0000-0000-0000-000000000007.120.48000.ffffffffffffffff",
            "source": "/acb/tenants/acme",
            "type": "dev.acb.usage.hour.v1",
            "subject": "worker-a",
            "time": "2026-11-27T13:02:05Z",
            "datacontenttype": "application/json",
            "data": {
                "agent": "worker-a",
                "agentId": "00000000-0000-0000-0000-000000000007",
                "hour": "2026-11-27T12:00:00Z",
                "messages": 120,
                "bytes": 48_000,
                "revision": 120,
                "log": {"epoch": "18446744073709551615", "next": [640, 0]},
                "complete": {"through": "2026-11-27T12:00:00Z", "below": [512, 0]},
            },
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn it_is_read_as_it_was_written_and_of_its_tenant_only() {
        let plain = UsageEvent { complete: None, ..event() };
        for event in [event(), plain] {
            let record = event.record("acme", OffsetDateTime::UNIX_EPOCH);
            assert_eq!(UsageEvent::decode("acme", &record), Some(event));
            assert_eq!(UsageEvent::decode("acme2", &record), None);
        }
    }

    #[test]
    fn the_same_totals_have_the_same_id_whenever_they_are_told_and_others_another_one() {
        let told = event();
        assert_eq!(UsageEvent { next: vec![704, 64], complete: None, ..told.clone() }.id(), told.id());
        let more = UsageSum { sent: Sent { messages: 121, bytes: 48_000 }, ..told.sum.clone() };
        let other = UsageEvent { sum: more, ..told.clone() };
        assert!(other.id() != told.id() && other.revision() > told.revision());
        assert_ne!(UsageEvent { epoch: 1, ..told.clone() }.id(), told.id());
    }

    #[test]
    fn what_is_no_such_event_is_passed_over() {
        let good = String::from_utf8(event().record("acme", OffsetDateTime::UNIX_EPOCH).value.unwrap().to_vec()).unwrap();
        let noise = [
            String::new(),
            "{}".to_owned(),
            good.replace("hour.v1", "day.v1"),
            good.replace("T12:00:00Z", "T12:00:01Z"),
            good.replace("\"messages\":120", "\"messages\":-1"),
            good.replace("18446744073709551615", "x"),
        ];
        for value in noise {
            let record = Record { value: Some(value.clone().into()), ..Record::default() };
            assert_eq!(UsageEvent::decode("acme", &record), None, "{value}");
        }
        assert_eq!(UsageEvent::decode("acme", &Record::default()), None);
    }
}
