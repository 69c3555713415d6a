//! What a check against a JSON Schema takes of memory. In a process of its own: the peak is the process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, sync::Arc};

use acb_hub_core::kit::json_schema::{Checked, JsonSchema};
use serde_json::{Value, json};

/// The most that this process had resident, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_payload_that_is_wrong_everywhere_takes_no_more_than_one_that_is_right() {
    let payload: Value = serde_json::from_str(&format!("[{}0]", "0,".repeat(500_000))).unwrap();
    let before = peak();
    let text = json!({"type": "string"});
    let all = json!({"type": "array", "items": {"allOf": vec![text.clone(); 6]}});
    let any = json!({"type": "array", "items": {"anyOf": vec![text; 6]}});
    let whole = json!({"anyOf": [all, {"type": "null"}]});
    for schema in [all, any, whole] {
        let checked = JsonSchema::compile(&schema).unwrap().check(&payload, &Arc::default());
        assert!(matches!(checked, Checked::Violates(ref named, _) if !named.is_empty()), "{checked:?}");
        let grown = peak() - before;
        assert!(grown < 32, "{grown} MiB for {schema}");
    }
}
