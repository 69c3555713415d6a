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
    let names = [
        "messagesPerMinute",
        "bytesPerMinute",
        "messagesPerMonth",
        "concurrentStreams",
        "connections",
        "storageBytes",
        "contexts",
    ];
    for (index, name) in names.iter().chain(&names).enumerate() {
        assert_eq!(own[index]["limit"], *name);
    }
    assert_eq!([&own[7]["subject"], &own[7]["most"]], [&json!("tenant acme"), &json!(null)]);
    assert!(own[0]["resetsAt"].is_string());
    let table = world.run(&["usage", "-p", "root", "reads-later"]).await.ok().stdout;
    assert!(table.contains("agent reads-later") && table.contains("unlimited"), "{table}");
    world.run(&["usage", "-p", "reads-later", "root"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    world.run(&["usage", "-p", "root", "nobody"]).await.fails(3, &["AGENT_NOT_FOUND"]);
}

#[tokio::test]
async fn what_was_sent_is_listed_for_bills() {
    let world = World::of(&["bills", "root"]).await;
    for _ in 0..2 {
        world.run(&["send", "-p", "bills", "pays", "12345", "--topic", "t"]).await.ok();
    }
    let by = async |by: &str, rest: &[&str]| world.run(&[&["usage", "--by", by, "-p", "root", "bills"], rest].concat()).await;
    let found = world
        .until("the sums", async || {
            let found = by("month", &["-o", "json"]).await.json();
            (found["sums"][0]["messages"] == 2).then_some(found)
        })
        .await;
    assert_eq!(
        (&found["sums"][0]["agent"], &found["sums"][0]["bytes"], &found["gaps"]),
        (&json!("bills"), &json!(10), &json!([]))
    );
    let csv = by("day", &["--csv"]).await.ok().stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "from,agent,agent_id,messages,bytes");
    assert!(lines[1].contains("T00:00:00Z,bills,") && lines[1].ends_with(",2,10"), "{csv}");
    let table = by("hour", &[]).await.ok().stdout;
    assert!(table.contains("MESSAGES") && table.contains("bills"), "{table}");
    assert_eq!(by("month", &["--to", "2026-01", "-o", "json"]).await.json()["sums"], json!([]));
    world.run(&["usage", "--by", "hour", "-p", "bills", "root"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    world.run(&["usage", "--csv", "-p", "bills"]).await.fails(2, &["--by"]);
    by("day", &["--from", "yesterday"]).await.fails(2, &["2026-11-01"]);
}
