//! What a session may do by its agent's role, whatever protocol it came by.

use std::{sync::Arc, time::Duration};

use acb_hub_core::{
    directory::{
        agent::{Agent, Role},
        snapshot::Snapshot,
    },
    messages::{
        message::{Address, OutgoingMessage},
        session::SessionOptions,
    },
};

use crate::{
    world,
    world::{keyed, to},
};

#[tokio::test]
async fn a_session_receives_and_sends_what_its_role_allows() {
    let world = world();
    let replica = world.replica("only").await;
    for (role, receives, sends) in [
        (Role::Full, "fine", "fine"),
        (Role::Producer, "ROLE_LACKS_PERMISSION", "fine"),
        (Role::Consumer, "fine", "ROLE_LACKS_PERMISSION"),
        (Role::Observer, "ROLE_LACKS_PERMISSION", "ROLE_LACKS_PERMISSION"),
    ] {
        let agent = Arc::new(Agent { role, ..(*world.agent("a")).clone() });
        let open =
            async |receive| replica.open_session(agent.clone(), SessionOptions { receive, ..SessionOptions::default() }).await;
        assert_eq!(open(true).await.map_or_else(|fault| fault.reason, |_| "fine"), receives, "{role:?}");
        let session = open(false).await.unwrap();
        assert_eq!(session.input.send(1, to("b", "x")).await.map_or_else(|fault| fault.reason, |()| "fine"), sends, "{role:?}");
    }
}

#[tokio::test]
async fn what_nobody_could_receive_is_not_sent() {
    let world = world();
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let change = |agent: &Agent| match agent.name.as_str() {
        "b" => Agent { role: Role::Observer, ..agent.clone() },
        "c" => Agent { role: Role::Producer, ..agent.clone() },
        "d" => Agent { suspended: true, ..agent.clone() },
        _ => agent.clone(),
    };
    let snapshot = world.directory.snapshot();
    let agents = snapshot.agents().map(|agent| change(agent)).collect();
    world.directory.replace(Snapshot::new(2, agents, snapshot.memberships("pair").to_vec()));
    let reason = async |message: OutgoingMessage| replica.send(&a, message).await.map_or_else(|fault| fault.reason, |_| "fine");
    assert_eq!(reason(to("b", "x")).await, "RECIPIENT_CANNOT_RECEIVE");
    assert_eq!(reason(to("c", "x")).await, "RECIPIENT_CANNOT_RECEIVE");
    assert_eq!(reason(OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "x")).await, "NO_RECIPIENTS");
    assert_eq!(
        reason(OutgoingMessage { reply_to: Some(Address::Agent("b".to_owned())), ..to("d", "x") }).await,
        "RECIPIENT_CANNOT_RECEIVE"
    );
    assert_eq!(reason(OutgoingMessage { reply_to: Some(Address::Agent("a".to_owned())), ..to("d", "x") }).await, "fine");
    assert_eq!(reason(OutgoingMessage::new(Address::All, "t", "x")).await, "fine", "d may be resumed");
    let asked = replica.request(&a, keyed("d", "x", "1"), Duration::from_secs(20)).await;
    assert_eq!(asked.unwrap_err().reason, "RECIPIENT_SUSPENDED");
}
