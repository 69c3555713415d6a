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

/// Whether `found` lacks anything of `wanted`. What else it has is not ours.
#[must_use]
pub(crate) fn differs(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().any(|(name, value)| {
            let same_amounts =
                QUANTITIES.contains(&name.as_str()) && found.get(name).is_some_and(|found| same_amounts(value, found));
            !same_amounts && found.get(name).is_none_or(|found| differs(value, found))
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() != found.len() || wanted.iter().zip(found).any(|(wanted, found)| differs(wanted, found))
        }
        (wanted, found) => wanted != found,
    }
}

/// Where amounts are, which an API server writes in a form of its own.
const QUANTITIES: [&str; 2] = ["requests", "limits"];

/// Whether every wanted amount is there, as `0.5` is in `500m`.
fn same_amounts(wanted: &Value, found: &Value) -> bool {
    let (Some(wanted), Some(found)) = (wanted.as_object(), found.as_object()) else { return false };
    wanted.iter().all(|(name, wanted)| {
        let amounts = [Some(wanted), found.get(name)].map(|value| value.and_then(Value::as_str).and_then(amount));
        matches!(amounts, [Some(wanted), Some(found)] if (wanted - found).abs() <= wanted.abs() * 1e-12)
    })
}

/// A Kubernetes quantity.
fn amount(text: &str) -> Option<f64> {
    let end = text.find(|letter: char| letter.is_ascii_alphabetic() && letter != 'e' && letter != 'E').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    // `E` alone is a suffix, too: exa.
    let (number, suffix) = match number.strip_suffix('E') {
        Some(number) if suffix.is_empty() || suffix == "i" => (number, if suffix.is_empty() { "E" } else { "Ei" }),
        _ => (number, suffix),
    };
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => f64::from(2).powi(10),
        "Mi" => f64::from(2).powi(20),
        "Gi" => f64::from(2).powi(30),
        "Ti" => f64::from(2).powi(40),
        "Pi" => f64::from(2).powi(50),
        "Ei" => f64::from(2).powi(60),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_amount_is_the_same_in_another_form() {
        for (left, right) in [("0.5", "500m"), ("1024Mi", "1Gi"), ("1e3", "1k"), ("2E", "2000P"), ("1Ei", "1024Pi"), ("0", "0")] {
            let of = |text: &str| json!({"resources": {"limits": {"cpu": text}}});
            assert!(!differs(&of(left), &of(right)), "{left} {right}");
        }
        let limits = |cpu: &str| json!({"limits": {"cpu": cpu}});
        assert!(differs(&limits("1"), &limits("1m")) && differs(&limits("1"), &json!({"limits": {}})));
        assert!(differs(&json!({"data": "0.5"}), &json!({"data": "500m"})), "only where amounts are");
    }

    #[test]
    fn what_a_list_has_more_is_a_difference_and_what_an_object_has_more_is_none() {
        assert!(differs(&json!({"env": [1]}), &json!({"env": [1, 2]})));
        assert!(!differs(&json!({"spec": {"a": 1}}), &json!({"spec": {"a": 1, "b": 2}, "status": {}})));
    }
}
