//! The audit trail.

use std::time::Duration;

use acb_hub_core::{
    audit::ports::{AuditFilter, AuditStore, Growth, Head, KeptRecord, OperatorAct, SignedCheckpoint, TreePosition},
    fault::{Code, Fault},
};
use acb_hub_pool::Timestamp;
use acb_tlog::tree::{Hash, NodeId, Tree, subtrees};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Postgres, QueryBuilder, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::kit::{
    number::{from_epoch, signed, unsigned},
    store::PgStore,
};

/// What a row that is there already means.
const UNIQUE_VIOLATION: &str = "23505";

/// Removes what is of records below `$1`, at most `$2` rows of each table at one time: all growths that were there before the retention was have one
/// time.
const FORGET: [&str; 3] = [
    "DELETE FROM acb.audit_record WHERE (tenant_id, number) IN (
         SELECT tenant_id, number FROM acb.audit_record WHERE number < $1 ORDER BY number LIMIT $2)",
    "DELETE FROM acb.audit_growth WHERE (tenant_id, first) IN (
         SELECT tenant_id, first FROM acb.audit_growth WHERE first < $1 ORDER BY first LIMIT $2)",
    // The last one of each key stays: verifiers are asked which keys there were.
    "DELETE FROM acb.audit_checkpoint WHERE (tenant_id, size) IN (
         SELECT tenant_id, size FROM acb.audit_checkpoint AS c WHERE size < $1 AND EXISTS (
             SELECT FROM acb.audit_checkpoint AS later WHERE later.verifier = c.verifier AND later.size > c.size)
         ORDER BY size LIMIT $2)",
];

fn is_taken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code == UNIQUE_VIOLATION))
}

#[async_trait]
impl AuditStore for PgStore {
    async fn hold_sink(&self, holder: Uuid, life: Duration) -> Result<bool, Fault> {
        let query = self.timer.start("audit.hold");
        // Looked at first: a replica that only asks must write nothing, or all of them would, all the time.
        let held = sqlx::query(
            "INSERT INTO acb.audit_sink AS s (tenant_id, holder, until)
             SELECT acb.current_tenant(), $1, clock_timestamp() + make_interval(secs => $2)
             WHERE NOT EXISTS (SELECT FROM acb.audit_sink WHERE holder <> $1 AND until >= clock_timestamp())
             ON CONFLICT (tenant_id) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE s.holder = excluded.holder OR s.until < clock_timestamp()",
        )
        .bind(holder)
        .bind(life.as_secs_f64())
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(held.rows_affected() == 1)
    }

    async fn head(&self) -> Result<Head, Fault> {
        let query = self.timer.start("audit.head");
        let row: Option<(i64, i64, i64)> =
            sqlx::query_as("SELECT size, epoch, next_offset FROM acb.audit_growth ORDER BY first DESC LIMIT 1")
                .fetch_optional(self.pool())
                .await
                .map_err(|error| query.fault(error))?;
        let Some((size, epoch, next)) = row else { return Ok(Head { tree: Tree::default(), place: None }) };
        let size = unsigned(size);
        let hashes = self.nodes(&subtrees(size)).await?;
        let tree = hashes.and_then(|hashes| Tree::resume(size, hashes)).ok_or_else(|| {
            Fault::new(Code::DataLoss, "AUDIT_TREE_DAMAGED", "nodes of the audit trail's tree are missing: somebody removed them")
        })?;
        Ok(Head { tree, place: Some(TreePosition { epoch: epoch.cast_unsigned(), next: unsigned(next) }) })
    }

    async fn size(&self) -> Result<u64, Fault> {
        let query = self.timer.start("audit.size");
        let size: Option<i64> = sqlx::query_scalar("SELECT size FROM acb.audit_growth ORDER BY first DESC LIMIT 1")
            .fetch_optional(self.pool())
            .await
            .map_err(|error| query.fault(error))?;
        Ok(size.map_or(0, unsigned))
    }

