//! `send`, `receive`, `watch`, `unread`, `request`, `reply`: what is said, and what comes back.

use std::{fs, time::Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{World, text};

/// A command whose first words are always these.
fn words<'a>(first: &'a [&'a str]) -> impl Fn(&[&'a str]) -> Vec<&'a str> {
    move |rest| [first, rest].concat()
}

#[tokio::test]
async fn what_is_sent_is_received() {
    let world = World::of(&["sender", "inbox"]).await;
    let mut receive = world.start(&["receive", "-p", "inbox", "-o", "json", "--count", "5"]);
    let note = world.path("note.txt");
    fs::write(&note, "from a file").unwrap();
    let from_file = format!("@{}", text(&note));
    let send = words(&["send", "-p", "sender"]);

    let sent = world.json(&send(&["inbox", "hello", "--topic", "greeting", "--metadata", "mood=good"])).await;
    let line: Value = serde_json::from_str(&receive.line().await).unwrap();
    assert_eq!((&line["id"], &sent["deduplicated"]), (&sent["messageId"], &json!(false)));
    assert_eq!((&line["from"], &line["to"]), (&json!("sender"), &json!({"agent": "inbox"})));
    assert_eq!((&line["topic"], &line["payload"], &line["type"]), (&json!("greeting"), &json!("hello"), &json!("event")));
    assert_eq!(line["metadata"], json!({"mood": "good"}));
    assert!(line["sentAt"].as_str().unwrap().ends_with('Z'), "{line}");

    world.run(&send(&["inbox", &from_file, "--topic", "t"])).await.ok();
    world.run(&send(&["inbox", r#"{"n": 1}"#, "--json", "--topic", "t"])).await.ok();
    world.run(&send(&["--group", "readers", "to the group", "--topic", "t"])).await.ok();
    let said = world.run(&send(&["--all", "to all", "--topic", "t"])).await.ok().stdout;
    assert!(said.starts_with("Sent ") && said.ends_with(" to all.\n"), "{said}");
    let mut came = Vec::new();
    for _ in 0..4 {
        let line: Value = serde_json::from_str(&receive.line().await).unwrap();
        came.push((line["payload"].as_str().unwrap().to_owned(), line["contentType"].as_str().unwrap().to_owned()));
    }
    let plain = "text/plain; charset=utf-8";
    let expected = [("from a file", plain), (r#"{"n": 1}"#, "application/json"), ("to the group", plain), ("to all", plain)];
    assert_eq!(came, expected.map(|(payload, kind)| (payload.to_owned(), kind.to_owned())));
    receive.end().await.ok();
    let said = world.run(&send(&["--to", "inbox", "--to", "sender", "to both", "--topic", "t"])).await.ok().stdout;
    assert!(said.ends_with(" to agents \"inbox\", \"sender\".\n"), "{said}");
    for name in ["inbox", "sender"] {
        let got = world.run(&["receive", "-p", name, "-o", "json", "--count", "1"]).await.ok().stdout;
        let got: Value = serde_json::from_str(&got).unwrap();
        assert_eq!((&got["payload"], &got["to"]), (&json!("to both"), &json!({"agents": ["inbox", "sender"]})));
    }

    // What was printed was acknowledged: a later session has the next one only.
    world.run(&send(&["inbox", "later\u{1b}[2J", "--topic", "t"])).await.ok();
    let table = world.run(&["receive", "-p", "inbox", "--count", "1"]).await.ok().stdout;
    assert_eq!(table, "sender  t  later\\u{1b}[2J\n");
}

#[tokio::test]
async fn a_topic_chooses_and_leaves_the_rest_in_the_mailbox() {
    let world = World::of(&["sender", "inbox-by-topic"]).await;
    for (topic, data) in [("a", "one"), ("b", "two"), ("a", "three")] {
        world.run(&["send", "-p", "sender", "inbox-by-topic", data, "--topic", topic]).await.ok();
    }
    let receive = words(&["receive", "-p", "inbox-by-topic"]);
    let chosen = world.run(&receive(&["--topic", "a", "--count", "2"])).await.ok().stdout;
    assert_eq!(chosen, "sender  a  one\nsender  a  three\n");
    let status = async || {
        let agents = world.json(&["agent", "list", "-p", "sender"]).await;
        let own = agents.as_array().unwrap().iter().find(|agent| agent["name"] == "inbox-by-topic").unwrap();
        own["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status().await, "offline");
    let mut rest = world.start(&receive(&[]));
    assert_eq!(rest.line().await, "sender  b  two");
    assert_eq!(status().await, "online", "it is there as long as it receives");
    // Ctrl-C is a way to end it, not a failure; and what was printed is acknowledged.
    rest.signal(Signal::INT);
    rest.end().await.ok();
    assert_eq!(status().await, "offline");
    world.run(&["send", "-p", "sender", "inbox-by-topic", "four", "--topic", "b"]).await.ok();
    let mut cut_off = world.start(&receive(&[]));
    assert_eq!(cut_off.line().await, "sender  b  four");
    // It does not take a further message to find out that nobody reads any more.
    cut_off.unread().await.fails(1, &["Broken pipe"]);
    let contexts = world.start(&["watch", "-p", "sender", "--contexts", "documents"]);
    contexts.unread().await.fails(1, &["Broken pipe"]);
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_says_why() {
    let world = World::of(&["sender", "observer"]).await;
    let send = words(&["send", "-p", "sender", "--topic", "t"]);
    let unknown = world.run(&send(&["nobody", "x"])).await.fails(3, &["\"nobody\"", "RECIPIENT_NOT_FOUND"]);
    assert_eq!(unknown.stderr.lines().count(), 1, "{}", unknown.stderr);
    world.run(&send(&["--group", "nobody", "x"])).await.fails(3, &["\"nobody\""]);
    world.run(&send(&["--to", "sender", "--to", "nobody", "x"])).await.fails(3, &["\"nobody\"", "RECIPIENT_NOT_FOUND"]);
    world.run(&send(&["--to", "sender", "--to", "sender", "x"])).await.fails(2, &["\"sender\" is named twice"]);
    world.run(&send(&["--to", "sender", "--all", "x"])).await.fails(2, &["--all"]);
    world.run(&send(&["--to", "sender", "x", "y"])).await.fails(2, &["\"y\""]);
    world.run(&send(&["observer", "x"])).await.fails(1, &["role observer", "RECIPIENT_CANNOT_RECEIVE"]);
    world.run(&send(&["--group", "watchers", "x"])).await.fails(1, &["0 members", "NO_RECIPIENTS"]);
    world.run(&send(&[])).await.fails(2, &["--group or --all"]);
    world.run(&send(&["--all", "x", "y"])).await.fails(2, &["\"y\""]);
    world.run(&send(&["inbox", "{", "--json"])).await.fails(2, &["not JSON"]);
    world.run(&send(&["inbox", "@missing"])).await.fails(3, &["missing"]);
    world.run(&send(&["inbox", "x", "--metadata", "mood"])).await.fails(2, &["key=value"]);
    let large = world.path("large");
    fs::write(&large, vec![b'x'; (1 << 20) + 1]).unwrap();
    world.run(&send(&["inbox", "@large"])).await.fails(2, &["acb context share"]);
    // Within what is read, beyond what an envelope holds: the hub's word.
    fs::write(&large, vec![b'x'; 1 << 20]).unwrap();
    world.run(&send(&["inbox", "@large"])).await.fails(1, &["MESSAGE_TOO_LARGE", "1048576"]);
    world.run(&["send", "-p", "observer", "--topic", "t", "inbox", "x"]).await.fails(4, &["role"]);
    world.run(&["receive", "-p", "observer", "--count", "1"]).await.fails(4, &["role"]);
    world.run(&["watch", "-p", "observer", "--count", "1"]).await.fails(4, &["role"]);
}

#[tokio::test]
async fn a_request_is_answered_with_a_text_or_a_file() {
    let world = World::of(&["sender", "answers-text", "answers-file"]).await;
    let reply = world.start(&["reply", "-p", "answers-text", "forty-two", "--topic", "lookup", "--count", "2", "-o", "json"]);
    let ask = ["request", "-p", "sender", "answers-text", "what is it?", "--topic", "lookup"];
    assert_eq!(world.run(&ask).await.ok().stdout, "forty-two\n");
    let answer = world.json(&ask).await;
    assert_eq!(
        (&answer["from"], &answer["type"], &answer["topic"]),
        (&json!("answers-text"), &json!("response"), &json!("lookup"))
    );
    assert_eq!(answer["payload"], "forty-two");
    let told = reply.end().await.ok().stdout;
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0]["request"]["payload"], &told[0]["request"]["type"]), (&json!("what is it?"), &json!("query")));
    assert_eq!((&told[1]["reply"]["payload"], &told[1]["reply"]["error"]), (&json!("forty-two"), &Value::Null));
    assert_eq!(told[1]["reply"]["messageId"], answer["id"]);

    // What is no request is left in the mailbox.
    world.run(&["send", "-p", "sender", "answers-file", "no question", "--topic", "lookup"]).await.ok();
    fs::write(world.path("answer.bin"), [0xff, 0xfe]).unwrap();
    let reply = world.start(&["reply", "-p", "answers-file", "--file", "answer.bin", "--count", "1"]);
    let ask = ["request", "-p", "sender", "answers-file", "--topic", "lookup"];
    assert_eq!(world.json(&ask).await["payloadHex"], "fffe");
    assert_eq!(reply.end().await.ok().stdout, "sender  lookup  \n  answered  (2 bytes)\n");
    let left = world.json(&["receive", "-p", "answers-file", "--count", "1"]).await;
    assert_eq!((&left["payload"], &left["type"]), (&json!("no question"), &json!("event")));
}

#[tokio::test]
async fn a_request_is_answered_by_a_command() {
    let world = World::of(&["sender", "answers-command", "fails"]).await;
    let mut reply = world.start(&["reply", "-p", "answers-command", "--command", "tr", "-d", "aeiou"]);
    let ask = |payload| ["request", "-p", "sender", "answers-command", payload, "--topic", "shorten"];
    assert_eq!(world.run(&ask("supervisor")).await.ok().stdout, "sprvsr\n");
    assert_eq!(world.run(&ask("worker")).await.ok().stdout, "wrkr\n");
    assert_eq!([reply.line().await, reply.line().await], ["sender  shorten  supervisor", "  answered  sprvsr"]);
    reply.signal(Signal::TERM);
    reply.end().await.ok();

    let script = "echo half an answer; exit 3";
    let reply = world.start(&["reply", "-p", "fails", "--count", "2", "-o", "json", "--command", "sh", "-c", script]);
    let ask = ["request", "-p", "sender", "fails", "x", "--topic", "t"];
    world.run(&ask).await.fails(1, &["\"fails\"", "exit status: 3"]);
    // As JSON the answer is there for a program to see, and the exit code is the same.
    let refused = world.run(&[&ask[..], &["-o", "json"]].concat()).await;
    assert!(!refused.succeeded());
    assert!(refused.json()["metadata"]["acb-failure"].as_str().unwrap().contains("exit status: 3"));
    let told = reply.end().await.ok().stdout;
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert!(told["reply"]["error"].as_str().unwrap().contains("exit status: 3") && told["reply"]["payload"].is_null());
}

#[tokio::test]
async fn a_request_that_nobody_answers_ends_in_time() {
    let world = World::of(&["sender"]).await;
    let began = Instant::now();
    let ask = ["request", "-p", "sender", "silent", "x", "--topic", "t", "--timeout", "1s"];
    world.run(&ask).await.fails(5, &["\"silent\"", "NO_REPLY", "agent silent was never there"]);
    assert!(began.elapsed().as_secs_f64() >= 1.0 && began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
    world.run(&["request", "-p", "sender", "nobody", "x", "--topic", "t"]).await.fails(3, &["RECIPIENT_NOT_FOUND"]);
    world.run(&["request", "-p", "sender", "silent", "--topic", "t", "--timeout", "soon"]).await.fails(2, &["30s"]);
}

#[tokio::test]
async fn a_reply_needs_one_source_of_answers() {
    let world = World::of(&["stranger"]).await;
    let reply = words(&["reply", "-p", "stranger"]);
    world.run(&reply(&[])).await.fails(2, &["--file", "--command"]);
    world.run(&reply(&["text", "--file", "x"])).await.fails(2, &["--file"]);
    world.run(&reply(&["--file", "missing"])).await.fails(3, &["missing"]);
    world.run(&reply(&["text", "--count", "0"])).await.fails(2, &["--count"]);
    world.run(&reply(&["@missing"])).await.fails(3, &["missing"]);
}

#[tokio::test]
async fn what_is_watched_or_listed_stays_unread() {
    let world = World::of(&["sender", "reads-later"]).await;
    let send = words(&["send", "-p", "sender", "--topic", "note", "reads-later"]);
    for data in ["one", "two"] {
        world.run(&send(&[data])).await.ok();
    }
    // Other tests send to all; those messages are not looked at here.
    let unread = words(&["unread", "-p", "reads-later", "--from", "sender"]);
    let of_topic = |messages: &Value| -> Vec<Value> {
        messages
            .as_array()
            .unwrap()
            .iter()
            .filter(|message| message["topic"] == "note")
            .map(|message| message["payload"].clone())
            .collect()
    };
    assert_eq!(of_topic(&world.json(&unread(&[])).await), ["one", "two"]);
    let watch = ["watch", "-p", "reads-later", "--topic", "note", "--count", "2"];
    for _ in 0..2 {
        assert_eq!(world.run(&watch).await.ok().stdout, "sender  note  one\nsender  note  two\n");
    }
    // A program that receives is not disturbed by one that watches, and what it has in hand is shown.
    let mut receive = world.start(&["receive", "-p", "reads-later", "--topic", "other"]);
    let online = world.until("it receives", async || {
        let agents = world.json(&["agent", "list", "-p", "sender"]).await;
        agents.as_array().unwrap().iter().any(|agent| agent["name"] == "reads-later" && agent["status"] == "online").then_some(())
    });
    online.await;
    assert_eq!(world.run(&watch).await.ok().stdout, "sender  note  one\nsender  note  two\n");
    world.run(&["send", "-p", "sender", "--topic", "other", "reads-later", "taken"]).await.ok();
    assert_eq!(receive.line().await, "sender  other  taken");
    receive.signal(Signal::INT);
    receive.end().await.ok();

    let table = world.run(&unread(&["--limit", "1"])).await.ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[0].contains("TOPIC   TYPE    BYTES   SENT"), "{table}");
    let count = world.json(&unread(&["--count"])).await;
    assert_eq!(count["messages"], count["from"]["sender"]);
    let waits = world.start(&["unread", "-p", "reads-later", "--from", "absent", "--wait", "20s", "-o", "json"]);
    world.log_in("absent", &world.servers()).await;
    world.run(&["send", "-p", "absent", "reads-later", "at last", "--topic", "note"]).await.ok();
    assert_eq!(of_topic(&waits.end().await.ok().json()), ["at last"]);
    world.run(&["unread", "-p", "reads-later", "--from", "nobody"]).await.fails(3, &["SENDER_NOT_FOUND"]);
    let taken = world.run(&["receive", "-p", "reads-later", "--topic", "note", "--count", "3"]).await.ok().stdout;
    // What an earlier program had in hand comes again, out of order.
    let mut taken: Vec<&str> = taken.lines().collect();
    taken.sort_unstable();
    assert_eq!(taken, ["absent  note  at last", "sender  note  one", "sender  note  two"]);
    assert!(of_topic(&world.json(&unread(&[])).await).is_empty());
}
