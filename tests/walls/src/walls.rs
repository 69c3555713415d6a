//! The walls, and that they can fall.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use crate::graph::Graph;

const KUBERNETES: [&str; 3] = ["kube", "kube-core", "k8s-openapi"];

/// A crate, and what it must not reach, however indirectly.
const WALLS: &[(&str, &[&str])] = &[
    ("acb-crds", &["tokio", "sqlx", "rdkafka", "kafka-protocol", "tonic", "hyper", "rustls"]),
    ("acb-hub-core", &["tonic", "sqlx", "rdkafka", "kafka-protocol", "kube", "kube-core", "k8s-openapi", "hyper", "rustls"]),
    ("acb-hub-api", &["sqlx", "rdkafka", "kafka-protocol", "acb-hub-bus", "acb-hub-store"]),
    ("acb-hub-pool", &["tonic", "rdkafka", "acb-proto", "acb-hub-core", "acb-hub-api", "acb-hub-bus", "acb-hub-store"]),
    ("acb-hub-bus", &["tonic", "acb-proto", "acb-hub-api", "acb-hub-store"]),
    ("acb-hub-store", &["tonic", "rdkafka", "acb-proto", "acb-hub-api", "acb-hub-bus"]),
    ("acb-operator", &["tonic", "acb-proto", "acb-sdk", "acb-hub-api", "acb-hub-bus"]),
    ("acb-sdk", &["sqlx", "rdkafka", "acb-crds", "acb-hub-core"]),
    ("acb-tlog", &["tokio", "tonic", "sqlx", "acb-proto"]),
    ("acb-oidc", &["tonic", "sqlx", "jsonwebtoken", "acb-proto", "acb-hub-core"]),
    // What an attacker has: a client, and the protocols of the servers.
    ("acb-isolation", &["acb-crds", "acb-hub-core", "acb-hub-store", "kube"]),
];

/// Neither the hub nor its parts know who deploys them, or on what.
const HUB: [&str; 6] = ["acb-hub", "acb-hub-core", "acb-hub-pool", "acb-hub-api", "acb-hub-bus", "acb-hub-store"];

fn breaches(graph: &Graph) -> Vec<String> {
    let hub =
        HUB.iter().flat_map(|name| ["acb-operator", "acb-crds"].iter().chain(&KUBERNETES).map(move |other| (*name, *other)));
    let walls = WALLS.iter().flat_map(|(name, others)| others.iter().map(move |other| (*name, *other)));
    walls.chain(hub).filter_map(|(name, other)| graph.path(name, other)).map(|path| path.join(" → ")).collect()
}

#[test]
fn no_crate_reaches_through_a_wall() {
    let graph = Graph::of_workspace().unwrap();
    let breaches = breaches(&graph);
    assert!(breaches.is_empty(), "see docs/architecture.md for what each crate must never do:\n{}", breaches.join("\n"));
}

#[test]
fn the_operator_names_nothing_of_the_hub_but_its_schemas() {
    let graph = Graph::of_workspace().unwrap();
    let named: BTreeSet<&str> = graph.direct("acb-operator").into_iter().filter(|name| name.starts_with("acb-hub")).collect();
    // Of the store the migrations; of the core the rules of what JSON Schema and what expressions a hub can use, which the operator must not have
    // twice; and the pool, which knows no table.
    assert_eq!(named, BTreeSet::from(["acb-hub-core", "acb-hub-pool", "acb-hub-store"]));
}

#[test]
fn nothing_that_ships_is_built_with_the_testbed() {
    let graph = Graph::of_workspace().unwrap();
    for name in ["acb", "acb-hub", "acb-operator", "acb-sdk", "acb-isolation"] {
        assert_eq!(graph.path(name, "acb-testbed"), None);
    }
}

#[test]
fn every_crate_behind_a_wall_exists() {
    let graph = Graph::of_workspace().unwrap();
    for name in WALLS.iter().flat_map(|(name, others)| others.iter().chain([name])).chain(&HUB).chain(&KUBERNETES) {
        assert!(graph.knows(name), "{name} is not known any more: a wall around it holds nothing back");
    }
}

/// A fresh machine has downloaded the crates of its own platform alone. A graph with others fails there.
#[cfg(not(windows))]
#[test]
fn no_crate_of_another_platform_is_asked_for() {
    let graph = Graph::of_workspace().unwrap();
    assert!(graph.knows("rustix"));
    assert!(!graph.knows("windows-sys"));
}

#[test]
fn a_breach_is_found_and_its_way_shown() {
    let graph = Graph::from_edges([("acb-hub-core", "helper"), ("helper", "io"), ("io", "sqlx"), ("helper", "sqlx")]);
    assert_eq!(breaches(&graph), ["acb-hub-core → helper → sqlx"]);
}
