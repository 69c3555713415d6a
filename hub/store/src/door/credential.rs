//! API keys and refresh tokens.

use acb_hub_core::{
    directory::agent::AgentId,
    door::{
        api_key::StoredKey,
        credential::{Credential, CredentialKind, CredentialOwner},
        ports::{CredentialStore, CredentialUse},
        refresh_token::{
            Judgement, MAX_FAMILIES, MAX_FAMILY_TOKENS, NewFamily, REFRESH_TOKEN_LIFE, Rotation, StoredRefresh, TokenHash,
        },
    },
    fault::{Code, Fault},
};
use acb_hub_pool::{Session, Timestamp};
use async_trait::async_trait;
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{directory::api_keys::keys, kit::store::PgStore};

#[async_trait]
impl CredentialStore for PgStore {
    async fn api_key(&self, prefix: &str) -> Result<Option<StoredKey>, Fault> {
        let query = self.timer.start("credential.api_key");
        let row: Option<(Uuid, Vec<u8>, Option<Timestamp>, Timestamp)> =
            sqlx::query_as(concat!("SELECT agent_id, hmac, expires_at, clock_timestamp() FROM ", keys!(), " WHERE prefix = $1"))
                .bind(prefix)
                .fetch_optional(self.pool())
                .await
                .map_err(|error| query.fault(error))?;
        row.map(|(agent, hmac, expires_at, there)| {
            let hmac = hmac
                .try_into()
                .map_err(|_| Fault::new(Code::Internal, "CREDENTIAL_DAMAGED", "a stored key has the wrong length"))?;
            // The operator counts by the server's clock, and who exchanges the key by this machine's.
            let expires_at = expires_at.map(|at| at.by_clock_of(there, OffsetDateTime::now_utc()));
            Ok(StoredKey { agent: AgentId(agent), hmac, expires_at })
        })
        .transpose()
    }

