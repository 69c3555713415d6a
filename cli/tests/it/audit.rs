//! The audit trail as an administrator reads and verifies it.

use std::time::Duration;

use serde_json::{Value, json};
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
    assert!(told.contains("are as they were logged and signed"), "{told}");
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
    // Whoever has the file can make all of it anew but the signature.
    let forge = |lines: &mut Vec<Value>| {
        let mut forged = lines[1].clone();
        forged["number"] = lines[3]["number"].clone();
        lines[3] = forged;
        lines.remove(0);
    };
    verify("forged", &forge, "none of them is signed").await;
    verify("emptied", &|lines| lines.clear(), "there are no records").await;
    let mut unsigned = lines.clone();
    forge(&mut unsigned);
    let unsigned = write(&world, "unsigned", &unsigned);
    world.run(&["audit", "verify", &unsigned, "--key", key]).await.fails(1, &["none of them is signed"]);
    let told = world.run(&["audit", "verify", &unsigned, "--allow-unsigned"]).await.ok().stdout;
    assert!(told.contains("nothing proves them") && !told.contains("as they were logged"), "{told}");
    // Lines that nobody would look at say nothing.
    let says = lines[3]["says"].clone();
    let smuggled = |line: Value| move |lines: &mut Vec<Value>| lines.insert(4, line.clone());
    verify("prefixed", &smuggled(json!({"prefix": 1, "hashes": [], "says": says})), "line 5: it is no line").await;
    verify("late", &smuggled(json!({"prefix": 0, "hashes": []})), "before record 0").await;
    verify("more", &|lines| lines[3]["more"] = "x".into(), "line 4: it is no line").await;
    verify("worded", &|lines| lines[3]["says"]["more"] = "x".into(), "line 4: it is no line").await;
    let twice = std::fs::read_to_string(&whole).unwrap().replacen(r#""says":{"#, r#""says":{"agent":"nobody","#, 1);
    std::fs::write(world.path("said-twice"), twice).unwrap();
    world.run(&["audit", "verify", world.path("said-twice").to_str().unwrap()]).await.fails(1, &["line 2: it is no line"]);
    // Of the first records nothing is there but their hashes: a checkpoint of then takes a proof.
    let size = lines[0]["size"].as_u64().unwrap();
    let first = loop {
        let lines = exported(&world, "ExchangeToken").await;
        let later = lines[0]["size"].as_u64().unwrap();
        if later > size + 1 {
            break size + 1;
        }
        world.run(&["audit", "list", "-p", "root", "--limit", "1"]).await.ok();
    };
    let export = async |name: &str, arguments: &[&str]| {
        let first = first.to_string();
        let command = [&["audit", "export", "-p", "root", "--from", &first], arguments].concat();
        std::fs::write(world.path(name), world.run(&command).await.ok().stdout).unwrap();
        world.path(name).to_str().unwrap().to_owned()
    };
    let (bare, proved) = (export("bare", &[]).await, export("proved", &["--checkpoint", "kept"]).await);
    let kept = std::fs::read_to_string(world.path("kept")).unwrap();
    let keep = ["--checkpoint", "kept", "--keep-checkpoint", "kept"];
    world.run(&[&["audit", "verify", &bare], &keep[..]].concat()).await.fails(1, &["nothing proves that the trail went on"]);
    assert_eq!(std::fs::read_to_string(world.path("kept")).unwrap(), kept, "what is not proved is not forgotten");
    let told = world.run(&[&["audit", "verify", &proved], &keep[..]].concat()).await.ok().stdout;
    assert!(told.contains("went on from 1 checkpoints"), "{told}");
    assert_ne!(std::fs::read_to_string(world.path("kept")).unwrap(), kept);
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
    // What the operator did, and what changed by it. It comes a while later.
    let deadline = Instant::now() + Duration::from_secs(60);
    let added = loop {
        let listed = world.run(&["audit", "list", "-p", "root", "--operation", "AgentAdded"]).await.ok().stdout;
        match listed.lines().find(|line| line.contains("agent publisher")) {
            Some(line) => break line.to_owned(),
            None => assert!(Instant::now() < deadline, "{listed}"),
        }
        sleep(Duration::from_millis(200)).await;
    };
    let said = ["operator", "AgentAdded agent publisher: uid ", "role agent-full", "done"];
    assert!(said.iter().all(|said| added.contains(said)), "{added}");
    let lines = exported(&world, "AgentAdded").await;
    let added = lines.iter().find(|line| line["says"]["operation"] == "AgentAdded").unwrap();
    assert_eq!((&added["says"]["source"], &added["says"]["agent"]), (&"operator".into(), &"".into()));
    assert!(added["says"]["replica"].as_str().unwrap().starts_with("acb dev, process "), "{added}");

    let number = created["number"].as_u64().unwrap().to_string();
    let later = world.run(&["audit", "export", "-p", "root", "--from", &number]).await.ok().stdout;
    let from: Vec<Value> = later.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Where it is not signed yet, the proof of the checkpoint before comes in between.
    let first = from.iter().find(|line| line["record"].is_string()).unwrap();
    assert_eq!((&from[1]["prefix"], &first["number"]), (&created["number"], &created["number"]));
    let file = write(&world, "later.jsonl", &from);
    world.run(&["audit", "verify", &file, "--allow-unsigned"]).await.ok();

    let followed = world.run(&["audit", "follow", "-p", "root", "--from", "0", "--count", "3", "-o", "json"]).await.ok().stdout;
    let numbers = followed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), [0, 1, 2]);
    let table = world.run(&["audit", "follow", "-p", "root", "--from", &number, "--count", "1"]).await.ok().stdout;
    assert!(table.starts_with("NUMBER") && table.contains("publisher") && table.contains("CreateContext"), "{table}");
    world.run(&["audit", "follow", "-p", "root", "--from", "99999999"]).await.fails(1, &["none to go on from"]);

    let proved: Value =
        serde_json::from_str(&world.run(&["audit", "prove", "-p", "root", "0", "-o", "json"]).await.ok().stdout).unwrap();
    assert!(proved["checkpoint"].as_str().unwrap().starts_with("acb.dev/audit/acme/"), "{proved}");
    world.run(&["audit", "prove", "-p", "root", "99999999"]).await.fails(3, &["are signed so far"]);
    for command in ["list", "follow", "export", "verify"] {
        world.run(&["audit", command, "-p", "stranger"]).await.fails(4, &["role"]);
    }
}

#[tokio::test]
async fn a_copy_that_follows_the_trail_is_verified() {
    let world = World::of(&["root", "publisher"]).await;
    exported(&world, "ExchangeToken").await;
    let mut copy = world.start(&["audit", "export", "-p", "root", "--follow"]);
    let mut lines: Vec<Value> = vec![serde_json::from_str(&copy.line().await).unwrap()];
    assert!(lines[0]["checkpoint"].is_string(), "{lines:?}");
    std::fs::write(world.path("note"), "a note").unwrap();
    world.run(&["context", "share", "-p", "publisher", "--type", "documents", "note"]).await.ok();
    let begun = lines.len();
    let is_new = |line: &Value| {
        let says = &line["says"];
        says["operation"] == "CreateContext" && says["agent"] == "publisher" && says["phase"] == "outcome"
    };
    while !lines[begun..].iter().any(is_new) {
        lines.push(serde_json::from_str(&copy.line().await).unwrap());
    }
    copy.signal(rustix::process::Signal::TERM);
    let rest = copy.end().await.ok().stdout;
    lines.extend(rest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    let file = write(&world, "copy.jsonl", &lines);
    world.run(&["audit", "verify", &file]).await.ok();
}
