//! Contexts. Every change and its event for the outbox are one statement, or one transaction.

use std::collections::BTreeMap;

use acb_hub_core::{
    contexts::{
        audience::Access,
        change::Change,
        context::{Context, ContextId, Payload, UploadId},
        outbox::NOUN,
        parts::ContextStores,
        ports::{AccessStore, ContextStore, Created, ExpiredContexts, Expiry, Kept, LOOKED_AT, ListFilter, Listed},
        visibility::Viewer,
    },
    directory::{agent::AgentId, schema::SchemaRef},
    fault::{Code, Fault},
    kit::clock::now,
    log::outbox::relay::Committed,
};
use acb_hub_pool::{Pool, Session, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Postgres, QueryBuilder, Row as _, postgres::PgRow, types::Json};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::{
    contexts::visibility,
    kit::{
        number::{signed, unsigned},
        query_timer::QueryTimer,
        server_clock::{ServerClock, by_server_clock},
        store::PgStore,
    },
};

/// Contexts, uploads and chunks of the tenant whose login the pool uses.
#[derive(Clone, Debug)]
pub struct PgContexts {
    pub(crate) pool: Pool,
    pub(crate) timer: QueryTimer,
}

impl PgContexts {
    /// Where the other rows of the tenant are.
    #[must_use]
    pub fn new(store: &PgStore) -> Self {
        Self { pool: store.pool().clone(), timer: store.timer.clone() }
    }

    /// All ports of the context service. `committed` hears of each change that is there for the log.
    #[must_use]
    pub fn stores(self, committed: Committed) -> ContextStores {
        let this = std::sync::Arc::new(self);
        ContextStores { contexts: this.clone(), uploads: this.clone(), chunks: this, committed }
    }
}

/// Whether a query failed for lack of the row that it refers to.
pub(crate) fn is_missing_parent(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_foreign_key_violation())
}

const INSERT: &str = concat!(
    "
    WITH made AS (
        INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, groups, agents, metadata, version,
                                 content_type, payload, upload_id, size, sha256, idempotency_key, created_at, updated_at, expires_at,
                                 schema_id, schema_version, account)
        VALUES (acb.current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, ",
    by_server_clock!("$18::timestamptz", "$25"),
    ", $20, $21, $24)
        ON CONFLICT (tenant_id, creator, idempotency_key) DO NOTHING
        RETURNING tenant_id, context_id, type)
    INSERT INTO acb.outbox (tenant_id, instance, topic, content, noun, kind)
    SELECT tenant_id, context_id, type, $19, $22, $23 FROM made"
);

/// Makes a context and its event. False where its idempotency key is taken.
pub(crate) async fn insert(
    connection: &mut Session,
    context: &Context,
    idempotency_key: Option<&str>,
    event: &Bytes,
) -> Result<bool, sqlx::Error> {
    let (payload, upload) = split(&context.payload);
    let made = sqlx::query(INSERT)
        .bind(context.id.0)
        .bind(&context.kind)
        .bind(context.creator.0)
        .bind(&context.creator_name)
        .bind(context.access.scope.as_str())
        .bind(&context.access.groups)
        .bind(&context.access.agents)
        .bind(Json(&context.metadata))
        .bind(signed(context.version))
        .bind(&context.content_type)
        .bind(payload)
        .bind(upload)
        .bind(signed(context.size))
        .bind(&context.sha256[..])
        .bind(idempotency_key)
        .bind(context.created_at)
        .bind(context.updated_at)
        .bind(context.expires_at)
        .bind(&event[..])
        .bind(context.schema.as_ref().map(|schema| &schema.id))
        .bind(context.schema.as_ref().map(|schema| &schema.version))
        .bind(NOUN)
        .bind(Change::Created.number().cast_signed())
        .bind(context.account.map(|account| account.0))
        .bind(now())
        .execute(connection)
        .await?;
    Ok(made.rows_affected() > 0)
}

macro_rules! select {
    ($payload:literal, $rest:literal) => {
        concat!(
            "SELECT context_id, type, creator, creator_name, account, scope, groups, agents, metadata, version, content_type, schema_id, schema_version, ",
            $payload,
            " AS payload, upload_id, size, sha256, created_at, updated_at, expires_at, clock_timestamp() AS there FROM acb.context ",
            $rest
        )
    };
}

