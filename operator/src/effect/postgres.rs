//! Applies a step to PostgreSQL, as `acb_operator`: each in one transaction that checks the leader's epoch, so that a paused leader
//! writes nothing.

use std::{sync::Arc, time::Duration};

use acb_crds::tenant::Registration;
use acb_hub_pool::{Pool, Session};
use async_trait::async_trait;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use sqlx::{postgres::PgDatabaseError, types::Json};
use uuid::Uuid;

use super::{
    EffectError, SecretReader,
    act::{self, Act},
    postgres_acts::{self, AgentsBefore},
    postgres_excess,
    postgres_rows::tenant_row,
    seal,
};
use crate::{
    bootstrap::{LeaderEpoch, max_connections, scram_verifier},
    plan::{AgentRow, ApiKeyRef, IssuerRow, OidcIssuerRow, PostgresStep, SecretRef, ServiceAccountRow, TenantRow, TopicSpec},
};

const SYSTEM: &str = "PostgreSQL";
/// What `acb_provision.check_epoch` raises.
const ANOTHER_LEADS: &str = "ACB01";
const TOO_MANY_CONNECTIONS: &str = "53300";
/// How long tokens of an issuer are taken after the cluster got another one: as long as the kubelet asks for them to last, where nothing else is said.
const ISSUER_OVERLAP: Duration = Duration::from_secs(3600);
/// The key of a generation in `sys.control`; its value is the decimal number.
pub const GENERATION_KEY: &[u8] = b"generation";

/// Tells hubs of a new generation where the bus is not PostgreSQL. Called after the commit.
#[async_trait]
pub trait GenerationAnnouncer: Send + Sync {
    /// Appends the generation to `acb.<tenant>.sys.control`. A lost announcement costs hubs a few seconds: they poll, too.
    async fn announce(&self, tenant: &str, generation: u64);
}

/// Applies the steps of one leader.
#[derive(Clone)]
pub struct PostgresEffect {
    pool: Pool,
    epoch: LeaderEpoch,
    secrets: Arc<dyn SecretReader>,
    announcer: Option<Arc<dyn GenerationAnnouncer>>,
    holder: Arc<str>,
}

impl std::fmt::Debug for PostgresEffect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresEffect").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// A tenant's new generation, to be announced.
struct Changed {
    tenant: String,
    generation: u64,
}

impl PostgresEffect {
    /// `pool` logs in as `acb_operator`; the epoch is from [`claim_leadership`](crate::bootstrap::claim_leadership).
    #[must_use]
    pub fn new(pool: Pool, epoch: LeaderEpoch, secrets: Arc<dyn SecretReader>) -> Self {
        Self { pool, epoch, secrets, announcer: None, holder: "operator".into() }
    }

    /// With what it is called in the audit trails of tenants.
    #[must_use]
    pub fn with_holder(mut self, holder: &str) -> Self {
        self.holder = holder.into();
        self
    }

    /// With who tells hubs, where the bus is not PostgreSQL.
    #[must_use]
    pub fn with_announcer(mut self, announcer: Arc<dyn GenerationAnnouncer>) -> Self {
        self.announcer = Some(announcer);
        self
    }

    /// Applies one step. Repeating it changes nothing more, but for the generation.
    ///
    /// # Errors
    /// What PostgreSQL answered, or which Secret is missing.
    pub async fn apply(&self, step: &PostgresStep) -> Result<(), EffectError> {
        match step {
            PostgresStep::EnsureLogin { tenant_id, secret, connection_limit } => {
                self.ensure_login(tenant_id, secret, *connection_limit).await
            }
            PostgresStep::ProjectTenant { tenant_id, tenant } => self.project_tenant(tenant_id, tenant).await,
            PostgresStep::ProjectAgent { tenant_id, agent, api_key } => {
                self.project_agent(tenant_id, agent, api_key.as_ref()).await
            }
            PostgresStep::RestrainAgent { tenant_id, agent } => self.restrain_agent(tenant_id, agent).await,
            PostgresStep::RemoveAgent { tenant_id, agent_id } => self.remove_agent(tenant_id, agent_id).await,
            PostgresStep::EnsureTopic { tenant_id, topic } => self.ensure_topic(tenant_id, topic).await,
            PostgresStep::RetireTopic { tenant_id, topic, retention_seconds } => {
                self.retire_topic(tenant_id, topic, *retention_seconds).await
            }
            PostgresStep::ReviveTopic { tenant_id, topic } => self.revive_topic(tenant_id, topic).await,
            PostgresStep::RemoveTopic { tenant_id, topic } => self.remove_topic(tenant_id, topic).await,
            PostgresStep::DisableLogin { tenant_id } => self.disable_login(tenant_id).await,
            PostgresStep::RemoveTenant { tenant_id } => {
                self.disable_login(tenant_id).await?;
                self.remove_rows(tenant_id).await
            }
        }
    }

