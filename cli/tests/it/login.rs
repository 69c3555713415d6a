//! `login`, `contexts`, `whoami`, `agents`: who speaks, to whom.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Instant};

use serde_json::json;

use crate::world::{World, agent, text};

#[tokio::test]
async fn a_login_is_kept_and_becomes_the_current_context() {
    let world = World::of(&["login"]).await;
    let acme = world.dev.tenant("acme").unwrap();
    let (ca, key) = (&acme.ca_file, acme.api_key_file("finder").unwrap());
    let servers = world.servers();
    let login = ["login", "-c", "second", "-s", &servers, "--ca", text(ca), "--api-key-file", text(key)];
    assert_eq!(world.json(&login).await, json!({"context": "second", "tenant": "acme", "agent": "finder"}));

    assert_eq!(fs::metadata(world.path("config.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    let contexts = world.json(&["contexts", "list"]).await;
    assert_eq!(contexts[0]["servers"], json!(acme.endpoints));
    let row = |index: usize| [&contexts[index]["name"], &contexts[index]["agent"], &contexts[index]["current"]].map(Clone::clone);
    assert_eq!(
        [row(0), row(1)],
        [[json!("login"), json!("login"), json!(false)], [json!("second"), json!("finder"), json!(true)]]
    );
    assert!(!contexts.to_string().contains("acb_"), "no key is shown");

    assert_eq!(world.json(&["whoami"]).await["agent"], "finder");
    assert_eq!(world.json(&["contexts", "use", "login"]).await, json!({"context": "login"}));
    let whoami = world.json(&["whoami"]).await;
    assert_eq!((&whoami["tenant"], &whoami["agent"]), (&json!("acme"), &json!("login")));
    assert!(uuid::Uuid::parse_str(whoami["agentId"].as_str().unwrap()).is_ok());
    let table = world.run(&["whoami", "-c", "second"]).await.ok().stdout;
    assert!(table.starts_with("TENANT") && table.contains("finder"), "{table}");
    world.run(&["contexts", "use", "nowhere"]).await.fails(3, &["\"nowhere\"", "acb contexts list"]);
}

#[tokio::test]
async fn a_login_that_cannot_be_is_told_what_to_do() {
    let world = World::of(&[]).await;
    let (acme, globex) = (world.dev.tenant("acme").unwrap(), world.dev.tenant("globex").unwrap());
    let servers = world.servers();
    let (ca, key) = (text(&acme.ca_file), text(acme.api_key_file("login").unwrap()));
    let login = |server, ca, key| ["login", "-c", "x", "-s", server, "--ca", ca, "--api-key-file", key];
    let (odd, unknown) = (world.path("odd"), world.path("unknown"));
    fs::write(&odd, "password\n").unwrap();
    fs::write(&unknown, "acb_0123456789ab_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmU\n").unwrap();
    let missing = world.path("missing");

    world.run(&login(&servers, ca, text(&missing))).await.fails(3, &[text(&missing)]);
    world.run(&login(&servers, text(&missing), key)).await.fails(3, &[text(&missing)]);
    world.run(&login(&servers, ca, text(&odd))).await.fails(2, &["acb_<prefix>_<secret>"]);
    world.run(&login(&servers, text(&odd), key)).await.fails(2, &["CA"]);
    world.run(&login("http://127.0.0.1:1", ca, key)).await.fails(2, &["TLS only", "https://host:port"]);
    let refused = world.run(&login(&servers, ca, text(&unknown))).await.fails(4, &["new API key"]);
    assert!(!refused.stderr.contains("c2VjcmV0"), "a key is no part of an error");

    // What can't get better is told at once, what can within a person's patience.
    let began = Instant::now();
    world.run(&login(&servers, text(&globex.ca_file), key)).await.fails(4, &["certificate", "--ca"]);
    assert!(began.elapsed().as_secs() < 10);
    let began = Instant::now();
    world.run(&login("https://127.0.0.1:1", ca, key)).await.fails(5, &["127.0.0.1:1", "is the hub running?"]);
    assert!(began.elapsed().as_secs() < 30);
    // Another tenant's hub does not know the key.
    world.run(&login(&globex.endpoints[0], text(&globex.ca_file), key)).await.fails(4, &["API key"]);
    assert!(!world.path("config.yaml").exists(), "nothing is kept of a login that failed");
}

#[tokio::test]
async fn without_a_context_nothing_is_guessed() {
    let world = World::of(&[]).await;
    world.run(&["whoami"]).await.fails(2, &["acb login"]);
    world.run(&["send", "-c", "nobody/here", "sender", "--topic", "t", "x"]).await.fails(3, &["\"nobody/here\"", "acb login"]);
    fs::write(world.path("config.yaml"), "contexts: [{name: x, apiKey: acb_secret_secret").unwrap();
    let broken = world.run(&["whoami"]).await.fails(1, &["log in again"]);
    assert!(!broken.stderr.contains("acb_secret"));
    let told = world.run(&["whoami", "-o", "json"]).await.fails(1, &[]).stderr;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["exitCode"], 1);
    assert!(told["error"].as_str().unwrap().contains("config.yaml"));
}

#[tokio::test]
async fn agents_are_found_by_what_they_are() {
    let world = World::of(&["finder"]).await;
    let names = |agents: serde_json::Value| -> Vec<String> {
        agents.as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    };
    let all = names(world.json(&["agents"]).await);
    assert!(all.len() >= 15 && all.iter().any(|name| name == "found") && all.iter().all(|name| name != "analyst"), "{all:?}");
    assert_eq!(names(world.json(&["agents", "--type", "oddity"]).await), ["found"]);
    let both = ["agents", "--capability", "translate", "--capability", "summarize"];
    assert_eq!(names(world.json(&both).await), ["found"]);
    assert!(names(world.json(&["agents", "--capability", "fly"]).await).is_empty());
    let found = world.json(&["agents", "--type", "oddity"]).await;
    let found = &found[0];
    assert_eq!((&found["tenant"], &found["role"], &found["location"]), (&json!("acme"), &json!("agent-full"), &json!("attic")));
    assert_eq!((&found["status"], &found["capabilities"]), (&json!("offline"), &json!(["summarize", "translate"])));
    let table = world.run(&["agents", "--type", "oddity"]).await.ok().stdout;
    assert!(table.starts_with("NAME") && table.contains("summarize,translate"), "{table}");

    // Who is suspended is shown so, and who would wait for it hears so.
    let paused = agent("paused", "{type: pauser, role: agent-full, suspend: true}");
    fs::write(world.dev.resources().join("paused.yaml"), paused).unwrap();
    let shown = world.until("it is shown", async || {
        let table = world.run(&["agents", "--type", "pauser"]).await.ok().stdout;
        table.contains("paused").then_some(table)
    });
    let table = shown.await;
    assert!(table.lines().nth(1).unwrap().contains("suspended"), "{table}");
    assert_eq!(world.json(&["agents", "--type", "pauser"]).await[0]["suspended"], true);
    world.run(&["request", "paused", "x", "--topic", "t"]).await.fails(1, &["agent paused is suspended", "RECIPIENT_SUSPENDED"]);
}

#[tokio::test]
async fn an_agent_that_is_removed_is_let_in_no_more() {
    let world = World::of(&[]).await;
    let file = world.dev.resources().join("gone.yaml");
    fs::write(&file, agent("gone", "{type: worker, role: agent-full}")).unwrap();
    let row = world.until("the agent is provisioned", async || {
        let got = world.run(&["get", "agent", "gone", "-o", "json"]).await;
        let agent: serde_json::Value = serde_json::from_str(&got.stdout).ok()?;
        agent["access"]["apiKeyFile"].is_string().then_some(agent)
    });
    let key = row.await["access"]["apiKeyFile"].as_str().unwrap().to_owned();
    let (servers, ca) = (world.servers(), world.dev.tenant("acme").unwrap().ca_file.clone());
    let login = ["login", "-c", "gone", "-s", &servers, "--ca", text(&ca), "--api-key-file", &key];
    world.until("the hub knows it", async || world.run(&login).await.succeeded().then_some(())).await;

    // Other tests send to all; those messages are not wanted here.
    let mut receive = world.start(&["receive", "-c", "gone", "--topic", "farewell"]);
    fs::remove_file(&file).unwrap();
    world.until("the agent is removed", async || (!world.run(&["get", "agent", "gone"]).await.succeeded()).then_some(())).await;
    assert_eq!(receive.line().await, "", "its open session ends");
    receive.end().await.fails(4, &[]);
    world.run(&["whoami", "-c", "gone"]).await.fails(4, &["acb login"]);
}