    async fn insert_refresh(&self, hash: TokenHash, family: &NewFamily) -> Result<(), Fault> {
        let query = self.timer.start("credential.insert_refresh");
        let failed = |error| query.fault(error);
        // Each exchange forgets a few more than it adds, so that the table is bounded by what is still valid.
        sqlx::query(
            "DELETE FROM acb.refresh_token WHERE (tenant_id, token_hash) IN
                 (SELECT tenant_id, token_hash FROM acb.refresh_token WHERE expires_at < (SELECT clock_timestamp()) ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED)",
        )
        .execute(self.pool())
        .await
        .map_err(failed)?;
        sqlx::query(
            "INSERT INTO acb.refresh_token (tenant_id, token_hash, family, agent_id, key_prefix, issued_at, expires_at, epoch)
             SELECT tenant_id, $1, $2, $3, $4, t.now, t.now + make_interval(secs => $5), credential_epoch
             FROM acb.tenant, (SELECT clock_timestamp() AS now) AS t",
        )
        .bind(hash.as_slice())
        .bind(family.id)
        .bind(family.agent.0)
        .bind(&family.key)
        .bind(family.life.as_seconds_f64())
        .execute(self.pool())
        .await
        .map_err(failed)?;
        sqlx::query(
            "DELETE FROM acb.refresh_token WHERE agent_id = $1 AND family IN
                 (SELECT family FROM acb.refresh_token WHERE agent_id = $1 GROUP BY family ORDER BY max(issued_at) DESC, family DESC OFFSET $2)",
        )
        .bind(family.agent.0)
        .bind(i64::from(MAX_FAMILIES))
        .execute(self.pool())
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn rotate_refresh(&self, hash: TokenHash, successor: TokenHash) -> Result<Rotation, Fault> {
        let query = self.timer.start("credential.rotate_refresh");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        lock_family(&mut transaction, hash).await.map_err(failed)?;
        let row = sqlx::query(concat!(
            "SELECT family, agent_id, key_prefix, expires_at, used_at, clock_timestamp() AS now,
                    revoked OR r.epoch <> (SELECT t.credential_epoch FROM acb.tenant AS t) AS revoked,
                    EXISTS (SELECT FROM ",
            keys!(),
            " WHERE key.prefix = r.key_prefix AND key.agent_id = r.agent_id
                            AND (key.expires_at IS NULL OR key.expires_at > clock_timestamp())) AS key_lives
             FROM acb.refresh_token AS r WHERE token_hash = $1 FOR UPDATE OF r"
        ))
        .bind(hash.as_slice())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(Rotation::Refused) };
        let read = || -> Result<(StoredRefresh, Option<String>, OffsetDateTime), sqlx::Error> {
            let stored = StoredRefresh {
                family: row.try_get("family")?,
                agent: AgentId(row.try_get("agent_id")?),
                expires_at: row.try_get::<Timestamp, _>("expires_at")?.into(),
                used_at: row.try_get::<Option<Timestamp>, _>("used_at")?.map(Into::into),
                revoked: row.try_get("revoked")?,
                key_lives: row.try_get("key_lives")?,
            };
            Ok((stored, row.try_get("key_prefix")?, row.try_get::<Timestamp, _>("now")?.into()))
        };
        let (stored, key, now) = read().map_err(failed)?;
        // Whoever holds the token counts by this machine's clock, or one that agrees with it.
        let answered_at = OffsetDateTime::now_utc();
        let here = |expires_at: OffsetDateTime| answered_at.saturating_add(expires_at - now);
        let key = key.unwrap_or_default();
        let rotation = match stored.judge(now) {
            Judgement::Refuse => Rotation::Refused,
            Judgement::KeyGone => Rotation::KeyGone { agent: stored.agent },
            Judgement::Rotate => {
                let expires_at = now + REFRESH_TOKEN_LIFE;
                sqlx::query("UPDATE acb.refresh_token SET used_at = $2 WHERE token_hash = $1")
                    .bind(hash.as_slice())
                    .bind(now)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
                // Later than its predecessor, whatever the server's clock does: the oldest token of a family is its lock.
                sqlx::query(
                    "INSERT INTO acb.refresh_token (tenant_id, token_hash, family, agent_id, key_prefix, issued_at, expires_at, epoch)
                     SELECT acb.current_tenant(), $1, family, agent_id, key_prefix, greatest($3, issued_at + interval '1 microsecond'), $4, epoch
                     FROM acb.refresh_token WHERE token_hash = $2",
                )
                .bind(successor.as_slice())
                .bind(hash.as_slice())
                .bind(now)
                .bind(expires_at)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
                sqlx::query(
                    "DELETE FROM acb.refresh_token WHERE token_hash IN
                         (SELECT token_hash FROM acb.refresh_token WHERE family = $1 ORDER BY issued_at DESC OFFSET $2)",
                )
                .bind(stored.family)
                .bind(i64::from(MAX_FAMILY_TOKENS))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
                Rotation::Successor { agent: stored.agent, key, expires_at: here(expires_at) }
            }
            Judgement::Repeat => {
                // Missing where the key that derives successors was rotated in between.
                let expires_at: Option<Timestamp> =
                    sqlx::query_scalar("SELECT expires_at FROM acb.refresh_token WHERE token_hash = $1 AND NOT revoked")
                        .bind(successor.as_slice())
                        .fetch_optional(&mut *transaction)
                        .await
                        .map_err(failed)?;
                expires_at.map_or(Rotation::Refused, |expires_at| Rotation::Successor {
                    agent: stored.agent,
                    key,
                    expires_at: here(expires_at.into()),
                })
            }
            Judgement::Revoke => {
                sqlx::query("UPDATE acb.refresh_token SET revoked = true WHERE family = $1")
                    .bind(stored.family)
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
                Rotation::Reused { agent: stored.agent }
            }
        };
        transaction.commit().await.map_err(failed)?;
        Ok(rotation)
    }

    async fn revoke_refresh(&self, hash: TokenHash) -> Result<Option<AgentId>, Fault> {
        let query = self.timer.start("credential.revoke_refresh");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        lock_family(&mut transaction, hash).await.map_err(failed)?;
        let agents: Vec<Uuid> = sqlx::query_scalar(
            "UPDATE acb.refresh_token SET revoked = true
             WHERE NOT revoked AND family = (SELECT family FROM acb.refresh_token WHERE token_hash = $1) RETURNING agent_id",
        )
        .bind(hash.as_slice())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(agents.first().copied().map(AgentId))
    }

