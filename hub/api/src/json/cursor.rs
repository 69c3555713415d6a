//! Where an event stream stands, as the `id:` of its events has it. A caller that was cut off says it by `Last-Event-ID`, and goes on there.

use std::{collections::BTreeMap, fmt::Write as _};

use acb_hub_core::fault::Fault;
use acb_proto::v1::{ContextEvent, FollowAuditRecordsResponse, Position, subscribe_request::Positions};
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};

/// Partitions of a cursor, at most: more than any topic of ACB's has.
const MAX_PARTITIONS: usize = 4096;

/// Where a subscription stands to a topic that had no records: an event with an empty id is one without.
const NOTHING_YET: &str = "0";

/// What has been told of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// Of a subscription to contexts.
    positions: BTreeMap<u32, Position>,
}

impl Cursor {
    /// That of a caller who has this event last. An id that is none was refused with the request.
    pub(super) fn behind(last: Option<&str>) -> Self {
        let positions = last.and_then(positions).unwrap_or_default();
        Self { positions: positions.into_iter().map(|position| (position.partition, position)).collect() }
    }

    /// Whether a stream that this request asks for goes on where it was cut off.
    #[cfg(test)]
    pub(crate) fn is_of(request: &MessageDescriptor) -> bool {
        matches!(request.name(), "SubscribeRequest" | "FollowAuditRecordsRequest")
    }

    /// The cursor behind this message; none of a stream that can't go on.
    pub(super) fn pass(&mut self, kind: &MessageDescriptor, message: &Bytes) -> Option<String> {
        match kind.name() {
            "ContextEvent" => {
                let event = ContextEvent::decode(message.clone()).ok()?;
                self.positions
                    .extend(event.positions.into_iter().chain(event.position).map(|position| (position.partition, position)));
                if self.positions.is_empty() {
                    return Some(NOTHING_YET.to_owned());
                }
                let mut cursor = String::new();
                for Position { epoch, partition, offset } in self.positions.values() {
                    let separator = if cursor.is_empty() { "" } else { "." };
                    write!(cursor, "{separator}{epoch}-{partition}-{offset}").ok()?;
                }
                Some(cursor)
            }
            "FollowAuditRecordsResponse" => {
                FollowAuditRecordsResponse::decode(message.clone()).ok().map(|told| told.next.to_string())
            }
            _ => None,
        }
    }
}

/// Has a request ask for what came behind the last event that its caller has, by that one's id.
pub(super) fn go_on(request: &mut DynamicMessage, last: &str) -> Result<(), Fault> {
    let none = || Fault::invalid("CURSOR_INVALID", "Last-Event-ID is not an id of an event of this stream: leave it out");
    match request.descriptor().name() {
        "SubscribeRequest" => {
            let after = Positions { positions: positions(last).ok_or_else(none)? };
            let field = request.descriptor().get_field_by_name("after").ok_or_else(none)?;
            let kind = field.kind().as_message().cloned().ok_or_else(none)?;
            let after = DynamicMessage::decode(kind, after.encode_to_vec().as_slice()).map_err(|_| none())?;
            request.set_field(&field, Value::Message(after));
            Ok(())
        }
        "FollowAuditRecordsRequest" => {
            let first = last.parse().map_err(|_| none())?;
            request.set_field_by_name("first", Value::U64(first));
            Ok(())
        }
        _ => Err(none()),
    }
}

/// What an id of a subscription's event says.
fn positions(id: &str) -> Option<Vec<Position>> {
    if id == NOTHING_YET {
        return Some(Vec::new());
    }
    let position = |text: &str| {
        let mut numbers = text.split('-').map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(epoch)), Some(Ok(partition)), Some(Ok(offset)), None) => {
                Some(Position { epoch, partition: partition.try_into().ok()?, offset })
            }
            _ => None,
        }
    };
    id.split('.').take(MAX_PARTITIONS).map(position).collect()
}