    async fn sizes_before(&self, size: u64, limit: usize) -> Result<Vec<(u64, TreePosition)>, Fault> {
        let query = self.timer.start("audit.sizes");
        // `first` is the size of the growth before, so that its index finds them.
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
            "SELECT size, epoch, next_offset FROM acb.audit_growth WHERE first < $1 AND size < $1 ORDER BY first DESC LIMIT $2",
        )
        .bind(signed(size))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let place = |epoch: i64, next| TreePosition { epoch: epoch.cast_unsigned(), next: unsigned(next) };
        Ok(rows.into_iter().map(|(size, epoch, next)| (unsigned(size), place(epoch, next))).collect())
    }

    async fn grow(&self, growth: &Growth) -> Result<bool, Fault> {
        let query = self.timer.start("audit.grow");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        // First: it is what two that write at once meet at.
        let size = growth.first + growth.leaves.len() as u64;
        let grown = sqlx::query(
            "INSERT INTO acb.audit_growth (tenant_id, first, size, epoch, next_offset)
             SELECT acb.current_tenant(), $1, $2, $3, $4
             WHERE $1 = coalesce((SELECT size FROM acb.audit_growth ORDER BY first DESC LIMIT 1), 0)",
        )
        .bind(signed(growth.first))
        .bind(signed(size))
        .bind(from_epoch(growth.place.epoch))
        .bind(signed(growth.place.next))
        .execute(&mut *transaction)
        .await;
        match grown {
            Err(error) if is_taken(&error) => return Ok(false),
            // The database went back, as a standby does that was behind: what is not there any more is to be read again from the log.
            grown => {
                if grown.map_err(failed)?.rows_affected() == 0 {
                    return Ok(false);
                }
            }
        }
        let mut insert =
            QueryBuilder::<Postgres>::new("INSERT INTO acb.audit_record (tenant_id, number, record, at, agent, operation) ");
        insert.push_values((growth.first..).zip(&growth.leaves), |mut row, (number, leaf)| {
            row.push("acb.current_tenant()")
                .push_bind(signed(number))
                .push_bind(&leaf.record[..])
                .push_bind(leaf.at)
                .push_bind(&leaf.agent)
                .push_bind(&leaf.operation);
        });
        match insert.build().execute(&mut *transaction).await {
            // Of a growth that somebody removed.
            Err(error) if is_taken(&error) => return Err(damaged()),
            inserted => inserted.map_err(failed)?,
        };
        let (levels, (indexes, hashes)): (Vec<i16>, (Vec<i64>, Vec<&[u8]>)) =
            growth.nodes.iter().map(|(id, hash)| (i16::from(id.level), (signed(id.index), &hash[..]))).unzip();
        let nodes = sqlx::query(
            "INSERT INTO acb.audit_node (tenant_id, level, index, hash)
             SELECT acb.current_tenant(), * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])",
        )
        .bind(levels)
        .bind(indexes)
        .bind(hashes)
        .execute(&mut *transaction)
        .await;
        match nodes {
            Err(error) if is_taken(&error) => return Err(damaged()),
            nodes => nodes.map_err(failed)?,
        };
        if !growth.acts.is_empty() {
            // What is no act is whatever somebody wrote into the log as one.
            sqlx::query(
                "INSERT INTO acb.operator_act_kept (tenant_id, act)
                 SELECT acb.current_tenant(), act FROM acb.operator_act WHERE act = ANY ($1) ON CONFLICT DO NOTHING",
            )
            .bind(&growth.acts)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }

    async fn acts(&self, limit: usize) -> Result<Vec<OperatorAct>, Fault> {
        let query = self.timer.start("audit.acts");
        let rows: Vec<(Uuid, Timestamp, String, String, String, String)> = sqlx::query_as(
            "SELECT act, at, operator, operation, object, change FROM acb.operator_act AS a
             WHERE NOT EXISTS (SELECT FROM acb.operator_act_kept AS k WHERE k.tenant_id = a.tenant_id AND k.act = a.act)
             ORDER BY sequence LIMIT $1",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let act = |(call, at, operator, operation, object, change): (_, Timestamp, _, _, _, _)| OperatorAct {
            call,
            at: at.into(),
            operator,
            operation,
            object,
            change,
        };
        Ok(rows.into_iter().map(act).collect())
    }

    async fn keep_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Fault> {
        let query = self.timer.start("audit.keep_checkpoint");
        let kept = sqlx::query(
            "INSERT INTO acb.audit_checkpoint (tenant_id, size, verifier, note, at)
             SELECT acb.current_tenant(), $1, $2, $3, $4
             WHERE $1 = (SELECT size FROM acb.audit_growth ORDER BY first DESC LIMIT 1)
             ON CONFLICT (tenant_id, size) DO NOTHING",
        )
        .bind(signed(checkpoint.size))
        .bind(&checkpoint.verifier)
        .bind(&checkpoint.note)
        .bind(checkpoint.at)
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(kept.rows_affected() == 1)
    }

    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Fault> {
        let query = self.timer.start("audit.checkpoint");
        let row: Option<(i64, String, String, Timestamp)> =
            sqlx::query_as("SELECT size, verifier, note, at FROM acb.audit_checkpoint ORDER BY size DESC LIMIT 1")
                .fetch_optional(self.pool())
                .await
                .map_err(|error| query.fault(error))?;
        Ok(row.map(|(size, verifier, note, at)| SignedCheckpoint { size: unsigned(size), verifier, note, at: at.into() }))
    }

    async fn verifiers(&self) -> Result<Vec<String>, Fault> {
        let query = self.timer.start("audit.verifiers");
        sqlx::query_scalar("SELECT verifier FROM acb.audit_checkpoint GROUP BY verifier ORDER BY max(size) DESC LIMIT 100")
            .fetch_all(self.pool())
            .await
            .map_err(|error| query.fault(error))
    }

    async fn nodes(&self, ids: &[NodeId]) -> Result<Option<Vec<Hash>>, Fault> {
        let query = self.timer.start("audit.nodes");
        let (levels, indexes): (Vec<i16>, Vec<i64>) = ids.iter().map(|id| (i16::from(id.level), signed(id.index))).unzip();
        let rows: Vec<Option<Vec<u8>>> = sqlx::query_scalar(
            "SELECT n.hash FROM unnest($1::smallint[], $2::bigint[]) WITH ORDINALITY AS w (level, index, place)
             LEFT JOIN acb.audit_node AS n ON n.level = w.level AND n.index = w.index ORDER BY w.place",
        )
        .bind(levels)
        .bind(indexes)
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(rows.into_iter().map(|hash| hash?.try_into().ok()).collect())
    }

    async fn records(&self, filter: &AuditFilter, from: u64, limit: usize) -> Result<Vec<KeptRecord>, Fault> {
        let query = self.timer.start("audit.list");
        let failed = |error| query.fault(error);
        let mut select = QueryBuilder::<Postgres>::new(
            "SELECT r.number, r.record, n.hash FROM acb.audit_record AS r
             LEFT JOIN acb.audit_node AS n ON n.level = 0 AND n.index = r.number WHERE r.number >= ",
        );
        select.push_bind(signed(from));
        if let Some(since) = filter.since {
            select.push(" AND r.at >= ").push_bind(since);
        }
        if let Some(until) = filter.until {
            select.push(" AND r.at < ").push_bind(until);
        }
        if let Some(below) = filter.below {
            select.push(" AND r.number < ").push_bind(signed(below));
        }
        if let Some(agent) = &filter.agent {
            select.push(" AND r.agent = ").push_bind(agent);
        }
        if let Some(operation) = &filter.operation {
            select.push(" AND r.operation = ").push_bind(operation);
        }
        select.push(" ORDER BY r.number LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = select.build().fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(|row| kept(row).map_err(failed)).collect()
    }

    async fn forget(&self, limit: usize) -> Result<u64, Fault> {
        let query = self.timer.start("audit.forget");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let kept_from: i64 =
            sqlx::query_scalar("SELECT acb.audit_kept_from()").fetch_one(&mut *transaction).await.map_err(failed)?;
        let mut most = 0;
        for statement in FORGET {
            let removed = sqlx::query(statement)
                .bind(kept_from)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            most = most.max(removed.rows_affected());
        }
        transaction.commit().await.map_err(failed)?;
        Ok(most)
    }
}

fn kept(row: &PgRow) -> Result<KeptRecord, sqlx::Error> {
    let (record, leaf): (&[u8], Option<&[u8]>) = (row.try_get("record")?, row.try_get("hash")?);
    Ok(KeptRecord {
        number: unsigned(row.try_get("number")?),
        record: Bytes::copy_from_slice(record),
        leaf: leaf.and_then(|leaf| leaf.try_into().ok()),
    })
}

fn damaged() -> Fault {
    Fault::new(
        Code::DataLoss,
        "AUDIT_TREE_DAMAGED",
        "rows of the audit trail are there that it did not grow by: somebody changed it",
    )
}
