//! Whether an object that is there is the one that is wanted.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The annotation with the digest of what was applied. Without it a field that is no longer wanted could not be told from one that
/// someone else, such as an API server, filled in.
pub(crate) const APPLIED: &str = "acb.dev/applied";

fn sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            out.push('{');
            for name in names {
                out.push_str(&format!("{name:?}:"));
                sorted(&fields[name], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// The object, with the digest of itself.
#[must_use]
pub(crate) fn marked(mut object: Value) -> Value {
    let mut text = String::new();
    sorted(&object, &mut text);
    let digest = hex::encode(&Sha256::digest(text)[..8]);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[APPLIED] = json!(digest);
    }
    object
}

/// Whether `found` lacks anything of `wanted`. What else it has is not ours, but for lists: those are as they are wanted, or not.
#[must_use]
pub(crate) fn differs(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().any(|(name, value)| found.get(name).is_none_or(|found| differs(value, found)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() != found.len() || wanted.iter().zip(found).any(|(wanted, found)| differs(wanted, found))
        }
        (wanted, found) => wanted != found,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_a_list_has_more_is_a_difference_and_what_an_object_has_more_is_none() {
        assert!(differs(&json!({"env": [1]}), &json!({"env": [1, 2]})));
        assert!(!differs(&json!({"spec": {"a": 1}}), &json!({"spec": {"a": 1, "b": 2}, "status": {}})));
    }
}