    /// Ends tenants' sessions whose transaction has lasted longer than `seconds`, or that hold others off a table, and says whose.
    ///
    /// # Errors
    /// What PostgreSQL answered.
    pub async fn end_overlong(&self, seconds: u32) -> Result<Vec<EndedSessions>, EffectError> {
        let ended: Vec<(String, Option<String>, i64)> = sqlx::query_as(
            "SELECT ended.tenant_id, t.name, ended.sessions
             FROM acb_provision.end_overlong($1, make_interval(secs => $2)) AS ended
             LEFT JOIN acb.tenant AS t ON t.tenant_id = decode(ended.tenant_id, 'hex') ORDER BY 1",
        )
        .bind(self.epoch.0)
        .bind(f64::from(seconds))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| failed("ending over-long sessions (was `acb bootstrap` run since the upgrade?)", &error))?;
        let sessions = ended.into_iter().map(|(tenant_id, tenant, count)| EndedSessions {
            tenant_id,
            tenant,
            count: u64::try_from(count).unwrap_or_default(),
        });
        Ok(sessions.collect())
    }

    async fn ensure_login(&self, tenant_id: &str, secret: &SecretRef, connection_limit: u32) -> Result<(), EffectError> {
        let data = self.secrets.read(secret).await?;
        let verifier =
            scram_verifier(data.text(secret, "password")?).map_err(|error| EffectError::unavailable("randomness", error))?;
        let what = format!("login of tenant {tenant_id}");
        let mut connection = self.pool.acquire().await.map_err(|error| failed(&what, &error))?;
        let ensured = sqlx::query("SELECT acb_provision.ensure_login($1, $2, $3, $4)")
            .bind(self.epoch.0)
            .bind(tenant_id)
            .bind(verifier)
            .bind(whole(connection_limit))
            .execute(&mut connection)
            .await;
        // A login with more than it needs is named also where that is why it could not be altered.
        let login = format!("acb_t_{tenant_id}");
        let left = postgres_excess::excess(&mut connection, &login).await.map_err(|error| failed(&what, &error))?;
        if !left.is_none() {
            let has = [left.attributes.as_slice(), left.roles.as_slice()].concat().join(", ");
            let remedy = left.remedy(&login);
            return Err(EffectError::refused(
                SYSTEM,
                format!(
                    "the login {login} has {has}, which may show its hub other tenants' rows. A superuser has to run: {remedy}"
                ),
            ));
        }
        ensured.map(drop).map_err(|error| failed(&what, &error))
    }

    async fn project_tenant(&self, tenant_id: &str, tenant: &TenantRow) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        let what = format!("tenant {}", tenant.name);
        let changed = self
            .within(&what, async |connection| {
                let before = tenant_row(connection, &id).await?.map(|(_, row)| row);
                sqlx::query(
                    "INSERT INTO acb.tenant AS t (tenant_id, name, tier, registration, suspended, limits, operation_limits, audit_days)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                     ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name, tier = excluded.tier,
                         registration = excluded.registration, suspended = excluded.suspended, limits = excluded.limits,
                         operation_limits = excluded.operation_limits, audit_days = excluded.audit_days",
                )
                .bind(&id)
                .bind(&tenant.name)
                .bind(&tenant.tier)
                .bind(&tenant.registration)
                .bind(tenant.suspended)
                .bind(Json(&tenant.limits))
                .bind(Json(&tenant.operation_limits))
                .bind(whole(tenant.audit_days))
                .execute(&mut *connection)
                .await?;
                let mut ended = 0;
                if tenant.registration == Registration::Declared.as_str() {
                    ended = end_registrations(connection, &id).await?;
                }
                project_issuer(connection, &id, tenant.issuer.as_ref()).await?;
                project_oidc_issuers(connection, &id, &tenant.oidc_issuers).await?;
                let names: Vec<&str> = tenant.context_types.iter().map(|row| row.name.as_str()).collect();
                sqlx::query("DELETE FROM acb.context_type WHERE tenant_id = $1 AND name <> ALL ($2)")
                    .bind(&id)
                    .bind(&names)
                    .execute(&mut *connection)
                    .await?;
                for row in &tenant.context_types {
                    sqlx::query(
                        "INSERT INTO acb.context_type
                             (tenant_id, name, partitions, retention_seconds, cleanup, max_message_bytes, schema)
                         VALUES ($1, $2, $3, $4, $5, $6, $7)
                         ON CONFLICT (tenant_id, name) DO UPDATE SET partitions = excluded.partitions,
                             retention_seconds = excluded.retention_seconds, cleanup = excluded.cleanup,
                             max_message_bytes = excluded.max_message_bytes, schema = excluded.schema",
                    )
                    .bind(&id)
                    .bind(&row.name)
                    .bind(whole(row.partitions))
                    .bind(long(row.retention_seconds))
                    .bind(&row.cleanup)
                    .bind(whole(row.max_message_bytes))
                    .bind(row.schema.as_ref().map(Json))
                    .execute(&mut *connection)
                    .await?;
                }
                let after = tenant_row(connection, &id).await?.map(|(_, row)| row);
                let mut acts = after.map(|after| act::of_tenant(before.as_ref(), &after)).unwrap_or_default();
                if ended > 0 {
                    acts.push(Act::new("RegistrationsEnded", format!("tenant {}", tenant.name), format!("agents {ended}")));
                }
                postgres_acts::record(connection, &id, &self.holder, acts).await?;
                bump(connection, &id).await
            })
            .await?;
        self.announce(changed).await;
        Ok(())
    }

    async fn project_agent(&self, tenant_id: &str, agent: &AgentRow, api_key: Option<&ApiKeyRef>) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        let agent_id = agent_uuid(&agent.id)?;
        let (key, replaced) = match api_key {
            Some(reference) => (Some(self.api_key(reference).await?), self.replaced_key(reference).await?),
            None => (None, None),
        };
        let what = format!("agent {} of tenant {tenant_id}", agent.name);
        let changed = self
            .within(&what, async |connection| {
                let before = AgentsBefore::read(connection, &id, agent_id, Some(agent)).await?;
                project_agent_row(connection, &id, agent_id, agent).await?;
                project_account(connection, &id, agent_id, agent.service_account.as_ref()).await?;
                project_groups(connection, &id, agent_id, &agent.groups).await?;
                project_key(connection, &id, agent_id, key.as_ref(), replaced.as_ref()).await?;
                self.record(connection, &id, &before).await?;
                bump(connection, &id).await
            })
            .await?;
        self.announce(changed).await;
        Ok(())
    }

    async fn restrain_agent(&self, tenant_id: &str, agent: &AgentRow) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        let agent_id = agent_uuid(&agent.id)?;
        let changed = self
            .within(&format!("agent {} of tenant {tenant_id}", agent.name), async |connection| {
                let before = AgentsBefore::read(connection, &id, agent_id, None).await?;
                let restrained = sqlx::query(
                    "UPDATE acb.agent SET role = $3, limits = $4, suspended = $5 WHERE tenant_id = $1 AND agent_id = $2",
                )
                .bind(&id)
                .bind(agent_id)
                .bind(&agent.role)
                .bind(Json(&agent.limits))
                .bind(agent.suspended)
                .execute(&mut *connection)
                .await?;
                if restrained.rows_affected() == 0 {
                    return Ok(None);
                }
                if agent.service_account.is_none() {
                    project_account(connection, &id, agent_id, None).await?;
                }
                self.record(connection, &id, &before).await?;
                bump(connection, &id).await
            })
            .await?;
        self.announce(changed).await;
        Ok(())
    }

    /// The prefix of the key that still works, and for how long, in seconds. What is no key has never worked.
    async fn replaced_key(&self, reference: &ApiKeyRef) -> Result<Option<(String, u64)>, EffectError> {
        let Some(before) = &reference.before else { return Ok(None) };
        let key = self.secrets.read(&before.secret).await?;
        Ok(key_prefix(key.text(&before.secret, "api-key")?).map(|prefix| (prefix.to_owned(), before.overlap_seconds)))
    }

    async fn api_key(&self, reference: &ApiKeyRef) -> Result<StoredKey, EffectError> {
        let key = self.secrets.read(&reference.secret).await?;
        // Here, too: between the decision and this moment someone may have put another Secret under the name.
        seal::check(&reference.secret, &key, &reference.authority, self.secrets.as_ref()).await?;
        let keys = self.secrets.read(&reference.keys).await?;
        let text = key.text(&reference.secret, "api-key")?;
        stored_key(keys.bytes(&reference.keys, "pepper")?, text).ok_or_else(|| EffectError::BadSecret {
            secret: reference.secret.clone(),
            key: "api-key".to_owned(),
            detail: "an API key reads acb_<prefix>_<secret>".to_owned(),
        })
    }

    async fn remove_agent(&self, tenant_id: &str, agent_id: &str) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        let agent_id = agent_uuid(agent_id)?;
        let changed = self
            .within(&format!("agent {agent_id} of tenant {tenant_id}"), async |connection| {
                let before = AgentsBefore::read(connection, &id, agent_id, None).await?;
                // When it was seen, and those that it registered: they go with it.
                sqlx::query(
                    "DELETE FROM acb.presence WHERE tenant_id = $1 AND (agent_id = $2 OR agent_id IN (
                         SELECT agent_id FROM acb.registered_agent WHERE tenant_id = $1 AND registered_by = $2))",
                )
                .bind(&id)
                .bind(agent_id)
                .execute(&mut *connection)
                .await?;
                let removed = sqlx::query("DELETE FROM acb.agent WHERE tenant_id = $1 AND agent_id = $2")
                    .bind(&id)
                    .bind(agent_id)
                    .execute(&mut *connection)
                    .await?;
                if removed.rows_affected() == 0 {
                    return Ok(None);
                }
                self.record(connection, &id, &before).await?;
                bump(connection, &id).await
            })
            .await?;
        self.announce(changed).await;
        Ok(())
    }

    async fn ensure_topic(&self, tenant_id: &str, topic: &TopicSpec) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        self.within(&format!("topic {}", topic.name), async |connection| {
            // A topic that was lost and is made again has a later epoch: its old offsets mean nothing.
            let partitions: i32 = sqlx::query_scalar(
                "INSERT INTO acb.bus_topic AS t (tenant_id, topic, partitions, epoch, retention_seconds, cleanup, max_message_bytes)
                 VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, $4, $5, $6)
                 ON CONFLICT (tenant_id, topic) DO UPDATE SET partitions = greatest(t.partitions, excluded.partitions),
                     retention_seconds = excluded.retention_seconds, cleanup = excluded.cleanup,
                     max_message_bytes = excluded.max_message_bytes
                 RETURNING partitions",
            )
            .bind(&id)
            .bind(&topic.name)
            .bind(whole(topic.partitions))
            .bind(long(topic.retention_seconds))
            .bind(&topic.cleanup)
            .bind(whole(topic.max_message_bytes))
            .fetch_one(&mut *connection)
            .await?;
            sqlx::query(
                "INSERT INTO acb.bus_partition (tenant_id, topic, partition)
                 SELECT $1, $2, generate_series(0, $3 - 1) ON CONFLICT DO NOTHING",
            )
            .bind(&id)
            .bind(&topic.name)
            .bind(partitions)
            .execute(&mut *connection)
            .await
            .map(drop)
        })
        .await
    }

    async fn disable_login(&self, tenant_id: &str) -> Result<(), EffectError> {
        let what = format!("login of tenant {tenant_id}");
        // Barred and committed first: a session that is ended must not come back.
        for sql in ["SELECT acb_provision.disable_login($1, $2)", "SELECT acb_provision.end_sessions($1, $2)"] {
            sqlx::query(sql)
                .bind(self.epoch.0)
                .bind(tenant_id)
                .execute(&self.pool)
                .await
                .map_err(|error| failed(&what, &error))?;
        }
        Ok(())
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// One transaction of this leader.
    pub(super) async fn within<T>(
        &self,
        what: &str,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, sqlx::Error>,
    ) -> Result<T, EffectError> {
        let attempt = async {
            let mut transaction = self.pool.begin().await?;
            self.epoch.check(&mut transaction).await?;
            let answer = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(answer)
        };
        attempt.await.map_err(|error| failed(what, &error))
    }

    /// Records what has been done to agents that were so before.
    async fn record(&self, connection: &mut Session, id: &[u8], before: &AgentsBefore) -> Result<(), sqlx::Error> {
        let acts = before.acts(connection, id).await?;
        postgres_acts::record(connection, id, &self.holder, acts).await
    }

    async fn announce(&self, changed: Option<Changed>) {
        if let (Some(announcer), Some(changed)) = (&self.announcer, changed) {
            announcer.announce(&changed.tenant, changed.generation).await;
        }
    }
}

