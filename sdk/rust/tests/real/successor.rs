//! Another program that takes a session's place while that one is cut off.

use std::time::Duration;

use acb_sdk::{Message, Session};
use acb_testbed::Gate;
use tokio::time::{Instant, sleep, timeout};

use crate::world::{LONG, client, client_of, dev, next};

/// Has another program take over while this one can't hear of it, which then looks for its place.
async fn outrun(gate: &Gate) -> Session {
    gate.narrow(0);
    gate.slam();
    let successor = client("acme", "outrun").await.session().open().await.unwrap();
    gate.reopen();
    successor
}

#[tokio::test]
async fn a_session_goes_on_where_the_program_that_took_over_is_gone_and_ends_where_that_one_stays() {
    let gate = Gate::open(&dev().await.tenant("acme").unwrap().endpoints[0]).await;
    let mut session = client_of("acme", "outrun", &[gate.endpoint()]).await.session().open().await.unwrap();
    let successor = outrun(&gate).await;
    // Longer than a hub waits for the other one to end.
    sleep(Duration::from_secs(4)).await;
    successor.close().await;
    client("acme", "asker").await.send(Message::to_agent("outrun").topic("t").json(&"still there")).await.unwrap();
    let received = next(&mut session).await;
    assert_eq!(received.json::<String>().unwrap(), "still there");
    received.ack();

    let staying = outrun(&gate).await;
    let began = Instant::now();
    let refused = timeout(LONG, session.next()).await.expect("it gives up").unwrap_err();
    assert_eq!(refused.reason(), "RECEIVER_PRESENT", "{refused}");
    assert!(began.elapsed() > Duration::from_secs(10), "{:?}", began.elapsed());
    staying.close().await;
}
