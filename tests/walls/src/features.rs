//! Each crate is built once for programs and tests.
//!
//! Where a dependency of tests adds a feature to a crate, `cargo build` and `cargo test` build that crate and all that stand on it
//! twice. On tokio stands every crate that does I/O. The Cargo.toml of this crate names such features for both.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::cargo;

/// Crates with their versions, each with the sets of features that it is built with.
fn features(edges: &str) -> BTreeMap<String, BTreeSet<String>> {
    let tree = ["tree", "--offline", "--locked", "--workspace", "--prefix", "none", "--format", "{p}\t{f}", "--edges", edges];
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in cargo(&tree).unwrap().lines() {
        // A crate that was printed before is marked so.
        let line = line.trim_end_matches(" (*)");
        if let Some((name, set)) = line.split_once('\t') {
            features.entry(name.to_owned()).or_default().insert(set.to_owned());
        }
    }
    features
}

#[test]
fn tests_add_no_feature_to_what_programs_are_built_with() {
    let programs = features("normal,build");
    let twice: Vec<String> = features("normal,build,dev")
        .into_iter()
        .filter_map(|(name, sets)| {
            let built = programs.get(&name)?;
            let added: Vec<&String> = sets.difference(built).collect();
            (!added.is_empty()).then(|| format!("{name}: with {built:?}, and for tests with {added:?}"))
        })
        .collect();
    assert!(twice.is_empty(), "built twice, name the features in tests/walls/Cargo.toml:\n{}", twice.join("\n"));
}
