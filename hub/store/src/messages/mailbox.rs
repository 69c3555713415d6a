//! The index over the messages log.

use std::{ops::Range, time::Duration};

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::{
        ports::{Acknowledged, Advance, ClaimOutcome, Expired, IndexEntry, MailboxAddress, MailboxStore, Moved, index_went_back},
        position::Position,
    },
};
use acb_hub_pool::{Session, Timestamp};
use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    kit::{
        number::{from_epoch, from_partition, signed, to_partition, unsigned},
        server_clock::{ServerClock, by_server_clock},
        store::PgStore,
    },
    messages::checkpoint::Checkpoints,
};

/// Whether the index goes as far as was asked for, and a row, where there is one.
type Reached = (bool, Timestamp, Option<String>, Option<i32>, Option<i64>, Option<Timestamp>, Option<Timestamp>, Option<Uuid>);
type Row = (String, i32, i64, Timestamp, Timestamp, Option<Uuid>);
/// Whether it was taken, what the server's clock shows, and the row.
type ExpiredRow = (bool, Timestamp, String, i32, i64, Timestamp, Timestamp, Option<Uuid>);

#[async_trait]
impl MailboxStore for PgStore {
    async fn checkpoints(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Position>, Fault> {
        let query = self.timer.start("mailbox.checkpoints");
        let failed = |error| query.fault(error);
        sqlx::query(
            "INSERT INTO acb.mailbox_checkpoint (tenant_id, epoch, partition, next_position)
             SELECT acb.current_tenant(), $1, partition, 0 FROM generate_series(0, $2 - 1) AS partition
             WHERE NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $1)
               AND NOT EXISTS (SELECT FROM acb.mailbox_checkpoint WHERE epoch = $1)
             ON CONFLICT DO NOTHING",
        )
        .bind(from_epoch(epoch))
        .bind(from_partition(partitions))
        .execute(self.pool())
        .await
        .map_err(failed)?;
        let rows: Vec<(i64,)> =
            sqlx::query_as("SELECT next_position FROM acb.mailbox_checkpoint WHERE epoch = $1 ORDER BY partition")
                .bind(from_epoch(epoch))
                .fetch_all(self.pool())
                .await
                .map_err(failed)?;
        Ok(rows.into_iter().map(|(next,)| unsigned(next)).collect())
    }

