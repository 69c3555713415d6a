//! Sets fields of a message by their path and a text, as a URL has them: `filter.reason=DEAD_LETTER_REASON_EXPIRED`.

use acb_hub_core::{fault::Fault, kit::quoted::quoted};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// The field of this name: that of JSON, or that of the protos.
pub(super) fn named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// Sets the field at `path` to what `text` says; a repeated one gets one more.
pub(super) fn set(message: &mut DynamicMessage, path: &str, text: &str) -> Result<(), Fault> {
    let unknown = || Fault::invalid("FIELD_UNKNOWN", format!("the request has no field {}", quoted(path)));
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let field = named(&message.descriptor(), name).ok_or_else(unknown)?;
    if field.is_map() {
        return Err(Fault::invalid("FIELD_UNSUPPORTED", format!("{} is a map: it can't be in a URL", quoted(path))));
    }
    if let Some(rest) = rest {
        if field.is_list() || field.kind().as_message().is_none() {
            return Err(unknown());
        }
        return message.get_field_mut(&field).as_message_mut().map_or_else(|| Err(unknown()), |inner| set(inner, rest, text));
    }
    let value = parse(&field, text).ok_or_else(|| {
        Fault::invalid("FIELD_INVALID", format!("{} can't be {}: {}", quoted(path), quoted(text), wanted(&field)))
    })?;
    if field.is_list() {
        if let Some(list) = message.get_field_mut(&field).as_list_mut() {
            list.push(value);
        }
    } else {
        message.set_field(&field, value);
    }
    Ok(())
}

/// Whether the field of this name is one that there may be several of.
pub(super) fn is_list(message: &DynamicMessage, path: &str) -> bool {
    let mut descriptor = message.descriptor();
    for name in path.split('.') {
        let Some(field) = named(&descriptor, name) else { return false };
        match field.kind() {
            _ if field.is_list() => return true,
            Kind::Message(kind) => descriptor = kind,
            _ => return false,
        }
    }
    false
}

/// The text of the field at `path`, where the message has such a field and it is a text.
pub(super) fn text(message: &DynamicMessage, path: &str) -> Option<String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let value = message.get_field_by_name(name)?;
    match rest {
        Some(rest) => text(value.as_message()?, rest),
        None => value.as_str().map(str::to_owned),
    }
}

fn parse(field: &FieldDescriptor, text: &str) -> Option<Value> {
    Some(match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(text.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(text.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(text.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(text.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(text.parse().ok()?),
        Kind::Bytes => Value::Bytes(STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?.into()),
        Kind::Enum(kind) => {
            Value::EnumNumber(kind.get_value_by_name(text).map(|value| value.number()).or_else(|| text.parse().ok())?)
        }
        // Times and durations are texts in JSON, too.
        Kind::Message(kind) => {
            Value::Message(DynamicMessage::deserialize(kind, serde_json::Value::String(text.to_owned())).ok()?)
        }
        Kind::Double | Kind::Float => return None,
    })
}

/// What a field takes, for people.
fn wanted(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Bytes => "base64".to_owned(),
        Kind::Enum(kind) => {
            let names: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(kind) if kind.full_name() == "google.protobuf.Timestamp" => {
            "a time such as 2026-01-31T12:00:00Z".to_owned()
        }
        Kind::Message(kind) if kind.full_name() == "google.protobuf.Duration" => "a duration such as 1.5s".to_owned(),
        Kind::Message(_) => "name one of its fields".to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    }
}
