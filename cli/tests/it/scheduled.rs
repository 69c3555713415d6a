//! `acb send --in`, `acb scheduled`: what is sent later.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn what_is_sent_later_is_listed_cancelled_and_received() {
    let world = World::of(&["plans", "gets-later", "root"]).await;
    let send = async |rest: &[&str]| world.json(&[&["send", "-p", "plans", "gets-later", "--topic", "t"], rest].concat()).await;
    let far = send(&["in two hours", "--in", "2h"]).await;
    let farther = send(&["in a day", "--in", "1d"]).await;
    assert_eq!(far["deduplicated"], json!(false));
    let list = async |rest: &[&str]| -> Value { world.json(&[&["scheduled", "list"], rest].concat()).await };
    let listed = list(&["-p", "plans"]).await;
    assert_eq!((&listed[0]["messageId"], &listed[1]["messageId"]), (&far["messageId"], &farther["messageId"]));
    assert_eq!((&listed[0]["dueAt"], &listed[0]["to"]), (&far["dueAt"], &json!({"agent": "gets-later"})));
    assert_eq!(list(&["-p", "gets-later"]).await, json!([]));
    world.run(&["scheduled", "list", "-p", "plans", "--all"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    assert_eq!(list(&["-p", "root", "--all", "--limit", "1"]).await.as_array().unwrap().len(), 1);
    let table = world.run(&["scheduled", "list", "-p", "plans"]).await.ok().stdout;
    assert!(table.starts_with("ID ") && table.contains("gets-later"), "{table}");

    let id = far["messageId"].as_str().unwrap();
    world.run(&["scheduled", "cancel", "-p", "gets-later", id]).await.fails(3, &["SCHEDULED_MESSAGE_NOT_FOUND"]);
    assert_eq!(world.run(&["scheduled", "cancel", "-p", "plans", id]).await.ok().stdout, format!("{id}  cancelled\n"));
    assert_eq!(world.run(&["scheduled", "cancel", "-p", "plans", id]).await.ok().stdout, format!("{id}  was cancelled\n"));
    world.run(&["scheduled", "cancel", "-p", "root", farther["messageId"].as_str().unwrap()]).await.ok();
    assert_eq!(list(&["-p", "root", "--all"]).await, json!([]));

    let said = world.run(&["send", "-p", "plans", "gets-later", "now", "--topic", "t", "--in", "1s"]).await.ok().stdout;
    assert!(said.starts_with("Scheduled ") && said.contains(" to agent \"gets-later\" for ") && said.ends_with("Z.\n"), "{said}");
    let got = world.json(&["receive", "-p", "gets-later", "--count", "1"]).await;
    assert_eq!((&got["payload"], got["id"].as_str().unwrap()), (&json!("now"), said.split(' ').nth(1).unwrap()));
    let past = ["send", "-p", "plans", "gets-later", "x", "--topic", "t", "--at", "2020-01-01T00:00:00Z"];
    world.run(&past).await.fails(1, &["DELIVERY_TIME_INVALID"]);
    world.run(&["send", "-p", "plans", "gets-later", "x", "--topic", "t", "--at", "noon"]).await.fails(2, &["2026-"]);
}
