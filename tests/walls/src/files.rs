//! The walls between the files of each crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    arrows::Arrows,
    circles::{circles, reached, shown},
    modules::{Disk, Modules},
    rooms::Rooms,
    workspace,
};

/// Packages whose files are not held to this yet.
const PENDING: &[&str] = &[
    "acb-hub-core",
    "acb-hub-api",
    "acb-crds",
    "acb-operator",
    "acb-hub-bus",
    "acb-sdk",
    "acb",
    "acb-demo",
    "acb-bench",
    "acb-e2e",
];

/// The lowest floor first. A room may use the rooms of the floors below its own, and no other.
const ROOMS: &[Rooms] = &[Rooms {
    package: "acb-hub-core",
    floors: &[&["fault"], &["kit"], &["metrics"], &["log"], &["directory"], &["door", "messages", "contexts"]],
}];

/// An arrow that closes a circle and is still there, and why. None is added.
struct Remaining {
    from: &'static str,
    to: &'static str,
    why: &'static str,
}

const REMAINING: &[Remaining] = &[];

/// A library or a program, its files by their paths in the repository.
struct Sources {
    package: String,
    modules: Modules,
    arrows: Arrows,
}

fn all() -> Vec<Sources> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let targets = workspace::targets().unwrap();
    targets
        .into_iter()
        .map(|target| {
            let mut modules = Modules::read(&Disk, &target.root).unwrap();
            for module in &mut modules.all {
                module.file = module.file.strip_prefix(&workspace).unwrap().to_owned();
            }
            Sources { package: target.package, arrows: Arrows::of(&modules), modules }
        })
        .collect()
}

fn held() -> Vec<Sources> {
    all().into_iter().filter(|sources| !PENDING.contains(&sources.package.as_str())).collect()
}

fn without(mut arrows: Arrows, remaining: &[(&str, &str)]) -> Arrows {
    for (from, to) in remaining {
        if let Some(used) = arrows.all.get_mut(Path::new(from)) {
            used.remove(Path::new(to));
        }
    }
    arrows
}

/// The listed arrows that close no circle any more when all the others on the list are gone.
fn needless<'a>(arrows: &[&Arrows], listed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let needed = |entry: &(&str, &str)| {
        let others: Vec<_> = listed.iter().filter(|other| *other != entry).copied().collect();
        arrows.iter().any(|arrows| {
            let (from, to) = (PathBuf::from(entry.0), PathBuf::from(entry.1));
            arrows.all.get(&from).is_some_and(|used| used.contains_key(&to))
                && reached(&without((*arrows).clone(), &others), &to).contains(&from)
        })
    };
    listed.iter().filter(|entry| !needed(entry)).copied().collect()
}

fn listed() -> Vec<(&'static str, &'static str)> {
    REMAINING.iter().map(|remaining| (remaining.from, remaining.to)).collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    for sources in held() {
        let arrows = without(sources.arrows, &listed());
        found.extend(circles(&arrows).iter().map(|circle| format!("{}: {}", sources.package, shown(&arrows, circle))));
    }
    assert!(found.is_empty(), "move what is used to a file that both can use:\n{}", found.join("\n"));
}

#[test]
fn what_remains_of_the_circles_is_needed() {
    let held = held();
    let arrows: Vec<&Arrows> = held.iter().map(|sources| &sources.arrows).collect();
    let needless = needless(&arrows, &listed());
    let lines = REMAINING.iter().filter(|remaining| needless.contains(&(remaining.from, remaining.to)));
    let lines: Vec<String> = lines.map(|line| format!("{} → {} ({})", line.from, line.to, line.why)).collect();
    assert!(lines.is_empty(), "these close no circle any more, take them off the list:\n{}", lines.join("\n"));
}

#[test]
fn no_room_uses_a_room_beside_or_above_it() {
    let packages: BTreeSet<String> = workspace::targets().unwrap().into_iter().map(|target| target.package).collect();
    let held = held();
    for rooms in ROOMS {
        assert!(packages.contains(rooms.package), "{} is not known any more", rooms.package);
        let libraries = held.iter().filter(|sources| sources.package == rooms.package);
        let breaches: Vec<String> = libraries.flat_map(|sources| rooms.breaches(&sources.modules, &sources.arrows)).collect();
        assert!(breaches.is_empty(), "see docs/architecture.md for the order of rooms:\n{}", breaches.join("\n"));
    }
}

#[test]
fn every_crate_is_read() {
    let all = all();
    for (package, file) in
        [("acb", "cli/src/main.rs"), ("acb-operator", "operator/src/lib.rs"), ("acb-sdk", "sdk/rust/src/link.rs")]
    {
        let sources = all.iter().filter(|sources| sources.package == package);
        let files: BTreeSet<&Path> =
            sources.flat_map(|sources| &sources.modules.all).map(|module| module.file.as_path()).collect();
        assert!(files.contains(Path::new(file)), "{package} is read without {file}");
    }
}

#[test]
fn a_listed_arrow_that_closes_no_circle_is_found() {
    let mut arrows = Arrows::default();
    for (from, to) in [("a", "b"), ("b", "a"), ("b", "c")] {
        arrows.all.entry(from.into()).or_default().entry(to.into()).or_default().insert("x".to_owned());
    }
    assert_eq!(needless(&[&arrows], &[("b", "a"), ("b", "c"), ("c", "a")]), [("b", "c"), ("c", "a")]);
}
