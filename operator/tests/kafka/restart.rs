//! A broker that ends after a user was removed, and starts again.

use acb_kafka::{Connection, Settings};
use acb_operator::{effect::kafka::KafkaEffect, plan::KafkaStep};
use acb_testbed::{Kafka, KafkaListener};

use crate::{BROKERS, Passwords, password, tenant};

#[tokio::test]
async fn a_removed_user_takes_no_other_with_it() {
    let _turn = BROKERS.acquire().await.unwrap();
    let mut kafka = Kafka::start(KafkaListener::Plain).await;
    let admin = Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password());
    let effect = KafkaEffect::new(admin.clone(), -1);
    effect.apply(&tenant("acme"), &Passwords).await.unwrap();
    // By its hash it comes before admin and acme, where a broker that starts reads them: see FIRST_USER of the testbed.
    effect.apply(&tenant("a"), &Passwords).await.unwrap();
    effect.apply(&[KafkaStep::RemoveUser { username: "a".into() }], &Passwords).await.unwrap();

    kafka.crash_and_restart().await;
    Connection::open(&admin).await.unwrap();
    Connection::open(&admin.clone().with_login("acme", &password("acme"))).await.unwrap();
    Connection::open(&admin.with_login("a", &password("a"))).await.err().unwrap();
}
