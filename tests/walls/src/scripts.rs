//! What scripts and pages say of the build, held against it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

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

/// What `cargo test --no-fail-fast` says where a test fails, a program of tests breaks off, and a test in a comment fails.
const OUTPUT: &str = "
     Running unittests src/lib.rs (target/debug/deps/acb_hub_core-1)

running 3 tests
test first ... FAILED
test rooms::second ... FAILED
test third ... ok

failures:

---- first stdout ----
failures: are not listed here
    nor here

---- rooms::second stdout ----
thread panicked


failures:
    first
    rooms::second

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p acb-hub-core --lib`
     Running tests/it/main.rs (target/debug/deps/it-2)
error: test failed, to rerun pass `-p acb-hub --test it`

Caused by:
  process didn't exit successfully: `target/debug/deps/it-2` (signal: 6, SIGABRT: process abort signal)
   Doc-tests acb_sdk

failures:
    sdk/rust/src/lib.rs - (line 3)

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s

error: doctest failed, to rerun pass `-p acb-sdk --doc`
error: 3 targets failed:
    `-p acb-hub-core --lib`
    `-p acb-hub --test it`
    `-p acb-sdk --doc`
";

#[test]
fn each_failed_test_is_named_once() {
    let mut child = Command::new(path("scripts/failed-tests")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(OUTPUT.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = "\
cargo test -p acb-hub-core --lib: first
cargo test -p acb-hub-core --lib: rooms::second
cargo test -p acb-hub --test it: it broke off
cargo test -p acb-sdk --doc: sdk/rust/src/lib.rs - (line 3)
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert!(output.status.success());
}
