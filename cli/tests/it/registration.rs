//! `acb agent register` and `unregister`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use crate::world::World;

#[tokio::test]
async fn an_agent_registers_another_and_its_key_is_shown_once() {
    let world = World::of(&["sender", "observer"]).await;
    let register = ["agent", "register", "-p", "sender", "gadget-1", "--type", "gadget", "--capability", "fly"];
    let shown = world.run(&register).await.ok().stdout;
    let key = shown.lines().last().unwrap().to_owned();
    assert!(shown.starts_with("Registered sender.gadget-1. Its API key, which is not shown again:\nacb_"), "{shown}");
    // At whichever replica: the other one may hear of it a moment later.
    let deadline = Instant::now() + Duration::from_secs(20);
    let listed = loop {
        let listed = world.run(&["agent", "get", "-p", "observer", "sender.gadget-1"]).await;
        if listed.succeeded() || Instant::now() > deadline {
            break listed.ok().stdout;
        }
    };
    assert!(listed.contains("registered by") && listed.contains("sender") && !listed.contains(&key), "{listed}");

    let json = world.json(&register).await;
    assert!(json["apiKey"].as_str().unwrap() != key && json["registeredBy"] == "sender", "another key");
    world.run(&[&register[..], &["--key-file", "gadget.key"]].concat()).await.ok();
    let file = world.path("gadget.key");
    assert!(fs::read_to_string(&file).unwrap().starts_with("acb_"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // A key in a file that is there is never written over.
    world.run(&[&register[..], &["--key-file", "gadget.key"]].concat()).await.fails(2, &["gadget.key", "exists"]);
    let odd = ["agent", "register", "-p", "sender", "Gadget!", "--key-file", "other.key"];
    world.run(&odd).await.fails(1, &["Gadget!", "lower-case"]);
    assert!(!world.path("other.key").exists());
    world.run(&["agent", "register", "-p", "observer", "gadget-2"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);

    let gone = world.run(&["agent", "unregister", "-p", "sender", "gadget-1"]).await.ok().stdout;
    assert_eq!(gone, "Unregistered gadget-1.\n");
    world.run(&["agent", "unregister", "-p", "sender", "gadget-1"]).await.fails(3, &["gadget-1"]);
}
