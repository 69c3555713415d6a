//! Tokens over a long time: the client's clock is put forward, the hub's is not.

use std::time::Duration;

use acb_sdk::{Client, Code, Message};

use crate::world::{client, dev, next};

/// An access token holds for an hour; after 48 minutes it is renewed.
const FIFTY_MINUTES: Duration = Duration::from_secs(50 * 60);

async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_long_session_goes_on_while_its_tokens_are_renewed() {
    let client = client("acme", "translator").await;
    let mut session = client.session().open().await.unwrap();
    let mut seen = vec![client.tokens().await.unwrap()];
    for round in 0..3 {
        later(FIFTY_MINUTES).await;
        client.send(Message::to_agent("translator").topic("round").json(&round)).await.unwrap();
        let received = next(&mut session).await;
        assert_eq!(received.json::<i32>().unwrap(), round);
        received.ack();
        let tokens = client.tokens().await.unwrap();
        assert!(seen.iter().all(|old| old.access != tokens.access && old.refresh != tokens.refresh), "round {round}");
        seen.push(tokens);
    }
    assert_eq!(client.identity().await.unwrap().agent, "translator");
}

#[tokio::test]
async fn tokens_alone_are_enough_and_a_repeated_refresh_has_the_same_successor() {
    let first = client("acme", "asker").await;
    let tokens = first.tokens().await.unwrap();
    let acme = dev().await.tenant("acme").unwrap();
    let with = |tokens| Client::builder().endpoints(&acme.endpoints).ca_pem(acme.ca_pem.clone()).tokens(tokens);
    let second = with(tokens.clone()).connect().await.unwrap();
    assert_eq!(second.identity().await.unwrap().agent, "asker");
    second.send(Message::to_agent("asker").topic("t")).await.unwrap();
    let successor = second.tokens().await.unwrap().refresh;
    assert_ne!(successor, tokens.refresh);
    // As after an answer that was lost.
    assert_eq!(with(tokens.clone()).connect().await.unwrap().tokens().await.unwrap().refresh, successor);
    let mut invented = tokens;
    invented.refresh = "invented".to_owned();
    let error = with(invented).connect().await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(!error.to_string().contains("invented"), "{error}");
}
