//! `acb dead-letters`: what nobody took is found, looked into, sent again and dropped.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn what_nobody_took_is_listed_replayed_and_dropped() {
    let world = World::of(&["sender", "absent", "heir", "root"]).await;
    for (topic, data) in [("work", "one"), ("work", "two"), ("chat", "three"), ("work", "four")] {
        world.run(&["send", "-p", "sender", "absent", data, "--topic", topic, "--expires-in", "1s"]).await.ok();
    }
    let list = async |rest: &[&str]| {
        let letters = world.json(&[&["dead-letters", "list", "-p", "absent"], rest].concat()).await;
        letters.as_array().unwrap().clone()
    };
    let letters =
        world.until("four letters are listed", async || Some(list(&[]).await).filter(|letters| letters.len() == 4)).await;
    assert_eq!((&letters[0]["from"], &letters[0]["to"]), (&json!("sender"), &json!({"agent": "absent"})));
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["state"], &letters[0]["bytes"]),
        (&json!("expired"), &json!("open"), &json!(3))
    );
    let id = |index: usize| letters[index]["id"].as_str().unwrap().to_owned();
    // Columns that line up.
    let table = world.run(&["dead-letters", "list", "-p", "absent", "--limit", "3"]).await.ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    for column in ["REASON", "FROM", "TO", "TOPIC", "BYTES", "SINCE", "STATE"] {
        let at = lines[0].find(column).unwrap();
        assert!(lines.iter().all(|line| line.as_bytes()[at - 1] == b' ' && line.as_bytes()[at] != b' '), "{column}:\n{table}");
    }
    let shown = world.json(&["dead-letters", "get", "-p", "absent", &id(2)]).await;
    assert_eq!(
        (&shown["message"]["payload"], &shown["topic"], &shown["id"]),
        (&json!("three"), &json!("chat"), &letters[2]["id"])
    );
    let text = world.run(&["dead-letters", "get", "-p", "absent", &id(2)]).await.ok().stdout;
    assert!(text.contains("reason         expired\n") && text.ends_with("\n\nthree\n"), "{text}");

    // One by one, and twice is once.
    let replay = ["dead-letters", "replay", "-p", "absent", &id(0)];
    let first = world.json(&replay).await;
    assert_eq!((&first["state"], &first["before"]), (&json!("replayed"), &json!(false)));
    let second = world.json(&replay).await;
    assert_eq!((&second["replayedAs"], &second["before"]), (&first["replayedAs"], &json!(true)));
    let taken = world.json(&["receive", "-p", "absent", "--topic", "work", "--count", "1"]).await;
    assert_eq!((&taken["payload"], &taken["from"], &taken["id"]), (&json!("one"), &json!("sender"), &first["replayedAs"]));
    assert_eq!(taken["replayedFrom"], letters[0]["messageId"]);
    let dropped = world.run(&["dead-letters", "drop", "-p", "absent", &id(2)]).await.ok().stdout;
    assert_eq!(dropped, format!("{}  dropped\n", id(2)));
    let again = world.run(&["dead-letters", "drop", "-p", "absent", &id(2)]).await.ok().stdout;
    assert_eq!(again, format!("{}  was dropped\n", id(2)));
    world.run(&["dead-letters", "replay", "-p", "absent", &id(2)]).await.fails(1, &["DEAD_LETTER_DROPPED", "dropped"]);

    // By a filter, and to somebody else: the administrator's.
    let by_filter = ["dead-letters", "replay", "--from", "sender", "--recipient", "absent", "--to", "heir"];
    world.run(&[&by_filter[..], &["-p", "absent"]].concat()).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    let told = world.run(&[&by_filter[..], &["-p", "root"]].concat()).await.ok().stdout;
    assert_eq!(told.lines().count(), 2, "{told}");
    let again = world.run(&[&by_filter[..], &["-p", "root"]].concat()).await.ok().stdout;
    assert_eq!(again, "No dead letters match.\n");
    let taken = world.run(&["receive", "-p", "heir", "--topic", "work", "--count", "2"]).await.ok().stdout;
    assert_eq!(taken, "sender  work  two\nsender  work  four\n");
    assert!(list(&[]).await.is_empty());
    let states: Vec<String> =
        list(&["--settled"]).await.iter().map(|letter| letter["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["replayed", "replayed", "dropped", "replayed"]);
}

#[tokio::test]
async fn dead_letters_that_are_not_there_or_not_named_say_so() {
    let world = World::of(&["stranger", "observer"]).await;
    let unknown = "00000000-0000-8000-8000-000000000000";
    for command in ["get", "replay", "drop"] {
        world.run(&["dead-letters", command, "-p", "stranger", unknown]).await.fails(3, &["DEAD_LETTER_NOT_FOUND", unknown]);
    }
    world.run(&["dead-letters", "get", "-p", "stranger", "x"]).await.fails(1, &["DEAD_LETTER_ID_INVALID"]);
    world.run(&["dead-letters", "drop", "-p", "stranger"]).await.fails(2, &["--all"]);
    world.run(&["dead-letters", "drop", "-p", "stranger", unknown, "--all"]).await.fails(2, &["not both"]);
    assert_eq!(world.run(&["dead-letters", "drop", "-p", "stranger", "--all"]).await.ok().stdout, "No dead letters match.\n");
    world.run(&["dead-letters", "list", "-p", "observer"]).await.fails(4, &["role"]);
}
