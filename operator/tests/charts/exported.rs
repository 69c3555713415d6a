//! What operator and hub register, as a scrape shows it: read from their sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::path;

/// Each metric with its labels.
pub(crate) type Exported = BTreeMap<String, BTreeSet<String>>;

/// What Prometheus gives each series by itself, of pods and services as the charts have them scraped.
pub(crate) const OF_TARGETS: [&str; 8] =
    ["acb_dev_tenant", "container", "endpoint", "instance", "job", "namespace", "pod", "service"];

pub(crate) fn exported() -> Exported {
    let mut exported = Exported::from([("up".to_owned(), BTreeSet::new())]);
    let mut folders = vec![path("hub"), path("operator/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                exported.extend(registered(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    exported
}

/// What one source file registers.
fn registered(source: &str) -> Exported {
    let lines = source.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let source = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    let (sets, families) = (label_sets(&source), families(&source));
    let mut registered = Exported::new();
    for (call, unit) in [("register(", ""), ("register_with_unit(", "_seconds")] {
        for part in source.split(call).skip(1) {
            let Some((name, arguments)) = part.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
                continue;
            };
            let set = families.get(registered_field(arguments)).and_then(|set| sets.get(set));
            let labels = set.cloned().unwrap_or_default();
            for suffix in ["", "_total", "_bucket", "_sum", "_count"] {
                let mut labels = labels.clone();
                labels.extend((suffix == "_bucket").then(|| "le".to_owned()));
                registered.insert(format!("{name}{unit}{suffix}"), labels);
            }
        }
    }
    registered
}

/// The field or variable whose clone is the last argument of a call: `metrics.lag.clone()`, `Family::clone(&lag)`.
fn registered_field(arguments: &str) -> &str {
    let call = arguments.split(");").next().unwrap_or_default().trim_end().trim_end_matches(',');
    let metric = call.rsplit(", ").next().unwrap_or_default();
    let cloned = metric.split_once("clone(&").map(|(_, cloned)| cloned.trim_end_matches(')'));
    cloned.or_else(|| metric.strip_suffix(".clone()")?.rsplit('.').next()).unwrap_or_default()
}

/// Each struct of labels with its fields.
fn label_sets(source: &str) -> BTreeMap<&str, BTreeSet<String>> {
    let structs = source.split("EncodeLabelSet)] ").skip(1).filter_map(|part| {
        let (name, rest) = part.split_once("struct ")?.1.split_once(" {")?;
        let fields = rest.split('}').next()?.split(',').filter_map(|field| {
            let name = field.split_once(':')?.0.split_whitespace().last()?;
            Some(name.trim_start_matches("r#").to_owned())
        });
        Some((name, fields.collect()))
    });
    structs.collect()
}

/// Each field or variable that has a metric for each set of labels, with the name of that set. The field of a tuple is `0`.
fn families(source: &str) -> BTreeMap<&str, &str> {
    let mut families = BTreeMap::new();
    for kind in ["Family<", "Histograms<"] {
        for (at, _) in source.match_indices(kind) {
            let before = source[..at].trim_end();
            let field = match before.strip_suffix(':') {
                Some(before) => before.rsplit([' ', '(']).next().unwrap_or_default(),
                None if before.ends_with('(') => "0",
                None => continue,
            };
            let set = source[at + kind.len()..].split([',', '>']).next().unwrap_or_default();
            families.insert(field, set.trim());
        }
    }
    families
}

#[test]
fn metrics_are_read_with_their_labels() {
    let exported = exported();
    let labels = |metric: &str| exported[metric].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(labels("acb_messages_total"), ["tenant_id", "type"]);
    assert_eq!(labels("acb_message_latency_seconds_bucket"), ["le", "operation"]);
    assert_eq!(labels("acb_kafka_lag"), ["topic"]);
    assert_eq!(labels("acb_limited_total"), ["limit", "subject"]);
    assert_eq!(labels("acb_agent_bandwidth_bytes"), ["agent_id", "direction"]);
    assert_eq!(labels("acb_audit_gaps_total"), [""; 0]);
    assert_eq!(labels("controller_runtime_reconcile_time_seconds_bucket"), ["controller", "le"]);
    assert_eq!(labels("acb_operator_resources"), ["condition", "kind", "reason", "status"]);
    assert_eq!(labels("acb_operator_orphans_finished_total"), ["system"]);
}
