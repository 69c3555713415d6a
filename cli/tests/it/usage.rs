//! `acb usage`.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn limits_and_what_was_used_of_them_are_shown() {
    let world = World::of(&["reads-later", "root"]).await;
    let own = world.json(&["usage", "-p", "reads-later"]).await;
    let row = |index: usize| [&own[index]["subject"], &own[index]["limit"], &own[index]["most"], &own[index]["used"]];
    assert_eq!(row(0), [&json!("agent reads-later"), &json!("messagesPerMinute"), &json!(1000), &json!(0)]);
    assert_eq!(row(1), [&json!("agent reads-later"), &json!("bytesPerMinute"), &json!(100_000_000), &json!(0)]);
    assert_eq!([&own[2]["subject"], &own[2]["most"]], [&json!("tenant acme"), &json!(null)]);
    assert!(own[0]["resetsAt"].is_string());
    let table = world.run(&["usage", "-p", "root", "reads-later"]).await.ok().stdout;
    assert!(table.contains("agent reads-later") && table.contains("unlimited"), "{table}");
    world.run(&["usage", "-p", "reads-later", "root"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    world.run(&["usage", "-p", "root", "nobody"]).await.fails(3, &["AGENT_NOT_FOUND"]);
}