    async fn note_uses(&self, uses: &[CredentialUse]) -> Result<(), Fault> {
        let query = self.timer.start("credential.note_uses");
        let failed = |error| query.fault(error);
        let credentials: Vec<&str> = uses.iter().map(|used| used.credential.as_str()).collect();
        let ago: Vec<f64> = uses.iter().map(|used| used.ago.as_secs_f64()).collect();
        // Other replicas see the same credentials used: of all of them a row is written once a minute.
        sqlx::query(
            "INSERT INTO acb.credential_use AS u (tenant_id, credential, used_at)
             SELECT acb.current_tenant(), credential, clock_timestamp() - make_interval(secs => ago)
             FROM unnest($1::text[], $2::float8[]) AS used (credential, ago) ORDER BY credential
             ON CONFLICT (tenant_id, credential) DO UPDATE SET used_at = excluded.used_at
                 WHERE u.used_at <= excluded.used_at - interval '1 minute'",
        )
        .bind(&credentials)
        .bind(&ago)
        .execute(self.pool())
        .await
        .map_err(failed)?;
        sqlx::query(concat!(
            "DELETE FROM acb.credential_use WHERE credential NOT IN (SELECT prefix FROM ",
            keys!(),
            " UNION ALL SELECT 'serviceaccount:' || namespace || '/' || name FROM acb.service_account)"
        ))
        .execute(self.pool())
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn credentials(
        &self,
        of: CredentialOwner<'_>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<Credential>, Fault> {
        let query = self.timer.start("credential.list");
        let failed = |error| query.fault(error);
        let (agent, name) = after.unwrap_or_default();
        let (id, named) = match of {
            CredentialOwner::Anyone => (None, None),
            CredentialOwner::Agent(id) => (Some(id.0), None),
            CredentialOwner::Named(name) => (None, Some(name)),
        };
        let rows = sqlx::query(
            "SELECT c.agent_id, c.agent, c.kind, c.name, c.created_at, c.expires_at, u.used_at FROM (
                 SELECT k.agent_id, a.name AS agent, 'key' AS kind, k.prefix AS name, k.prefix AS credential, k.created_at, k.expires_at
                 FROM acb.api_key AS k JOIN acb.agent AS a USING (tenant_id, agent_id)
                 UNION ALL
                 SELECT k.agent_id, r.name, 'key', k.prefix, k.prefix, k.created_at, own.expires_at
                 FROM acb.registered_key AS k JOIN acb.registered_agent AS r USING (tenant_id, agent_id)
                 JOIN acb.api_key AS own ON own.tenant_id = k.tenant_id AND own.prefix = k.by_key AND own.agent_id = r.registered_by
                 UNION ALL
                 SELECT s.agent_id, a.name, 'account', s.namespace || '/' || s.name, 'serviceaccount:' || s.namespace || '/' || s.name, s.since, NULL
                 FROM acb.service_account AS s JOIN acb.agent AS a USING (tenant_id, agent_id)) AS c
             LEFT JOIN acb.credential_use AS u ON u.credential = c.credential AND u.used_at >= c.created_at
             WHERE ($1::uuid IS NULL OR c.agent_id = $1) AND ($5::text IS NULL OR c.agent = $5) AND (c.agent, c.name) > ($2, $3) ORDER BY c.agent, c.name LIMIT $4",
        )
        .bind(id)
        .bind(agent)
        .bind(name)
        .bind(i64::from(limit))
        .bind(named)
        .fetch_all(self.pool())
        .await
        .map_err(failed)?;
        rows.iter().map(listed).collect::<Result<_, _>>().map_err(failed)
    }
}

fn listed(row: &PgRow) -> Result<Credential, sqlx::Error> {
    let at = |name| row.try_get::<Option<Timestamp>, _>(name).map(|at| at.map(Into::into));
    Ok(Credential {
        agent_id: AgentId(row.try_get("agent_id")?),
        agent: row.try_get("agent")?,
        kind: if row.try_get::<&str, _>("kind")? == "key" { CredentialKind::ApiKey } else { CredentialKind::ServiceAccount },
        name: row.try_get("name")?,
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
        expires_at: at("expires_at")?,
        last_used_at: at("used_at")?,
    })
}

/// Until the end of the transaction nobody else changes the family that the token is of. The lock is on its oldest token, which every
/// token of the family leads to. A statement of its own: only the next one sees what another transaction did before the lock was free.
async fn lock_family(connection: &mut Session, hash: TokenHash) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT FROM acb.refresh_token WHERE family = (SELECT family FROM acb.refresh_token WHERE token_hash = $1)
         ORDER BY issued_at, token_hash LIMIT 1 FOR UPDATE",
    )
    .bind(hash.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}