    async fn index(&self, epoch: Epoch, advances: Vec<Advance>) -> Result<Vec<Moved>, Fault> {
        let query = self.timer.start("mailbox.index");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let partitions = advances.iter().map(|advance| advance.partition);
        let checkpoints = Checkpoints::lock(
            &mut transaction,
            "SELECT partition, next_position FROM acb.mailbox_checkpoint WHERE epoch = $1 AND partition = ANY($2)
             ORDER BY partition FOR UPDATE",
            epoch,
            partitions,
        );
        let checkpoints = checkpoints.await.map_err(failed)?;
        let moved = |advance: &Advance| checkpoints.judge(advance.partition, advance.from);
        let won: Vec<&Advance> = advances.iter().filter(|advance| moved(advance) == Moved::Won).collect();
        if !won.is_empty() {
            write(&mut transaction, epoch, &won).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
        Ok(advances.iter().map(moved).collect())
    }

    async fn entries(
        &self,
        epoch: Epoch,
        addresses: &[MailboxAddress],
        ranges: &[(Partition, Range<Position>)],
        limit: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        let query = self.timer.start("mailbox.entries");
        let asked_at = OffsetDateTime::now_utc();
        // The rows of one address lie in the order of the primary key. At most `limit` of each are merged, however many there are.
        let rows: Vec<Reached> = sqlx::query_as(
            "SELECT coalesce(c.next_position, 0) >= r.next, clock_timestamp(), e.address, e.partition, e.position, e.log_time, e.expires_at, e.sender
               FROM unnest($3::int[], $4::bigint[], $5::bigint[]) AS r (partition, first, next)
               LEFT JOIN acb.mailbox_checkpoint AS c ON c.epoch = $2 AND c.partition = r.partition
               LEFT JOIN LATERAL (
                   SELECT m.* FROM unnest($1::text[]) AS a (address)
                   CROSS JOIN LATERAL (
                       SELECT address, partition, position, log_time, expires_at, sender FROM acb.mailbox
                       WHERE address = a.address AND epoch = $2 AND partition = r.partition
                         AND position >= r.first AND position < r.next
                       ORDER BY position LIMIT $6) AS m
                   ORDER BY m.position LIMIT $6) AS e ON true
               ORDER BY r.partition, e.position",
        )
        .bind(addresses.iter().map(MailboxAddress::to_text).collect::<Vec<_>>())
        .bind(from_epoch(epoch))
        .bind(ranges.iter().map(|(partition, _)| from_partition(*partition)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|(_, range)| signed(range.start)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|(_, range)| signed(range.end)).collect::<Vec<_>>())
        .bind(to_limit(limit))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        if rows.iter().any(|(reached, ..)| !reached) {
            return Err(index_went_back());
        }
        let row = |(_, there, address, partition, position, logged, expires, sender)| {
            entry((address?, partition?, position?, logged?, expires?, sender), ServerClock::of(there, asked_at))
        };
        Ok(rows.into_iter().filter_map(row).collect())
    }

    async fn claim_expired(&self, epoch: Epoch, lease: Duration, limit: usize) -> Result<Expired, Fault> {
        let query = self.timer.start("mailbox.claim_expired");
        let asked_at = OffsetDateTime::now_utc();
        // A claim that ends later than any that is made now was made before the server's clock was set back.
        // Who else looks at the same moment passes over the rows that are locked here, and finds them claimed or gone afterwards. One snapshot
        // judges all of them: a row is either removed or claimed. What somebody else claimed between that snapshot and its lock is in another
        // place now: only what was really changed here is the caller's.
        let rows: Vec<ExpiredRow> = sqlx::query_as(
            "WITH due AS MATERIALIZED (
                   SELECT ctid, address, partition, position, log_time, expires_at, sender FROM acb.mailbox
                   WHERE expires_at <= now() AND epoch = $1 AND (claimed_until IS NULL OR claimed_until <= clock_timestamp()
                          OR claimed_until > clock_timestamp() + make_interval(secs => 2 * $3))
                   ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED),
               judged AS MATERIALIZED (
                   SELECT due.*, c.agent_id IS NOT NULL AS taken FROM due
                   LEFT JOIN acb.cursor AS c
                     ON c.agent_id = CASE WHEN due.address LIKE 'a:%' THEN substr(due.address, 3)::uuid END
                    AND c.epoch = $1 AND c.partition = due.partition
                    AND (due.position < c.acknowledged_below OR due.position = ANY (c.exceptions))),
               removed AS (
                   DELETE FROM acb.mailbox WHERE ctid = ANY (ARRAY(SELECT ctid FROM judged WHERE taken))
                   RETURNING true, clock_timestamp(), address, partition, position, log_time, expires_at, sender),
               claimed AS (
                   UPDATE acb.mailbox SET claimed_until = clock_timestamp() + make_interval(secs => $3)
                   WHERE ctid = ANY (ARRAY(SELECT ctid FROM judged WHERE NOT taken))
                   RETURNING false, clock_timestamp(), address, partition, position, log_time, expires_at, sender)
               SELECT * FROM removed UNION ALL SELECT * FROM claimed ORDER BY partition, position",
        )
        .bind(from_epoch(epoch))
        .bind(to_limit(limit))
        .bind(lease.as_secs_f64())
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let mut expired = Expired::default();
        for (taken, there, address, partition, position, log_time, expires_at, sender) in rows {
            let clock = ServerClock::of(there, asked_at);
            let at = clock.here(expires_at);
            expired.oldest = Some(expired.oldest.map_or(at, |oldest| oldest.min(at)));
            if taken {
                expired.removed += 1;
            } else {
                expired.claimed.extend(entry((address, partition, position, log_time, expires_at, sender), clock));
            }
        }
        Ok(expired)
    }

