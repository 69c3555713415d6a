//! The attacks' names: what reports, dashboards and status conditions tell them by.

use std::{collections::BTreeSet, process::Command};

use acb_isolation::Wall;

#[test]
fn names_are_unique_and_say_their_wall() {
    let attacks = acb_isolation::attacks();
    let names: BTreeSet<&str> = attacks.iter().map(|attack| attack.name.as_str()).collect();
    assert_eq!(names.len(), attacks.len());
    assert!(attacks.len() >= 200, "{}", attacks.len());
    for attack in &attacks {
        assert!(attack.name.starts_with(&format!("{}.", attack.wall)) && !attack.prize.is_empty(), "{attack:?}");
    }
    for wall in [Wall::Hub, Wall::Postgres, Wall::Kafka] {
        assert!(attacks.iter().any(|attack| attack.wall == wall), "{wall}");
    }
}

#[test]
fn the_list_has_one_a_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_acb-isolation")).arg("--list").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    let attacks = acb_isolation::attacks();
    assert_eq!(listed, attacks.iter().map(|attack| attack.name.as_str()).collect::<Vec<_>>());
}
