//! `acb credentials`, as docs/authentication.md shows it.

use std::fs;

use crate::world::World;

#[tokio::test]
async fn credentials_are_listed_without_a_secret() {
    let world = World::of(&["reads-later", "root"]).await;
    let key = fs::read_to_string(world.dev.tenant("acme").unwrap().api_key_file("reads-later").unwrap()).unwrap();
    let (_, rest) = key.trim().split_once('_').unwrap();
    let (prefix, secret) = rest.split_once('_').unwrap();
    let own = world.json(&["credentials", "list", "-p", "reads-later"]).await;
    assert_eq!(own.as_array().unwrap().len(), 1, "{own}");
    assert_eq!([&own[0]["agent"], &own[0]["kind"], &own[0]["name"]], ["reads-later", "ApiKey", prefix]);
    assert!(own[0]["createdAt"].is_string() && own[0]["expiresAt"].is_null(), "{own}");

    let all = world.json(&["credentials", "ls", "-p", "root"]).await;
    assert!(all.as_array().unwrap().len() > 1 && !all.to_string().contains(secret), "{all}");
    assert_eq!(world.json(&["credentials", "list", "-p", "root", "reads-later"]).await[0]["name"], prefix);
    let table = world.run(&["credentials", "list", "-p", "root", "reads-later"]).await.ok().stdout;
    assert!(table.starts_with("AGENT") && table.contains("LAST USED") && table.contains(prefix), "{table}");
    world.run(&["credentials", "list", "-p", "reads-later", "root"]).await.fails(4, &["ROLE_LACKS_PERMISSION"]);
    world.run(&["credentials", "list", "-p", "root", "nobody"]).await.fails(3, &["AGENT_NOT_FOUND"]);
}
