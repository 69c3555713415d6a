//! Alerts, the series that they are tried on, and dashboards, held against what operator and hub export. `make alerts` evaluates them.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    exported::{Exported, OF_TARGETS, exported},
    first_cells, path,
    promql::{check, named},
    read,
};

fn alerts() -> Vec<Value> {
    let alerts: Value = serde_saphyr::from_str(&read("config/alerts/alerts.yaml")).unwrap();
    alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn alerts_name_what_is_exported_and_are_explained() {
    let exported = exported();
    let alerts = alerts();
    for alert in &alerts {
        let annotations = &alert["annotations"];
        let shown = format!("{} {}", text(&annotations["summary"]), text(&annotations["description"]));
        check(text(&alert["expr"]), &shown, &exported, text(&alert["alert"]));
        assert!(alert["labels"]["severity"].is_string(), "{alert}");
    }
    let named: Vec<_> = alerts.iter().map(|alert| text(&alert["alert"])).collect();
    assert_eq!(first_cells(&read("docs/day-two.md"), "Alerts"), named);
}

#[test]
fn each_alert_is_tried_where_it_fires_and_where_it_does_not() {
    let exported = exported();
    let (mut fires, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for file in fs::read_dir(path("config/alerts/tests")).unwrap() {
        let tried: Value = serde_saphyr::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        for case in tried["tests"].as_array().unwrap() {
            for series in case["input_series"].as_array().unwrap() {
                is_series(text(&series["series"]), &exported);
            }
            for expected in case["alert_rule_test"].as_array().unwrap() {
                let cases = if expected["exp_alerts"].as_array().unwrap().is_empty() { &mut quiet } else { &mut fires };
                cases.insert(text(&expected["alertname"]).to_owned());
            }
        }
    }
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(fires.contains(name), "config/alerts/tests has no series on which {name} fires");
        assert!(quiet.contains(name), "config/alerts/tests has no series on which {name} does not fire");
    }
}

/// It has the labels of its metric, and else only those of its target. Of a target that is none of ours nothing else is known.
fn is_series(series: &str, exported: &Exported) {
    let named = named(series);
    let [(metric, labels)] = named.selectors.as_slice() else { panic!("{series} is not one series") };
    let of_metric: BTreeSet<String> = labels.iter().filter(|label| !OF_TARGETS.contains(&label.as_str())).cloned().collect();
    assert_eq!(exported.get(metric), Some(&of_metric), "nothing exports {series}");
}

#[test]
fn dashboards_show_what_is_exported() {
    let exported = exported();
    for board in ["hubs", "operator"] {
        let board: Value = serde_json::from_str(&read(&format!("config/dashboards/{board}.json"))).unwrap();
        let panels = board["panels"].as_array().unwrap();
        assert!(!panels.is_empty());
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
            check(text(&target["expr"]), text(&target["legendFormat"]), &exported, text(&board["title"]));
        }
    }
}

#[test]
fn what_nobody_exports_is_found() {
    let exported = exported();
    let found = |expression: &str, shown: &str| {
        let checked = std::panic::catch_unwind(|| check(expression, shown, &exported, "it"));
        checked.err().map(|why| *why.downcast::<String>().unwrap())
    };
    assert_eq!(found(r#"sum by (topic) (acb_kafka_lag{namespace="a"})"#, "{{ $labels.topic }} {{ $value }}"), None);
    for (expression, shown, why) in [
        ("acb_gone_total > 0", "", "it names acb_gone_total, which neither operator nor hub exports"),
        (r#"acb_kafka_lag{type="a"} > 0"#, "", "it selects by type, which acb_kafka_lag does not have"),
        ("sum by (type) (acb_kafka_lag)", "", "it names type, which is a label of nothing in sum by (type) (acb_kafka_lag)"),
        ("acb_kafka_lag", "{{type}}", "it names type, which is a label of nothing in acb_kafka_lag"),
    ] {
        assert_eq!(found(expression, shown).as_deref(), Some(why));
    }
}
