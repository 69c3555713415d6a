//! Which epoch the rows about the messages log carry, and their move to another one where the log was cut short.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::{ports::LogLives, position::Position},
};
use async_trait::async_trait;

use crate::kit::{
    number::{from_epoch, from_partition, signed, to_partition, unsigned},
    store::PgStore,
};

/// The move touches every row that there is.
const PATIENCE: Duration = Duration::from_secs(600);

/// What lies beyond the ends is dropped. The checkpoints come first: whoever writes the index holds them, so that its rows are there when those
/// of the mailboxes are moved.
const CLIPS: [&str; 6] = [
    "UPDATE acb.mailbox_checkpoint AS c SET next_position = e.next FROM unnest($2::int[], $3::bigint[]) AS e (partition, next)
     WHERE c.epoch = $1 AND c.partition = e.partition AND c.next_position > e.next",
    "INSERT INTO acb.usage_gap (tenant_id, what, records)
     SELECT acb.current_tenant(), 'the messages log lost its last records: what was in them is in no sum, or was summed and is gone', sum(c.next_position - e.next) / 64
     FROM acb.usage_checkpoint AS c LEFT JOIN unnest($2::int[], $3::bigint[]) AS e (partition, next) ON c.partition = e.partition AND c.next_position > e.next
     WHERE c.epoch = $1 HAVING count(*) > 0",
    "UPDATE acb.usage_checkpoint AS c SET next_position = e.next, hour_from = least(c.hour_from, e.next) FROM unnest($2::int[], $3::bigint[]) AS e (partition, next)
     WHERE c.epoch = $1 AND c.partition = e.partition AND c.next_position > e.next",
    "DELETE FROM acb.mailbox AS m USING unnest($2::int[], $3::bigint[]) AS e (partition, next)
       WHERE m.epoch = $1 AND m.partition = e.partition AND m.position >= e.next",
    "DELETE FROM acb.delivery AS d USING unnest($2::int[], $3::bigint[]) AS e (partition, next)
       WHERE d.epoch = $1 AND d.partition = e.partition AND d.position >= e.next",
    "UPDATE acb.cursor AS c SET acknowledged_below = least(c.acknowledged_below, e.next), exceptions = ARRAY(SELECT x FROM unnest(c.exceptions) AS x WHERE x < e.next)
     FROM unnest($2::int[], $3::bigint[]) AS e (partition, next) WHERE c.epoch = $1 AND c.partition = e.partition",
];

const MOVES: [&str; 5] = [
    "UPDATE acb.mailbox_checkpoint SET epoch = $2 WHERE epoch = $1",
    "UPDATE acb.usage_checkpoint SET epoch = $2 WHERE epoch = $1",
    "UPDATE acb.mailbox SET epoch = $2 WHERE epoch = $1",
    "UPDATE acb.delivery SET epoch = $2 WHERE epoch = $1",
    "UPDATE acb.cursor SET epoch = $2 WHERE epoch = $1",
];

#[async_trait]
impl LogLives for PgStore {
    async fn epoch(&self, log: Epoch) -> Result<Epoch, Fault> {
        let query = self.timer.start("life.epoch");
        let epoch: Option<i64> = sqlx::query_scalar(
            "WITH RECURSIVE lives AS (
                 SELECT $1::bigint AS epoch UNION SELECT c.epoch FROM acb.log_cut AS c JOIN lives ON c.ended = lives.epoch)
             SELECT epoch FROM lives WHERE NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = lives.epoch)",
        )
        .bind(from_epoch(log))
        .fetch_optional(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(epoch.map_or(log, i64::cast_unsigned))
    }

    async fn reached(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Position>, Fault> {
        let query = self.timer.start("life.reached");
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "SELECT partition, max(next) FROM (
                   SELECT partition, next_position AS next FROM acb.mailbox_checkpoint WHERE epoch = $1
                   UNION ALL SELECT partition, greatest(acknowledged_below, (SELECT max(x) + 1 FROM unnest(exceptions) AS x)) FROM acb.cursor WHERE epoch = $1
                   UNION ALL SELECT partition, next_position FROM acb.usage_checkpoint WHERE epoch = $1
                   UNION ALL SELECT partition, position + 1 FROM acb.delivery WHERE epoch = $1) AS reached
               GROUP BY partition",
        )
        .bind(from_epoch(epoch))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let mut reached = vec![0; partitions as usize];
        for (partition, next) in rows {
            if let Some(known) = reached.get_mut(to_partition(partition) as usize) {
                *known = unsigned(next);
            }
        }
        Ok(reached)
    }

    async fn cut(&self, ended: Epoch, epoch: Epoch, ends: &[(Partition, Position)]) -> Result<bool, Fault> {
        let query = self.timer.start("life.cut");
        let failed = |error| query.fault(error);
        let pool = self.pool().clone().patient(PATIENCE);
        let mut transaction = pool.begin().await.map_err(failed)?;
        let made = sqlx::query(
            "INSERT INTO acb.log_cut (tenant_id, ended, epoch) VALUES (acb.current_tenant(), $1, $2) ON CONFLICT DO NOTHING",
        )
        .bind(from_epoch(ended))
        .bind(from_epoch(epoch))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        if made.rows_affected() == 0 {
            return Ok(false);
        }
        let partitions: Vec<i32> = ends.iter().map(|(partition, _)| from_partition(*partition)).collect();
        let next: Vec<i64> = ends.iter().map(|(_, end)| signed(*end)).collect();
        for sql in CLIPS {
            let clip = sqlx::query(sql).bind(from_epoch(ended)).bind(&partitions).bind(&next);
            clip.execute(&mut *transaction).await.map_err(failed)?;
        }
        for sql in MOVES {
            let moved = sqlx::query(sql).bind(from_epoch(ended)).bind(from_epoch(epoch));
            moved.execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }
}
