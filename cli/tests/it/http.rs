//! The blocks of docs/http.md, run in their order by one shell.

use std::{fs, path::PathBuf};

use tokio::time::{Duration, timeout};

use crate::world::World;

/// What `acb dev --env` prints, as a shell takes it.
async fn environment(world: &World, agent: &str) -> Vec<(String, String)> {
    let script = format!("eval \"$({} dev --env acme/{agent})\"; env", env!("CARGO_BIN_EXE_acb"));
    let output = world.command("bash").args(["-euc", &script]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let of_acb = said
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| ["ACB_SERVER", "ACB_CA_FILE", "ACB_API_KEY_FILE"].contains(name));
    let mut of_acb: Vec<_> = of_acb.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    of_acb.sort();
    of_acb
}

#[tokio::test]
async fn a_shell_is_told_where_the_hub_is() {
    let world = World::of(&[]).await;
    let acme = world.dev.tenant("acme").unwrap();
    let told = environment(&world, "curls").await;
    let key = acme.api_key_file("curls").unwrap().display().to_string();
    let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let servers = world.servers();
    let ca = acme.ca_file.display().to_string();
    assert_eq!(told, [("ACB_API_KEY_FILE", key.as_str()), ("ACB_CA_FILE", ca.as_str()), ("ACB_SERVER", servers.as_str())]);
    world.run(&["dev", "--env", "acme/nobody"]).await.fails(3, &["nobody"]);
    world.run(&["dev", "--env", "acme/curls", "--file", "."]).await.fails(2, &["--env"]);
}

#[tokio::test]
async fn two_agents_talk_by_curl_alone() {
    let world = World::of(&[]).await;
    let page = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/http.md")).unwrap();
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 4, "all that the page has");
    let acme = world.dev.tenant("acme").unwrap();
    let mut bash = world.command("bash");
    bash.args(["-euo", "pipefail", "-c", &blocks.concat()])
        .env("TMPDIR", world.folder.path())
        .env("NO_PROXY", "127.0.0.1")
        .env("ACB_SERVER", world.servers())
        .env("ACB_CA_FILE", &acme.ca_file)
        .env("ACB_API_KEY_FILE", acme.api_key_file("curls").unwrap())
        .env("RECEIVER_KEY_FILE", acme.api_key_file("is-curled").unwrap())
        .env("RECEIVER", "is-curled");
    let output = timeout(Duration::from_secs(120), bash.output()).await.expect("it ends").unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.concat().contains("messageId"), "{said}{failed}");
    assert!(lines.iter().any(|line| line.ends_with("curls: hello")), "{said}");
    assert!(said.ends_with("{}\n") || said.ends_with("{}"), "{said}");
}
