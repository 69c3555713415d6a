//! Uploads: rows that say what a context will be, until it is.

use std::{collections::BTreeMap, time::Duration};

use acb_hub_core::{
    contexts::{
        audience::Access,
        chunk::Layout,
        context::{Context, ContextId, Description, UploadId},
        ports::{Finished, Upload, UploadStore},
    },
    directory::agent::AgentId,
    fault::Fault,
};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sqlx::{Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use crate::{
    contexts::context::{PgContexts, insert},
    kit::number::{signed, unsigned},
};

/// Column `request`.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    r#type: String,
    metadata: BTreeMap<String, String>,
    content_type: String,
    ttl_ms: Option<u64>,
    scope: String,
    groups: Vec<String>,
    agents: Vec<String>,
}

impl From<&Description> for Request {
    fn from(description: &Description) -> Self {
        Self {
            r#type: description.kind.clone(),
            metadata: description.metadata.clone(),
            content_type: description.content_type.clone(),
            ttl_ms: description.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)),
            scope: description.access.scope.as_str().to_owned(),
            groups: description.access.groups.clone(),
            agents: description.access.agents.clone(),
        }
    }
}

impl Request {
    fn description(self) -> Result<Description, String> {
        Ok(Description {
            kind: self.r#type,
            metadata: self.metadata,
            content_type: self.content_type,
            ttl: self.ttl_ms.map(Duration::from_millis),
            access: Access { scope: self.scope.parse()?, groups: self.groups, agents: self.agents },
        })
    }
}

#[async_trait]
impl UploadStore for PgContexts {
    async fn begin(&self, upload: &Upload) -> Result<Upload, Fault> {
        let query = self.timer.start("upload.begin");
        const SQL: &str = "
            INSERT INTO acb.upload (tenant_id, upload_id, agent_id, request, size, chunk_size, account)
            VALUES (acb.current_tenant(), $1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let made = sqlx::query(SQL)
            .bind(upload.id.0)
            .bind(upload.agent.0)
            .bind(Json(Request::from(&upload.description)))
            .bind(signed(upload.layout.size))
            .bind(i32::try_from(upload.layout.chunk_size).unwrap_or(i32::MAX))
            .bind(upload.account.map(|account| account.0))
            .execute(&self.pool)
            .await
            .map_err(|error| query.fault(error))?;
        if made.rows_affected() > 0 {
            return Ok(upload.clone());
        }
        let found = self.find(upload.id).await?;
        found.ok_or_else(|| Fault::unavailable("UPLOAD_BUSY", "an upload with this id was just removed: try again"))
    }

    async fn find(&self, id: UploadId) -> Result<Option<Upload>, Fault> {
        let query = self.timer.start("upload.find");
        let row =
            sqlx::query("SELECT agent_id, account, request, size, chunk_size, context_id FROM acb.upload WHERE upload_id = $1")
                .bind(id.0)
                .fetch_optional(&self.pool)
                .await
                .map_err(|error| query.fault(error))?;
        row.map(|row| decode(id, &row)).transpose().map_err(|error| query.fault(error))
    }

    async fn touch(&self, id: UploadId) -> Result<(), Fault> {
        let query = self.timer.start("upload.touch");
        let touched = sqlx::query("UPDATE acb.upload SET touched_at = now() WHERE upload_id = $1").bind(id.0).execute(&self.pool);
        touched.await.map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn finish(&self, id: UploadId, context: &Context, event: Bytes) -> Result<Finished, Fault> {
        let query = self.timer.start("upload.finish");
        let mut transaction = self.pool.begin().await.map_err(|error| query.fault(error))?;
        let row = sqlx::query("SELECT context_id FROM acb.upload WHERE upload_id = $1 FOR UPDATE").bind(id.0);
        let Some(row) = row.fetch_optional(&mut *transaction).await.map_err(|error| query.fault(error))? else {
            return Ok(Finished::NoUpload);
        };
        if let Some(first) = row.try_get::<Option<Uuid>, _>("context_id").map_err(|error| query.fault(error))? {
            return Ok(Finished::Before(ContextId(first)));
        }
        insert(&mut transaction, context, None, &event).await.map_err(|error| query.fault(error))?;
        let update = sqlx::query("UPDATE acb.upload SET context_id = $2 WHERE upload_id = $1").bind(id.0).bind(context.id.0);
        update.execute(&mut *transaction).await.map_err(|error| query.fault(error))?;
        transaction.commit().await.map_err(|error| query.fault(error))?;
        Ok(Finished::New)
    }

    async fn remove_abandoned(&self, untouched: Duration) -> Result<u64, Fault> {
        let query = self.timer.start("upload.remove_abandoned");
        let removed =
            sqlx::query("DELETE FROM acb.upload WHERE context_id IS NULL AND touched_at < now() - make_interval(secs => $1)")
                .bind(untouched.as_secs_f64())
                .execute(&self.pool)
                .await
                .map_err(|error| query.fault(error))?;
        Ok(removed.rows_affected())
    }
}

fn decode(id: UploadId, row: &PgRow) -> Result<Upload, sqlx::Error> {
    let wrong = |why: String| sqlx::Error::Decode(why.into());
    let request: Json<Request> = row.try_get("request")?;
    let chunk_size: i32 = row.try_get("chunk_size")?;
    Ok(Upload {
        id,
        agent: AgentId(row.try_get("agent_id")?),
        account: row.try_get::<Option<Uuid>, _>("account")?.map(AgentId),
        description: request.0.description().map_err(wrong)?,
        layout: Layout { size: unsigned(row.try_get("size")?), chunk_size: u32::try_from(chunk_size).unwrap_or(0) },
        context: row.try_get::<Option<Uuid>, _>("context_id")?.map(ContextId),
    })
}
