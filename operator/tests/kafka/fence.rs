//! Kafka can't tell an old leader from the new one: what is too late must not be sent.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_kafka::Settings;
use acb_operator::{
    effect::{fence::Fence, kafka::KafkaEffect},
    plan::KafkaStep,
};
use acb_testbed::{Kafka, KafkaListener, Relay, relay::Protocol};

use crate::{BROKERS, Passwords, tenant};

const SPARE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn with_too_little_left_of_the_lease_nothing_is_changed() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let effect = KafkaEffect::new(Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password()), -1);
    let fenced = |left: u64| effect.clone().fenced(Arc::new(Fence::until(Instant::now() + Duration::from_secs(left))), SPARE);
    let steps = tenant("acme");

    // Also where it runs out between two steps, as with a process that is stopped in the middle.
    for step in &steps {
        let error = fenced(4).apply(std::slice::from_ref(step), &Passwords).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("lease"), "{error}");
    }
    let observed = effect.observe("acme", "acb.acme.").await.unwrap();
    assert!(observed.topics.is_empty() && !observed.has_user && !observed.acls, "{observed:?}");

    fenced(60).apply(&steps, &Passwords).await.unwrap();
    let observed = effect.observe("acme", "acb.acme.").await.unwrap();
    assert!(observed.topics.len() == 1 && observed.has_user && observed.acls, "{observed:?}");

    let removal = [KafkaStep::RemoveTopic { name: "acb.acme.sys.messages".into() }];
    fenced(4).apply(&removal, &Passwords).await.unwrap_err();
    assert_eq!(effect.observe("acme", "acb.acme.").await.unwrap().topics.len(), 1);
    fenced(60).apply(&removal, &Passwords).await.unwrap();
}

#[tokio::test]
async fn a_removal_that_arrives_late_spares_what_was_made_anew() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let relay = Relay::start(Protocol::Kafka, SocketAddr::from(([127, 0, 0, 1], kafka.port()))).await.unwrap();
    let effect =
        |port: u16| KafkaEffect::new(Settings::new(&format!("127.0.0.1:{port}"), Kafka::ADMIN, kafka.admin_password()), -1);
    let (new, steps) = (effect(kafka.port()), tenant("acme"));
    let make = &steps[..1];
    let removal = [KafkaStep::RemoveTopic { name: "acb.acme.sys.messages".into() }];
    new.apply(make, &Passwords).await.unwrap();

    let fence = Arc::new(Fence::until(Instant::now() + Duration::from_secs(60)));
    let old = effect(relay.port).fenced(Arc::clone(&fence), SPARE);
    let hold = relay.hold(Box::new(|request| request.what == "DeleteTopics"));
    let late = tokio::spawn({
        let removal = removal.clone();
        async move { old.apply(&removal, &Passwords).await }
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !hold.is_held() {
        assert!(Instant::now() < deadline && !late.is_finished());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(hold.seal());
    // Meanwhile another leads.
    fence.end();
    new.apply(&removal, &Passwords).await.unwrap();
    new.apply(make, &Passwords).await.unwrap();
    hold.deliver();
    // It is answered before its sender gives up, or after: both are known to be late.
    let _ = late.await.unwrap();
    while hold.answer().is_empty() {
        assert!(Instant::now() < deadline + Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(new.observe("acme", "acb.acme.").await.unwrap().topics.len(), 1, "the new topic is there");
    assert!(fence.was_late());
}
