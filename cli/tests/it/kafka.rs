//! The same over a real Kafka: messages and contexts go there and back.

use std::fs;

use acb_testbed::{
    kafka::{Kafka, KafkaListener},
    standalone::{Home, Standalone},
};
use serde_json::{Value, json};

use crate::world::{World, resources};

#[tokio::test]
async fn the_commands_do_the_same_over_kafka() {
    let kafka = Kafka::start(KafkaListener::Tls).await;
    let home = Home::new().unwrap();
    let folder = home.path().join("resources");
    fs::create_dir(&folder).unwrap();
    for (name, yaml) in resources() {
        fs::write(folder.join(name), yaml).unwrap();
    }
    let dev = Standalone::start(&home, &folder, Some(&kafka), &home.path().join("dev.log")).await.unwrap();
    let world = World::on(dev, &["sender", "inbox", "answers-text", "publisher", "reader", "absent"]).await;

    let receive = world.start(&["receive", "-p", "inbox", "--count", "3"]);
    for word in ["one", "two", "three"] {
        world.run(&["send", "-p", "sender", "inbox", word, "--topic", "t"]).await.ok();
    }
    assert_eq!(receive.end().await.ok().stdout, "sender  t  one\nsender  t  two\nsender  t  three\n");

    world.run(&["send", "-p", "sender", "absent", "too late", "--topic", "t", "--expires-in", "1s"]).await.ok();
    world.run(&["send", "-p", "sender", "absent", "unread", "--topic", "t"]).await.ok();
    let unread = world.json(&["unread", "-p", "absent", "--from", "sender", "--wait", "20s"]).await;
    assert!(unread.as_array().unwrap().iter().any(|message| message["payload"] == "unread"), "{unread}");
    let letters = world.until("it is a dead letter", async || {
        let letters = world.json(&["dead-letters", "list", "-p", "absent"]).await;
        letters[0]["id"].as_str().map(str::to_owned)
    });
    let replayed = world.json(&["dead-letters", "replay", "-p", "absent", &letters.await]).await;
    let taken = world.run(&["receive", "-p", "absent", "--count", "2", "-o", "json"]).await.ok().stdout;
    let taken: Vec<Value> = taken.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&taken[0]["payload"], &taken[1]["payload"]), (&json!("unread"), &json!("too late")));
    assert_eq!(taken[1]["id"], replayed["replayedAs"]);

    let reply = world.start(&["reply", "-p", "answers-text", "yes", "--count", "1"]);
    assert_eq!(world.run(&["request", "-p", "sender", "answers-text", "well?", "--topic", "t"]).await.ok().stdout, "yes\n");
    reply.end().await.ok();

    let payload = vec![42_u8; 3 << 20];
    fs::write(world.path("model.bin"), &payload).unwrap();
    let pushed = world.json(&["context", "push", "-p", "publisher", "model.bin", "--type", "documents"]).await;
    let id = pushed["id"].as_str().unwrap();
    let first =
        world.run(&["watch", "-p", "reader", "--contexts", "documents", "--from-start", "--count", "1", "-o", "json"]).await;
    let first: Value = first.ok().json();
    assert_eq!((&first["event"], &first["context"]["id"]), (&json!("created"), &json!(id)));
    world.run(&["context", "pull", "-p", "reader", id, "copy.bin"]).await.ok();
    assert!(fs::read(world.path("copy.bin")).unwrap() == payload);
    world.end().await;
}
