//! Indexes the dead letters behind their log. Whoever appends one wakes the indexer of its replica; every replica looks now and then, so that
//! a letter whose replica ended right after the append is found, too. A letter that is indexed twice is one row.

use tokio::time::Instant;

use super::{letter::DeadLetter, parts::Parts, record};
use crate::{
    fault::Fault,
    log::bus::{Epoch, Logged, Offset, Partition},
};

/// Letters that are read, and written, together; of large ones fewer, as the bus bounds the bytes of a read.
const BATCH: usize = 1024;
/// Rows of letters that the log forgot that are removed by one statement.
const FORGET: usize = 5000;

/// Indexes until stopped.
pub(super) async fn run(parts: Parts) {
    let mut indexer = Indexer { parts, short_since: None, forget_at: Instant::now() };
    loop {
        if let Err(error) = indexer.look().await {
            tracing::warn!(%error, "dead letters can't be indexed yet");
        }
        let parts = &indexer.parts;
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = parts.letters.appended.notified() => {}
            () = tokio::time::sleep(parts.config.sweep_every) => {}
        }
    }
}

struct Indexer {
    parts: Parts,
    /// Since when a partition seems to end before what was indexed of it.
    short_since: Option<Instant>,
    forget_at: Instant,
}

impl Indexer {
    async fn look(&mut self) -> Result<(), Fault> {
        let parts = self.parts.clone();
        let (bus, topic, store) = (&parts.log.topic.bus, &parts.log.dead_letters, &parts.letters.store);
        let info = bus.topic(topic).await?;
        let indexed = store.letters_indexed(info.epoch, info.partitions).await?;
        let bounds = bus.bounds_each(topic).await?;
        let mut short = false;
        let mut first = Vec::new();
        let mut failed = None;
        for ((partition, bounds), indexed) in (0..).zip(bounds).zip(indexed) {
            let bounds = match bounds {
                Ok(bounds) => bounds,
                Err(error) => {
                    failed = Some(error.into());
                    continue;
                }
            };
            first.push((partition, bounds.first));
            if bounds.next < indexed {
                short = true;
                self.cut(info.epoch, partition, bounds.first).await?;
            } else if let Err(error) = self.index(info.epoch, partition, indexed.max(bounds.first), bounds.next).await {
                failed = Some(error);
            }
        }
        if !short {
            self.short_since = None;
        }
        if Instant::now() >= self.forget_at {
            self.forget_at = Instant::now() + parts.config.sweep_every;
            store.forget_letters(info.epoch, &first, FORGET).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// A log that ends before what was indexed of it gives its offsets out again: what has them now is to be indexed. Who leads a partition anew may
    /// say too early an end: that passes.
    async fn cut(&mut self, epoch: Epoch, partition: Partition, first: Offset) -> Result<(), Fault> {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.parts.config.cut_after {
            return Ok(());
        }
        tracing::warn!(topic = %self.parts.log.dead_letters, partition, "the dead letters have lost records: indexing what there is");
        self.parts.letters.store.unindex_letters(epoch, partition, first).await?;
        self.parts.letters.appended.notify_one();
        Ok(())
    }

    async fn index(&self, epoch: Epoch, partition: Partition, mut from: Offset, end: Offset) -> Result<(), Fault> {
        let parts = &self.parts;
        while from < end && !parts.lifecycle.stop.is_cancelled() {
            let mut records = parts.log.topic.bus.read(&parts.log.dead_letters, partition, from, BATCH).await?;
            // It may not show its end for a moment.
            let Some(last) = records.last() else { return Ok(()) };
            let mut next = last.offset + 1;
            // A newer hub indexes what this one can't read.
            let newer = |logged: &Logged| logged.record.value.as_ref().and_then(record::newer).is_some();
            let halted = records.iter().position(newer);
            if let Some(at) = halted {
                next = records[at].offset;
                records.truncate(at);
            }
            let snapshot = parts.directory.snapshot();
            let mut letters = Vec::with_capacity(records.len());
            for logged in &records {
                match DeadLetter::read(logged, epoch, &snapshot) {
                    Some((letter, _)) => letters.push(letter),
                    None => tracing::warn!(partition, offset = logged.offset, "a record of the dead letters is no letter"),
                }
            }
            // The later place of one that is there twice is the one that the log keeps longer.
            letters.reverse();
            letters.sort_by_key(|letter| letter.id);
            letters.dedup_by_key(|letter| letter.id);
            parts.letters.store.index_letters(epoch, partition, next, &letters).await?;
            if halted.is_some() {
                return Ok(());
            }
            from = next;
        }
        Ok(())
    }
}
