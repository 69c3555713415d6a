//! Looks at a JSON text before its message is made of it. One that says a field twice means different things to different readers: a proxy may check
//! the first value, and the hub take the last. One with very many values takes much more memory than it has bytes. Both are refused.

use std::{borrow::Cow, cell::Cell, collections::BTreeSet, fmt};

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::fields::named;

/// Values of one text, at most: more than any request of ours has.
const MAX_VALUES: usize = 16_384;

/// Looks at the text of a message of this kind.
pub(super) fn look(kind: &MessageDescriptor, text: &[u8]) -> Result<(), serde_json::Error> {
    let left = Cell::new(MAX_VALUES);
    let mut reader = serde_json::Deserializer::from_slice(text);
    Look { kind: Some(kind.clone()), left: &left }.deserialize(&mut reader)?;
    reader.end()
}

/// A value: of a field of this kind, where it is a message.
struct Look<'a> {
    kind: Option<MessageDescriptor>,
    left: &'a Cell<usize>,
}

impl Look<'_> {
    fn of(&self, field: Option<&FieldDescriptor>) -> Self {
        let kind = field.and_then(|field| match field.kind() {
            Kind::Message(kind) => Some(kind),
            _ => None,
        });
        Self { kind, left: self.left }
    }
}

/// What must not be there twice: a field, which has two names, or any other name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Said<'a> {
    Field(u32),
    Name(Cow<'a, str>),
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let left = self.left.get().checked_sub(1);
        let left = left.ok_or_else(|| D::Error::custom(format_args!("it has more than {MAX_VALUES} values")))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut all = BTreeSet::new();
        while let Some(Name(name)) = object.next_key::<Name<'de>>()? {
            let field = match &self.kind {
                // What a map has are no fields, but each value is of one kind.
                Some(kind) if kind.is_map_entry() => Some(kind.map_entry_value_field()),
                Some(kind) => named(kind, &name),
                None => None,
            };
            let is_map = self.kind.as_ref().is_some_and(MessageDescriptor::is_map_entry);
            let shown = name.clone();
            let said = match &field {
                Some(field) if !is_map => Said::Field(field.number()),
                _ => Said::Name(name),
            };
            if !all.insert(said) {
                return Err(A::Error::custom(format_args!("the field {shown:?} is there twice")));
            }
            object.next_value_seed(self.of(field.as_ref()))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Look { kind: self.kind.clone(), left: self.left })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A name, borrowed from the text where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use acb_proto::FILE_DESCRIPTOR_SET;
    use prost_reflect::DescriptorPool;

    use super::*;

    fn look_at(text: &str) -> Result<(), String> {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let kind = pool.get_message_by_name("acb.v1.SendMessageRequest").unwrap();
        look(&kind, text.as_bytes()).map_err(|why| why.to_string())
    }

    #[test]
    fn a_field_is_there_once_by_whichever_name() {
        for text in [
            r#"{"message": {"contentType": "a", "to": {"agent": "a"}, "replyTo": {"agent": "a"}}}"#,
            r#"{"message": {"metadata": {"content_type": "a", "contentType": "b"}}}"#,
            r#"{"unknown": [{"a": 1}, {"a": 2}, -1, 1.5, null, true]}"#,
            "7",
        ] {
            assert_eq!(look_at(text), Ok(()), "{text}");
        }
        for text in [
            r#"{"message": {}, "message": {}}"#,
            r#"{"message": {"contentType": "a", "content_type": "b"}}"#,
            r#"{"message": {"topic": "a", "\u0074opic": "b"}}"#,
            r#"{"message": {"to": {"agents": {"names": ["a"], "names": ["b"]}}}}"#,
            r#"{"message": {"metadata": {"a": "1", "a": "2"}}}"#,
            r#"{"unknown": {"a": 1, "a": 2}}"#,
        ] {
            assert!(look_at(text).unwrap_err().contains("is there twice"), "{text}");
        }
    }

    #[test]
    fn a_text_is_neither_deeper_than_the_stack_nor_of_more_values_than_there_is_room_for() {
        assert!(look_at(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(look_at(&many).unwrap_err().contains("more than"));
        assert_eq!(look_at(&format!("[{}0]", "0,".repeat(MAX_VALUES - 2))), Ok(()));
        assert!(look_at("{} {}").is_err());
    }
}
