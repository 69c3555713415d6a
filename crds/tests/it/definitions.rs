use std::{fs, path::PathBuf};

use acb_crds::schema::Kind;
use serde_json::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("yaml")
}

#[test]
fn yaml_is_current() {
    for kind in Kind::ALL {
        let definition = kind.definition();
        let name = format!("{}.yaml", definition.spec.names.plural);
        let body = serde_saphyr::to_string(&definition).unwrap();
        let text = format!("# Generated from crds/src by `UPDATE_CRDS=1 cargo test -p acb-crds`.\n{body}");
        let path = folder().join(name);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is out of date: run UPDATE_CRDS=1 cargo test -p acb-crds", path.display());
        let read: Value = serde_saphyr::from_str(&found).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "what is written reads back the same");
    }
}

/// The same in the chart, with what helm is told about it.
#[test]
fn the_chart_holds_the_same() {
    const METADATA: &str = "metadata:
  {{- if .Values.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
  labels:
    app.kubernetes.io/part-of: acb
    app.kubernetes.io/managed-by: {{ .Release.Service }}
";
    for kind in Kind::ALL {
        let name = format!("{}.yaml", kind.definition().spec.names.plural);
        let definition = fs::read_to_string(folder().join(&name)).unwrap();
        assert!(!definition.contains("{{"), "{name} would be a template in the chart");
        let text = definition.replacen("metadata:\n", METADATA, 1);
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/acb-crds/templates").join(&name);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is out of date: run UPDATE_CRDS=1 cargo test -p acb-crds", path.display());
    }
}

fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, value);
    for (name, field) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = value.get("items") {
        walk(items, &format!("{path}[]"), visit);
    }
}

#[test]
fn a_field_says_what_it_is_for_itself() {
    let definition = serde_json::to_value(Kind::Tenant.definition()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    for (field, says) in [
        (&spec["deletionPolicy"], "`Retain` (the default)"),
        (&spec["contextTypes"]["items"]["properties"]["cleanup"], "`Delete` (the default)"),
        (&spec["hub"]["properties"]["service"]["properties"]["type"], "`ClusterIP` where unset"),
        (&spec["registration"], "`Declared` (the default)"),
    ] {
        let described = field["description"].as_str().unwrap();
        assert!(described.contains(says), "{described}");
    }
}

#[test]
fn schema_is_described_and_never_defaults_into_the_spec() {
    for kind in Kind::ALL {
        let definition = serde_json::to_value(kind.definition()).unwrap();
        let version = &definition["spec"]["versions"][0];
        assert_eq!(version["name"], "v1alpha1");
        assert!(version["subresources"]["status"].is_object());
        assert_eq!(definition["spec"]["names"]["categories"], serde_json::json!(["acb"]));
        walk(&version["schema"]["openAPIV3Schema"], kind.as_str(), &mut |path, schema| {
            assert!(schema.get("default").is_none(), "{path} has a default: effective values go to the status");
            if path.contains('.') && !path.ends_with("[]") && !path.ends_with(".spec") {
                let described = schema.get("description").and_then(Value::as_str).unwrap_or_default();
                let whole = path.ends_with(".status") || path.ends_with(".apiVersion") || path.ends_with(".kind");
                assert!(described.len() >= 20 || whole, "{path} is described as {described:?} only");
            }
            let may_be_null = schema["type"] == "object";
            assert!(schema.get("nullable").is_none() || may_be_null, "{path} is nullable: an absent field is left out");
        });
    }
}
