//! JSON Schema (draft 2020-12), with bounds: a schema never makes the hub ask anybody, and a check takes bounded time and memory whatever
//! the schema and the payload are.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};

use super::{
    json_keywords::is_of_schemas,
    metered::{LooksLeft, Metered, Seen, counted},
};

/// Looks at values that one check may take: the largest payload (1 MiB) of small numbers is looked at some 20 times as a whole, and it takes about a second.
pub(crate) const MAX_LOOKS: u64 = 10_000_000;
/// Looks of the search for all violations. The validator holds each that it finds, with some 400 bytes.
const LOOKS_FOR_VIOLATIONS: u64 = 10_000;
/// Violations that are named.
const MAX_VIOLATIONS: usize = 5;
/// Bytes of one violation's text.
const MAX_TEXT: usize = 200;
/// A keyword of ours before each reference.
const LOOKS_LEFT: &str = "x-acb-looks-left";

/// A schema that was compiled.
pub struct JsonSchema {
    validator: Validator<Metered>,
    /// Whether a single violation may be made of any number of others, which the validator would hold.
    has_choices: bool,
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").field("has_choices", &self.has_choices).finish_non_exhaustive()
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is as the schema says.
    Meets,
    /// It is not: the first violations, and whether there are more.
    Violates(Vec<String>, bool),
    /// More looks than allowed would have been needed, or the check was stopped.
    TooCostly,
}

impl JsonSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let mut guarded = schema.clone();
        guard_references(&mut guarded)?;
        let validator = jsonschema::options_for::<Metered>()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .with_keyword(LOOKS_LEFT, |_, _, _| Ok(Box::new(LooksLeft)))
            .should_validate_formats(true)
            .offline()
            .build(&guarded)
            .map_err(|error| at(&error.instance_path().to_string(), &error.to_string()))?;
        Ok(Self { validator, has_choices: has_choices(schema) })
    }

    /// Checks a value. `stopped` ends it early.
    pub fn check(&self, value: &Value, stopped: &Arc<AtomicBool>) -> Checked {
        let (meets, enough) = counted(MAX_LOOKS, stopped, || self.validator.is_valid(Seen(value)));
        if !enough {
            return Checked::TooCostly;
        }
        if meets {
            return Checked::Meets;
        }
        let text = |error: &ValidationError<'_>| at(&error.instance_path().to_string(), &error.masked().to_string());
        let (violations, enough) = counted(LOOKS_FOR_VIOLATIONS, stopped, || {
            let mut errors = self.validator.iter_errors(Seen(value));
            let named: Vec<String> = errors.by_ref().take(MAX_VIOLATIONS).map(|error| text(&error)).collect();
            (named, errors.next().is_some())
        });
        if enough {
            return Checked::Violates(violations.0, violations.1);
        }
        if self.has_choices {
            return Checked::Violates(vec!["it is too large for its schema to say where".to_owned()], false);
        }
        let (violation, enough) =
            counted(MAX_LOOKS, stopped, || self.validator.validate(Seen(value)).err().map(|error| text(&error)));
        if enough { Checked::Violates(violation.into_iter().collect(), true) } else { Checked::TooCostly }
    }
}

