//! What each crate is built with on this platform, by `cargo metadata`. Dependencies of tests and of build scripts are not looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde::Deserialize;

/// Why there is no graph.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// Crates by their names. Versions are taken together: a wall holds against all of them.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Of the workspace that this crate is in, as Cargo.lock has it, on this platform.
    ///
    /// The graph of all platforms names crates that no build here has downloaded: without a network it can't be had on a fresh machine.
    ///
    /// # Errors
    /// Where cargo fails, or says what can't be read.
    pub fn of_workspace() -> Result<Self, Problem> {
        let version = cargo(&["-vV"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("cargo -vV names no host")?;
        let metadata = cargo(&["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host])?;
        let metadata: Metadata = serde_json::from_str(&metadata)?;
        let names: BTreeMap<&str, &str> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let mut graph = Self::default();
        for node in &metadata.resolve.nodes {
            let Some(name) = names.get(node.id.as_str()) else { continue };
            let edges = graph.edges.entry((*name).to_owned()).or_default();
            let normal = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            edges.extend(normal.filter_map(|dep| names.get(dep.pkg.as_str())).map(|name| (*name).to_owned()));
        }
        Ok(graph)
    }

    /// From pairs of a crate and one that it depends on.
    pub fn from_edges<'a>(edges: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut graph = Self::default();
        for (from, to) in edges {
            graph.edges.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
        graph
    }

    /// Whether there is such a crate.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.edges.contains_key(name) || self.edges.values().any(|edges| edges.contains(name))
    }

    /// What it names itself.
    #[must_use]
    pub fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.edges.get(name).into_iter().flatten().map(String::as_str).collect()
    }

    /// The shortest way from one to the other, both included.
    #[must_use]
    pub fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut paths = vec![vec![from.to_owned()]];
        while !paths.is_empty() {
            let mut longer = Vec::new();
            for path in paths {
                for next in path.last().and_then(|last| self.edges.get(last)).into_iter().flatten() {
                    let mut path = path.clone();
                    path.push(next.clone());
                    if next == to {
                        return Some(path);
                    }
                    if seen.insert(next.clone()) {
                        longer.push(path);
                    }
                }
            }
            paths = longer;
        }
        None
    }
}

/// What the cargo that built this crate answers.
pub(crate) fn cargo(arguments: &[&str]) -> Result<String, Problem> {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// `dev`, `build`, or nothing for a normal one.
    kind: Option<String>,
}