/// Sessions of one tenant that were ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedSessions {
    /// 20 hex digits.
    pub tenant_id: String,
    /// The tenant's name, where it has a row.
    pub tenant: Option<String>,
    /// How many.
    pub count: u64,
}

/// What is stored of an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Between the key's first and second underscore.
    pub prefix: String,
    /// HMAC-SHA-256 of the whole key under the pepper.
    pub hmac: Vec<u8>,
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// What PostgreSQL holds of this key. `None` where it is not shaped as `acb_<prefix>_<secret>`.
#[must_use]
pub fn stored_key(pepper: &[u8], key: &str) -> Option<StoredKey> {
    let key = key.trim();
    let prefix = key_prefix(key)?;
    let mac = Hmac::<Sha256>::new_from_slice(pepper).ok()?.chain_update(key.as_bytes());
    Some(StoredKey { prefix: prefix.to_owned(), hmac: mac.finalize().into_bytes().to_vec() })
}

/// What comes before an API key's secret part. `None` where it is none.
fn key_prefix(key: &str) -> Option<&str> {
    let (prefix, secret) = key.trim().strip_prefix("acb_")?.split_once('_')?;
    (!prefix.is_empty() && !secret.is_empty()).then_some(prefix)
}

/// Ends the agents that others registered, and says how many. A hub that registers one at this time counts first, too: it is done before this, or finds
/// that registration is closed.
async fn end_registrations(connection: &mut Session, id: &[u8]) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "INSERT INTO acb.registration_count AS r (tenant_id, count) VALUES ($1, 1)
         ON CONFLICT (tenant_id) DO UPDATE SET count = r.count + 1",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let ended = sqlx::query("DELETE FROM acb.registered_agent WHERE tenant_id = $1").bind(id).execute(&mut *connection).await?;
    Ok(ended.rows_affected())
}

