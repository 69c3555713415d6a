//! Rows and logins, as the functions of `operator/src/effect/postgres.rs` leave them.

use std::collections::BTreeMap;

use acb_operator::{
    effect::{
        EffectError,
        postgres::StoredKey,
        postgres_observe::{ObservedLogin, ObservedTenant},
    },
    observed::LoginState,
    plan::{PostgresStep, SecretRef},
};

use crate::kubernetes::Kubernetes;

#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) observed: ObservedTenant,
    /// The Secret whose password the login has.
    password: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Postgres {
    /// By the tenant's id.
    pub(crate) tenants: BTreeMap<String, Rows>,
}

fn refused(what: String) -> EffectError {
    EffectError::refused("PostgreSQL", what)
}

/// The key in a Secret, under the pepper in another.
fn key(serial: u64, pepper: u64) -> StoredKey {
    StoredKey { prefix: format!("{serial}"), hmac: pepper.to_be_bytes().to_vec() }
}

impl Postgres {
    pub(crate) fn apply(&mut self, step: &PostgresStep, kubernetes: &Kubernetes) -> Result<(), EffectError> {
        match step {
            PostgresStep::EnsureLogin { tenant_id, secret, connection_limit } => {
                let password = kubernetes.secret(secret)?.serial;
                let rows = self.tenants.entry(tenant_id.clone()).or_default();
                rows.password = Some(password);
                let connection_limit = i32::try_from(*connection_limit).unwrap();
                rows.observed.login = Some(ObservedLogin { enabled: true, connection_limit, excess: false });
            }
            PostgresStep::ProjectTenant { tenant_id, tenant } => {
                let has_name = |rows: &Rows| rows.observed.tenant.as_ref().is_some_and(|row| row.name == tenant.name);
                if self.tenants.iter().any(|(id, rows)| id != tenant_id && has_name(rows)) {
                    return Err(refused(format!("another tenant has the name {}", tenant.name)));
                }
                self.tenants.entry(tenant_id.clone()).or_default().observed.tenant = Some(tenant.clone());
            }
            PostgresStep::ProjectAgent { tenant_id, agent, api_key } => {
                let keys = match api_key {
                    None => None,
                    Some(api_key) => {
                        kubernetes.secret(&api_key.authority)?;
                        let of = |secret: &SecretRef| kubernetes.secret(secret).map(|found| found.serial);
                        let before = api_key.before.as_ref().map(|before| of(&before.secret)).transpose()?;
                        Some((key(of(&api_key.secret)?, kubernetes.secret(&api_key.keys)?.pepper), before))
                    }
                };
                let observed = self.row(tenant_id)?;
                observed.agents.insert(agent.id.clone(), agent.clone());
                observed.api_keys.remove(&agent.id);
                observed.replaced_keys.remove(&agent.id);
                if let Some((key, before)) = keys {
                    observed.api_keys.insert(agent.id.clone(), vec![key]);
                    if before.is_some() {
                        observed.replaced_keys.insert(agent.id.clone());
                    }
                }
            }
            PostgresStep::RestrainAgent { tenant_id, agent } => {
                let observed = self.row(tenant_id)?;
                if let Some(row) = observed.agents.get_mut(&agent.id) {
                    *row = agent.clone();
                }
            }
            PostgresStep::RemoveAgent { tenant_id, agent_id } => {
                let observed = self.row(tenant_id)?;
                observed.agents.remove(agent_id);
                observed.api_keys.remove(agent_id);
                observed.replaced_keys.remove(agent_id);
            }
            PostgresStep::EnsureTopic { tenant_id, topic } => {
                self.row(tenant_id)?.topics.insert(topic.name.clone(), topic.clone());
            }
            PostgresStep::RetireTopic { tenant_id, topic, retention_seconds } => {
                let retired = self.row(tenant_id)?.retired.entry(topic.clone()).or_default();
                retired.retention_seconds = retired.retention_seconds.max(*retention_seconds);
            }
            PostgresStep::ReviveTopic { tenant_id, topic } => {
                self.row(tenant_id)?.retired.remove(topic);
            }
            PostgresStep::RemoveTopic { tenant_id, topic } => {
                let observed = self.row(tenant_id)?;
                observed.topics.remove(topic);
                observed.retired.remove(topic);
            }
            PostgresStep::DisableLogin { tenant_id } => {
                if let Some(login) = self.tenants.get_mut(tenant_id).and_then(|rows| rows.observed.login.as_mut()) {
                    login.enabled = false;
                }
            }
            PostgresStep::RemoveTenant { tenant_id } => {
                self.tenants.remove(tenant_id);
            }
        }
        Ok(())
    }

    /// What belongs to a tenant's row: without one there is nothing to belong to.
    fn row(&mut self, tenant_id: &str) -> Result<&mut ObservedTenant, EffectError> {
        let found = self.tenants.get_mut(tenant_id).map(|rows| &mut rows.observed);
        found.filter(|observed| observed.tenant.is_some()).ok_or_else(|| refused(format!("tenant {tenant_id} has no row")))
    }

    pub(crate) fn observe(&self, tenant_id: &str) -> ObservedTenant {
        self.tenants.get(tenant_id).map(|rows| rows.observed.clone()).unwrap_or_default()
    }

    /// The Secret whose password a login has.
    pub(crate) fn password(&self, tenant_id: &str) -> Option<u64> {
        self.tenants.get(tenant_id)?.password
    }

    /// The Secret whose key an agent has.
    pub(crate) fn key_of(&self, tenant_id: &str, agent: &str) -> Option<u64> {
        self.tenants.get(tenant_id)?.observed.api_keys.get(agent)?.first()?.prefix.parse().ok()
    }

    pub(crate) fn login(&self, tenant_id: &str, secret: &SecretRef, kubernetes: &Kubernetes) -> LoginState {
        let rows = self.tenants.get(tenant_id);
        let enabled = rows.and_then(|rows| rows.observed.login).is_some_and(|login| login.enabled);
        let password = rows.and_then(|rows| rows.password);
        match kubernetes.secrets.get(secret) {
            Some(found) if enabled && password == Some(found.serial) => LoginState::Works,
            _ => LoginState::Refused,
        }
    }

    /// The key that an agent would be let in by.
    pub(crate) fn is_current(&self, tenant_id: &str, agent: &str, serial: u64, pepper: u64) -> bool {
        let keys = self.tenants.get(tenant_id).and_then(|rows| rows.observed.api_keys.get(agent));
        keys.is_some_and(|keys| *keys == [key(serial, pepper)])
    }

    /// The retention of every topic that nobody asks for passes, and the overlap of every key that was replaced.
    pub(crate) fn pass_time(&mut self) {
        for rows in self.tenants.values_mut() {
            rows.observed.retired.values_mut().for_each(|retired| retired.is_over = true);
            rows.observed.replaced_keys.clear();
        }
    }
}
