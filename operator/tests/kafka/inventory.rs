//! Every user, every right and every topic of a tenant is found, whoever's it is.

use std::collections::BTreeSet;

use acb_crds::names::TenantId;
use acb_kafka::Settings;
use acb_operator::{
    effect::kafka::KafkaEffect,
    plan::{KafkaStep, SecretRef},
};
use acb_testbed::{Kafka, KafkaListener};

use crate::{BROKERS, Passwords, tenant};

#[tokio::test]
async fn all_are_found() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let effect = KafkaEffect::new(Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password()), -1);
    // Users of other names are others': among them the operator's own.
    effect.apply(&tenant("acme"), &Passwords).await.unwrap();
    let found = effect.inventory().await.unwrap();
    assert_eq!((found.users.len(), found.granted.len(), found.topics), (0, 0, BTreeSet::from(["acme".to_owned()])));

    let (id, secret) = (TenantId::from_uid("u"), SecretRef { namespace: "n".into(), name: "hub-kafka".into(), generation: 1 });
    let user = KafkaStep::EnsureUser { username: id.login(), secret };
    let acls = KafkaStep::EnsureAcls { username: id.login(), prefix: "acb.acme.".into() };
    effect.apply(std::slice::from_ref(&acls), &Passwords).await.unwrap();
    let found = effect.inventory().await.unwrap();
    assert_eq!((found.users, found.granted), (BTreeSet::new(), BTreeSet::from([id])), "rights without a user");
    effect.apply(&[user], &Passwords).await.unwrap();
    assert_eq!(effect.inventory().await.unwrap().users, BTreeSet::from([id]));

    effect.apply(&[KafkaStep::RemoveUser { username: id.login() }], &Passwords).await.unwrap();
    let found = effect.inventory().await.unwrap();
    assert_eq!((found.users.len(), found.granted.len(), found.topics.len()), (0, 0, 1), "data is for people to remove");
}
