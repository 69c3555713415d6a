//! `receive --filter` and `watch --filter`, of messages; that of contexts is with what else is done to them.

use crate::world::World;

#[tokio::test]
async fn what_does_not_match_stays_unread() {
    let world = World::of(&["sender", "inbox-by-filter"]).await;
    for (topic, urgent, data) in [("a", "yes", "one"), ("b", "yes", "two"), ("a", "no", "three"), ("a", "yes", "four")] {
        let urgent = format!("urgent={urgent}");
        let send = ["send", "-p", "sender", "inbox-by-filter", data, "--topic", topic, "--metadata", &urgent];
        world.run(&send).await.ok();
    }
    let filter = "message.topic == \"a\" && message.metadata[\"urgent\"] == \"yes\"";
    for takes in ["watch", "receive"] {
        let command = [takes, "-p", "inbox-by-filter", "--filter", filter, "--count", "2"];
        let matched = world.run(&command).await.ok().stdout;
        assert_eq!(matched, "sender  a  one\nsender  a  four\n", "{takes}");
    }
    // What was taken is seen to be within about a second.
    let left = ["unread", "-p", "inbox-by-filter", "--count"];
    world.until("two are left", async || (world.json(&left).await["messages"] == 2).then_some(())).await;
    let rest = world.run(&["watch", "-p", "inbox-by-filter", "--count", "2"]).await.ok().stdout;
    assert_eq!(rest, "sender  b  two\nsender  a  three\n");
}
