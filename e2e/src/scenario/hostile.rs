//! Bad values for every field that a schema has, made from the schema itself: a new field is covered by being there.

use serde_json::{Map, Value, json};

/// Text that no name, quantity or enumeration may hold.
const HOSTILE: [&str; 10] = [
    "",
    " ",
    "UPPER",
    "a b",
    "a'; DROP TABLE acb.agent; --",
    "\"quoted\"",
    "../../etc/passwd",
    "añb",
    "a\u{202e}b",
    "line\nbreak",
];

/// A value that must be refused at a place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bad {
    /// As the API server writes it: `spec.contextTypes[0].name`.
    pub(super) path: String,
    /// The whole spec around it.
    pub(super) spec: Value,
    /// What is bad about it.
    pub(super) why: String,
}

/// All of them for the spec of a kind, each set into `base`, a spec that is right.
pub(super) fn bad_values(schema: &Value, base: &Value) -> Vec<Bad> {
    let mut found = Vec::new();
    walk(schema, &mut Vec::new(), &mut |place, value, at, why| {
        let mut spec = base.clone();
        set(&mut spec, place, value);
        found.push(Bad { path: format!("spec{}", path(place, at)), spec, why });
    });
    found
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Field(String),
    Item,
    /// A key of a map.
    Key,
}

type Found<'a> = &'a mut dyn FnMut(&[Part], Value, Option<usize>, String);

fn walk(schema: &Value, place: &mut Vec<Part>, found: Found<'_>) {
    let empty = Map::new();
    for (name, field) in schema["properties"].as_object().unwrap_or(&empty) {
        place.push(Part::Field(name.clone()));
        value(field, place, found);
        place.pop();
    }
}

fn value(schema: &Value, place: &mut Vec<Part>, found: Found<'_>) {
    match schema["type"].as_str().unwrap_or_default() {
        "string" => text(schema, place, found),
        "integer" => number(schema, place, found),
        "boolean" => found(place, json!("yes"), None, "text for a boolean".to_owned()),
        "array" => {
            found(place, json!("one"), None, "text for a list".to_owned());
            list(schema, place, found);
            place.push(Part::Item);
            value(&schema["items"], place, found);
            place.pop();
        }
        _ if schema["x-kubernetes-int-or-string"] == true => {
            for bad in ["128K", "5ki", "1 Gi", "", "much"] {
                found(place, json!(bad), None, format!("{bad:?}"));
            }
            found(place, json!({}), None, "an object for a quantity".to_owned());
            found(place, json!(true), None, "a boolean for a quantity".to_owned());
        }
        _ => {
            found(place, json!("text"), None, "text for an object".to_owned());
            found(place, json!([]), None, "a list for an object".to_owned());
            if let Some(most) = schema["maxProperties"].as_u64() {
                let many: Map<String, Value> = (0..=most).map(|n| (format!("k{n}"), json!("v"))).collect();
                found(place, Value::Object(many), None, format!("more than {most} keys"));
            }
            let values = &schema["additionalProperties"];
            if values.is_object() {
                place.push(Part::Key);
                value(values, place, found);
                place.pop();
            }
            walk(schema, place, found);
        }
    }
}

fn text(schema: &Value, place: &[Part], found: Found<'_>) {
    found(place, json!(7), None, "a number for text".to_owned());
    found(place, json!({}), None, "an object for text".to_owned());
    if schema["enum"].is_array() || schema["pattern"].is_string() {
        let fits = |text: &str| schema["pattern"].as_str() == Some("^https://") && text.starts_with("https://");
        for bad in HOSTILE.into_iter().filter(|text| !fits(text)) {
            // An optional pattern may allow nothing to be said.
            found(place, json!(bad), None, format!("{bad:?}"));
        }
    } else if schema["minLength"].as_u64().is_some_and(|least| least > 0) {
        found(place, json!(""), None, "nothing".to_owned());
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        let long = "a".repeat(usize::try_from(most).unwrap_or_default() + 1);
        found(place, json!(long), None, format!("{} letters", most + 1));
    }
}

fn number(schema: &Value, place: &[Part], found: Found<'_>) {
    found(place, json!("7"), None, "text for a number".to_owned());
    found(place, json!(1.5), None, "a fraction".to_owned());
    found(place, json!(1e30), None, "more than 64 bits".to_owned());
    if let Some(least) = schema["minimum"].as_f64() {
        found(place, json!(least as i64 - 1), None, format!("less than {least}"));
    }
    if let Some(most) = schema["maximum"].as_f64() {
        found(place, json!(most as i64 + 1), None, format!("more than {most}"));
    }
}

fn list(schema: &Value, place: &[Part], found: Found<'_>) {
    let item = |n: u64| match schema["items"]["type"].as_str() {
        Some("object") => sample(&schema["items"], n),
        _ => json!(format!("a{n}")),
    };
    if let Some(most) = schema["maxItems"].as_u64() {
        let many: Vec<Value> = (0..=most).map(item).collect();
        found(place, Value::Array(many), None, format!("more than {most}"));
    }
    if matches!(schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
        found(place, json!([item(0), item(0)]), Some(1), "the same twice".to_owned());
    }
}

/// An object with what it must have.
fn sample(schema: &Value, n: u64) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let field = |name: &Value| {
        let name = name.as_str()?;
        let values = &schema["properties"][name]["enum"];
        let value = if values.is_array() { values[0].clone() } else { json!(format!("a{n}")) };
        Some((name.to_owned(), value))
    };
    Value::Object(required.iter().filter_map(field).collect())
}

/// As the API server names a place; `at` is the item of a list that is meant.
fn path(place: &[Part], at: Option<usize>) -> String {
    let mut path = String::new();
    for part in place {
        match part {
            Part::Field(name) => path.extend([".", name]),
            Part::Item => path.push_str("[0]"),
            Part::Key => path.push_str(".key"),
        }
    }
    path.extend(at.map(|index| format!("[{index}]")));
    path
}

fn set(root: &mut Value, place: &[Part], value: Value) {
    let Some((part, rest)) = place.split_first() else {
        *root = value;
        return;
    };
    let next = match part {
        Part::Field(name) => object(root).entry(name.clone()).or_insert(Value::Null),
        Part::Key => object(root).entry("key").or_insert(Value::Null),
        Part::Item => {
            *root = json!([null]);
            &mut root[0]
        }
    };
    set(next, rest, value);
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was just made an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_gets_bad_values_at_its_place() {
        let schema = json!({"properties": {
            "tier": {"type": "string", "enum": ["Free"]},
            "hub": {"type": "object", "properties": {"replicas": {"type": "integer", "minimum": 1.0, "maximum": 50.0}}},
            "types": {
                "type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 3}}},
            },
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }});
        let found = bad_values(&schema, &json!({"tier": "Free"}));
        let specs =
            |path: &str| -> Vec<Value> { found.iter().filter(|bad| bad.path == path).map(|bad| bad.spec.clone()).collect() };
        assert_eq!(specs("spec.tier").len(), 12);
        assert!(specs("spec.hub.replicas").contains(&json!({"tier": "Free", "hub": {"replicas": 0}})));
        assert!(specs("spec.hub.replicas").contains(&json!({"tier": "Free", "hub": {"replicas": 51}})));
        assert_eq!(specs("spec.types[1]"), [json!({"tier": "Free", "types": [{"name": "a0"}, {"name": "a0"}]})]);
        assert!(specs("spec.types[0].name").contains(&json!({"tier": "Free", "types": [{"name": "aaaa"}]})));
        assert!(specs("spec.labels.key").contains(&json!({"tier": "Free", "labels": {"key": 7}})));
    }
}