const GET: &str = select!("NULL::bytea", "WHERE context_id = $1 AND (expires_at IS NULL OR expires_at > now())");
const GET_BY_KEY: &str = select!("NULL::bytea", "WHERE creator = $1 AND idempotency_key = $2");
const EXPIRED_BY_KEY: &str = select!("NULL::bytea", "WHERE creator = $1 AND idempotency_key = $2 AND expires_at <= now()");
/// Nothing expired so early. With a condition of its own for the first page, as with any function around the place, no index would be searched by it.
const EARLIEST: OffsetDateTime = datetime!(0001-01-01 0:00 UTC);
const EXPIRED: &str = select!(
    "NULL::bytea",
    "WHERE expires_at <= now() AND (expires_at, context_id) > ($1, $2) ORDER BY expires_at, context_id LIMIT $3"
);

const LISTED: &str = select!("NULL::bytea", "");

#[async_trait]
impl AccessStore for PgContexts {
    async fn access(&self, ids: &[ContextId]) -> Result<Vec<(ContextId, Access)>, Fault> {
        let query = self.timer.start("context.access");
        let failed = |error| query.fault(error);
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query("SELECT context_id, scope, groups, agents FROM acb.context WHERE context_id = ANY ($1)");
        let rows = rows.bind(ids).fetch_all(&self.pool).await.map_err(failed)?;
        rows.iter().map(|row| Ok((ContextId(row.try_get("context_id")?), access(row)?))).collect::<Result<_, _>>().map_err(failed)
    }
}

#[async_trait]
impl ContextStore for PgContexts {
    async fn create(&self, context: &Context, idempotency_key: Option<&str>, event: Bytes) -> Result<Created, Fault> {
        let query = self.timer.start("context.create");
        let mut connection = self.pool.acquire().await.map_err(|error| query.fault(error))?;
        if insert(&mut connection, context, idempotency_key, &event).await.map_err(|error| query.fault(error))? {
            return Ok(Created::New);
        }
        let asked_at = now();
        let first = sqlx::query(GET_BY_KEY).bind(context.creator.0).bind(idempotency_key).fetch_optional(&mut connection);
        match first.await.map_err(|error| query.fault(error))? {
            Some(row) => Ok(Created::Before(Box::new(decode(&row, asked_at).map_err(|error| query.fault(error))?))),
            None => Err(Fault::new(Code::Aborted, "CONTEXT_BUSY", "the first context with this key was just deleted: try again")),
        }
    }

    async fn get(&self, id: ContextId) -> Result<Option<Context>, Fault> {
        let query = self.timer.start("context.get");
        let asked_at = now();
        let row = sqlx::query(GET).bind(id.0).fetch_optional(&self.pool).await.map_err(|error| query.fault(error))?;
        row.map(|row| decode(&row, asked_at)).transpose().map_err(|error| query.fault(error))
    }

    async fn payload(&self, id: ContextId, version: u64) -> Result<Option<Bytes>, Fault> {
        let query = self.timer.start("context.payload");
        let row = sqlx::query("SELECT payload FROM acb.context WHERE context_id = $1 AND version = $2 AND payload IS NOT NULL");
        let row = row.bind(id.0).bind(signed(version)).fetch_optional(&self.pool).await.map_err(|error| query.fault(error))?;
        let payload = row.map(|row| Ok(Bytes::copy_from_slice(row.try_get("payload")?)));
        payload.transpose().map_err(|error: sqlx::Error| query.fault(error))
    }

