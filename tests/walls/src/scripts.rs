//! What scripts and pages say of the build, held against it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

fn path(inner: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(inner)
}

/// scripts/install-dependencies reads it in Cargo.toml.
#[test]
fn the_readme_names_the_rust_of_cargo_toml() {
    let readme = fs::read_to_string(path("README.md")).unwrap();
    let named = format!("Rust {} or later", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.contains(&named), "README.md does not say: {named}");
}
