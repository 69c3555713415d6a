//! Which life of the log this replica works in, and when that is over. A log may be made anew, and may lose its last records; the store may go
//! back to what it was before. What a replica has in memory is then about records and rows that are not there. So it ends, and is
//! started over.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{log::MessagesTopic, parts::Parts, ports::MailboxStore, position::Position};
use crate::{
    fault::Fault,
    log::bus::{Bounds, BusError, Epoch, Partition, TopicInfo},
};

pub(super) const MADE_ANEW: &str = "the messages log was made again";
pub(super) const CUT: &str = "the messages log has lost records";
const WENT_BACK: &str = "PostgreSQL went back";
const OTHER_LIFE: &str = "what PostgreSQL keeps belongs to another life of the messages log";

/// Between two looks at a log that seems too short.
const CONFIRM: Duration = Duration::from_millis(500);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ends this replica: it can't go on, and one that starts can.
pub(super) fn end(parts: &Parts, why: &'static str) {
    tracing::error!(topic = %parts.log.topic.name, why, "this replica has to start over");
    parts.lifecycle.waits_for.send_replace(Some(format!("a restart: {why}")));
    parts.lifecycle.stop.cancel();
}

/// Ends this replica, since the store is what it was before. Where the log is too, as it is where both are in PostgreSQL, its offsets are given out
/// again: then another life begins, so that what agents still hold of this one, such as deliveries, names nothing in it.
pub(super) async fn end_with_store(parts: &Parts) {
    if let Ok(Ok(bounds)) = timeout(PATIENCE, parts.log.topic.bounds_each()).await
        && !too_short(&bounds, parts.log.read()).is_empty()
    {
        // What is dropped beyond an end that was told too early is indexed again.
        let ends = ends(bounds);
        let cut = parts.index.store.cut(parts.log.epoch, another(), &ends);
        match timeout(PATIENCE, cut).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "another life of the log can't begin"),
            Err(_) => tracing::warn!("another life of the log can't begin: no answer"),
        }
    }
    end(parts, WENT_BACK);
}

/// An epoch that nobody remembers anything of.
fn another() -> Epoch {
    Uuid::new_v4().as_u64_pair().0
}

/// The ends of all partitions that can be read.
fn ends(bounds: Vec<Result<Bounds, BusError>>) -> Vec<(Partition, Position)> {
    (0..).zip(bounds).filter_map(|(partition, bounds)| Some((partition, bounds.ok()?.next))).collect()
}

/// The life that a replica starts in.
pub(super) struct Life {
    pub(super) epoch: Epoch,
    /// How far the index goes, by partition.
    pub(super) indexed: Vec<Position>,
}

/// Begins in the newest life of the log. Where rows speak of offsets beyond its end, that is one that begins now.
pub(super) async fn begin(
    topic: &MessagesTopic,
    store: &dyn MailboxStore,
    info: TopicInfo,
    patience: Duration,
) -> Result<Life, Fault> {
    loop {
        let epoch = store.epoch(info.epoch).await?;
        let indexed = store.checkpoints(epoch, info.partitions).await?;
        let reached = store.reached(epoch, info.partitions).await?;
        // Another replica may have ended this life meanwhile.
        if store.epoch(info.epoch).await? != epoch {
            continue;
        }
        let ends = confirm(topic, &reached, patience).await?;
        if ends.is_empty() {
            return Ok(Life { epoch, indexed });
        }
        for (partition, end) in &ends {
            let reached = reached.get(*partition as usize);
            tracing::error!(topic = %topic.name, partition, end, reached, "the log has lost its last records: what was derived from them is dropped");
        }
        store.cut(epoch, another(), &ends).await?;
    }
}

/// The ends of all partitions that can be read, where one of them is and stays before what was reached. Right after a change of who leads a
/// partition it may be told as earlier than it is.
async fn confirm(
    topic: &MessagesTopic,
    reached: &[Position],
    patience: Duration,
) -> Result<Vec<(Partition, Position)>, BusError> {
    let since = Instant::now();
    loop {
        let bounds = topic.bounds_each().await?;
        if too_short(&bounds, reached.iter().copied()).is_empty() {
            return Ok(Vec::new());
        }
        if since.elapsed() >= patience {
            return Ok(ends(bounds));
        }
        sleep(CONFIRM.min(patience)).await;
    }
}

/// Partitions that end before what was reached.
fn too_short(bounds: &[Result<Bounds, BusError>], reached: impl Iterator<Item = Position>) -> Vec<Partition> {
    let short =
        |(bounds, reached): (&Result<Bounds, BusError>, Position)| bounds.as_ref().is_ok_and(|known| known.next < reached);
    (0..).zip(bounds.iter().zip(reached)).filter(|(_, place)| short(*place)).map(|(partition, _)| partition).collect()
}

/// Looks whether this life of the log is over, also where nothing is sent.
pub(super) async fn watch(parts: Parts) {
    let mut short_since = None;
    loop {
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = sleep(parts.config.look_every) => {}
        }
        match timeout(PATIENCE, is_present(&parts)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(WENT_BACK))) => return end_with_store(&parts).await,
            Ok(Ok(Some(why))) => return end(&parts, why),
            Ok(Err(error)) => tracing::debug!(%error, "the life of the log can't be looked up"),
            Err(_) => {}
        }
        let known = parts.index.checkpoints.borrow().clone();
        let bounds = match timeout(PATIENCE, parts.log.topic.bounds_each()).await {
            Ok(Ok(bounds)) => bounds,
            Ok(Err(_)) | Err(_) => continue,
        };
        let reached = parts.log.read().zip(known).map(|(read, indexed)| read.max(indexed));
        if too_short(&bounds, reached).is_empty() {
            short_since = None;
        } else if short_since.get_or_insert_with(Instant::now).elapsed() >= parts.config.cut_after {
            return end(&parts, CUT);
        }
    }
}

/// Why this life is over, as the store says.
async fn is_present(parts: &Parts) -> Result<Option<&'static str>, Fault> {
    let known = parts.index.checkpoints.borrow().clone();
    let store = &parts.index.store;
    if store.epoch(parts.log.made).await? != parts.log.epoch {
        return Ok(Some(OTHER_LIFE));
    }
    let stored = store.checkpoints(parts.log.epoch, parts.log.partitions).await?;
    Ok(stored.iter().zip(&known).any(|(stored, known)| stored < known).then_some(WENT_BACK))
}
