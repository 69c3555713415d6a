//! A cluster as somebody sees it who is no operator: what a pass over every tenancy would still do. Nothing, where all has converged: the
//! plan knows every object, row, topic and right, and that each Secret is the one that Kafka and PostgreSQL hold.

use std::{collections::BTreeMap, sync::Arc};

use acb_crds::{Tenant, names::TenantName};
use acb_operator::{
    agent,
    effect::{
        EffectError, SecretData, SecretReader,
        kubernetes::{ObjectKey, Objects},
    },
    plan::SecretRef,
    runtime::kubernetes::config::Config,
    tenancy::{self, Census, Tenancy},
    tenant::{
        self, Decision,
        fetch::{Hubs, PostgresReader, Sources, fetch},
    },
};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What the API server has.
#[derive(Debug, Default)]
pub struct Outside {
    objects: BTreeMap<ObjectKey, Value>,
    secrets: BTreeMap<SecretRef, SecretData>,
}

impl Outside {
    /// An object as it was read; of a Secret, with what is in it.
    pub fn add(&mut self, object: &Value, data: SecretData) {
        let Some(key) = ObjectKey::of(object) else { return };
        if let Some(secret) = key.secret_ref() {
            self.secrets.insert(secret, data);
        }
        self.objects.insert(key, object.clone());
    }

    fn all<T: DeserializeOwned>(&self, kind: &str, namespace: Option<&str>) -> Result<Vec<T>, String> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.kind == kind && key.api_version.starts_with("acb.dev/"));
        let here = of_kind.filter(|(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace));
        here.map(|(key, object)| serde_json::from_value(object.clone()).map_err(|error| format!("{key}: {error}"))).collect()
    }

    /// What an operator that was told `told` would still do, a line for each step. `reach` is how its PostgreSQL and its Kafka are reached
    /// from here.
    ///
    /// # Errors
    /// What could not be read, or is refused.
    pub async fn remaining(&self, told: &Config, reach: &Config) -> Result<Vec<String>, String> {
        let login = reach.operator_login().map_err(|error| error.to_string())?;
        let postgres = PostgresReader::lazy(login, reach.tenant_login());
        let kafka = reach.kafka.as_ref().map(|kafka| kafka.effect()).transpose().map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        let everyone: Tenancy = Tenancy { tenants: self.all::<Tenant>("Tenant", None)?.into(), ..Tenancy::default() };
        for tenant in &everyone.tenants {
            let name = tenant.metadata.name.clone().unwrap_or_default();
            let space = tenancy::namespace(tenant).unwrap_or_default();
            if tenant.metadata.deletion_timestamp.is_some() {
                lines.push(format!("{name}: is still being deleted"));
                continue;
            }
            if tenant.status.as_ref().and_then(|status| status.observed_generation) != tenant.metadata.generation {
                lines.push(format!("{name}: its status is of an earlier generation"));
            }
            let mut tenancy = everyone.clone();
            (tenancy.agents, tenancy.quotas) = (self.all("Agent", Some(&space))?, self.all("Quota", Some(&space))?);
            let failed = |error: EffectError| format!("{name}: {error}");
            let platform = &told.platform;
            let sources =
                Sources { objects: self, postgres: Ok(&postgres), kafka: Ok(kafka.as_ref()), hubs: &Unseen, proved: None };
            let world = fetch(tenant, tenancy.clone(), &sources, platform).await;
            let decision = tenant::decide(tenant, &world, platform);
            if let Decision::Refused { problems, .. } = &decision {
                return Err(format!("{name}: {problems:?}"));
            }
            if let Some(why) = world.away().into_iter().next() {
                return Err(failed(why));
            }
            lines.extend(decision.plan().steps.iter().map(|step| format!("{name}: {step}")));
            let census = Arc::new(Census::of(&space, tenancy, platform));
            let shared = agent::fetch::fetch_shared(&space, Arc::clone(&census), self, &postgres.pool).await.map_err(failed)?;
            for agent in &census.tenancy().agents {
                let name = format!("{name}/{}", agent.metadata.name.as_deref().unwrap_or_default());
                let world = agent::fetch::fetch(agent, &shared, self).await.map_err(failed)?;
                let validated = agent::validate::validate(agent, &world).map_err(|why| format!("{name}: {why:?}"))?;
                lines.extend(agent::plan::waits_for(&validated, &world));
                lines.extend(agent::plan::plan(&validated, &world).steps.iter().map(|step| format!("{name}: {step}")));
            }
        }
        postgres.pool.close().await;
        Ok(lines)
    }
}

/// From outside nobody sees whether a hub was rolled out.
struct Unseen;

impl Hubs for Unseen {
    fn is_rolled_out(&self, _: &TenantName) -> bool {
        false
    }
}

fn only_looks<T>() -> Result<T, EffectError> {
    Err(EffectError::refused("the test", "it looks, and changes nothing"))
}

#[async_trait]
impl SecretReader for Outside {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        self.secrets.get(secret).cloned().ok_or_else(|| EffectError::MissingSecret(secret.clone()))
    }
}

#[async_trait]
impl Objects for Outside {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        Ok(self.objects.get(key).cloned())
    }

    async fn list(&self, namespace: &str) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        let here = self.objects.iter().filter(|(key, _)| key.namespace == namespace);
        Ok(here.map(|(key, object)| (key.clone(), object.clone())).collect())
    }

    async fn apply(&self, _: &Value) -> Result<(), EffectError> {
        only_looks()
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), EffectError> {
        only_looks()
    }

    async fn create_secret(&self, _: &SecretRef, _: SecretData, _: Option<&str>) -> Result<(), EffectError> {
        only_looks()
    }
}
