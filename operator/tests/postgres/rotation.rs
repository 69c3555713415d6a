//! In the middle of a rotation `acb plan` and a reconcile decide the same, since they read the same: what runs is part of it.

use std::sync::Arc;

use acb_crds::names::TenantName;
use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, postgres::PostgresEffect},
    plan::{SecretRef, Step},
    tenant::{
        self,
        fetch::{Hubs, PostgresReader, Sources, fetch},
    },
};
use acb_testbed::{Outside, Postgres, Version};
use serde_json::json;

use crate::given::{apply, first, plan, platform, sample, world};

struct Passwords;

fn password(secret: &SecretRef) -> SecretData {
    SecretData::new().with("password", secret.to_string())
}

#[async_trait::async_trait]
impl SecretReader for Passwords {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(password(secret))
    }
}

struct RolledOut(bool);

impl Hubs for RolledOut {
    fn is_rolled_out(&self, _: &TenantName) -> bool {
        self.0
    }
}

#[tokio::test]
async fn a_store_takes_the_new_password_when_every_replica_runs_with_it() {
    let postgres = Postgres::start(Version::Installed).await;
    let pool = Pool::new(postgres.operator_options(), Limits::default());
    let effect = PostgresEffect::new(pool.clone(), postgres.epoch(), Arc::new(Passwords));
    let reader = PostgresReader { pool, tenants: postgres.operator_options() };
    let (given, platform) = (sample("acme.yaml"), platform());
    let (mut asked, mut model) = (first(&given), world(&given));
    let provisioned = plan(&asked, &model, &platform);
    for step in &provisioned.steps {
        if let Step::Postgres(step) = step {
            effect.apply(step).await.unwrap();
        }
    }
    apply(&mut model, &provisioned);
    asked.metadata.annotations = Some([("acb.dev/rotate".to_owned(), "now".to_owned())].into());
    let secrets = plan(&asked, &model, &platform);
    apply(&mut model, &secrets);

    let mut cluster = Outside::default();
    model.objects.values().for_each(|object| cluster.add(object, SecretData::new()));
    for secret in &model.secrets {
        let annotations = model.details[secret].asked.as_ref().map(|asked| json!({"acb.dev/rotate": asked}));
        let metadata = json!({"name": secret.object_name(), "namespace": secret.namespace, "annotations": annotations});
        cluster.add(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}), password(secret));
    }
    for is_everywhere in [false, true] {
        let hubs = RolledOut(is_everywhere);
        let sources = Sources { objects: &cluster, postgres: Ok(&reader), kafka: Ok(None), hubs: &hubs, proved: None };
        let world = fetch(&asked, given.clone(), &sources, &platform).await;
        assert!(world.away().is_empty(), "{:?}", world.away());
        let steps = tenant::decide(&asked, &world, &platform).plan().to_string();
        assert_eq!(steps.contains("+ postgres login"), is_everywhere, "{steps}");
        assert_eq!(steps.contains("hub-postgres-2"), is_everywhere, "{steps}");
    }
}
