//! What a session may do by its agent's role, whatever protocol it came by.

use std::sync::Arc;

use acb_hub_core::{
    directory::agent::{Agent, Role},
    messages::session::SessionOptions,
};

use crate::{world, world::to};

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
