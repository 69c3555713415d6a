//! The hub's walls: the door, the names behind it, the certificate before it.

use std::time::{Duration, Instant};

use acb_isolation::HubAccess;
use acb_proto::v1::{ListAgentsRequest, agent_registry_client::AgentRegistryClient};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

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

/// A neighbour's hub that is hostile keeps what it is shown. With what it was shown, and its parts put together anew, it gets in nowhere.
#[tokio::test]
async fn what_a_neighbours_hub_is_shown_opens_no_door_of_ones_own() {
    let world = World::start().await;
    let doorless = Doorless::start().await;
    let mut victim = world.victim().await;
    let HubAccess { endpoints, ca_pem, .. } = doorless.access();
    (victim.hub_endpoints, victim.ca_pem) = (endpoints, ca_pem);
    let by_key = world.attacker();
    let mut as_job = world.attacker();
    as_job.hub.api_key = None;
    for attacker in [by_key, as_job] {
        all_succeeded(&run(&["hub.token.", "hub.door.renamed-token", "hub.door.own-signature"], &attacker, &victim).await);
    }
    let shown = doorless.shown();
    assert!(shown.len() >= 60, "{} tokens", shown.len());
    let own = acb_sdk::channel(&world.globex_hub.endpoint, &world.globex_hub.ca_pem).await.unwrap();
    for token in shown {
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        for (key, value) in [("iss", "globex"), ("aud", "globex"), ("tid", world.globex.id_hex())] {
            claims[key] = json!(value);
        }
        let renamed = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.to_string()), parts[2]);
        for token in [token.as_str(), &renamed] {
            let mut request = tonic::Request::new(ListAgentsRequest::default());
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            let error = AgentRegistryClient::new(own.clone()).list_agents(request).await.expect_err("a neighbour's hub got in");
            assert_eq!(error.code(), tonic::Code::Unauthenticated, "{error}");
        }
    }
}

/// An agent that another one registered is in no manifest.
#[tokio::test]
async fn an_agent_of_ones_own_that_is_called_as_the_neighbours_is_no_breach() {
    let world = World::start().await;
    let (mut attacker, victim) = (world.attacker(), world.victim().await);
    attacker.hub.api_key = None;
    world.globex.agent(&victim.agent).await;
    all_refused(&run(&["hub.names."], &attacker, &victim).await);
}

#[tokio::test]
async fn the_trail_tells_attacks_by_their_correlation_id() {
    let world = World::start().await;
    let (mut attacker, victim) = (world.attacker(), world.victim().await);
    attacker.hub.api_key = None;
    all_refused(&run(&["hub.ids.delete-context"], &attacker, &victim).await);
    let mut superuser = world.postgres.superuser().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let records: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT record FROM acb.audit_record WHERE tenant_id = decode($1, 'hex') AND operation = 'DeleteContext'",
        )
        .bind(world.globex.id_hex())
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        if !records.is_empty() {
            let marked = |record: &Vec<u8>| String::from_utf8_lossy(record).contains(acb_isolation::CORRELATION);
            assert!(records.iter().all(marked));
            return;
        }
        assert!(Instant::now() < deadline, "the trail has no record of it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
