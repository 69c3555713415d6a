use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{first_cells, path, read};

/// Names in an expression that could be metrics'.
fn names(expression: &str) -> BTreeSet<String> {
    // What is in quotes and braces are labels and their values.
    let mut outside = String::new();
    let (mut depth, mut quoted) = (0_u32, false);
    for character in expression.chars() {
        match character {
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth = depth.saturating_sub(1),
            _ if !quoted && depth == 0 => outside.push(character),
            _ => {}
        }
    }
    let words = outside.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.contains('_') || *word == "up").map(str::to_owned).collect()
}

const FUNCTIONS_AND_LABELS: [&str; 2] = ["histogram_quantile", "agent_id"];

/// What operator and hub register, as a scrape shows it.
fn exported() -> BTreeSet<String> {
    let mut exported = BTreeSet::from(["up".to_owned()]);
    let mut folders = vec![path("hub"), path("operator/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source: String = fs::read_to_string(path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
                for (call, unit) in [("register(", ""), ("register_with_unit(", "_seconds")] {
                    for part in source.split(call).skip(1) {
                        let Some(name) = part.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
                            continue;
                        };
                        for suffix in ["", "_total", "_bucket", "_sum", "_count"] {
                            exported.insert(format!("{}{unit}{suffix}", name.0));
                        }
                    }
                }
            }
        }
    }
    exported
}

fn check(expression: &str, exported: &BTreeSet<String>, of: &str) {
    let found: Vec<_> = names(expression).into_iter().filter(|name| !FUNCTIONS_AND_LABELS.contains(&name.as_str())).collect();
    assert!(!found.is_empty(), "{of} names no metric: {expression}");
    for name in found {
        assert!(exported.contains(&name), "{of} names {name}, which neither operator nor hub exports");
    }
}

fn alerts() -> Vec<Value> {
    let alerts: Value = serde_saphyr::from_str(&read("config/alerts/alerts.yaml")).unwrap();
    alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn alerts_name_what_is_exported_and_are_explained() {
    let exported = exported();
    for metric in ["acb_messages_total", "acb_kafka_lag", "acb_message_latency_seconds_bucket"] {
        assert!(exported.contains(metric), "{exported:?}");
    }
    let alerts = alerts();
    for alert in &alerts {
        check(alert["expr"].as_str().unwrap(), &exported, &alert["alert"].to_string());
        assert!(alert["annotations"]["summary"].is_string() && alert["labels"]["severity"].is_string(), "{alert}");
    }
    let named: Vec<_> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect();
    assert_eq!(first_cells(&read("docs/day-two.md"), "Alerts"), named);
}

#[test]
fn dashboards_show_what_is_exported() {
    let exported = exported();
    for board in ["hubs", "operator"] {
        let board: Value = serde_json::from_str(&read(&format!("config/dashboards/{board}.json"))).unwrap();
        let panels = board["panels"].as_array().unwrap();
        assert!(!panels.is_empty());
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
            check(target["expr"].as_str().unwrap(), &exported, &board["title"].to_string());
        }
    }
}

#[test]
fn a_metric_that_nobody_exports_is_found() {
    let found = names(r#"sum by (le, type) (rate(acb_gone_total{namespace=~"$namespace", a_b="c_d"}[5m]))"#);
    assert_eq!(found, BTreeSet::from(["acb_gone_total".to_owned()]));
    assert!(!exported().contains("acb_gone_total"));
}
