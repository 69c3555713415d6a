//! The audit trail as an administrator reads and verifies it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::world::World;

/// An export in which something is signed, and that has a record of this operation.
async fn exported(world: &World, operation: &str) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let lines = world.run(&["audit", "export", "-p", "root"]).await.ok().stdout;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let signed = lines.first().and_then(|line| line["size"].as_u64()).unwrap_or(0);
        if signed > 4 && lines.iter().any(|line| line["says"]["operation"] == operation) {
            return lines;
        }
        assert!(Instant::now() < deadline, "{lines:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn write(world: &World, name: &str, lines: &[Value]) -> String {
    let path = world.path(name);
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_exported_trail_is_verified_and_what_was_changed_in_it_is_named() {
    let world = World::of(&["root", "sender"]).await;
    let lines = exported(&world, "ExchangeToken").await;
    let whole = write(&world, "whole.jsonl", &lines);
    let told = world.run(&["audit", "verify", &whole, "--keep-checkpoint", "kept"]).await.ok().stdout;
    assert!(told.contains("are as they were logged") && told.contains("are as they were signed"), "{told}");
    world.run(&["audit", "verify", "-p", "root", "--checkpoint", "kept"]).await.ok();
    world.run(&["audit", "verify", &whole, "--checkpoint", "kept"]).await.ok();

    let key = lines[0]["verifiers"][0].as_str().unwrap();
    world.run(&["audit", "verify", &whole, "--key", key]).await.ok();
    let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    world.run(&["audit", "verify", &whole, "--key", other]).await.fails(1, &["none of the given keys has signed"]);
    world.run(&["audit", "verify", &whole, "--key", "x"]).await.fails(2, &["it is no key"]);

    let verify = async |name: &str, change: &dyn Fn(&mut Vec<Value>), says: &str| {
        let mut changed = lines.clone();
        change(&mut changed);
        let file = write(&world, name, &changed);
        world.run(&["audit", "verify", &file]).await.fails(1, &[says]);
    };
    // The first line is the checkpoint: record 2 is the fourth.
    verify("changed", &|lines| lines[3]["record"] = lines[1]["record"].clone(), "record 2 was changed").await;
    verify("removed", &|lines| drop(lines.remove(3)), "record 2 is missing").await;
    verify("twice", &|lines| lines.insert(4, lines[3].clone()), "record 2 is not where it belongs").await;
    verify("reordered", &|lines| lines.swap(3, 4), "record 2 is missing").await;
    verify("cut", &|lines| lines.truncate(4), "are missing").await;
    verify("reworded", &|lines| lines[3]["says"]["agent"] = "nobody".into(), "record 2 says in the file").await;
    let resigned = |lines: &mut Vec<Value>| {
        let note = lines[0]["checkpoint"].as_str().unwrap().replacen('\n', "\n1", 1);
        lines[0]["checkpoint"] = note.into();
    };
    verify("resigned", &resigned, "the signature of").await;
}

#[tokio::test]
async fn records_are_listed_exported_from_where_one_was_and_proved() {
    let world = World::of(&["root", "publisher", "stranger"]).await;
    std::fs::write(world.path("note"), "a note").unwrap();
    world.run(&["context", "share", "-p", "publisher", "--type", "documents", "note"]).await.ok();
    let lines = exported(&world, "CreateContext").await;
    let created = lines.iter().find(|line| line["says"]["operation"] == "CreateContext").unwrap();
    assert_eq!((&created["says"]["phase"], &created["says"]["agent"]), (&"intent".into(), &"publisher".into()));

    let list = ["audit", "list", "-p", "root", "--agent", "publisher", "--operation", "CreateContext", "--newer-than", "1h"];
    let told = world.run(&list).await.ok().stdout;
    assert!(told.contains("publisher") && told.contains("intent: then done") && told.contains("context "), "{told}");
    let number = created["number"].as_u64().unwrap().to_string();
    let later = world.run(&["audit", "export", "-p", "root", "--from", &number]).await.ok().stdout;
    let from: Vec<Value> = later.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&from[1]["prefix"], &from[2]["number"]), (&created["number"], &created["number"]));
    let file = write(&world, "later.jsonl", &from);
    world.run(&["audit", "verify", &file]).await.ok();

    let proved: Value =
        serde_json::from_str(&world.run(&["audit", "prove", "-p", "root", "0", "-o", "json"]).await.ok().stdout).unwrap();
    assert!(proved["checkpoint"].as_str().unwrap().starts_with("acb.dev/audit/acme/"), "{proved}");
    world.run(&["audit", "prove", "-p", "root", "99999999"]).await.fails(3, &["are signed so far"]);
    for command in ["list", "export", "verify"] {
        world.run(&["audit", command, "-p", "stranger"]).await.fails(4, &["role"]);
    }
}