    async fn update(&self, context: &Context, expires_at: Option<OffsetDateTime>, event: Bytes) -> Result<bool, Fault> {
        let query = self.timer.start("context.update");
        const SQL: &str = concat!(
            "
            WITH old AS (
                SELECT upload_id FROM acb.context WHERE context_id = $1 AND version = $2),
            changed AS (
                UPDATE acb.context SET version = $2 + 1, metadata = $3, content_type = $4, payload = $5, upload_id = NULL, size = $6,
                                       sha256 = $7, updated_at = $8, expires_at = coalesce(",
            by_server_clock!("$9::timestamptz", "$15"),
            ", expires_at), schema_id = $11, schema_version = $12
                WHERE context_id = $1 AND version = $2 AND (expires_at IS NULL OR expires_at > now())
                RETURNING tenant_id, context_id, type),
            logged AS (
                INSERT INTO acb.outbox (tenant_id, instance, topic, content, noun, kind)
                SELECT tenant_id, context_id, type, $10, $13, $14 FROM changed RETURNING instance)
            SELECT old.upload_id FROM logged LEFT JOIN old ON true"
        );
        let (payload, _) = split(&context.payload);
        let mut transaction = self.pool.begin().await.map_err(|error| query.fault(error))?;
        let changed = sqlx::query(SQL)
            .bind(context.id.0)
            .bind(signed(context.version) - 1)
            .bind(Json(&context.metadata))
            .bind(&context.content_type)
            .bind(payload)
            .bind(signed(context.size))
            .bind(&context.sha256[..])
            .bind(context.updated_at)
            .bind(expires_at)
            .bind(&event[..])
            .bind(context.schema.as_ref().map(|schema| &schema.id))
            .bind(context.schema.as_ref().map(|schema| &schema.version))
            .bind(NOUN)
            .bind(Change::Updated.number().cast_signed())
            .bind(now())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| query.fault(error))?;
        if let Some(row) = &changed {
            let upload: Option<Uuid> = row.try_get("upload_id").map_err(|error| query.fault(error))?;
            remove_upload(&mut transaction, upload).await.map_err(|error| query.fault(error))?;
        }
        transaction.commit().await.map_err(|error| query.fault(error))?;
        Ok(changed.is_some())
    }

    async fn set_access(&self, context: &Context, event: Bytes) -> Result<bool, Fault> {
        let query = self.timer.start("context.set_access");
        const SQL: &str = "
            WITH changed AS (
                UPDATE acb.context SET version = $2 + 1, scope = $3, groups = $4, agents = $5, updated_at = $6
                WHERE context_id = $1 AND version = $2 AND (expires_at IS NULL OR expires_at > now())
                RETURNING tenant_id, context_id, type)
            INSERT INTO acb.outbox (tenant_id, instance, topic, content, noun, kind)
            SELECT tenant_id, context_id, type, $7, $8, $9 FROM changed";
        let changed = sqlx::query(SQL)
            .bind(context.id.0)
            .bind(signed(context.version) - 1)
            .bind(context.access.scope.as_str())
            .bind(&context.access.groups)
            .bind(&context.access.agents)
            .bind(context.updated_at)
            .bind(&event[..])
            .bind(NOUN)
            .bind(Change::Updated.number().cast_signed())
            .execute(&self.pool)
            .await
            .map_err(|error| query.fault(error))?;
        Ok(changed.rows_affected() > 0)
    }

    async fn delete(&self, id: ContextId, version: u64, event: Bytes) -> Result<bool, Fault> {
        let query = self.timer.start("context.delete");
        const SQL: &str = "
            WITH gone AS (
                DELETE FROM acb.context WHERE context_id = $1 AND version = $2 RETURNING tenant_id, context_id, type, upload_id),
            logged AS (
                INSERT INTO acb.outbox (tenant_id, instance, topic, content, noun, kind)
                SELECT tenant_id, context_id, type, $3, $4, $5 FROM gone RETURNING instance)
            SELECT gone.upload_id FROM gone, logged";
        let mut transaction = self.pool.begin().await.map_err(|error| query.fault(error))?;
        let gone = sqlx::query(SQL).bind(id.0).bind(signed(version)).bind(&event[..]).bind(NOUN);
        let gone = gone.bind(Change::Deleted.number().cast_signed()).fetch_optional(&mut *transaction);
        let gone = gone.await.map_err(|error| query.fault(error))?;
        if let Some(row) = &gone {
            let upload: Option<Uuid> = row.try_get("upload_id").map_err(|error| query.fault(error))?;
            remove_upload(&mut transaction, upload).await.map_err(|error| query.fault(error))?;
        }
        transaction.commit().await.map_err(|error| query.fault(error))?;
        Ok(gone.is_some())
    }

    async fn list(&self, viewer: &Viewer, filter: ListFilter<'_>, limit: u32) -> Result<Listed, Fault> {
        let query = self.timer.start("context.list");
        // One who sees nothing would have every context of the tenant read: a look ends after so many rows, and an index says where.
        let mut select = QueryBuilder::new("WITH seen AS MATERIALIZED (SELECT * FROM (");
        push_look(select.push(LISTED), filter);
        select.push(" LIMIT ").push_bind(i64::from(LOOKED_AT)).push(") AS look WHERE (expires_at IS NULL OR expires_at > now())");
        visibility::push(select.push(" AND "), viewer.condition());
        select.push(" ORDER BY context_id LIMIT ").push_bind(i64::from(limit));
        select.push(") SELECT seen.*, CASE WHEN (SELECT count(*) FROM seen) < ").push_bind(i64::from(limit));
        push_look(select.push(" THEN (SELECT context_id FROM acb.context "), filter);
        select.push(" OFFSET ").push_bind(i64::from(LOOKED_AT) - 1);
        select.push(" LIMIT 1) END AS until FROM (SELECT) AS one LEFT JOIN seen ON true ORDER BY seen.context_id");
        let asked_at = now();
        let rows = select.build().fetch_all(&self.pool).await.map_err(|error| query.fault(error))?;
        listed(&rows, limit, asked_at).map_err(|error| query.fault(error))
    }

