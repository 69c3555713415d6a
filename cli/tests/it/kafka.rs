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
    let world = World::on(dev, &["sender", "inbox", "answers-text", "publisher", "reader"]).await;

    let watch = world.start(&["receive", "-c", "inbox", "--count", "3"]);
    for word in ["one", "two", "three"] {
        world.run(&["send", "-c", "sender", "inbox", word, "--topic", "t"]).await.ok();
    }
    assert_eq!(watch.end().await.ok().stdout, "sender  t  one\nsender  t  two\nsender  t  three\n");

    let reply = world.start(&["reply", "-c", "answers-text", "yes", "--count", "1"]);
    assert_eq!(world.run(&["request", "-c", "sender", "answers-text", "well?", "--topic", "t"]).await.ok().stdout, "yes\n");
    reply.end().await.ok();

    let payload = vec![42_u8; 3 << 20];
    fs::write(world.path("model.bin"), &payload).unwrap();
    let pushed = world.json(&["push", "-c", "publisher", "model.bin", "--type", "documents"]).await;
    let id = pushed["contextId"].as_str().unwrap();
    let first =
        world.run(&["watch", "-c", "reader", "--contexts", "documents", "--from-start", "--count", "1", "-o", "json"]).await;
    let first: Value = first.ok().json();
    assert_eq!((&first["event"], &first["context"]["id"]), (&json!("created"), &json!(id)));
    world.run(&["pull", "-c", "reader", id, "-f", "copy.bin"]).await.ok();
    assert!(fs::read(world.path("copy.bin")).unwrap() == payload);
    world.end().await;
}
