//! `context share`, `push`, `pull`, `watch --contexts`: what is kept, and how it gets there and back.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use acb_testbed::Gate;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::{World, text};

const MIB: usize = 1 << 20;

/// No two chunks alike.
fn fill(path: &Path, size: usize) -> String {
    let bytes: Vec<u8> = (0..size).map(|index| (index.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    fs::write(path, &bytes).unwrap();
    hex::encode(Sha256::digest(&bytes))
}

#[tokio::test]
async fn what_is_shared_is_watched_and_pulled() {
    let world = World::of(&["publisher", "reader"]).await;
    let mut watch = world.start(&["watch", "-p", "reader", "--contexts", "documents", "--from-start", "-o", "json"]);
    fs::write(world.path("plan.md"), "# Plan\n").unwrap();
    let share =
        ["context", "share", "-p", "publisher", "plan.md", "--type", "documents", "--ttl", "1h", "--metadata", "priority=high"];
    let shared = world.json(&share).await;
    assert_eq!((&shared["type"], &shared["creator"], &shared["size"]), (&json!("documents"), &json!("publisher"), &json!(7)));
    assert_eq!((&shared["contentType"], &shared["version"]), (&json!("text/plain; charset=utf-8"), &json!(1)));
    assert_eq!(
        (&shared["metadata"], &shared["sha256"]),
        (&json!({"priority": "high"}), &json!(hex::encode(Sha256::digest("# Plan\n"))))
    );
    assert!(shared["expiresAt"].is_string());
    let id = shared["id"].as_str().unwrap();
    let event: Value = world
        .until("the context is told of", async || {
            let event: Value = serde_json::from_str(&watch.line().await).unwrap();
            (event["context"]["id"] == id).then_some(event)
        })
        .await;
    assert_eq!(event["event"], "created");
    watch.signal(Signal::INT);
    watch.end().await.ok();

    let pull = ["context", "pull", "-p", "reader", id, "copy.md"];
    let pulled = world.json(&pull).await;
    assert_eq!((&pulled["bytes"], &pulled["sha256"]), (&json!(7), &shared["sha256"]));
    assert_eq!(fs::read_to_string(world.path("copy.md")).unwrap(), "# Plan\n");
    world.run(&pull).await.fails(2, &["--force"]);
    // What is replaced stays as private as it was.
    let mode = |name| fs::metadata(world.path(name)).unwrap().permissions().mode() & 0o7777;
    for before in [0o600, 0o660] {
        fs::set_permissions(world.path("copy.md"), fs::Permissions::from_mode(before)).unwrap();
        world.run(&[&pull[..], &["--force"]].concat()).await.ok();
        assert_eq!(mode("copy.md"), before);
    }

    // A device is not replaced by a file, nor is a link to one.
    std::os::unix::fs::symlink("/dev/null", world.path("null")).unwrap();
    for force in [&[][..], &["--force"]] {
        for target in ["null", "."] {
            let into = [&["context", "pull", "-p", "reader", id, target], force].concat();
            world.run(&into).await.fails(2, &[target, "not a regular file"]);
        }
    }
    assert!(world.path("null").is_symlink());
}

#[tokio::test]
async fn a_scope_keeps_others_out() {
    let world = World::of(&["publisher", "reader", "stranger"]).await;
    fs::write(world.path("note"), "x").unwrap();
    let share = |scope| ["context", "share", "-p", "publisher", "note", "--type", "documents", "--scope", scope];
    for (scope, code) in [("shared:reader", 0), ("private", 3)] {
        let id = world.json(&share(scope)).await["id"].as_str().unwrap().to_owned();
        let pulled = world.run(&["context", "pull", "-p", "reader", &id, "pulled"]).await;
        if code == 0 {
            drop(pulled.ok())
        } else {
            drop(pulled.fails(code, &[&id]))
        }
        // An agent that may read no documents learns nothing of it.
        let refused = world.run(&["context", "pull", "-p", "stranger", &id, "stolen"]).await;
        assert!(!refused.succeeded() && !world.path("stolen").exists(), "{}", refused.stderr);
        let _ = fs::remove_file(world.path("pulled"));
    }
    world.run(&share("everyone")).await.fails(2, &["group:NAME"]);
    world.run(&["context", "share", "-p", "publisher", "note", "--type", "songs"]).await.fails(1, &["\"songs\"", "contextTypes"]);
    world.run(&["context", "share", "-p", "publisher", "missing", "--type", "documents"]).await.fails(3, &["missing"]);
    let nothing = "0198c0de-0000-7000-8000-000000000000";
    world.run(&["context", "pull", "-p", "reader", nothing]).await.fails(3, &[nothing]);
    world.run(&["context", "pull", "-p", "reader", "../etc/passwd"]).await.fails(1, &["CONTEXT_ID_INVALID"]);
}

#[tokio::test]
async fn a_file_goes_there_and_back_under_its_name() {
    let world = World::of(&["publisher", "reader"]).await;
    let sha256 = fill(&world.path("model.bin"), 5 * MIB + 17);
    let pushed = world.json(&["context", "push", "-p", "publisher", "model.bin", "--type", "documents"]).await;
    assert_eq!((&pushed["bytes"], &pushed["sha256"]), (&json!(5 * MIB + 17), &json!(sha256)));
    assert_eq!((&pushed["resumedFromChunk"], &pushed["resumptions"]), (&Value::Null, &json!([])));
    assert_eq!(pushed["replicas"].as_array().unwrap().len(), 1);
    let id = pushed["id"].as_str().unwrap();
    fs::rename(world.path("model.bin"), world.path("original")).unwrap();
    let said = world.run(&["context", "pull", "-p", "reader", id]).await.ok().stdout;
    assert!(said.contains("to model.bin") && said.contains("MB/s") && said.contains("verified"), "{said}");
    assert_eq!(fs::read(world.path("model.bin")).unwrap(), fs::read(world.path("original")).unwrap());

    let push = |file| ["context", "push", "-p", "publisher", file, "--type", "documents"];
    world.run(&push("missing")).await.fails(3, &["missing"]);
    world.run(&push("/")).await.fails(2, &["not a regular file"]);
    fs::write(world.path("empty"), "").unwrap();
    world.run(&push("empty")).await.fails(2, &["0 bytes"]);
    fs::File::create(world.path("huge")).unwrap().set_len(101 << 20).unwrap();
    world.run(&push("huge")).await.fails(2, &["104857600"]);
    world.run(&["context", "pull", "-p", "reader", id, "/nowhere/file"]).await.fails(3, &["/nowhere"]);
}

#[tokio::test]
async fn a_terminal_sees_how_far_it_is() {
    let world = World::of(&["publisher"]).await;
    fill(&world.path("model.bin"), 24 * MIB);
    let push = format!("{} context push -p publisher model.bin --type documents", env!("CARGO_BIN_EXE_acb"));
    let mut script = world.command("script");
    let output = script.args(["-qec", &push, "/dev/null"]).output().await.expect("script, of util-linux");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for part in ["of 24.00 MiB", "MiB/s", " left", "Pushed model.bin as"] {
        assert!(said.contains(part), "{part:?} is not shown: {said:?}");
    }
}

/// A world in which `publisher` comes through a gate to the only replica that it knows.
async fn gated() -> (World, Gate) {
    let world = World::of(&[]).await;
    let gate = Gate::open(&world.dev.tenant("acme").unwrap().endpoints[0]).await;
    world.log_in("publisher", &gate.endpoint()).await;
    (world, gate)
}

const PUSH: [&str; 7] = ["context", "push", "-p", "publisher", "model.bin", "--type", "documents"];

#[tokio::test]
async fn a_push_goes_on_by_itself_where_the_connection_broke() {
    let (world, gate) = gated().await;
    let sha256 = fill(&world.path("model.bin"), 20 * MIB);
    gate.narrow(12 * MIB as u64);
    let push = world.start(&[&PUSH[..], &["-o", "json"]].concat());
    gate.stuck().await;
    gate.reopen();
    let pushed = push.end().await.ok().json();
    let resumed = pushed["resumedFromChunk"].as_u64().unwrap();
    assert!((1..=12).contains(&resumed) && pushed["sha256"] == sha256, "{pushed}");
}

#[tokio::test]
async fn a_push_that_is_stopped_goes_on_in_another_process() {
    let (world, gate) = gated().await;
    let sha256 = fill(&world.path("model.bin"), 20 * MIB);
    let id = stopped(&world, &gate).await;
    let pushed = world.json(&[&PUSH[..], &["--resume", &id]].concat()).await;
    let resumed = pushed["resumedFromChunk"].as_u64().unwrap();
    assert!((1..=12).contains(&resumed) && pushed["sha256"] == sha256, "{pushed}");

    // Resumed when it is whole, it is the same context.
    let again = world.json(&[&PUSH[..], &["--resume", &id]].concat()).await;
    assert_eq!(again["id"], pushed["id"]);
    fs::write(world.path("model.bin"), vec![7_u8; 20 * MIB]).unwrap();
    world.run(&[&PUSH[..], &["--resume", &id]].concat()).await.fails(1, &[&id, "PAYLOAD_CHECKSUM_MISMATCH"]);
    fill(&world.path("model.bin"), 20 * MIB);
    // Another agent's upload is none of one's own.
    world.log_in("sender", &world.servers()).await;
    let foreign = ["context", "push", "-p", "sender", "model.bin", "--type", "documents", "--resume", &id];
    world.run(&foreign).await.fails(3, &[&id]);
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_does_not_become_a_context() {
    let (world, gate) = gated().await;
    fill(&world.path("model.bin"), 20 * MIB);
    let id = stopped(&world, &gate).await;
    let resume = [&PUSH[..], &["--resume", &id]].concat();
    fill(&world.path("model.bin"), 19 * MIB);
    world.run(&resume).await.fails(1, &[&id]);
    let changed: Vec<u8> = vec![7; 20 * MIB];
    fs::write(world.path("model.bin"), changed).unwrap();
    world.run(&resume).await.fails(1, &[&id]);

    // It shrinks under the reader's hands.
    fill(&world.path("model.bin"), 20 * MIB);
    gate.narrow(6 * MIB as u64);
    let push = world.start(&PUSH);
    gate.stuck().await;
    fs::File::options().write(true).open(world.path("model.bin")).unwrap().set_len(MIB as u64).unwrap();
    gate.reopen();
    push.end().await.fails(1, &["was it changed while it was uploaded?"]);
}

/// Ends a push halfway, and gives the id that it says to go on with.
async fn stopped(world: &World, gate: &Gate) -> String {
    gate.narrow(12 * MIB as u64);
    let push = world.start(&PUSH);
    gate.stuck().await;
    push.signal(Signal::INT);
    let said = push.end().await.fails(1, &["model.bin: stopped"]).stderr;
    gate.reopen();
    said.trim_end().rsplit_once("--resume ").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_pull_that_is_stopped_leaves_nothing_behind() {
    let (world, gate) = gated().await;
    fill(&world.path("model.bin"), 20 * MIB);
    let id = world.json(&PUSH).await["id"].as_str().unwrap().to_owned();
    fs::remove_file(world.path("model.bin")).unwrap();
    gate.narrow(12 * MIB as u64);
    let pull = world.start(&["context", "pull", "-p", "publisher", &id, text(&world.path("copy"))]);
    gate.stuck().await;
    assert_eq!(files(&world).len(), 3, "what came of it is beside where it goes");
    pull.signal(Signal::INT);
    pull.end().await.fails(1, &["stopped"]);
    assert_eq!(files(&world), ["config.yaml", "config.yaml.lock"]);
}

fn files(world: &World) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_size_decides_how_a_context_is_kept() {
    let world = World::of(&["publisher", "reader"]).await;
    let (large, sum) = (world.path("large.bin"), fill(&world.path("large.bin"), 3 * MIB));
    fs::write(world.path("empty"), "").unwrap();
    let share = |file| ["context", "share", "-p", "publisher", file, "--type", "documents"];
    let empty = world.json(&share("empty")).await;
    assert_eq!(empty["size"], 0);
    let streamed = world.json(&share("large.bin")).await;
    assert_eq!((&streamed["bytes"], &streamed["sha256"]), (&json!(3 * MIB), &json!(sum)));
    // From a pipe, and back into one.
    let shell = async |line: String| {
        let mut command = world.command("sh");
        let output = command.args(["-c", &line]).output().await.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let acb = env!("CARGO_BIN_EXE_acb");
    let piped = shell(format!("cat large.bin | '{acb}' context share -p publisher - --type documents -o json")).await;
    let piped: Value = serde_json::from_slice(&piped).unwrap();
    assert_eq!(piped["sha256"], json!(sum));
    let id = piped["id"].as_str().unwrap();
    assert_eq!(shell(format!("'{acb}' context pull -p reader {id} -")).await, fs::read(large).unwrap());
    let id = empty["id"].as_str().unwrap();
    assert_eq!(shell(format!("'{acb}' context pull -p reader {id} -")).await, b"");
    assert!(!world.path("-").exists());

    // What has no end is not waited for where it can't be read twice.
    rustix::fs::mkfifoat(rustix::fs::CWD, world.path("pipe"), 0o600.into()).unwrap();
    let push = ["context", "push", "-p", "publisher", "pipe", "--type", "documents"];
    world.run(&push).await.fails(2, &["not a regular file", "acb context share"]);
}
