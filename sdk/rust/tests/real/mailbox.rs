//! What an agent does not acknowledge.

use std::time::Duration;

use acb_sdk::{Code, Message};
use tokio::time::timeout;

use crate::world::{LONG, client, next};

#[tokio::test]
async fn one_that_acknowledges_all_but_the_first_is_held_back_and_then_gets_the_rest() {
    const SENT: usize = 1_200;
    /// As many acknowledgements as the hub remembers beyond the oldest that is missing.
    const MOST: usize = 1_000;
    let sender = client("acme", "eager").await.session().receive(false).open().await.unwrap();
    let mut session = client("acme", "lazy").await.session().max_unacknowledged(1000).open().await.unwrap();
    let sending = tokio::spawn(async move {
        let mut receipts = Vec::new();
        for number in 0..SENT {
            let message = Message::to_agent("lazy").topic("n").json(&number);
            receipts.push(sender.sender().enqueue(message).await.unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
        }
    });
    let first = next(&mut session).await;
    let mut numbers = vec![first.json::<usize>().unwrap()];
    for _ in 0..MOST {
        let received = next(&mut session).await;
        numbers.push(received.json().unwrap());
        received.ack();
    }
    timeout(LONG, sending).await.unwrap().unwrap();
    while let Ok(received) = timeout(Duration::from_secs(2), session.next()).await {
        let received = received.unwrap();
        numbers.push(received.json().unwrap());
        received.ack();
    }
    assert!(numbers.len() < SENT, "nothing was held back");
    first.ack();
    while numbers.len() < SENT {
        let received = next(&mut session).await;
        numbers.push(received.json().unwrap());
        received.ack();
    }
    assert_eq!(numbers, (0..SENT).collect::<Vec<_>>());
    session.close().await;
}

#[tokio::test]
async fn a_refused_message_stops_nothing_that_is_sent_behind_it() {
    let session = client("acme", "eager").await.session().receive(false).open().await.unwrap();
    let sender = session.sender();
    let mut receipts = Vec::new();
    for recipient in ["eager", "nobody", "eager", "nobody", "eager"] {
        receipts.push((recipient, sender.enqueue(Message::to_agent(recipient).topic("t")).await.unwrap()));
    }
    for (recipient, receipt) in receipts {
        let code = timeout(LONG, receipt).await.unwrap().map_err(|error| error.code()).err();
        assert_eq!(code, (recipient == "nobody").then_some(Code::NotFound));
    }
    timeout(LONG, session.send(Message::to_agent("eager").topic("t"))).await.unwrap().unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_newer_session_of_the_agent_ends_the_older() {
    let client = client("acme", "poet").await;
    let mut older = client.session().open().await.unwrap();
    let newer = client.session().open().await.unwrap();
    let error = timeout(LONG, older.next()).await.expect("it ends").unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Aborted, "SESSION_REPLACED"));
    drop(newer);
}

#[tokio::test]
async fn a_session_gets_what_it_asks_for_and_leaves_the_rest_unread() {
    let sender = client("acme", "eager").await;
    let picky = client("acme", "picky").await;
    for (topic, number) in [("orders", 1), ("news", 2), ("orders", 3)] {
        sender.send(Message::to_agent("picky").topic(topic).json(&number)).await.unwrap();
    }
    let mut session = picky.session().filter("message.topic == 'orders' && message.from == 'eager'").open().await.unwrap();
    for expected in [1, 3] {
        let received = next(&mut session).await;
        assert_eq!(received.json::<usize>().unwrap(), expected);
        received.ack();
    }
    session.close().await;
    let mut session = picky.session().open().await.unwrap();
    let received = next(&mut session).await;
    assert_eq!(received.json::<usize>().unwrap(), 2);
    received.ack();
    session.close().await;
    let refused = picky.session().filter("message.topik == 'orders'").open().await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::InvalidArgument, "FILTER_INVALID"));
}
