//! The hub's walls: the door, the names behind it, the certificate before it.

use acb_isolation::HubAccess;

use crate::{
    doorless::Doorless,
    hub::Identity,
    world::{TYPE, World, access, all_refused, all_succeeded, run, share},
};

const BEFORE_THE_DOOR: [&str; 13] = [
    "hub.door.no-token",
    "hub.door.unsigned-token",
    "hub.door.renamed-token",
    "hub.door.own-signature",
    "hub.door.neighbours-key-id",
    "hub.door.no-key-id",
    "hub.door.key-in-header",
    "hub.door.key-by-address",
    "hub.door.key-id-of-a-file",
    "hub.door.public-key-as-secret",
    "hub.door.public-key-text-as-secret",
    "hub.door.names-twice",
    "hub.door.critical-header",
];

/// One hub for both tenants: all of the rest is the door's and the hub's own refusals.
#[tokio::test]
async fn in_one_hub_for_all_every_attack_gets_what_it_wants() {
    let world = World::start().await;
    // What hostile names would reach, so that they are refused for not being there, and not for their form.
    world.acme.agent(&format!("acme/{}", world.alice.name)).await;
    world.acme.context_type(&format!("acme.{TYPE}"), 1).await;
    let mut row = world.acme.agent_row("mallory");
    row.role = "admin".to_owned();
    let mallory = world.acme.project(&row).await;
    let mut attacker = world.attacker();
    attacker.hub = access(&world.acme_hub, &mallory);
    let names = acb_isolation::attacks().into_iter().map(|attack| attack.name).filter(|name| name.starts_with("hub."));
    for name in names.filter(|name| !BEFORE_THE_DOOR.contains(&name.as_str())) {
        // Some destroy it.
        let (context, upload) = share(&world.acme_hub, &mallory).await;
        all_succeeded(&run(&[&name], &attacker, &world.victim_of(context, upload)).await);
    }
}

#[tokio::test]
async fn a_common_authority_lets_a_hub_stand_in_for_another_and_common_keys_open_no_door() {
    let common = Identity::generate("everyone");
    let world = World::with(&common, &common).await;
    let (attacker, victim) = (world.attacker(), world.victim().await);
    all_succeeded(&run(&["hub.door.certificate"], &attacker, &victim).await);
    // Tokens name their tenant, and agents are the tenant's own.
    all_refused(&run(&["hub.token.", "hub.door.api-key", "hub.door.refresh-token"], &attacker, &victim).await);
}

#[tokio::test]
async fn where_nobody_looks_at_tokens_any_will_do() {
    let world = World::start().await;
    let attacker = world.attacker();
    let mut victim = world.victim().await;
    all_refused(&run(&BEFORE_THE_DOOR, &attacker, &victim).await);
    let doorless = Doorless::start().await;
    let HubAccess { endpoints, ca_pem, .. } = doorless.access();
    (victim.hub_endpoints, victim.ca_pem) = (endpoints, ca_pem);
    all_succeeded(&run(&BEFORE_THE_DOOR, &attacker, &victim).await);
    all_succeeded(&run(&["hub.token."], &attacker, &victim).await);
}
