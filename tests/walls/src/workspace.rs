//! The crates of the workspace and the files that they begin with.

use std::{path::PathBuf, process::Command};

use serde::Deserialize;

use crate::graph::Problem;

/// A library or a program.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name of its package.
    pub package: String,
    /// Its first file: `lib.rs`, `main.rs`.
    pub root: PathBuf,
}

/// What ships: every library and every program. Tests, benches and examples are left out.
///
/// # Errors
/// Where cargo fails, or says what can't be read.
pub fn targets() -> Result<Vec<Target>, Problem> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let mut targets = Vec::new();
    for package in metadata.packages {
        let shipped = package.targets.into_iter().filter(|target| target.kind.iter().any(|kind| kind == "lib" || kind == "bin"));
        targets.extend(shipped.map(|target| Target { package: package.name.clone(), root: target.src_path }));
    }
    Ok(targets)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<CargoTarget>,
}

#[derive(Deserialize)]
struct CargoTarget {
    kind: Vec<String>,
    src_path: PathBuf,
}