async fn project_agent_row(connection: &mut Session, id: &[u8], agent_id: Uuid, agent: &AgentRow) -> Result<(), sqlx::Error> {
    // An Agent that was removed and made again has a new UID under the old name.
    sqlx::query("DELETE FROM acb.agent WHERE tenant_id = $1 AND name = $2 AND agent_id <> $3")
        .bind(id)
        .bind(&agent.name)
        .bind(agent_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO acb.agent (tenant_id, agent_id, name, type, capabilities, location, metadata, role, publishes, subscribes, limits,
             suspended)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (tenant_id, agent_id) DO UPDATE SET name = excluded.name, type = excluded.type,
             capabilities = excluded.capabilities, location = excluded.location, metadata = excluded.metadata, role = excluded.role,
             publishes = excluded.publishes, subscribes = excluded.subscribes, limits = excluded.limits,
             suspended = excluded.suspended",
    )
    .bind(id)
    .bind(agent_id)
    .bind(&agent.name)
    .bind(&agent.r#type)
    .bind(&agent.capabilities)
    .bind(&agent.location)
    .bind(Json(&agent.metadata))
    .bind(&agent.role)
    .bind(&agent.publishes)
    .bind(&agent.subscribes)
    .bind(Json(&agent.limits))
    .bind(agent.suspended)
    .execute(connection)
    .await
    .map(drop)
}

/// The cluster's keys, where the tenant has a use for them.
async fn project_issuer(connection: &mut Session, id: &[u8], issuer: Option<&IssuerRow>) -> Result<(), sqlx::Error> {
    let Some(IssuerRow { issuer, previous, jwks }) = issuer else {
        let removed = sqlx::query("DELETE FROM acb.cluster_issuer WHERE tenant_id = $1").bind(id).execute(connection);
        return removed.await.map(drop);
    };
    sqlx::query(
        "INSERT INTO acb.cluster_issuer AS c (tenant_id, issuer, jwks, previous, previous_until)
         VALUES ($1, $2, $3, $4::text, CASE WHEN $4 IS NOT NULL THEN clock_timestamp() + make_interval(secs => $5) END)
         ON CONFLICT (tenant_id) DO UPDATE SET issuer = excluded.issuer, jwks = excluded.jwks, previous = excluded.previous,
             previous_until = CASE WHEN c.previous = excluded.previous THEN c.previous_until ELSE excluded.previous_until END",
    )
    .bind(id)
    .bind(issuer)
    .bind(Json(jwks))
    .bind(previous)
    .bind(ISSUER_OVERLAP.as_secs_f64())
    .execute(connection)
    .await
    .map(drop)
}

/// The OpenID Connect issuers that the tenant trusts, and no others any more.
async fn project_oidc_issuers(connection: &mut Session, id: &[u8], issuers: &[OidcIssuerRow]) -> Result<(), sqlx::Error> {
    let names: Vec<&str> = issuers.iter().map(|row| row.issuer.as_str()).collect();
    sqlx::query("DELETE FROM acb.oidc_issuer WHERE tenant_id = $1 AND issuer <> ALL ($2)")
        .bind(id)
        .bind(&names)
        .execute(&mut *connection)
        .await?;
    for row in issuers {
        sqlx::query(
            "INSERT INTO acb.oidc_issuer (tenant_id, issuer, audiences, agent, role, authorities, networks)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, issuer) DO UPDATE SET audiences = excluded.audiences, agent = excluded.agent, role = excluded.role,
                 authorities = excluded.authorities, networks = excluded.networks",
        )
        .bind(id)
        .bind(&row.issuer)
        .bind(&row.audiences)
        .bind(&row.agent)
        .bind(&row.role)
        .bind(&row.authorities)
        .bind(&row.networks)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The ServiceAccount that proves an agent, and no other agent any more.
async fn project_account(
    connection: &mut Session,
    id: &[u8],
    agent_id: Uuid,
    account: Option<&ServiceAccountRow>,
) -> Result<(), sqlx::Error> {
    let (namespace, name) = account.map(|account| (&account.namespace, &account.name)).unzip();
    sqlx::query(
        "DELETE FROM acb.service_account WHERE tenant_id = $1
         AND CASE WHEN agent_id = $2 THEN $3::text IS NULL ELSE namespace = $3 AND name = $4 END",
    )
    .bind(id)
    .bind(agent_id)
    .bind(namespace)
    .bind(name)
    .execute(&mut *connection)
    .await?;
    let Some(ServiceAccountRow { namespace, name, uid }) = account else { return Ok(()) };
    sqlx::query(
        "INSERT INTO acb.service_account AS s (tenant_id, agent_id, namespace, name, uid) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, agent_id) DO UPDATE SET namespace = excluded.namespace, name = excluded.name, uid = excluded.uid,
             since = CASE WHEN (s.namespace, s.name, s.uid) = (excluded.namespace, excluded.name, excluded.uid) THEN s.since ELSE now() END",
    )
    .bind(id)
    .bind(agent_id)
    .bind(namespace)
    .bind(name)
    .bind(uid)
    .execute(connection)
    .await
    .map(drop)
}

/// Leaving ends an interval, joining begins one: what was logged between is not for the member.
async fn project_groups(connection: &mut Session, id: &[u8], agent_id: Uuid, groups: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE acb.group_member SET left_at = clock_timestamp()
         WHERE tenant_id = $1 AND agent_id = $2 AND left_at IS NULL AND group_name <> ALL ($3)",
    )
    .bind(id)
    .bind(agent_id)
    .bind(groups)
    .execute(&mut *connection)
    .await?;
    // No message lives as long, so that nobody asks who was a member then.
    sqlx::query("DELETE FROM acb.group_member WHERE tenant_id = $1 AND agent_id = $2 AND left_at < now() - interval '30 days'")
        .bind(id)
        .bind(agent_id)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO acb.group_member (tenant_id, group_name, agent_id, joined_at)
         SELECT DISTINCT $1::bytea, wanted, $2, clock_timestamp() FROM unnest($3::text[]) AS wanted
         WHERE NOT EXISTS (SELECT FROM acb.group_member AS m WHERE m.tenant_id = $1 AND m.agent_id = $2 AND m.group_name = wanted
                           AND m.left_at IS NULL)",
    )
    .bind(id)
    .bind(agent_id)
    .bind(groups)
    .execute(connection)
    .await
    .map(drop)
}

/// The key without a deadline is the agent's; the one `before` keeps working for its seconds, and never longer than it was given once. Any
/// other ends.
async fn project_key(
    connection: &mut Session,
    id: &[u8],
    agent_id: Uuid,
    key: Option<&StoredKey>,
    before: Option<&(String, u64)>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM acb.api_key WHERE tenant_id = $1 AND agent_id = $2 AND prefix IS DISTINCT FROM $3
         AND ($3 IS NULL OR prefix IS DISTINCT FROM $4 OR expires_at <= clock_timestamp())",
    )
    .bind(id)
    .bind(agent_id)
    .bind(key.map(|key| &key.prefix))
    .bind(before.map(|(prefix, _)| prefix))
    .execute(&mut *connection)
    .await?;
    let Some(key) = key else { return Ok(()) };
    sqlx::query(
        "UPDATE acb.api_key SET expires_at = least(expires_at, clock_timestamp() + make_interval(secs => $4))
         WHERE tenant_id = $1 AND agent_id = $2 AND prefix <> $3",
    )
    .bind(id)
    .bind(agent_id)
    .bind(&key.prefix)
    // A century, and no overflow of what a date can say.
    .bind(before.map_or(0.0, |(_, seconds)| f64::from(u32::try_from(*seconds).unwrap_or(u32::MAX))))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO acb.api_key (tenant_id, prefix, agent_id, hmac) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, prefix) DO UPDATE SET agent_id = excluded.agent_id, hmac = excluded.hmac, expires_at = NULL",
    )
    .bind(id)
    .bind(&key.prefix)
    .bind(agent_id)
    .bind(&key.hmac)
    .execute(connection)
    .await
    .map(drop)
}

