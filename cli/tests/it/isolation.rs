//! `isolation`: each tenant against the other, with nothing but names that the command finds itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::world::{World, text};

#[tokio::test]
async fn each_tenant_is_refused_by_the_other() {
    let world = World::of(&[]).await;
    let state = world.dev.state().display().to_string();
    for (attacker, victim) in [("acme", "globex"), ("globex", "acme")] {
        let report = world.json(&["isolation", attacker, "--against", victim, "--state", &state]).await;
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.len() >= 40, "{} attacks", rows.len());
        let counts = &report["counts"];
        let count = |name: &str| counts[name].as_u64().unwrap();
        assert_eq!((count("attacks"), count("notRefused")), (rows.len() as u64, 0), "{counts}");
        assert_eq!(count("refused") + count("nothing"), count("attacks"), "{counts}");
        // Both have agents, and no contexts of theirs were named.
        let outcome = |name: &str| rows.iter().find(|row| row["attack"] == name).unwrap()["outcome"].clone();
        assert_eq!((outcome("postgres.read.agent"), outcome("hub.ids.get-context")), (json!("refused"), json!("nothing")));
        // Other tests make dead letters in acme, and none does in globex.
        if victim == "globex" {
            assert_eq!(outcome("postgres.read.dead_letter"), "nothing");
        }
    }
    world.run(&["isolation", "nobody", "--state", &state]).await.fails(3, &["nobody", "acb get tenants"]);
}

/// What is mounted into a replica of a tenant's hub, and the tenant's id.
fn mounted(folder: &Path, tenant: &str) -> Option<(PathBuf, String)> {
    if let Ok(text) = fs::read_to_string(folder.join("config/hub.json")) {
        let config: Value = serde_json::from_str(&text).unwrap();
        return (config["tenant"] == tenant).then(|| (folder.to_owned(), config["tenantId"].as_str().unwrap().to_owned()));
    }
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    // Not by links: a volume leads to itself by one.
    let mut folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path());
    folders.find_map(|inner| mounted(&inner, tenant))
}

async fn as_job(world: &World, folder: &Path, mission: Option<&Value>) -> (bool, Value) {
    let told = world.path("told");
    let mut command = world.command(env!("CARGO_BIN_EXE_acb"));
    command.args(["isolation", "acme", "--cluster", "--told", text(&told)]).env("ACB_CONFIG_DIR", folder);
    if let Some(mission) = mission {
        command.env("ACB_ISOLATION_MISSION", mission.to_string());
    }
    let output = command.output().await.unwrap();
    (output.status.success(), serde_json::from_slice(&fs::read(&told).unwrap()).unwrap())
}

#[tokio::test]
async fn as_a_job_it_attacks_with_what_the_hub_has_and_tells_what_came_of_it() {
    let world = World::of(&[]).await;
    let (folder, id) = mounted(world.dev.state(), "acme").unwrap();
    let (_, neighbours_id) = mounted(world.dev.state(), "globex").unwrap();
    let (acme, globex) = (world.dev.tenant("acme").unwrap(), world.dev.tenant("globex").unwrap());
    let addresses = |endpoints: &[String]| -> Vec<String> {
        endpoints.iter().map(|endpoint| endpoint.trim_start_matches("https://").to_owned()).collect()
    };
    let mut mission = json!({
        "tenantId": id, "endpoints": addresses(&acme.endpoints),
        "neighbours": [{
            "tenant": "globex", "tenantId": neighbours_id, "endpoints": addresses(&globex.endpoints),
            "authority": fs::read_to_string(&globex.ca_file).unwrap(),
            "agent": "analyst", "group": "globex-only", "contextType": "documents",
        }],
    });
    let (succeeded, told) = as_job(&world, &folder, Some(&mission)).await;
    assert!(succeeded && told["attacks"].as_u64().unwrap() >= 150, "{told}");
    let of = |told: &Value, what: &str| told[what].as_u64().unwrap_or(0);
    assert_eq!(of(&told, "attacks"), of(&told, "refused") + of(&told, "nothing"), "{told}");
    assert!(of(&told, "refused") > 100 && of(&told, "nothing") > 0, "{told}");
    assert_eq!((&told["neighbours"], told.get("unreached"), told.get("succeeded")), (&json!(["globex"]), None, None));

    // Where the network is a wall, the doors behind it are not tried, and all else is.
    mission["neighbours"][0]["endpoints"] = json!(["127.0.0.1:1"]);
    let (succeeded, without) = as_job(&world, &folder, Some(&mission)).await;
    assert!(succeeded && without["attacks"].as_u64() == Some(of(&without, "refused") + of(&without, "nothing")), "{without}");
    assert_eq!(without["unreached"], json!(["globex"]));
    assert!(without["attacks"].as_u64().unwrap() + 40 < told["attacks"].as_u64().unwrap(), "{without}");

    for (folder, mission) in [(folder.as_path(), None), (world.folder.path(), Some(&mission))] {
        let (succeeded, told) = as_job(&world, folder, mission).await;
        assert!(!succeeded && told["failure"].is_string() && told["attacks"] == 0, "{told}");
    }
}
