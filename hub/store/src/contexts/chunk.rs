//! Chunks as rows.

use acb_hub_core::{
    contexts::{
        chunk::{Chunk, Stored},
        context::UploadId,
        ports::{ChunkStore, Put},
    },
    fault::Fault,
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::Row as _;

use crate::contexts::context::{PgContexts, is_missing_parent};

#[async_trait]
impl ChunkStore for PgContexts {
    async fn put(&self, upload: UploadId, chunk: &Chunk) -> Result<Put, Fault> {
        let query = self.timer.start("chunk.put");
        const SQL: &str = "
            INSERT INTO acb.chunk (tenant_id, upload_id, index, sha256, data) VALUES (acb.current_tenant(), $1, $2, $3, $4)
            ON CONFLICT DO NOTHING";
        let mut connection = self.pool.acquire().await.map_err(|error| query.fault(error))?;
        let index = i32::try_from(chunk.index).unwrap_or(i32::MAX);
        let put = sqlx::query(SQL).bind(upload.0).bind(index).bind(&chunk.sha256[..]).bind(&chunk.data[..]);
        match put.execute(&mut connection).await {
            Ok(done) if done.rows_affected() > 0 => return Ok(Put::Stored),
            Ok(_) => {}
            Err(error) if is_missing_parent(&error) => return Ok(Put::NoUpload),
            Err(error) => return Err(query.fault(error)),
        }
        let same = sqlx::query("SELECT sha256 = $3 AS same FROM acb.chunk WHERE upload_id = $1 AND index = $2")
            .bind(upload.0)
            .bind(index)
            .bind(&chunk.sha256[..])
            .fetch_optional(&mut connection)
            .await
            .map_err(|error| query.fault(error))?;
        match same.map(|row| row.try_get("same")).transpose().map_err(|error| query.fault(error))? {
            Some(true) => Ok(Put::Stored),
            Some(false) => Ok(Put::Differs),
            None => Ok(Put::NoUpload),
        }
    }

    async fn get(&self, upload: UploadId, index: u32) -> Result<Option<Chunk>, Fault> {
        let query = self.timer.start("chunk.get");
        let row = sqlx::query("SELECT sha256, data FROM acb.chunk WHERE upload_id = $1 AND index = $2")
            .bind(upload.0)
            .bind(i32::try_from(index).unwrap_or(i32::MAX))
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| query.fault(error))?;
        let Some(row) = row else { return Ok(None) };
        let sha256: &[u8] = row.try_get("sha256").map_err(|error| query.fault(error))?;
        let data: &[u8] = row.try_get("data").map_err(|error| query.fault(error))?;
        let sha256 =
            sha256.try_into().map_err(|_| query.fault(sqlx::Error::Decode("sha256 has another length than 32".into())))?;
        Ok(Some(Chunk { index, sha256, data: Bytes::copy_from_slice(data) }))
    }

    async fn stored(&self, upload: UploadId) -> Result<Stored, Fault> {
        let query = self.timer.start("chunk.stored");
        let rows = sqlx::query("SELECT index FROM acb.chunk WHERE upload_id = $1").bind(upload.0).fetch_all(&self.pool);
        let rows = rows.await.map_err(|error| query.fault(error))?;
        let indexes: Result<Vec<i32>, _> = rows.iter().map(|row| row.try_get("index")).collect();
        Ok(indexes.map_err(|error| query.fault(error))?.into_iter().filter_map(|index| u32::try_from(index).ok()).collect())
    }
}