/// Raises the generation. Where the bus is PostgreSQL, the announcement is in the same transaction: it can't be lost, nor come early.
async fn bump(connection: &mut Session, id: &[u8]) -> Result<Option<Changed>, sqlx::Error> {
    let raised: Option<(String, i64)> =
        sqlx::query_as("UPDATE acb.tenant SET generation = generation + 1 WHERE tenant_id = $1 RETURNING name, generation")
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
    let Some((tenant, generation)) = raised else { return Ok(None) };
    sqlx::query(
        r#"WITH place AS (
               UPDATE acb.bus_partition SET next_offset = next_offset + 1, last_time = greatest(last_time, clock_timestamp())
               WHERE tenant_id = $1 AND topic = $2 AND partition = 0 RETURNING next_offset - 1 AS "offset", last_time
           )
           INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", key, value, log_time)
           SELECT $1, $2, 0, "offset", $3, $4, last_time FROM place"#,
    )
    .bind(id)
    .bind(format!("acb.{tenant}.sys.control"))
    .bind(GENERATION_KEY)
    .bind(generation.to_string().into_bytes())
    .execute(connection)
    .await?;
    Ok(Some(Changed { tenant, generation: u64::try_from(generation).unwrap_or_default() }))
}

pub(crate) fn tenant_bytes(tenant_id: &str) -> Result<Vec<u8>, EffectError> {
    hex::decode(tenant_id)
        .ok()
        .filter(|bytes| bytes.len() == 10)
        .ok_or_else(|| EffectError::refused(SYSTEM, format!("tenant id {tenant_id:?} is not 20 hex digits")))
}

