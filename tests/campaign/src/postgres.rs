//! Rows and logins, as the functions of `operator/src/effect/postgres.rs` leave them.

use std::collections::BTreeMap;

use acb_operator::{
    effect::{
        EffectError,
        postgres::StoredKey,
        postgres_observe::{ObservedLogin, ObservedTenant},
    },
    observed::LoginState,
    plan::{AgentRow, FOR_EVER, PostgresStep, SecretRef, TopicSpec},
};

use crate::kubernetes::Kubernetes;

#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) observed: ObservedTenant,
    /// The Secret whose password the login has.
    password: Option<u64>,
    /// By agent: the key before its own, which works on for a while.
    replaced: BTreeMap<String, String>,
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

impl Rows {
    fn remove_agent(&mut self, id: &str) {
        self.observed.agents.remove(id);
        self.set_key(id, None);
    }

    /// The key that an agent has now; and the one before works on, where it did until now, for so many seconds.
    fn set_key(&mut self, agent: &str, keys: Option<(StoredKey, Option<(String, u64)>)>) {
        let own = self.observed.api_keys.remove(agent).and_then(|keys| keys.into_iter().next()).map(|key| key.prefix);
        let known = own.into_iter().chain(self.replaced.remove(agent)).collect::<Vec<_>>();
        self.observed.replaced_keys.remove(agent);
        let Some((key, before)) = keys else { return };
        if let Some((before, _)) =
            before.filter(|(before, overlap)| *overlap > 0 && *before != key.prefix && known.contains(before))
        {
            self.replaced.insert(agent.to_owned(), before);
            self.observed.replaced_keys.insert(agent.to_owned());
        }
        self.observed.api_keys.insert(agent.to_owned(), vec![key]);
    }
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
                self.tenants.entry(tenant_id.clone()).or_default().observed.tenant = Some(tenant.clone());
            }
            PostgresStep::ProjectAgent { tenant_id, agent, api_key } => {
                let keys = match api_key {
                    None => None,
                    Some(api_key) => {
                        kubernetes.secret(&api_key.authority)?;
                        let of = |secret: &SecretRef| kubernetes.secret(secret).map(|found| found.serial);
                        let before = match &api_key.before {
                            None => None,
                            Some(before) => Some((of(&before.secret)?.to_string(), before.overlap_seconds)),
                        };
                        Some((key(of(&api_key.secret)?, kubernetes.secret(&api_key.keys)?.pepper), before))
                    }
                };
                let rows = self.row(tenant_id)?;
                // One that was made again has a new UID under the old name.
                let gone: Vec<String> = rows
                    .observed
                    .agents
                    .values()
                    .filter(|row| row.name == agent.name && row.id != agent.id)
                    .map(|row| row.id.clone())
                    .collect();
                gone.iter().for_each(|id| rows.remove_agent(id));
                // One ServiceAccount proves one agent.
                let name = |row: &AgentRow| {
                    row.service_account.as_ref().map(|account| (account.namespace.clone(), account.name.clone()))
                };
                if let Some(own) = name(agent) {
                    let others = rows.observed.agents.values_mut().filter(|row| name(row).as_ref() == Some(&own));
                    others.for_each(|row| row.service_account = None);
                }
                rows.observed.agents.insert(agent.id.clone(), agent.clone());
                rows.set_key(&agent.id, keys);
            }
            PostgresStep::RestrainAgent { tenant_id, agent } => {
                let rows = self.tenants.get_mut(tenant_id);
                if let Some(row) = rows.and_then(|rows| rows.observed.agents.get_mut(&agent.id)) {
                    row.role.clone_from(&agent.role);
                    row.limits.clone_from(&agent.limits);
                    row.suspended = agent.suspended;
                    row.service_account = row.service_account.take().filter(|_| agent.service_account.is_some());
                }
            }
            PostgresStep::RemoveAgent { tenant_id, agent_id } => {
                self.tenants.get_mut(tenant_id).into_iter().for_each(|rows| rows.remove_agent(agent_id));
            }
            PostgresStep::EnsureTopic { tenant_id, topic } => {
                let topics = &mut self.row(tenant_id)?.observed.topics;
                let partitions = topics.get(&topic.name).map_or(0, |found| found.partitions).max(topic.partitions);
                topics.insert(topic.name.clone(), TopicSpec { partitions, ..topic.clone() });
            }
            PostgresStep::RetireTopic { tenant_id, topic, retention_seconds } => {
                let retired = self.row(tenant_id)?.observed.retired.entry(topic.clone()).or_default();
                retired.retention_seconds = retired.retention_seconds.max((*retention_seconds).clamp(1, FOR_EVER));
            }
            PostgresStep::ReviveTopic { tenant_id, topic } => {
                self.tenants.get_mut(tenant_id).into_iter().for_each(|rows| drop(rows.observed.retired.remove(topic)));
            }
            PostgresStep::RemoveTopic { tenant_id, topic } => {
                if let Some(rows) = self.tenants.get_mut(tenant_id) {
                    rows.observed.topics.remove(topic);
                    rows.observed.retired.remove(topic);
                }
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
    fn row(&mut self, tenant_id: &str) -> Result<&mut Rows, EffectError> {
        let found = self.tenants.get_mut(tenant_id).filter(|rows| rows.observed.tenant.is_some());
        found.ok_or_else(|| refused(format!("tenant {tenant_id} has no row")))
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

    /// The retention of every topic that nobody asks for passes, and the overlap of every key and issuer that was replaced.
    pub(crate) fn pass_time(&mut self) {
        for rows in self.tenants.values_mut() {
            rows.observed.retired.values_mut().for_each(|retired| retired.is_over = true);
            rows.observed.replaced_keys.clear();
            rows.replaced.clear();
            let issuer = rows.observed.tenant.as_mut().and_then(|row| row.issuer.as_mut());
            issuer.into_iter().for_each(|issuer| issuer.previous = None);
        }
    }
}
