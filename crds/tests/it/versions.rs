//! What holds for every version of the kinds, and the way from one to the next: `docs/api-versions.md`.

use std::{collections::BTreeSet, fs, path::PathBuf};

use acb_crds::{
    API_VERSION,
    document::load,
    schema::{self, Kind, Resource},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

fn file(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The samples, and a document of each kind with everything in it.
fn documents() -> Vec<Resource> {
    let paths = [
        "../config/samples/acme.yaml",
        "../config/samples/globex.yaml",
        "tests/documents/tenant.yaml",
        "tests/documents/agent.yaml",
        "tests/documents/quota.yaml",
    ];
    let loaded = paths.iter().flat_map(|path| load(&file(path), path).ours);
    loaded.map(|document| document.unwrap_or_else(|error| panic!("{error}"))).collect()
}

/// The places of the fields that a schema has, `[]` for an item and `*` for a value of a map.
fn known(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        known(field, &at, found);
        found.insert(at);
    }
    if schema["items"].is_object() {
        known(&schema["items"], &format!("{at}[]"), found);
    }
}

/// The places of the fields that a value has.
fn set(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                set(value, &at, found);
                found.insert(at);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| set(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

fn spec_schema(definition: &Value, version: usize) -> &Value {
    &definition["spec"]["versions"][version]["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

#[test]
fn every_document_reads_back_as_what_was_written() {
    let documents = documents();
    let mut places = [(); 3].map(|()| BTreeSet::new());
    for resource in &documents {
        let written = resource.to_value().unwrap();
        let again = schema::check(&written, Some(&written)).unwrap();
        assert_eq!((&again, again.to_value().unwrap()), (resource, written.clone()));
        set(&written["spec"], "spec", &mut places[resource.object().kind as usize]);
    }
    // What was in the file, too: a field that the types do not have would be lost on the way.
    for name in ["tenant", "agent", "quota"] {
        let text = file(&format!("tests/documents/{name}.yaml"));
        let text = text.split("\n---\n").next().unwrap();
        let given: Value = serde_saphyr::from_str(text).unwrap();
        let typed = load(text, name).ours.remove(0).unwrap().to_value().unwrap();
        assert_eq!(typed["spec"], given["spec"], "{name}");
    }
    for kind in Kind::ALL {
        let definition = serde_json::to_value(kind.definition()).unwrap();
        let mut fields = BTreeSet::new();
        known(spec_schema(&definition, 0), "spec", &mut fields);
        let unset: Vec<_> = fields.difference(&places[kind as usize]).collect();
        assert!(unset.is_empty(), "tests/documents sets not all of {kind}: {unset:?}");
    }
}

/// A definition as it would be on the way to the next version: both are served, and have the same fields.
fn with_next(kind: Kind, stored: &str) -> CustomResourceDefinition {
    let mut definition = kind.definition();
    let mut next = definition.spec.versions[0].clone();
    next.name = "v1beta1".to_owned();
    definition.spec.versions.push(next);
    for version in &mut definition.spec.versions {
        version.storage = version.name == stored;
    }
    definition
}

#[test]
fn the_next_version_begins_with_the_same_fields() {
    for kind in Kind::ALL {
        // Without a conversion of its own: an API server changes nothing but `apiVersion`.
        assert!(kind.definition().spec.conversion.is_none_or(|conversion| conversion.strategy == "None"));
        for stored in ["v1alpha1", "v1beta1"] {
            let definition = serde_json::to_value(with_next(kind, stored)).unwrap();
            let versions = definition["spec"]["versions"].as_array().unwrap();
            assert!(versions.iter().all(|version| version["served"] == true));
            assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1);
            assert_eq!(spec_schema(&definition, 0), spec_schema(&definition, 1));
        }
    }
    // What is rewritten on the way is what it was.
    for resource in documents() {
        let old = resource.to_value().unwrap();
        let mut stored = old.clone();
        stored["apiVersion"] = json!("acb.dev/v1beta1");
        assert!(schema::check(&stored, None).is_err(), "this release knows {API_VERSION} alone");
        stored["apiVersion"] = json!(API_VERSION);
        assert_eq!(schema::check(&stored, Some(&old)).unwrap(), resource);
    }
}
