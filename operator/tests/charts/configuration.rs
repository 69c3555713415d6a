use std::{collections::BTreeMap, fs, process::Command};

use acb_operator::runtime::kubernetes::config::Config;
use serde_json::Value;

use crate::{documents, path, read};

const PAGE: &str = "docs/configuration.md";

/// The leaves of the values: what is described, and not what is in it.
fn leaves(schema: &Value, values: &Value, at: &str, found: &mut Vec<(String, String, String)>) {
    for (name, field) in schema["properties"].as_object().unwrap() {
        let inner = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let description = field["description"].as_str().unwrap_or_else(|| panic!("{inner} has no description"));
        if name == "global" {
            continue;
        }
        let value = values.get(name).unwrap_or_else(|| panic!("{inner} is in the schema, and not in values.yaml"));
        if field["properties"].is_object() && inner != "tiers" {
            leaves(field, value, &inner, found);
        } else {
            found.push((inner, value.to_string(), description.to_owned()));
        }
    }
    for name in values.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{at}.{name} is in values.yaml, and not in the schema");
    }
}

fn table(chart: &str) -> String {
    let schema: Value = serde_json::from_str(&read(&format!("charts/{chart}/values.schema.json"))).unwrap();
    let values: Value = serde_saphyr::from_str(&read(&format!("charts/{chart}/values.yaml"))).unwrap();
    let mut found = Vec::new();
    leaves(&schema, &values, "", &mut found);
    let rows: BTreeMap<_, _> = found.into_iter().map(|(name, value, description)| (name, (value, description))).collect();
    let rows = rows.into_iter().map(|(name, (value, description))| format!("| `{name}` | `{value}` | {description} |\n"));
    format!("| value | default | |\n|---|---|---|\n{}", rows.collect::<String>())
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_acb-operator")).arg("--help").env_clear().output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What the chart writes is what the operator reads.
#[test]
fn the_operator_takes_the_charts_configuration() {
    for manifests in ["config/operator/operator.yaml", "operator/tests/charts/golden/everything.yaml"] {
        let manifests = documents(&read(manifests));
        let map = manifests.iter().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == "acb-operator");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        fs::write(&file, map.unwrap()["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let authority = rcgen::generate_simple_self_signed(["kafka".to_owned()]).unwrap().cert.pem();
        for system in ["postgres", "kafka"] {
            let folder = folder.path().join(system);
            fs::create_dir(&folder).unwrap();
            for (name, text) in [("username", "user"), ("password", "secret"), ("ca.crt", &authority)] {
                fs::write(folder.join(name), text).unwrap();
            }
        }
        let config = Config::load(&file, "acb-system").unwrap();
        assert_eq!(config.platform.has_kafka(), config.kafka.is_some());
        assert_eq!(config.platform.postgres.host, "postgres.databases.svc");
    }
}

#[test]
fn the_configuration_reference_is_current() {
    let text = format!(
        "# Configuration\n\nGenerated from the charts' values and schemas by `UPDATE_DOCS=1 cargo test -p acb-operator --test charts`.\n\n\
         ## Chart `acb`\n\n{}\nA tier, in `tiers`, may differ in `tenant`, `agentDefault` and `agentCeiling` (each with the limits of a Quota),\n\
         `contextTypes`, `partitions` and `replicas`. What is left out is as in the table of [tiers](concepts.md).\n\n\
         ## Chart `acb-crds`\n\n{}\n\
         ## The operator\n\nWhat the chart's Deployment gives it as flags; the rest is in the file that `--config` names.\n\n```text\n{}```\n",
        table("acb"),
        table("acb-crds"),
        help(),
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(PAGE), &text).unwrap();
    }
    let found = fs::read_to_string(path(PAGE)).unwrap_or_default();
    assert!(found == text, "{PAGE} is out of date: run UPDATE_DOCS=1 cargo test -p acb-operator --test charts");
}