    async fn expired(&self, after: Option<Expiry>, limit: u32) -> Result<ExpiredContexts, Fault> {
        let query = self.timer.start("context.expired");
        let asked_at = now();
        let (at, id) = after.map_or((EARLIEST, Uuid::nil()), |Expiry { at, id }| (at, id.0));
        let rows = sqlx::query(EXPIRED).bind(at).bind(id).bind(i64::from(limit));
        let rows = rows.fetch_all(&self.pool).await.map_err(|error| query.fault(error))?;
        expired(&rows, limit, asked_at).map_err(|error| query.fault(error))
    }

    async fn expired_with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault> {
        let query = self.timer.start("context.expired_with_key");
        let asked_at = now();
        let row = sqlx::query(EXPIRED_BY_KEY).bind(creator.0).bind(idempotency_key).fetch_optional(&self.pool);
        let row = row.await.map_err(|error| query.fault(error))?;
        row.map(|row| decode(&row, asked_at)).transpose().map_err(|error| query.fault(error))
    }

    async fn with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault> {
        let query = self.timer.start("context.with_key");
        let asked_at = now();
        let row = sqlx::query(GET_BY_KEY).bind(creator.0).bind(idempotency_key).fetch_optional(&self.pool);
        let row = row.await.map_err(|error| query.fault(error))?;
        row.map(|row| decode(&row, asked_at)).transpose().map_err(|error| query.fault(error))
    }

    async fn kept(&self, accounts: Option<&[AgentId]>) -> Result<Kept, Fault> {
        let query = self.timer.start("context.kept");
        // Each part by an index that has what it needs. One condition for both would be one that no index is searched by: what hides other tenants' rows is
        // evaluated first.
        const ALL: &str = "
            SELECT coalesce(sum(contexts), 0)::bigint AS contexts, coalesce(sum(bytes), 0)::bigint AS bytes FROM (
                SELECT count(*) AS contexts, sum(size) AS bytes FROM acb.context WHERE account IS NULL
                UNION ALL SELECT count(*), sum(size) FROM acb.context WHERE account IS NOT NULL
                UNION ALL SELECT count(*), sum(size) FROM acb.upload WHERE context_id IS NULL AND account IS NULL
                UNION ALL SELECT count(*), sum(size) FROM acb.upload WHERE context_id IS NULL AND account IS NOT NULL) AS kept";
        const THEIRS: &str = "
            SELECT coalesce(sum(contexts), 0)::bigint AS contexts, coalesce(sum(bytes), 0)::bigint AS bytes FROM (
                SELECT count(*) AS contexts, sum(size) AS bytes FROM acb.context WHERE account IS NULL AND creator = ANY($1)
                UNION ALL SELECT count(*), sum(size) FROM acb.context WHERE account IS NOT NULL AND account = ANY($1)
                UNION ALL SELECT count(*), sum(size) FROM acb.upload WHERE context_id IS NULL AND account IS NULL AND agent_id = ANY($1)
                UNION ALL SELECT count(*), sum(size) FROM acb.upload WHERE context_id IS NULL AND account IS NOT NULL AND account = ANY($1)) AS kept";
        let kept = match accounts {
            None => sqlx::query_as(ALL),
            Some(accounts) => sqlx::query_as(THEIRS).bind(accounts.iter().map(|account| account.0).collect::<Vec<_>>()),
        };
        let (contexts, bytes): (i64, i64) = kept.fetch_one(&self.pool).await.map_err(|error| query.fault(error))?;
        Ok(Kept { contexts: unsigned(contexts), bytes: unsigned(bytes) })
    }
}

/// Adds which rows a list looks at, and in which order.
fn push_look(select: &mut QueryBuilder<Postgres>, filter: ListFilter<'_>) {
    select.push("WHERE context_id > ").push_bind(filter.after.map_or(Uuid::nil(), |id| id.0));
    if let Some(kind) = filter.kind {
        select.push(" AND type = ").push_bind(kind.to_owned());
    }
    select.push(" ORDER BY context_id");
}

