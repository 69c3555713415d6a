//! Kafka can't tell an old leader from the new one: what is too late must not be sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_kafka::Settings;
use acb_operator::{
    effect::{fence::Fence, kafka::KafkaEffect},
    plan::KafkaStep,
};
use acb_testbed::{Kafka, KafkaListener};

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
