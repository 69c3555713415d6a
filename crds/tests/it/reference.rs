//! `docs/crd-reference.md`, generated from the types.

use std::{fmt::Write as _, fs, path::PathBuf};

use acb_crds::schema::Kind;
use serde_json::Value;

fn text<'a>(schema: &'a Value, field: &str) -> &'a str {
    schema.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A description on one line of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn shape(schema: &Value) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        return values.join(", ");
    }
    match text(schema, "type") {
        _ if schema["x-kubernetes-int-or-string"] == true => "quantity".to_owned(),
        "array" => format!("list of {}", shape(&schema["items"])),
        "object" if schema.get("additionalProperties").is_some() => match shape(&schema["additionalProperties"]).as_str() {
            "string" => "map".to_owned(),
            values => format!("map of {values}"),
        },
        "" => "any".to_owned(),
        other => other.to_owned(),
    }
}

/// What a value must meet, in the schema's own words.
fn bounds(schema: &Value) -> String {
    let mut bounds = Vec::new();
    for (field, words) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "characters, at least"),
        ("maxLength", "characters, at most"),
        ("maxItems", "entries, at most"),
        ("maxProperties", "entries, at most"),
    ] {
        if let Some(bound) = schema.get(field) {
            bounds.push(format!("{words} {}", bound.as_f64().unwrap()));
        }
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        bounds.push(format!("`{}`", pattern.replace('|', "\\|")));
    }
    bounds.join("; ")
}

fn rules(schema: &Value, found: &mut Vec<String>) {
    for rule in schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
        found.push(cell(text(rule, "message")));
    }
    for field in schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, field)| field) {
        rules(field, found);
    }
    if let Some(items) = schema.get("items") {
        rules(items, found);
    }
}

fn rows(schema: &Value, at: &str, page: &mut String) {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let must = if required.contains(&name.as_str()) { "**required.** " } else { "" };
        writeln!(page, "| `{path}` | {} | {must}{} | {} |", shape(field), cell(text(field, "description")), bounds(field))
            .unwrap();
        rows(field, &path, page);
        if let Some(items) = field.get("items") {
            rows(items, &format!("{path}[]"), page);
        }
    }
}

#[test]
fn the_reference_is_current() {
    let mut page = "# The kinds\n\nGroup `acb.dev`, version `v1alpha1`. Generated from `crds/src` by `UPDATE_CRDS=1 cargo test -p acb-crds`.\n".to_owned();
    for kind in Kind::ALL {
        let definition = serde_json::to_value(kind.definition()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let names = &definition["spec"]["names"];
        let scope = text(&definition["spec"], "scope").to_lowercase();
        let short = names["shortNames"][0].as_str().unwrap();
        writeln!(page, "\n## {}\n\n{} ({scope}; short name `{short}`)\n", kind.as_str(), text(schema, "description")).unwrap();
        for part in ["spec", "status"] {
            writeln!(page, "### {} {part}\n\n| field | | | bounds |\n|---|---|---|---|", kind.as_str()).unwrap();
            rows(&schema["properties"][part], "", &mut page);
            page.push('\n');
        }
        let mut found = Vec::new();
        rules(schema, &mut found);
        page.push_str("### What is refused\n\n");
        for rule in found {
            writeln!(page, "- {rule}").unwrap();
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/crd-reference.md");
    if std::env::var_os("UPDATE_CRDS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/crd-reference.md is out of date: run UPDATE_CRDS=1 cargo test -p acb-crds");
}