/// Puts a keyword of ours before every reference. Without it a check that has used up its looks would still follow each way that
/// references lead to.
fn guard_references(schema: &mut Value) -> Result<(), String> {
    match schema {
        Value::Array(items) => items.iter_mut().try_for_each(guard_references),
        Value::Object(members) => {
            for (keyword, value) in members.iter_mut() {
                match (keyword.as_str(), value) {
                    // Values, and no schemas.
                    ("enum" | "const", _) => {}
                    (keyword, Value::Object(schemas)) if is_of_schemas(keyword) => {
                        schemas.values_mut().try_for_each(guard_references)?;
                    }
                    (_, value) => guard_references(value)?,
                }
            }
            for keyword in ["$ref", "$dynamicRef"] {
                let Some(Value::String(reference)) = members.get(keyword) else { continue };
                check_reference(reference)?;
                let guarded = json!({"if": {LOOKS_LEFT: true}, "then": {keyword: reference}, "else": false});
                members.remove(keyword);
                if let Value::Array(all) = members.entry("allOf").or_insert_with(|| json!([])) {
                    all.push(guarded);
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What is in `enum` and `const` is no schema. As the target of a reference it would be one whose references nobody guards.
fn check_reference(reference: &str) -> Result<(), String> {
    let Some((_, pointer)) = reference.split_once("#/") else { return Ok(()) };
    let mut tokens = pointer.split('/').map(unescaped);
    while let Some(token) = tokens.next() {
        if token == "enum" || token == "const" {
            return Err(at("", &format!("the reference {reference:?} leads to a value of {token}, which is no schema")));
        }
        if is_of_schemas(&token) {
            tokens.next();
        }
    }
    Ok(())
}

/// A token of a pointer in a URI's fragment, without its escapes by `%`.
fn unescaped(token: &str) -> String {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let [byte, after @ ..] = rest {
        let escaped = after.get(..2).filter(|_| *byte == b'%').and_then(|digits| hex::decode(digits).ok());
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
        bytes.push(escaped.and_then(|decoded| decoded.first().copied()).unwrap_or(*byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a keyword is anywhere in it whose violation is made of those of each choice.
fn has_choices(schema: &Value) -> bool {
    match schema {
        Value::Array(items) => items.iter().any(has_choices),
        Value::Object(members) => {
            members.iter().any(|(keyword, value)| keyword == "anyOf" || keyword == "oneOf" || has_choices(value))
        }
        _ => false,
    }
}

fn at(path: &str, text: &str) -> String {
    let cut = |text: &str| text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect::<String>();
    format!("at {}: {}", if path.is_empty() { "/".to_owned() } else { cut(path) }, cut(text))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn check(schema: &Value, value: &Value) -> Checked {
        JsonSchema::compile(schema).unwrap().check(value, &Arc::default())
    }

    /// Each level asks for the next one twice: 2³⁰ ways to the last.
    fn nested(keyword: &str, last: &str) -> Value {
        let mut defs = serde_json::Map::new();
        for level in 0..30 {
            let next = json!({"$ref": format!("#/$defs/level{}", level + 1)});
            defs.insert(format!("level{level}"), json!({keyword: [next, next]}));
        }
        defs.insert("level30".to_owned(), json!({"type": last}));
        json!({"$ref": "#/$defs/level0", "$defs": defs})
    }

    #[test]
    fn a_check_ends_whatever_the_schema_asks_for() {
        let began = Instant::now();
        assert_eq!(check(&nested("anyOf", "string"), &json!(1)), Checked::TooCostly);
        assert_eq!(check(&nested("oneOf", "string"), &json!("x")), Checked::TooCostly);
        assert_eq!(check(&nested("allOf", "string"), &json!("x")), Checked::TooCostly);
        // The name of a property is a value that the validator makes by itself.
        let names = nested("anyOf", "integer").to_string().replace("#/$defs", "#/propertyNames/$defs");
        let names: Value = serde_json::from_str(&names).unwrap();
        assert_eq!(check(&json!({"propertyNames": names}), &json!({"a": 1})), Checked::TooCostly);
        // Alternatives in depth, where each list is looked at twice by each list around it.
        let tree = json!({"anyOf": [{"items": {"$ref": "#"}, "minItems": 2}, {"items": {"$ref": "#"}, "minItems": 2}]});
        let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
        assert_ne!(check(&tree, &deep), Checked::Meets);
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn large_payloads_are_cheap_enough() {
        let schema = json!({
            "type": "array", "uniqueItems": true,
            "items": {"oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]},
            "$defs": {
                "a": {"type": "object", "required": ["kind", "n"], "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}},
                "b": {"type": "object", "required": ["kind"], "properties": {"kind": {"const": "b"}}, "unevaluatedProperties": false},
            },
        });
        let mut items: Vec<Value> = (0..40_000).map(|n| json!({"kind": "a", "n": n})).collect();
        assert_eq!(check(&schema, &Value::Array(items.clone())), Checked::Meets);
        items.push(json!({"kind": "b", "n": 1}));
        assert!(matches!(check(&schema, &Value::Array(items)), Checked::Violates(..)));
    }

    #[test]
    fn the_first_violation_of_a_large_payload_is_named() {
        let mut items = vec![json!("x"); 200_000];
        items[150_000] = json!(1);
        let Checked::Violates(named, is_more) = check(&json!({"items": {"type": "string"}}), &Value::Array(items)) else {
            panic!()
        };
        assert!(named.len() == 1 && named[0].starts_with("at /150000: ") && is_more, "{named:?}");
    }

    #[test]
    fn a_check_is_stopped() {
        let schema = JsonSchema::compile(&nested("anyOf", "string")).unwrap();
        assert_eq!(schema.check(&json!(1), &Arc::new(AtomicBool::new(true))), Checked::TooCostly);
    }

    #[test]
    fn references_mean_what_they_meant_before_they_were_guarded() {
        let schema = json!({
            "$id": "https://acme.test/order", "$ref": "#base", "unevaluatedProperties": false,
            "properties": {"lines": {"type": "array", "items": {"$ref": "line"}}, "$ref": {"type": "string"}, "next": {"$ref": "#"}},
            "$defs": {
                "base": {"$anchor": "base", "properties": {"id": {"$ref": "#/$defs/a~1b%20c"}}, "required": ["id"]},
                "a/b c": {"type": "integer"},
                "line": {"$id": "https://acme.test/line", "$dynamicRef": "#sku", "$defs": {"sku": {"$dynamicAnchor": "sku", "type": "string"}}},
            },
        });
        assert_eq!(check(&schema, &json!({"id": 1, "lines": ["x"], "$ref": "y", "next": {"id": 2}})), Checked::Meets);
        for wrong in [
            json!({}),
            json!({"id": "1"}),
            json!({"id": 1, "other": 1}),
            json!({"id": 1, "lines": [1]}),
            json!({"id": 1, "$ref": 1}),
        ] {
            assert!(matches!(check(&schema, &wrong), Checked::Violates(..)), "{wrong}");
        }
        let wrong = check(&schema, &json!({"id": 1, "next": {"id": "x"}}));
        assert!(matches!(&wrong, Checked::Violates(named, _) if named[0].starts_with("at /next/id: ")), "{wrong:?}");
    }

    #[test]
    fn a_reference_into_a_value_is_refused() {
        for reference in ["#/properties/a/enum/0", "#/const", "#/properties/a/%65num/0"] {
            let why = JsonSchema::compile(&json!({"$ref": reference, "properties": {"a": {"enum": [{"type": "string"}]}}}))
                .unwrap_err();
            assert!(why.contains("which is no schema"), "{why}");
        }
        assert!(JsonSchema::compile(&json!({"$ref": "#/properties/enum", "properties": {"enum": {}}})).is_ok());
    }

    #[test]
    fn formats_are_checked() {
        let schema = json!({"properties": {"at": {"format": "date-time"}, "id": {"format": "uuid"}, "to": {"format": "email"}}});
        assert_eq!(check(&schema, &json!({"at": "2026-01-02T03:04:05Z", "to": "a@b.test"})), Checked::Meets);
        for wrong in [json!({"at": "yesterday"}), json!({"id": "1"}), json!({"to": "nobody"})] {
            assert!(matches!(check(&schema, &wrong), Checked::Violates(..)), "{wrong}");
        }
    }
}