    async fn claim(
        &self,
        epoch: Epoch,
        address: &MailboxAddress,
        partition: Partition,
        position: Position,
        lease: Duration,
    ) -> Result<ClaimOutcome, Fault> {
        let query = self.timer.start("mailbox.claim");
        let (there, claimed): (bool, bool) = sqlx::query_as(
            "WITH claimed AS (
                   UPDATE acb.mailbox SET claimed_until = clock_timestamp() + make_interval(secs => $5)
                   WHERE address = $1 AND epoch = $2 AND partition = $3 AND position = $4
                     AND (claimed_until IS NULL OR claimed_until <= clock_timestamp()
                          OR claimed_until > clock_timestamp() + make_interval(secs => 2 * $5))
                   RETURNING true)
               SELECT EXISTS (SELECT FROM acb.mailbox WHERE address = $1 AND epoch = $2 AND partition = $3 AND position = $4),
                      EXISTS (SELECT FROM claimed)",
        )
        .bind(address.to_text())
        .bind(from_epoch(epoch))
        .bind(from_partition(partition))
        .bind(signed(position))
        .bind(lease.as_secs_f64())
        .fetch_one(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(match (there, claimed) {
            (_, true) => ClaimOutcome::Claimed,
            (true, false) => ClaimOutcome::Held,
            (false, false) => ClaimOutcome::Gone,
        })
    }

    async fn release(&self, epoch: Epoch, rows: &[IndexEntry], rest: Duration) -> Result<(), Fault> {
        let query = self.timer.start("mailbox.release");
        let (addresses, partitions, offsets) = keys(rows);
        sqlx::query(
            "UPDATE acb.mailbox AS m SET claimed_until = clock_timestamp() + make_interval(secs => $5)
               FROM unnest($2::text[], $3::int[], $4::bigint[]) AS held (address, partition, position)
               WHERE m.epoch = $1 AND m.address = held.address AND m.partition = held.partition AND m.position = held.position",
        )
        .bind(from_epoch(epoch))
        .bind(addresses)
        .bind(partitions)
        .bind(offsets)
        .bind(rest.as_secs_f64())
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn remove_acknowledged(&self, epoch: Epoch, ranges: &[Acknowledged], limit: usize) -> Result<u64, Fault> {
        let query = self.timer.start("mailbox.remove_acknowledged");
        // What another replica holds right now is passed over: it removes it, or the sweep does.
        let removed = sqlx::query(
            "DELETE FROM acb.mailbox WHERE ctid = ANY (ARRAY(
                   SELECT m.ctid FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) AS r (address, partition, first, next)
                   CROSS JOIN LATERAL (
                       SELECT ctid FROM acb.mailbox
                       WHERE address = r.address AND epoch = $1 AND partition = r.partition
                         AND position >= r.first AND position < r.next
                       ORDER BY position LIMIT $6 FOR UPDATE SKIP LOCKED) AS m
                   LIMIT $6))",
        )
        .bind(from_epoch(epoch))
        .bind(ranges.iter().map(|range| MailboxAddress::Agent(range.agent).to_text()).collect::<Vec<_>>())
        .bind(ranges.iter().map(|range| from_partition(range.partition)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|range| signed(range.range.start)).collect::<Vec<_>>())
        .bind(ranges.iter().map(|range| signed(range.range.end)).collect::<Vec<_>>())
        .bind(to_limit(limit))
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(removed.rows_affected())
    }

    async fn remove(&self, epoch: Epoch, rows: &[IndexEntry]) -> Result<(), Fault> {
        let query = self.timer.start("mailbox.remove");
        let (addresses, partitions, offsets) = keys(rows);
        sqlx::query(
            "DELETE FROM acb.mailbox AS m USING unnest($2::text[], $3::int[], $4::bigint[]) AS gone (address, partition, position)
               WHERE m.epoch = $1 AND m.address = gone.address AND m.partition = gone.partition AND m.position = gone.position",
        )
        .bind(from_epoch(epoch))
        .bind(addresses)
        .bind(partitions)
        .bind(offsets)
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn remove_other_epochs(&self, epoch: Epoch, limit: usize) -> Result<u64, Fault> {
        let query = self.timer.start("mailbox.remove_other_epochs");
        let failed = |error| query.fault(error);
        // Whoever keeps anything of an epoch has made its checkpoints first; they go last.
        let other: Option<i64> = sqlx::query_scalar("SELECT epoch FROM acb.mailbox_checkpoint WHERE epoch <> $1 LIMIT 1")
            .bind(from_epoch(epoch))
            .fetch_optional(self.pool())
            .await
            .map_err(failed)?;
        let Some(other) = other else { return Ok(0) };
        let limit = to_limit(limit);
        let mut removed = 0;
        for sql in REMOVE_OF_EPOCH {
            let gone =
                sqlx::query(sql).bind(other).bind(limit).bind(from_epoch(epoch)).execute(self.pool()).await.map_err(failed)?;
            removed += gone.rows_affected();
        }
        if removed == 0 {
            let checkpoints = sqlx::query(
                "DELETE FROM acb.mailbox_checkpoint WHERE epoch = $1 AND NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $2)",
            )
            .bind(other)
            .bind(from_epoch(epoch));
            removed = checkpoints.execute(self.pool()).await.map_err(failed)?.rows_affected();
        }
        Ok(removed)
    }
}

