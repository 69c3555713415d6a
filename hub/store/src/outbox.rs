//! Changes of contexts that the log may not have yet.

use acb_hub_core::{
    contexts::{
        context::ContextId,
        ports::{Claim, Outbox, Unlogged},
    },
    fault::Fault,
};
use acb_hub_pool::Transaction;
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::{context::PgContexts, query_timer::QueryTimer};

// Only the oldest change of a context can be locked, and whoever holds it has all of that context: so no replica can take a change
// while another one still relays an earlier one. A lock passed over is a change that someone else relays.
const HEADS: &str = "
    SELECT context_id, sequence FROM acb.context_outbox AS head
    WHERE NOT EXISTS (SELECT 1 FROM acb.context_outbox AS earlier
                      WHERE earlier.context_id = head.context_id AND earlier.sequence < head.sequence)
      AND context_id <> ALL ($1)
    ORDER BY sequence LIMIT 16 FOR UPDATE SKIP LOCKED";

const CHANGES: &str = "
    SELECT sequence, context_id, type, event FROM acb.context_outbox WHERE context_id = ANY ($1) ORDER BY sequence LIMIT 32";

struct PgClaim {
    transaction: Transaction,
    timer: QueryTimer,
    changes: Vec<Unlogged>,
}

#[async_trait]
impl Outbox for PgContexts {
    async fn claim(&self, passed_over: &[ContextId]) -> Result<Option<Box<dyn Claim>>, Fault> {
        let query = self.timer.start("outbox.claim");
        let mut transaction = self.pool.begin().await.map_err(|error| query.fault(error))?;
        let passed_over: Vec<Uuid> = passed_over.iter().map(|context| context.0).collect();
        let heads =
            sqlx::query(HEADS).bind(passed_over).fetch_all(&mut *transaction).await.map_err(|error| query.fault(error))?;
        let contexts: Result<Vec<Uuid>, _> = heads.iter().map(|row| row.try_get("context_id")).collect();
        let contexts = contexts.map_err(|error| query.fault(error))?;
        if contexts.is_empty() {
            transaction.rollback().await.map_err(|error| query.fault(error))?;
            return Ok(None);
        }
        let rows = sqlx::query(CHANGES).bind(&contexts).fetch_all(&mut *transaction).await.map_err(|error| query.fault(error))?;
        let changes = rows.iter().map(decode).collect::<Result<_, _>>().map_err(|error| query.fault(error))?;
        Ok(Some(Box::new(PgClaim { transaction, timer: self.timer.clone(), changes })))
    }
}

fn decode(row: &PgRow) -> Result<Unlogged, sqlx::Error> {
    let event: &[u8] = row.try_get("event")?;
    Ok(Unlogged {
        sequence: row.try_get("sequence")?,
        context: ContextId(row.try_get("context_id")?),
        kind: row.try_get("type")?,
        event: Bytes::copy_from_slice(event),
    })
}

#[async_trait]
impl Claim for PgClaim {
    fn changes(&self) -> &[Unlogged] {
        &self.changes
    }

    async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault> {
        let Self { mut transaction, timer, .. } = *self;
        let query = timer.start("outbox.done");
        let removed = sqlx::query("DELETE FROM acb.context_outbox WHERE sequence = ANY ($1)").bind(sequences);
        removed.execute(&mut *transaction).await.map_err(|error| query.fault(error))?;
        transaction.commit().await.map_err(|error| query.fault(error))
    }
}
