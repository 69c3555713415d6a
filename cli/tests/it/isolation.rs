//! `isolation`: each tenant against the other, with nothing but names that the command finds itself.

use crate::world::World;

#[tokio::test]
async fn each_tenant_is_refused_by_the_other() {
    let world = World::of(&[]).await;
    let state = world.dev.state().display().to_string();
    for (attacker, victim) in [("acme", "globex"), ("globex", "acme")] {
        let report = world.json(&["isolation", attacker, "--against", victim, "--state", &state]).await;
        let rows = report["rows"].as_array().unwrap();
        assert!(rows.len() >= 40, "{} attacks", rows.len());
    }
    world.run(&["isolation", "nobody", "--state", &state]).await.fails(3, &["nobody", "acb get tenants"]);
}
