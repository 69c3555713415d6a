//! `login`, `logout`, `profile`, `whoami`, `agent`: who speaks, to whom.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::world::{World, agent, text};

#[tokio::test]
async fn a_login_is_kept_and_becomes_the_current_context() {
    let world = World::of(&["login"]).await;
    let acme = world.dev.tenant("acme").unwrap();
    let (ca, key) = (&acme.ca_file, acme.api_key_file("finder").unwrap());
    let servers = world.servers();
    let login = ["login", "-p", "second", "-s", &servers, "--ca", text(ca), "--api-key-file", text(key)];
    assert_eq!(world.json(&login).await, json!({"profile": "second", "tenant": "acme", "agent": "finder"}));

    assert_eq!(fs::metadata(world.path("config.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    let contexts = world.json(&["profile", "list"]).await;
    assert_eq!(contexts[0]["servers"], json!(acme.endpoints));
    let row = |index: usize| [&contexts[index]["name"], &contexts[index]["agent"], &contexts[index]["current"]].map(Clone::clone);
    assert_eq!(
        [row(0), row(1)],
        [[json!("login"), json!("login"), json!(false)], [json!("second"), json!("finder"), json!(true)]]
    );
    assert!(!contexts.to_string().contains("acb_"), "no key is shown");

    world.run(&["login", "acme/finder", "--token-file", text(key)]).await.fails(2, &["has no ServiceAccounts", "--token-file"]);

    assert_eq!(world.json(&["whoami"]).await["agent"], "finder");
    assert_eq!(world.json(&["profile", "use", "login"]).await, json!({"profile": "login"}));
    let whoami = world.json(&["whoami"]).await;
    assert_eq!((&whoami["tenant"], &whoami["agent"]), (&json!("acme"), &json!("login")));
    assert!(uuid::Uuid::parse_str(whoami["agentId"].as_str().unwrap()).is_ok());
    let table = world.run(&["whoami", "-p", "second"]).await.ok().stdout;
    assert!(table.starts_with("TENANT") && table.contains("finder"), "{table}");
    world.run(&["profile", "use", "nowhere"]).await.fails(3, &["\"nowhere\"", "acb profile list"]);

    // What is forgotten is not in the file any more.
    assert_eq!(world.json(&["logout"]).await, json!({"removed": ["login"]}));
    world.run(&["whoami"]).await.fails(2, &["acb login", "--profile"]);
    assert_eq!(world.json(&["profile", "remove", "second"]).await, json!({"removed": ["second"]}));
    world.run(&["profile", "remove", "second"]).await.fails(3, &["\"second\""]);
    assert!(!fs::read_to_string(world.path("config.yaml")).unwrap().contains("acb_"));
    assert_eq!(world.json(&["logout", "--all"]).await, json!({"removed": []}));
}

#[tokio::test]
async fn an_agent_of_acb_dev_is_logged_in_by_name() {
    let world = World::of(&[]).await;
    let login = world.run(&["login", "acme/finder", "-o", "json"]).await.ok();
    assert!(login.stderr.contains("On acb dev"), "{}", login.stderr);
    assert_eq!(login.json(), json!({"profile": "acme/finder", "tenant": "acme", "agent": "finder"}));
    assert_eq!(world.json(&["whoami"]).await["agent"], "finder");
    world.run(&["login", "acme/nobody"]).await.fails(3, &["agent of tenant acme", "\"nobody\"", "finder", "--cluster"]);
    world.run(&["login", "initech/finder"]).await.fails(3, &["\"initech\"", "acme, globex"]);
    world.run(&["login", "finder"]).await.fails(2, &["TENANT/AGENT"]);
    world.run(&["login"]).await.fails(2, &["TENANT/AGENT"]);

    // Eight at once are eight that are kept.
    let names: Vec<String> = (0..8).map(|number| format!("p{number}")).collect();
    let arguments: Vec<[&str; 4]> = names.iter().map(|name| ["login", "acme/login", "-p", name.as_str()]).collect();
    let logins = futures::future::join_all(arguments.iter().map(|arguments| world.run(arguments))).await;
    logins.into_iter().for_each(|login| drop(login.ok()));
    let kept = world.json(&["profile", "list"]).await;
    assert_eq!(kept.as_array().unwrap().len(), 9, "{kept}");
}

#[tokio::test]
async fn a_tenants_status_is_one_page() {
    let world = World::of(&[]).await;
    let page = world.run(&["status", "tenant", "globex"]).await.ok().stdout;
    for part in
        ["1 of 1 replicas are ready", "\nConditions\n", "\nCredentials\n", "hub-postgres", "analyst", "\nWaits for\nnothing\n"]
    {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    // A hub tells its lag every few seconds.
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let status = world.json(&["status", "tenant", "globex"]).await;
        if status["hub"]["lag"]["acb.globex.sys.messages"] == 0 {
            break status;
        }
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((&status["hub"]["ready"], status["agents"].as_array().unwrap().len()), (&json!(1), 1));
    assert!(!status.to_string().contains("acb_"), "no key is shown");
    world.run(&["status", "tenant", "initech"]).await.fails(3, &["initech"]);

    // The same resources, in the ways that people and programs read them.
    let yaml = world.run(&["get", "tenant", "globex", "-o", "yaml"]).await.ok().stdout;
    assert!(yaml.contains("kind: Tenant\n") && yaml.contains("name: globex\n"), "{yaml}");
    let wide = world.run(&["get", "tenants", "-o", "wide"]).await.ok().stdout;
    assert!(wide.contains("NAMESPACE") && wide.contains("acb-globex"), "{wide}");
    let mut watch = world.start(&["get", "tenants", "globex", "--watch"]);
    assert!(watch.line().await.starts_with("NAME"));
    assert!(watch.line().await.starts_with("globex"));
    watch.signal(rustix::process::Signal::INT);
    watch.end().await.ok();
}

#[tokio::test]
async fn a_login_that_cannot_be_is_told_what_to_do() {
    let world = World::of(&[]).await;
    let (acme, globex) = (world.dev.tenant("acme").unwrap(), world.dev.tenant("globex").unwrap());
    let servers = world.servers();
    let (ca, key) = (text(&acme.ca_file), text(acme.api_key_file("login").unwrap()));
    let login = |server, ca, key| ["login", "-p", "x", "-s", server, "--ca", ca, "--api-key-file", key];
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
    world.run(&["send", "-p", "nobody/here", "sender", "--topic", "t", "x"]).await.fails(3, &["\"nobody/here\"", "acb login"]);
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
    let all = names(world.json(&["agent", "list"]).await);
    assert!(all.len() >= 15 && all.iter().any(|name| name == "found") && all.iter().all(|name| name != "analyst"), "{all:?}");
    assert_eq!(names(world.json(&["agent", "discover", "--type", "oddity"]).await), ["found"]);
    let both = ["agent", "discover", "--capability", "translate", "--capability", "summarize"];
    assert_eq!(names(world.json(&both).await), ["found"]);
    assert!(names(world.json(&["agent", "discover", "--capability", "fly"]).await).is_empty());
    let found = world.json(&["agent", "discover", "--type", "oddity"]).await;
    let found = &found[0];
    assert_eq!(world.json(&["agent", "get", "found"]).await, *found);
    let one = world.run(&["agent", "get", "found"]).await.ok().stdout;
    assert!(one.contains("attic") && one.contains("summarize,translate"), "{one}");
    world.run(&["agent", "get", "lost"]).await.fails(3, &["\"lost\""]);
    world.run(&["agent", "discover"]).await.fails(2, &["--type"]);
    assert_eq!((&found["tenant"], &found["role"], &found["location"]), (&json!("acme"), &json!("agent-full"), &json!("attic")));
    assert_eq!((&found["status"], &found["capabilities"]), (&json!("offline"), &json!(["summarize", "translate"])));
    let table = world.run(&["agent", "discover", "--type", "oddity"]).await.ok().stdout;
    assert!(table.starts_with("NAME") && table.contains("summarize,translate"), "{table}");

    // Who is suspended is shown so, and who would wait for it hears so.
    let paused = agent("paused", "{type: pauser, role: AgentFull, suspend: true}");
    fs::write(world.dev.resources().join("paused.yaml"), paused).unwrap();
    let shown = world.until("it is shown", async || {
        let table = world.run(&["agent", "discover", "--type", "pauser"]).await.ok().stdout;
        table.contains("paused").then_some(table)
    });
    let table = shown.await;
    assert!(table.lines().nth(1).unwrap().contains("suspended"), "{table}");
    assert_eq!(world.json(&["agent", "discover", "--type", "pauser"]).await[0]["suspended"], true);
    world.run(&["request", "paused", "x", "--topic", "t"]).await.fails(1, &["agent paused is suspended", "RECIPIENT_SUSPENDED"]);
}

#[tokio::test]
async fn an_agent_that_is_removed_is_let_in_no_more() {
    let world = World::of(&[]).await;
    let file = world.dev.resources().join("gone.yaml");
    fs::write(&file, agent("gone", "{type: worker, role: AgentFull}")).unwrap();
    let row = world.until("the agent is provisioned", async || {
        let got = world.run(&["get", "agent", "gone", "-o", "json"]).await;
        let agent: serde_json::Value = serde_json::from_str(&got.stdout).ok()?;
        agent["access"]["apiKeyFile"].is_string().then_some(agent)
    });
    let key = row.await["access"]["apiKeyFile"].as_str().unwrap().to_owned();
    let (servers, ca) = (world.servers(), world.dev.tenant("acme").unwrap().ca_file.clone());
    let login = ["login", "-p", "gone", "-s", &servers, "--ca", text(&ca), "--api-key-file", &key];
    world.until("the hub knows it", async || world.run(&login).await.succeeded().then_some(())).await;

    // Other tests send to all; those messages are not wanted here.
    let mut receive = world.start(&["receive", "-p", "gone", "--topic", "farewell"]);
    fs::remove_file(&file).unwrap();
    world.until("the agent is removed", async || (!world.run(&["get", "agent", "gone"]).await.succeeded()).then_some(())).await;
    assert_eq!(receive.line().await, "", "its open session ends");
    receive.end().await.fails(4, &[]);
    world.run(&["whoami", "-p", "gone"]).await.fails(4, &["acb login"]);
}
