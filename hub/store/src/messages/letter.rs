//! The index over the dead letters.

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::{
        bus::{Epoch, Offset, Partition},
        position::LogPosition,
    },
    messages::{
        letter::{DeadLetter, LetterFilter, LetterId, LetterReason, LetterRecipient, LetterState},
        letter_store::{After, LetterStore},
        message::MessageType,
        ports::MailboxAddress,
    },
};
use acb_hub_pool::Timestamp;
use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder, Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::kit::{
    number::{from_epoch, from_partition, signed, to_partition, unsigned},
    store::PgStore,
};

const COLUMNS: &str = r#"letter_id, message_id, reason, attempts, sender, sender_name, recipient, recipient_name, topic, type, size, sent_at,
    expires_at, dead_at, epoch, partition, "offset", replayed_as, dropped, settled_at"#;

// One text for any number of letters. What became of one stays; the later place is the one that the log keeps longer.
const INSERT: &str = r#"
    INSERT INTO acb.dead_letter (tenant_id, letter_id, message_id, reason, attempts, sender, sender_name, recipient, recipient_name, topic, type,
                                 size, sent_at, expires_at, dead_at, "offset", epoch, partition)
    SELECT acb.current_tenant(), l.*, $16, $17
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::bigint[]) AS l
    ON CONFLICT (tenant_id, letter_id) DO UPDATE
    SET epoch = excluded.epoch, partition = excluded.partition, "offset" = excluded."offset""#;

#[async_trait]
impl LetterStore for PgStore {
    async fn letters_indexed(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        let query = self.timer.start("letter.indexed");
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT partition, next_offset FROM acb.dead_letter_checkpoint WHERE epoch = $1")
                .bind(from_epoch(epoch))
                .fetch_all(self.pool())
                .await
                .map_err(|error| query.fault(error))?;
        let mut indexed = vec![0; partitions as usize];
        for (partition, next) in rows {
            if let Some(known) = indexed.get_mut(to_partition(partition) as usize) {
                *known = unsigned(next);
            }
        }
        Ok(indexed)
    }

