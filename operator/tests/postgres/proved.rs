//! A tenant's password is tried once, and again when someone has changed its login: that shows without a login.

use std::sync::Arc;

use acb_crds::{Tenant, names::TenantName};
use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, postgres::PostgresEffect},
    observed::LoginState,
    plan::{SecretRef, Step},
    tenancy::Tenancy,
    tenant::{
        self,
        fetch::{Hubs, PostgresReader, Sources, fetch},
        proved_logins::ProvedLogins,
    },
};
use acb_testbed::{Outside, Postgres, Version};
use serde_json::json;

use crate::given::{apply, first, plan, platform, sample, world};

struct Passwords;

#[async_trait::async_trait]
impl SecretReader for Passwords {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(SecretData::new().with("password", secret.to_string()))
    }
}

struct RolledOut;

impl Hubs for RolledOut {
    fn is_rolled_out(&self, _: &TenantName) -> bool {
        true
    }
}

struct World {
    postgres: Postgres,
    pool: Pool,
    effect: PostgresEffect,
    given: Tenancy,
    tenant: Tenant,
    cluster: Outside,
    proved: ProvedLogins,
}

impl World {
    /// A tenant that has converged.
    async fn start() -> Self {
        let postgres = Postgres::start(Version::Installed).await;
        let pool = Pool::new(postgres.operator_options(), Limits::default());
        let effect = PostgresEffect::new(pool.clone(), postgres.epoch(), Arc::new(Passwords));
        let given = sample("acme.yaml");
        let (tenant, mut model) = (first(&given), world(&given));
        let provisioned = plan(&tenant, &model, &platform());
        for step in provisioned.steps.iter().filter_map(|step| if let Step::Postgres(step) = step { Some(step) } else { None }) {
            effect.apply(step).await.unwrap();
        }
        apply(&mut model, &provisioned);
        let mut cluster = Outside::default();
        model.objects.values().for_each(|object| cluster.add(object, SecretData::new()));
        for secret in &model.secrets {
            let metadata = json!({"name": secret.object_name(), "namespace": secret.namespace});
            let data = Passwords.read(secret).await.unwrap();
            cluster.add(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}), data);
        }
        Self { postgres, pool, effect, given, tenant, cluster, proved: ProvedLogins::default() }
    }

    /// Where tenants' logins are answered, or are not.
    async fn look(&self, are_logins_answered: bool) -> tenant::World {
        let tenants = self.postgres.operator_options();
        let tenants = if are_logins_answered { tenants } else { tenants.port(1) };
        let reader = PostgresReader { pool: self.pool.clone(), tenants };
        let (postgres, proved) = (Ok(&reader), Some(&self.proved));
        let sources = Sources { objects: &self.cluster, postgres, kafka: Ok(None), hubs: &RolledOut, proved };
        fetch(&self.tenant, self.given.clone(), &sources, &platform()).await
    }

    fn login(&self) -> String {
        acb_crds::names::TenantId::from_uid(self.tenant.metadata.uid.as_deref().unwrap()).login()
    }

    async fn heal(&self, seen: &tenant::World) {
        let plan = tenant::decide(&self.tenant, seen, &platform()).plan();
        assert!(plan.to_string().contains("postgres login"), "{plan}");
        for step in plan.steps.iter().filter_map(|step| if let Step::Postgres(step) = step { Some(step) } else { None }) {
            self.effect.apply(step).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_tried_is_not_tried_again_until_someone_changes_the_login() {
    let world = World::start().await;
    assert_eq!(world.look(false).await.login, LoginState::Unknown, "it has to be tried once");
    assert_eq!(world.look(true).await.login, LoginState::Works);
    let seen = world.look(false).await;
    assert_eq!((seen.login, seen.away().len()), (LoginState::Works, 0), "nobody logs in as the tenant");

    // By hand: only the password, and what it was before.
    let login = world.login();
    for change in ["PASSWORD 'another'", "PASSWORD NULL", "NOLOGIN", "CONNECTION LIMIT 3"] {
        world.postgres.execute(&format!("ALTER ROLE {login} {change}")).await;
        assert_eq!(world.look(false).await.login, LoginState::Unknown, "{change}: it is tried");
        let seen = world.look(true).await;
        assert_eq!(seen.login == LoginState::Works, change.starts_with("CONNECTION"), "{change}");
        world.heal(&seen).await;
        assert_eq!(world.look(true).await.login, LoginState::Works, "{change}: healed");
        assert_eq!(world.look(false).await.login, LoginState::Works, "{change}: and proved");
    }
}

#[tokio::test]
async fn where_the_version_of_a_login_may_not_be_read_each_look_tries_it() {
    let world = World::start().await;
    world.postgres.execute("REVOKE SELECT (oid, rolname, xmin) ON pg_catalog.pg_authid FROM acb_operator").await;
    assert_eq!(world.look(true).await.login, LoginState::Works);
    assert_eq!(world.look(false).await.login, LoginState::Unknown);
}
