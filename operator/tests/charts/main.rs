//! Charts, manifests and the pages about them, held against each other and against the code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod argo_cd;
mod configuration;
mod exported;
#[path = "../golden/given.rs"]
#[allow(dead_code)]
mod given;
mod helm;
mod metrics;
mod promql;
mod reasons;
mod rights;

use std::{fs, path::PathBuf};

use serde_json::Value;

/// A file or folder of the project.
fn path(inner: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(inner)
}

fn read(inner: &str) -> String {
    fs::read_to_string(path(inner)).unwrap_or_else(|error| panic!("{inner}: {error}"))
}

/// Every document of a YAML text.
fn documents(text: &str) -> Vec<Value> {
    let documents =
        text.split("\n---\n").filter(|document| document.lines().any(|line| !line.is_empty() && !line.starts_with(['#', '-'])));
    documents.map(|document| serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error} in\n{document}"))).collect()
}

/// What the chart makes of the values in `config/operator`.
fn manifests() -> Vec<Value> {
    documents(&read("config/operator/operator.yaml"))
}

/// The first cells of the rows of a table, in a page: those that are between backquotes.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect()
}