    async fn index_letters(&self, epoch: Epoch, partition: Partition, next: Offset, letters: &[DeadLetter]) -> Result<(), Fault> {
        let query = self.timer.start("letter.index");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        if !letters.is_empty() {
            fn column<'a, T>(letters: &'a [DeadLetter], value: impl Fn(&'a DeadLetter) -> T) -> Vec<T> {
                letters.iter().map(value).collect()
            }
            sqlx::query(INSERT)
                .bind(column(letters, |letter| letter.id.0))
                .bind(column(letters, |letter| letter.message_id))
                .bind(column(letters, |letter| letter.reason.as_str()))
                .bind(column(letters, |letter| i32::try_from(letter.attempts).unwrap_or(i32::MAX)))
                .bind(column(letters, |letter| letter.sender.0))
                .bind(column(letters, |letter| letter.sender_name.as_str()))
                .bind(column(letters, |letter| letter.recipient.to_text()))
                .bind(column(letters, |letter| letter.recipient_name.as_str()))
                .bind(column(letters, |letter| letter.topic.as_str()))
                .bind(column(letters, |letter| letter.kind.as_str()))
                .bind(column(letters, |letter| signed(letter.size)))
                .bind(column(letters, |letter| letter.sent_at))
                .bind(column(letters, |letter| letter.expires_at))
                .bind(column(letters, |letter| letter.dead_at))
                .bind(column(letters, |letter| signed(letter.place.offset)))
                .bind(from_epoch(epoch))
                .bind(from_partition(partition))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        sqlx::query(
            "INSERT INTO acb.dead_letter_checkpoint AS c (tenant_id, epoch, partition, next_offset)
             VALUES (acb.current_tenant(), $1, $2, $3)
             ON CONFLICT (tenant_id, epoch, partition) DO UPDATE SET next_offset = greatest(c.next_offset, excluded.next_offset)",
        )
        .bind(from_epoch(epoch))
        .bind(from_partition(partition))
        .bind(signed(next))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn unindex_letters(&self, epoch: Epoch, partition: Partition, next: Offset) -> Result<(), Fault> {
        let query = self.timer.start("letter.unindex");
        sqlx::query(
            "UPDATE acb.dead_letter_checkpoint SET next_offset = $3 WHERE epoch = $1 AND partition = $2 AND next_offset > $3",
        )
        .bind(from_epoch(epoch))
        .bind(from_partition(partition))
        .bind(signed(next))
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn letters(&self, filter: &LetterFilter, after: Option<After>, limit: usize) -> Result<Vec<DeadLetter>, Fault> {
        let query = self.timer.start("letter.list");
        let mut select = QueryBuilder::<Postgres>::new("SELECT ");
        select.push(COLUMNS).push(" FROM acb.dead_letter WHERE true");
        if let Some(own) = filter.own {
            select.push(" AND recipient = ").push_bind(MailboxAddress::Agent(own).to_text());
            select.push(" AND reason <> ").push_bind(LetterReason::SenderRefused.as_str());
        }
        if let Some(reason) = filter.reason {
            select.push(" AND reason = ").push_bind(reason.as_str());
        }
        match &filter.recipient {
            None => {}
            Some(LetterRecipient::Own(agent)) => {
                select.push(" AND recipient = ").push_bind(MailboxAddress::Agent(*agent).to_text());
            }
            Some(LetterRecipient::Agent(name)) => {
                select.push(" AND recipient LIKE 'a:%' AND recipient_name = ").push_bind(name);
            }
            Some(LetterRecipient::Group(name)) => {
                select.push(" AND recipient = ").push_bind(MailboxAddress::Group(name.clone()).to_text());
            }
            Some(LetterRecipient::All) => {
                select.push(" AND recipient = ").push_bind(MailboxAddress::All.to_text());
            }
        }
        if let Some(sender) = &filter.sender {
            select.push(" AND sender_name = ").push_bind(sender);
        }
        if let Some(since) = filter.since {
            select.push(" AND dead_at >= ").push_bind(since);
        }
        if let Some(until) = filter.until {
            select.push(" AND dead_at < ").push_bind(until);
        }
        if !filter.settled {
            select.push(" AND settled_at IS NULL");
        }
        if let Some((message, id)) = after {
            select.push(" AND (message_id, letter_id) > (").push_bind(message).push(", ").push_bind(id.0).push(")");
        }
        select.push(" ORDER BY message_id, letter_id LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = select.build().fetch_all(self.pool()).await.map_err(|error| query.fault(error))?;
        rows.iter().map(decode).collect::<Result<_, _>>().map_err(|error| query.fault(error))
    }

    async fn letter(&self, id: LetterId) -> Result<Option<DeadLetter>, Fault> {
        let query = self.timer.start("letter.get");
        let mut select = QueryBuilder::<Postgres>::new("SELECT ");
        select.push(COLUMNS).push(" FROM acb.dead_letter WHERE letter_id = ").push_bind(id.0);
        let row = select.build().fetch_optional(self.pool()).await.map_err(|error| query.fault(error))?;
        row.as_ref().map(decode).transpose().map_err(|error| query.fault(error))
    }

    async fn settle_letter(&self, id: LetterId, state: LetterState) -> Result<Option<LetterState>, Fault> {
        let query = self.timer.start("letter.settle");
        let (replayed_as, dropped) = match state {
            LetterState::Replayed(message) => (Some(message), false),
            LetterState::Dropped => (None, true),
            LetterState::Open => (None, false),
        };
        let kept: Option<(Option<Uuid>, bool)> = sqlx::query_as(
            "UPDATE acb.dead_letter SET replayed_as = coalesce(replayed_as, $2), dropped = dropped OR $3,
                 settled_at = CASE WHEN $2 IS NOT NULL OR $3 THEN coalesce(settled_at, now()) ELSE settled_at END
             WHERE letter_id = $1 RETURNING replayed_as, dropped",
        )
        .bind(id.0)
        .bind(replayed_as)
        .bind(dropped)
        .fetch_optional(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(kept.map(|(replayed_as, dropped)| to_state(replayed_as, dropped)))
    }

    async fn forget_letters(&self, epoch: Epoch, first: &[(Partition, Offset)], limit: usize) -> Result<u64, Fault> {
        let query = self.timer.start("letter.forget");
        let failed = |error| query.fault(error);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // By the order of an index, each: a tenant with a million letters is asked this every half minute.
        let forgotten = sqlx::query(
            r#"DELETE FROM acb.dead_letter WHERE ctid = ANY (ARRAY(
                   SELECT f.ctid FROM unnest($2::int[], $3::bigint[]) AS p (partition, first)
                   CROSS JOIN LATERAL (
                       SELECT ctid FROM acb.dead_letter
                       WHERE epoch = $1 AND partition = p.partition AND "offset" < p.first
                       ORDER BY "offset" LIMIT $4 FOR UPDATE SKIP LOCKED) AS f
                   LIMIT $4))"#,
        )
        .bind(from_epoch(epoch))
        .bind(first.iter().map(|(partition, _)| from_partition(*partition)).collect::<Vec<_>>())
        .bind(first.iter().map(|(_, first)| signed(*first)).collect::<Vec<_>>())
        .bind(limit)
        .execute(self.pool())
        .await
        .map_err(failed)?
        .rows_affected();
        let earlier = sqlx::query(
            "DELETE FROM acb.dead_letter WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM acb.dead_letter WHERE epoch < $1 OR epoch > $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
        )
        .bind(from_epoch(epoch))
        .bind(limit)
        .execute(self.pool())
        .await
        .map_err(failed)?
        .rows_affected();
        Ok(forgotten + earlier)
    }
}

fn to_state(replayed_as: Option<Uuid>, dropped: bool) -> LetterState {
    match replayed_as {
        Some(message) => LetterState::Replayed(message),
        None if dropped => LetterState::Dropped,
        None => LetterState::Open,
    }
}

fn decode(row: &PgRow) -> Result<DeadLetter, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| row.try_get::<Timestamp, _>(column).map(Into::into);
    let unknown = |column: &str| sqlx::Error::Decode(format!("a dead letter has an unknown {column}").into());
    Ok(DeadLetter {
        id: LetterId(row.try_get("letter_id")?),
        message_id: row.try_get("message_id")?,
        reason: LetterReason::parse(&text("reason")?).ok_or_else(|| unknown("reason"))?,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
        sender: AgentId(row.try_get("sender")?),
        sender_name: text("sender_name")?,
        recipient: MailboxAddress::parse(&text("recipient")?).ok_or_else(|| unknown("recipient"))?,
        recipient_name: text("recipient_name")?,
        topic: text("topic")?,
        kind: MessageType::parse(&text("type")?).ok_or_else(|| unknown("type"))?,
        size: unsigned(row.try_get("size")?),
        sent_at: time("sent_at")?,
        expires_at: time("expires_at")?,
        dead_at: time("dead_at")?,
        place: LogPosition {
            epoch: row.try_get::<i64, _>("epoch")?.cast_unsigned(),
            partition: to_partition(row.try_get("partition")?),
            offset: unsigned(row.try_get("offset")?),
        },
        state: to_state(row.try_get("replayed_as")?, row.try_get("dropped")?),
        settled_at: row.try_get::<Option<Timestamp>, _>("settled_at")?.map(Into::into),
    })
}
