//! What the log may not have yet.

use acb_hub_core::{
    fault::Fault,
    log::outbox::ports::{Claim, Entry, Instance, Outbox},
};
use acb_hub_pool::{Pool, Transaction};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::kit::{query_timer::QueryTimer, store::PgStore};

/// The most instances of a claim, and the most entries.
const INSTANCES: i64 = 16;
const ENTRIES: i64 = 32;

// From head to head, so that a claim costs the same however many entries an instance has. Only the oldest entry of an instance can be locked, and
// whoever holds it has all of that instance: so no replica can take an entry while another one still relays an earlier one. A lock passed over is an
// instance that someone else relays.
const HEADS: &str = "
    WITH RECURSIVE head (noun, instance, sequence) AS (
        (SELECT noun, instance, sequence FROM acb.outbox WHERE (noun, instance) > ($1, $2)
         ORDER BY noun, instance, sequence LIMIT 1)
        UNION ALL
        SELECT next.noun, next.instance, next.sequence FROM head, LATERAL (
            SELECT noun, instance, sequence FROM acb.outbox WHERE (noun, instance) > (head.noun, head.instance)
            ORDER BY noun, instance, sequence LIMIT 1) AS next)
    SELECT locked.noun, locked.instance FROM head, LATERAL (
        SELECT noun, instance FROM acb.outbox
        WHERE noun = head.noun AND instance = head.instance AND sequence = head.sequence FOR UPDATE SKIP LOCKED) AS locked
    WHERE head.noun = ANY ($3) AND head.instance <> ALL ($4)
    LIMIT $5";

// A few of each, so that those of one instance leave room for the others.
const FIRST_ENTRIES: &str = "
    SELECT entry.sequence, entry.noun, entry.instance, entry.topic, entry.kind, entry.content
    FROM unnest($1::text[], $2::uuid[]) AS head (noun, instance), LATERAL (
        SELECT * FROM acb.outbox WHERE noun = head.noun AND instance = head.instance ORDER BY sequence LIMIT $3) AS entry
    ORDER BY entry.sequence";

/// The outbox of the tenant whose login the pool uses.
#[derive(Clone, Debug)]
pub struct PgOutbox {
    pool: Pool,
    timer: QueryTimer,
}

impl PgOutbox {
    /// Where the other rows of the tenant are.
    #[must_use]
    pub fn new(store: &PgStore) -> Self {
        Self { pool: store.pool().clone(), timer: store.timer.clone() }
    }
}

struct PgClaim {
    transaction: Transaction,
    timer: QueryTimer,
    last: Instance,
    entries: Vec<Entry>,
}

#[async_trait]
impl Outbox for PgOutbox {
    async fn claim(
        &self,
        nouns: &[&str],
        after: Option<&Instance>,
        passed_over: &[Instance],
    ) -> Result<Option<Box<dyn Claim>>, Fault> {
        let query = self.timer.start("outbox.claim");
        let fault = |error| query.fault(error);
        let mut transaction = self.pool.begin().await.map_err(fault)?;
        // A noun has a name: an empty one is before all.
        let (noun, instance) = after.map_or(("", Uuid::nil()), |after| (&after.noun, after.id));
        let passed_over: Vec<Uuid> = passed_over.iter().map(|instance| instance.id).collect();
        let heads = sqlx::query(HEADS).bind(noun).bind(instance).bind(nouns).bind(passed_over).bind(INSTANCES);
        let heads = heads.fetch_all(&mut *transaction).await.map_err(fault)?;
        let heads: Vec<Instance> = heads.iter().map(decode_instance).collect::<Result<_, _>>().map_err(fault)?;
        let Some(last) = heads.last().cloned() else {
            transaction.rollback().await.map_err(fault)?;
            return Ok(None);
        };
        let (nouns, ids): (Vec<&str>, Vec<Uuid>) = heads.iter().map(|head| (head.noun.as_str(), head.id)).unzip();
        let each = ENTRIES / i64::try_from(heads.len()).unwrap_or(ENTRIES).clamp(1, ENTRIES);
        let rows =
            sqlx::query(FIRST_ENTRIES).bind(nouns).bind(ids).bind(each).fetch_all(&mut *transaction).await.map_err(fault)?;
        let entries = rows.iter().map(decode).collect::<Result<_, _>>().map_err(fault)?;
        Ok(Some(Box::new(PgClaim { transaction, timer: self.timer.clone(), last, entries })))
    }
}

fn decode_instance(row: &PgRow) -> Result<Instance, sqlx::Error> {
    Ok(Instance { noun: row.try_get("noun")?, id: row.try_get("instance")? })
}

fn decode(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let content: &[u8] = row.try_get("content")?;
    let kind: Option<i32> = row.try_get("kind")?;
    Ok(Entry {
        sequence: row.try_get("sequence")?,
        instance: decode_instance(row)?,
        topic: row.try_get("topic")?,
        kind: kind.map(i32::cast_unsigned),
        content: Bytes::copy_from_slice(content),
    })
}

#[async_trait]
impl Claim for PgClaim {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn last(&self) -> Instance {
        self.last.clone()
    }

    async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault> {
        let Self { mut transaction, timer, .. } = *self;
        let query = timer.start("outbox.done");
        let removed = sqlx::query("DELETE FROM acb.outbox WHERE sequence = ANY ($1)").bind(sequences);
        removed.execute(&mut *transaction).await.map_err(|error| query.fault(error))?;
        transaction.commit().await.map_err(|error| query.fault(error))
    }
}