fn agent_uuid(agent_id: &str) -> Result<Uuid, EffectError> {
    agent_id.parse().map_err(|_| EffectError::refused(SYSTEM, format!("agent id {agent_id:?} is not a UID")))
}

fn whole(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Retrying mends what is not PostgreSQL's clear no.
pub(crate) fn failed(what: &str, error: &sqlx::Error) -> EffectError {
    let code = error.as_database_error().and_then(|database| database.code());
    if code.as_deref() == Some(ANOTHER_LEADS) {
        return EffectError::unavailable(SYSTEM, format!("{what}: another operator leads on this database"));
    }
    if code.as_deref() == Some(TOO_MANY_CONNECTIONS) && !is_limit_of_login(error) {
        return EffectError::unavailable(SYSTEM, format!("{what}: {} ({error})", full(max_connections())));
    }
    if code.is_some_and(|code| is_clear(&code)) {
        EffectError::refused(SYSTEM, format!("{what}: {error}"))
    } else {
        EffectError::unavailable(SYSTEM, format!("{what}: {error}"))
    }
}

/// Says of a server that takes no further connection how many it takes.
fn full(most: Option<u32>) -> String {
    let all =
        most.map_or_else(|| "all connections that it takes".to_owned(), |most| format!("all {most} connections that it takes"));
    format!("{all} are in use: give it a higher max_connections, which holds from its next start")
}

/// Whether it is the connections of one login that are too many, and not those of all. By the place in the server that says so: its text may be in
/// any language. The server looks at that limit after the password was found right.
pub(crate) fn is_limit_of_login(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| error.code() == TOO_MANY_CONNECTIONS && error.routine() == Some("InitializeSessionUserId"))
}

