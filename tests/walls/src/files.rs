//! The walls between the files of each crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeSet, path::Path};

use crate::{
    arrows::Arrows,
    circles::{circles, shown},
    modules::{Disk, Modules},
    rooms::Rooms,
    workspace,
};

/// Packages whose files are not held to this yet.
const PENDING: &[&str] = &[];

/// The lowest floor first. A room may use the rooms of the floors below its own, and no other.
const ROOMS: &[Rooms] = &[
    Rooms {
        package: "acb-hub-core",
        floors: &[
            &["fault"],
            &["kit"],
            &["metrics"],
            &["log", "timers"],
            &["directory"],
            &["audit"],
            &["door", "messages", "contexts"],
        ],
    },
    Rooms {
        package: "acb-hub-store",
        floors: &[
            &["migrations"],
            &["kit"],
            &["readiness"],
            &["log", "timers"],
            &["directory"],
            &["audit"],
            &["door", "messages", "contexts"],
        ],
    },
    Rooms {
        package: "acb-operator",
        floors: &[
            &["defaults"],
            &["bootstrap", "difference", "local_postgres_binaries", "metrics_text", "plan", "rollout", "tier"],
            &["local_postgres", "observed", "plan_text", "platform"],
            &["condition"],
            &["effect", "tenancy", "usage"],
            &["tenant"],
            &["agent", "orphans", "quota"],
            &["reconcile"],
            &["preview"],
            &["runtime"],
        ],
    },
];

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

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    for sources in held() {
        let circles = circles(&sources.arrows);
        found.extend(circles.iter().map(|circle| format!("{}: {}", sources.package, shown(&sources.arrows, circle))));
    }
    assert!(found.is_empty(), "move what is used to a file that both can use:\n{}", found.join("\n"));
}

#[test]
fn no_room_uses_a_room_beside_or_above_it() {
    let packages: BTreeSet<String> = workspace::targets().unwrap().into_iter().map(|target| target.package).collect();
    let held = held();
    for rooms in ROOMS {
        assert!(packages.contains(rooms.package), "{} is not known any more", rooms.package);
        // A program that is one file has no rooms.
        let has_rooms = |sources: &&Sources| sources.modules.all.first().is_some_and(|root| !root.children.is_empty());
        let libraries = held.iter().filter(|sources| sources.package == rooms.package).filter(has_rooms);
        let breaches: Vec<String> = libraries.flat_map(|sources| rooms.breaches(&sources.modules, &sources.arrows)).collect();
        assert!(breaches.is_empty(), "see docs/architecture.md for the order of rooms:\n{}", breaches.join("\n"));
    }
}

/// Two tables tell people of the rooms of hub/core. One that lacks a room, or has them in another order, tells of another crate.
#[test]
fn the_tables_of_rooms_have_them_all_in_their_order() {
    let rooms = ROOMS.iter().find(|rooms| rooms.package == "acb-hub-core").unwrap();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shown = |file: &str, before: &str| -> Vec<String> {
        let text = std::fs::read_to_string(workspace.join(file)).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix(before)?.split_once('`'));
        rows.map(|(room, _)| room.trim_end_matches('/').trim_end_matches(".rs").to_owned()).collect()
    };
    for (file, before) in [("hub/core/src/lib.rs", "//! | [`"), ("docs/architecture.md", "| `")] {
        let mut rows = shown(file, before).into_iter().skip_while(|row| row != "fault");
        for floor in rooms.floors {
            let on_floor: BTreeSet<String> = rows.by_ref().take(floor.len()).collect();
            assert_eq!(on_floor, floor.iter().map(|room| (*room).to_owned()).collect(), "{file}");
        }
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