/// Nothing for a replica whose own epoch has ended: it does not know which one is the present. By its rows' places, since only the index of the mailboxes can be asked for an epoch. What another replica removes right now is passed over.
macro_rules! remove_of_epoch {
    ($table:literal) => {
        concat!(
            "DELETE FROM acb.",
            $table,
            " WHERE ctid = ANY (ARRAY(SELECT ctid FROM acb.",
            $table,
            " WHERE epoch = $1 AND NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $3) LIMIT $2 FOR UPDATE SKIP LOCKED))"
        )
    };
}

const REMOVE_OF_EPOCH: [&str; 3] = [remove_of_epoch!("mailbox"), remove_of_epoch!("cursor"), remove_of_epoch!("delivery")];

async fn write(connection: &mut Session, epoch: Epoch, won: &[&Advance]) -> Result<(), sqlx::Error> {
    let partitions: Vec<i32> = won.iter().map(|advance| from_partition(advance.partition)).collect();
    let to: Vec<i64> = won.iter().map(|advance| signed(advance.to)).collect();
    sqlx::query(
        "UPDATE acb.mailbox_checkpoint AS c SET next_position = a.next_position
           FROM unnest($2::int[], $3::bigint[]) AS a (partition, next_position) WHERE c.epoch = $1 AND c.partition = a.partition",
    )
    .bind(from_epoch(epoch))
    .bind(partitions)
    .bind(to)
    .execute(&mut *connection)
    .await?;
    let rows: Vec<&IndexEntry> = won.iter().flat_map(|advance| &advance.rows).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let (addresses, partitions, offsets) = keys(rows.iter().copied());
    let agent = |row: &&IndexEntry| match &row.address {
        MailboxAddress::Agent(agent) => Some(agent.0),
        MailboxAddress::Group(_) | MailboxAddress::All => None,
    };
    let agents: Vec<Option<Uuid>> = rows.iter().map(agent).collect();
    // What was acknowledged before it came here needs no row. A watermark never goes back.
    sqlx::query(concat!(
        "INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, position, log_time, expires_at, sender)
           SELECT acb.current_tenant(), r.address, $1, r.partition, r.position, r.log_time, ",
        by_server_clock!("r.expires_at", "$9"),
        ", r.sender
           FROM unnest($2::text[], $3::int[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::uuid[], $8::uuid[])
                AS r (address, partition, position, log_time, expires_at, agent_id, sender)
           WHERE NOT EXISTS (
               SELECT FROM acb.cursor AS c
               WHERE c.agent_id = r.agent_id AND c.epoch = $1 AND c.partition = r.partition AND c.acknowledged_below > r.position)
           ON CONFLICT DO NOTHING",
    ))
    .bind(from_epoch(epoch))
    .bind(addresses)
    .bind(partitions)
    .bind(offsets)
    .bind(rows.iter().map(|row| row.log_time).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.expires_at).collect::<Vec<_>>())
    .bind(agents)
    .bind(rows.iter().map(|row| row.sender.map(|sender| sender.0)).collect::<Vec<_>>())
    .bind(OffsetDateTime::now_utc())
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// The columns of the rows' key, without the epoch.
fn keys<'a>(rows: impl IntoIterator<Item = &'a IndexEntry>) -> (Vec<String>, Vec<i32>, Vec<i64>) {
    let key = |row: &IndexEntry| (row.address.to_text(), from_partition(row.partition), signed(row.position));
    rows.into_iter().map(key).collect()
}

fn to_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn entry((address, partition, position, log_time, expires_at, sender): Row, clock: ServerClock) -> Option<IndexEntry> {
    let address = MailboxAddress::parse(&address)?;
    Some(IndexEntry {
        address,
        partition: to_partition(partition),
        position: unsigned(position),
        log_time: log_time.into(),
        expires_at: clock.here(expires_at),
        sender: sender.map(AgentId),
    })
}