/// Whether an SQLSTATE is a no that stays one, whatever the server does next: a login or a right that is missing, a database that is not
/// there, values that are not taken. Everything else may pass: a standby after a failover (25006), a session that was ended for being idle
/// (25P03), a schema that is being restored.
fn is_clear(code: &str) -> bool {
    code == "42501" || matches!(code.get(..2).unwrap_or_default(), "22" | "23" | "28" | "3D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_is_waited_for_and_a_clear_no_is_not() {
        for passing in
            ["08006", "25006", "40001", "40P01", "53300", "55P03", "57P03", "58030", "25P03", "25P02", "42P01", "3F000", "XX000"]
        {
            assert!(!is_clear(passing), "{passing}");
        }
        for clear in ["42501", "23505", "28P01", "22023", "3D000"] {
            assert!(is_clear(clear), "{clear}");
        }
    }

    #[test]
    fn a_full_server_is_named_with_how_many_connections_it_takes() {
        assert!(full(Some(800)).starts_with("all 800 connections"), "{}", full(Some(800)));
        assert!(full(None).contains("max_connections"));
    }

    #[test]
    fn an_api_key_is_known_by_its_prefix_and_stored_as_a_hmac() {
        let stored = stored_key(&[7; 32], "acb_ab12_sec_ret\n").unwrap();
        assert_eq!(stored.prefix, "ab12");
        assert_eq!(stored.hmac.len(), 32);
        assert_ne!(stored, stored_key(&[8; 32], "acb_ab12_sec_ret").unwrap());
        assert!(!format!("{stored:?}").contains("hmac:"));
        for bad in ["", "acb_", "acb__x", "acb_x", "acb_x_", "abc_x_y"] {
            assert_eq!(stored_key(&[7; 32], bad), None, "{bad}");
        }
    }
}
