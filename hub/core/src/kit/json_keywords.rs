//! The keywords of JSON Schema (draft 2020-12): which hold schemas, and which a hub does nothing about.

use jsonschema::Draft;
use serde_json::{Map, Value};

/// Keywords of a schema that are named as ignored.
const MAX_IGNORED: usize = 20;

/// Their members are schemas, by names of the author's.
const OF_SCHEMAS: [&str; 6] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];

/// They are a schema or a list of schemas.
const SCHEMAS: [&str; 15] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// The others that there are.
const OTHERS: [&str; 38] = [
    "$anchor",
    "$comment",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$ref",
    "$schema",
    "$vocabulary",
    "const",
    "contentEncoding",
    "contentMediaType",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
];

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Whether the members of this keyword are schemas, by names of the author's.
pub(crate) fn is_of_schemas(keyword: &str) -> bool {
    OF_SCHEMAS.contains(&keyword)
}

/// What a schema says and no hub acts on, by pointers, as far as it is told: keywords and formats that there are none of, such as misspelt
/// ones, and another draft in `$schema`. Keywords that begin with `x-` are anybody's.
#[must_use]
pub fn ignored(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    look(schema, "", &mut found);
    found
}

fn look(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema {
        Value::Array(schemas) => {
            schemas.iter().enumerate().for_each(|(index, schema)| look(schema, &format!("{path}/{index}"), found));
        }
        Value::Object(keywords) => look_at_keywords(keywords, path, found),
        _ => {}
    }
}

fn look_at_keywords(keywords: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
    for (keyword, value) in keywords {
        if found.len() >= MAX_IGNORED {
            return;
        }
        let place = format!("{path}/{}", keyword.replace('~', "~0").replace('/', "~1"));
        match (keyword.as_str(), value) {
            ("$schema", Value::String(draft)) if draft.trim_end_matches('#') != DRAFT => {
                found.push(format!("{place} (taken as draft 2020-12)"));
            }
            ("format", Value::String(format)) if !jsonschema::options().is_known_format(Draft::Draft202012, format) => {
                found.push(format!("{place} (there is no such format)"));
            }
            (keyword, Value::Object(schemas)) if is_of_schemas(keyword) => {
                for (name, schema) in schemas {
                    look(schema, &format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")), found);
                }
            }
            (keyword, value) if SCHEMAS.contains(&keyword) => look(value, &place, found),
            (keyword, _) if OTHERS.contains(&keyword) || is_of_schemas(keyword) || keyword.starts_with("x-") => {}
            _ => found.push(format!("{place} (there is no such keyword)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_misspelt_is_told_and_what_is_there_is_not() {
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "title": "Note", "requird": ["id"], "x-team": "a",
            "properties": {"requird": {"type": "string", "format": "datetime"}, "at": {"format": "date-time"}, "a/b": {"maxLenght": 1}},
            "anyOf": [{"minimun": 1}, true], "enum": [{"no": "keyword"}], "default": {"none": 1}, "dependencies": {"a": ["b"]},
        });
        let found = ignored(&schema);
        assert_eq!(
            found,
            [
                "/$schema (taken as draft 2020-12)",
                "/anyOf/0/minimun (there is no such keyword)",
                "/properties/a~1b/maxLenght (there is no such keyword)",
                "/properties/requird/format (there is no such format)",
                "/requird (there is no such keyword)",
            ]
        );
        assert_eq!(ignored(&json!({"$schema": DRAFT, "items": {"type": "string"}})), [""; 0]);
        let many: Map<String, Value> = (0..1000).map(|n| (format!("odd{n}"), json!(1))).collect();
        assert_eq!(ignored(&Value::Object(many)).len(), MAX_IGNORED);
    }
}
