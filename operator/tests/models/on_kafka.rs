//! Steps of Kafka on the model and on a broker.

use std::time::Duration;

use acb_kafka::Settings;
use acb_operator::{
    effect::kafka::KafkaEffect,
    observed::{LoginState, ObservedKafka},
    plan::{KafkaQuota, KafkaStep, SecretRef, TopicSpec},
};
use acb_testbed::{Kafka, KafkaListener};
use tokio::time::{Instant, sleep};

use crate::{
    kafka::Kafka as Model,
    outcome,
    random::Random,
    secrets::{Secrets, password, secret},
};

const STEPS: usize = 40;
/// What a broker took, it shows a moment later.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const TENANTS: [&str; 2] = ["acme", "acme2"];

fn user(of: &str) -> String {
    format!("acb_t_{of}")
}

fn step(random: &mut Random) -> KafkaStep {
    let of = *random.pick(&TENANTS);
    let username = user(of);
    let topic = format!("acb.{of}.{}", random.pick(&["documents", "reports"]));
    match random.below(12) {
        0..4 => KafkaStep::EnsureTopic {
            topic: TopicSpec {
                name: topic,
                partitions: *random.pick(&[1, 2, 4]),
                retention_seconds: *random.pick(&[3600, 7200]),
                cleanup: (*random.pick(&["delete", "compact"])).to_owned(),
                max_message_bytes: *random.pick(&[1, 4 * 1024 * 1024]),
            },
        },
        4..6 => KafkaStep::EnsureUser { username, secret: of_user(of, 1 + random.below(2) as u64) },
        6..8 => {
            let prefix = (*random.pick(&["acb.acme.", "acb.acme2.", "acb.", "acb.acme"])).to_owned();
            KafkaStep::EnsureAcls { username, prefix }
        }
        8 => {
            let most = |random: &mut Random| *random.pick(&[None, Some(1000), Some(2000)]);
            let quota = KafkaQuota {
                producer_bytes_per_second: most(random),
                consumer_bytes_per_second: most(random),
                request_percent: None,
            };
            KafkaStep::EnsureQuota { username, quota }
        }
        9 => KafkaStep::RemoveUser { username },
        _ => KafkaStep::RemoveTopic { name: topic },
    }
}

fn of_user(of: &str, generation: u64) -> SecretRef {
    secret(&format!("acbhub-{of}"), "hub-kafka", generation)
}

/// What both say of a tenant.
async fn seen(effect: &KafkaEffect, of: &str, secrets: &Secrets) -> ObservedKafka {
    let mut seen = effect.observe(&user(of), &format!("acb.{of}.")).await.unwrap();
    seen.risks.clear();
    // Each password has rounds of its own, which the model does not draw.
    seen.credential_rounds = 0;
    let newest = secrets.kubernetes().secrets.get(&of_user(of, 2)).cloned();
    if let Some(found) = newest.filter(|_| seen.has_user) {
        seen.user = effect.login_state(&user(of), &password(&found)).await;
    }
    let before = secrets.kubernetes().secrets.get(&of_user(of, 1)).cloned();
    if let Some(found) = before.filter(|_| seen.has_user && seen.user == LoginState::Refused) {
        seen.previous = effect.login_state(&user(of), &password(&found)).await;
    }
    seen
}

#[tokio::test]
async fn the_model_of_kafka_does_as_kafka_does() {
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let effect = KafkaEffect::new(Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password()), -1);
    let (mut random, secrets, mut model) = (Random::new(1), Secrets::default(), Model::default());
    let every: Vec<SecretRef> = TENANTS.iter().flat_map(|of| [of_user(of, 1), of_user(of, 2)]).collect();
    every.iter().for_each(|secret| secrets.toggle(secret));
    let mut done: Vec<String> = Vec::new();
    for _ in 0..STEPS {
        if random.one_in(6) {
            secrets.toggle(random.pick(&every));
        }
        let step = step(&mut random);
        let modelled = model.apply(&step, &secrets.kubernetes());
        let real = effect.apply(std::slice::from_ref(&step), &secrets).await;
        done.push(format!("{step:?}"));
        let after = || format!("after\n  {}", done.join("\n  "));
        assert_eq!(outcome(&modelled), outcome(&real), "{modelled:?}, {real:?}, {}", after());
        for of in TENANTS {
            let deadline = Instant::now() + SHOWN_WITHIN;
            loop {
                let modelled = model.observe(&user(of), &format!("acb.{of}."), &of_user(of, 2), &secrets.kubernetes());
                let real = seen(&effect, of, &secrets).await;
                if modelled == real {
                    break;
                }
                assert!(Instant::now() < deadline, "{modelled:#?}\n{real:#?}\n{}", after());
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
