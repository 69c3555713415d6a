//! A JSON text that has a name twice in one object means different things to different readers: a proxy may check the first, and the hub take the
//! last. Such a text is refused.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A JSON value in which no object has a name twice.
pub(super) struct Undoubled;

impl<'de> Deserialize<'de> for Undoubled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Undoubled;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Undoubled, A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = object.next_key::<Name<'de>>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("the field {:?} is there twice", name.0)));
            }
            names.insert(name);
            object.next_value::<Undoubled>()?;
        }
        Ok(Undoubled)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Undoubled, A::Error> {
        while list.next_element::<Undoubled>()?.is_some() {}
        Ok(Undoubled)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }

    fn visit_str<E>(self, _: &str) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }

    fn visit_unit<E>(self) -> Result<Undoubled, E> {
        Ok(Undoubled)
    }
}

/// A name, borrowed from the text where it has no escapes.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once_in_each_object() {
        let look = |text: &str| serde_json::from_str::<Undoubled>(text).map(|_| ()).map_err(|why| why.to_string());
        for text in [r#"{"a": {"a": [1, -1, 1.5, null, true, "a", {"a": 1}, {"a": 2}]}, "b": 1}"#, "[]", "7"] {
            assert_eq!(look(text), Ok(()), "{text}");
        }
        for text in [r#"{"a": 1, "a": 1}"#, r#"{"a": 1, "\u0061": 1}"#, r#"[{"x": {"y": 1, "z": 2, "y": 3}}]"#] {
            assert!(look(text).unwrap_err().contains("is there twice"), "{text}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(look(&deep).is_err(), "no text is deeper than the stack");
    }
}
