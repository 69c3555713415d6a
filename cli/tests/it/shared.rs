//! `shared list`, `get`, `update`, `delete`, and `watch --contexts --filter`: contexts as those see them who share and read them.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Running, World};

/// What tests of one process share, they tell apart by this.
const OURS: &str = "has(context.metadata.desk) && context.metadata.desk == 'shared'";

async fn event(watch: &mut Running) -> (String, Value) {
    let event: Value = serde_json::from_str(&watch.line().await).unwrap();
    (event["event"].as_str().unwrap().to_owned(), event["context"].clone())
}

#[tokio::test]
async fn a_context_lives_through_its_versions() {
    let world = World::of(&["publisher", "reader", "stranger"]).await;
    fs::write(world.path("plan"), "first").unwrap();
    fs::write(world.path("next"), "second\n").unwrap();
    let high = format!("{OURS} && context.metadata[\"priority\"] == \"high\"");
    let ours = ["context", "share", "-p", "publisher", "plan", "--type", "documents", "--metadata", "desk=shared"];
    let shared = world.json(&[&ours[..], &["--metadata", "priority=high", "--content-type", "text/plain"]].concat()).await;
    let id = shared["id"].as_str().unwrap();
    assert_eq!(shared["scope"], "public");
    let other = world.json(&[&ours[..], &["--metadata", "priority=low", "--scope", "shared:reader"]].concat()).await;
    let other = other["id"].as_str().unwrap();

    // Whoever comes now, and asks for what there was.
    let watch = ["watch", "-p", "reader", "--contexts", "documents", "--since", "5m", "--filter", &high, "-o", "json"];
    let mut watch = world.start(&watch);
    assert_eq!(event(&mut watch).await.0, "created");

    let list = |filter: &'static str| ["context", "list", "-p", "reader", "--type", "documents", "--filter", filter];
    let listed = world.json(&list(OURS)).await;
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|context| context["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [id, other]);
    let table = world.run(&list(OURS)).await.ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for column in ["TYPE", "VERSION", "SCOPE"] {
        let at = lines[0].find(column).unwrap();
        assert!(lines.iter().all(|line| &line[at - 1..at] == " " && &line[at..=at] != " "), "{table}");
    }
    assert!(lines[2].contains("shared:reader"), "{table}");
    let limited = world.json(&[&list(OURS)[..], &["--limit", "1"]].concat()).await;
    assert_eq!(limited.as_array().unwrap().len(), 1);

    // Metadata alone; then all of it.
    let updated = world.json(&["context", "update", "-p", "publisher", id, "--metadata", "state=final"]).await;
    assert_eq!((&updated["version"], &updated["size"]), (&json!(2), &json!(5)));
    assert_eq!(updated["metadata"], json!({"desk": "shared", "priority": "high", "state": "final"}));
    assert_eq!(event(&mut watch).await.0, "updated");
    let lower = ["context", "update", "-p", "publisher", id, "next", "--if-version", "2", "--metadata", "priority=low"];
    let lower = [&lower[..], &["--remove-metadata", "state", "--content-type", "text/markdown", "--ttl", "1h"]].concat();
    let updated = world.run(&lower).await.ok().stdout;
    assert_eq!(updated, format!("Updated {id} to version 3 (7 bytes).\n"));
    let (what, left) = event(&mut watch).await;
    assert_eq!((what.as_str(), &left["id"], &left["version"], &left["metadata"]), ("left", &json!(id), &json!(3), &json!({})));
    world.run(&lower).await.fails(1, &[id, "not at version 2", "acb context get"]);

    let got = world.json(&["context", "get", "-p", "reader", id]).await;
    assert_eq!((&got["version"], &got["payload"], &got["contentType"]), (&json!(3), &json!("second\n"), &json!("text/markdown")));
    assert_eq!(got["metadata"], json!({"desk": "shared", "priority": "low"}));
    assert!(got["expiresAt"].is_string());
    let shown = world.run(&["context", "get", "-p", "reader", id]).await.ok().stdout;
    for part in ["version", "metadata desk", "text/markdown", "\nsecond\n"] {
        assert!(shown.contains(part), "{shown}");
    }

    // Only its creator changes it, and who may not see it learns nothing.
    world.run(&["context", "update", "-p", "reader", id, "next"]).await.fails(4, &[id, "only its creator or an admin"]);
    world.run(&["context", "get", "-p", "stranger", id]).await.fails(3, &[id, "that you may see"]);
    world.run(&["context", "delete", "-p", "stranger", id]).await.fails(3, &[id]);

    // Given to one, and to another.
    world.run(&["context", "access", "-p", "reader", other, "public"]).await.fails(4, &[other, "only its creator or an admin"]);
    world.run(&["context", "access", "-p", "publisher", other, "shared:"]).await.fails(2, &["shared:"]);
    let given = world.run(&["context", "access", "-p", "publisher", other, "shared:stranger,reader"]).await.ok().stdout;
    assert_eq!(given, format!("{other} is shared:stranger,reader since version 2.\n"));
    world.run(&["context", "access", "-p", "publisher", other, "shared:stranger"]).await.ok();
    world.run(&["context", "get", "-p", "reader", other]).await.fails(3, &[other, "that you may see"]);
    let own = world.json(&["context", "access", "-p", "publisher", other, "shared:reader"]).await;
    assert_eq!((&own["version"], &own["agents"]), (&json!(4), &json!(["reader"])));

    let deleted = world.run(&["context", "delete", "-p", "publisher", id, other]).await.ok().stdout;
    assert_eq!(deleted, format!("Deleted {id}.\nDeleted {other}.\n"));
    world.run(&["context", "get", "-p", "reader", id]).await.fails(3, &[id]);
    world.run(&["context", "delete", "-p", "publisher", id]).await.fails(3, &[id]);
    assert_eq!(world.json(&list(OURS)).await, json!([]));
    // It had left the filter before it was deleted: of that nothing was told.
    let last = world.json(&[&ours[..], &["--metadata", "priority=high"]].concat()).await;
    let (what, context) = event(&mut watch).await;
    assert_eq!((what.as_str(), &context["id"]), ("created", &last["id"]));
    world.run(&["context", "delete", "-p", "publisher", last["id"].as_str().unwrap()]).await.ok();
    assert_eq!(event(&mut watch).await.0, "deleted");
    watch.signal(Signal::INT);
    watch.end().await.ok();
}

#[tokio::test]
async fn a_filter_that_is_none_is_pointed_at() {
    let world = World::of(&["reader"]).await;
    let caret = "\n  context.priority == 'high'\n          ^";
    for command in [&["context", "list"][..], &["watch", "--contexts", "documents"]] {
        let wrong = [command, &["-p", "reader", "--filter", "context.priority == 'high'"]].concat();
        world.run(&wrong).await.fails(1, &["column 9: context has no field priority: context has type, creator", caret]);
    }
    // As the documentation shows it.
    let shown =
        world.run(&["context", "list", "-p", "reader", "--filter", "context.priority == \"high\""]).await.fails(1, &[]).stderr;
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/filters.md")).unwrap();
    assert!(docs.contains(&shown), "{shown}");
    world.run(&["watch", "-p", "reader", "--contexts", "documents", "--since", "soon"]).await.fails(2, &["10m"]);
    let of_contexts = world.run(&["watch", "-p", "reader", "--filter", "context.size > 1"]).await;
    of_contexts.fails(1, &["column 1: there is no variable context: message has topic, from", "\n  ^ (FILTER_INVALID)"]);
}

#[tokio::test]
async fn a_streamed_payload_is_not_lost_by_an_update() {
    let world = World::of(&["publisher", "reader"]).await;
    fs::write(world.path("large"), vec![b'x'; 100_000]).unwrap();
    let pushed = world.json(&["context", "push", "-p", "publisher", "large", "--type", "documents"]).await;
    let id = pushed["id"].as_str().unwrap();
    world.run(&["context", "update", "-p", "publisher", id, "--metadata", "a=b"]).await.fails(2, &[id, "streamed"]);
    let got = world.json(&["context", "get", "-p", "reader", id]).await;
    assert_eq!((&got["version"], &got["payloadRef"]["chunks"]), (&json!(1), &json!(1)));
    let shown = world.run(&["context", "get", "-p", "reader", id]).await.ok().stdout;
    assert!(shown.contains(&format!("acb context pull {id}")), "{shown}");
    world.run(&["context", "delete", "-p", "publisher", id]).await.ok();
}