fn listed(rows: &[PgRow], limit: u32, asked_at: OffsetDateTime) -> Result<Listed, sqlx::Error> {
    let mut listed = Listed::default();
    for row in rows {
        listed.until = row.try_get::<Option<Uuid>, _>("until")?.map(ContextId);
        if row.try_get::<Option<Uuid>, _>("context_id")?.is_some() {
            listed.contexts.push(decode(row, asked_at)?);
        }
    }
    // What lies behind the last one that there was room for was not looked at.
    if u32::try_from(listed.contexts.len()).is_ok_and(|length| length >= limit) {
        listed.until = listed.contexts.last().map(|context| context.id);
    }
    Ok(listed)
}

fn expired(rows: &[PgRow], limit: u32, asked_at: OffsetDateTime) -> Result<ExpiredContexts, sqlx::Error> {
    let contexts = rows.iter().map(|row| decode(row, asked_at)).collect::<Result<_, _>>()?;
    let place = |row: &PgRow| {
        let at = row.try_get::<Timestamp, _>("expires_at")?.into();
        Ok::<_, sqlx::Error>(Expiry { at, id: ContextId(row.try_get("context_id")?) })
    };
    let is_full = u32::try_from(rows.len()).is_ok_and(|found| found >= limit);
    let next = rows.last().filter(|_| is_full).map(place).transpose()?;
    Ok(ExpiredContexts { contexts, next })
}

async fn remove_upload(connection: &mut Session, upload: Option<Uuid>) -> Result<(), sqlx::Error> {
    if let Some(upload) = upload {
        sqlx::query("DELETE FROM acb.upload WHERE upload_id = $1").bind(upload).execute(connection).await?;
    }
    Ok(())
}

fn split(payload: &Payload) -> (Option<&[u8]>, Option<Uuid>) {
    match payload {
        Payload::Inline(bytes) => (Some(bytes), None),
        Payload::Chunks(upload) => (None, Some(upload.0)),
        Payload::Unread => (None, None),
    }
}

fn access(row: &PgRow) -> Result<Access, sqlx::Error> {
    let scope: &str = row.try_get("scope")?;
    let scope = scope.parse().map_err(|why: String| sqlx::Error::Decode(why.into()))?;
    Ok(Access { scope, groups: row.try_get("groups")?, agents: row.try_get("agents")? })
}

/// `asked_at`: when it was asked for.
fn decode(row: &PgRow, asked_at: OffsetDateTime) -> Result<Context, sqlx::Error> {
    let wrong = |why: String| sqlx::Error::Decode(why.into());
    let clock = ServerClock::of(row.try_get("there")?, asked_at);
    let sha256: &[u8] = row.try_get("sha256")?;
    let upload: Option<Uuid> = row.try_get("upload_id")?;
    let inline: Option<&[u8]> = row.try_get("payload")?;
    let metadata: Json<BTreeMap<String, String>> = row.try_get("metadata")?;
    let schema: Option<String> = row.try_get("schema_id")?;
    let schema_version: Option<String> = row.try_get("schema_version")?;
    Ok(Context {
        id: ContextId(row.try_get("context_id")?),
        kind: row.try_get("type")?,
        creator: AgentId(row.try_get("creator")?),
        creator_name: row.try_get("creator_name")?,
        account: row.try_get::<Option<Uuid>, _>("account")?.map(AgentId),
        access: access(row)?,
        metadata: metadata.0,
        version: unsigned(row.try_get("version")?),
        content_type: row.try_get("content_type")?,
        schema: schema.zip(schema_version).map(|(id, version)| SchemaRef { id, version }),
        payload: match (upload, inline) {
            (Some(upload), _) => Payload::Chunks(UploadId(upload)),
            (None, Some(payload)) => Payload::Inline(Bytes::copy_from_slice(payload)),
            (None, None) => Payload::Unread,
        },
        size: unsigned(row.try_get("size")?),
        sha256: sha256.try_into().map_err(|_| wrong("sha256 has another length than 32".into()))?,
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
        updated_at: row.try_get::<Timestamp, _>("updated_at")?.into(),
        expires_at: row.try_get::<Option<Timestamp>, _>("expires_at")?.map(|at| clock.here(at)),
    })
}
