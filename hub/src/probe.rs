//! Asks PostgreSQL and the log, again and again, whether they still answer: readiness follows, both ways. What is measured of them on the
//! way goes to the metrics.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use acb_hub_core::{
    contexts::catalog::Contexts,
    directory::{
        refresher::{Refresher, jittered},
        snapshot::Directory,
    },
    kit::readiness::{Liveness, Readiness},
    log::bus::{Bus, TopicName},
    messages::service::Messages,
    metrics::Metrics,
};
use acb_hub_store::{
    PgStore,
    kit::fault::READ_ONLY,
    readiness::{login::UNSAFE, schema::OUT_OF_RANGE},
};
use tokio::time::{Instant, sleep, timeout};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// A part that has not answered for this long is missing. Shorter outages are waited out by those who need it.
const SILENCE: Duration = Duration::from_secs(10);

/// A part that is asked, and where it is.
pub(crate) struct Part {
    /// Its name in the readiness.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) place: String,
}

impl Part {
    fn judge<E: fmt::Display>(&self, readiness: &Readiness, liveness: &mut Liveness, answer: Option<Result<(), E>>) {
        let now = Instant::now();
        let why = match answer {
            Some(Ok(())) => {
                liveness.answered(now);
                return readiness.ready(self.name);
            }
            Some(Err(error)) => error.to_string(),
            None => format!("no answer within {PATIENCE:?}"),
        };
        if liveness.silent(now) {
            readiness.waiting(self.name, format!("{}: {why}", self.place));
        } else {
            tracing::warn!(part = self.name, why, "no answer, asking again");
        }
    }
}

/// Watches PostgreSQL, and whether its schema is still one that this hub works with. Ends where the hub must not serve any longer, with
/// the reason.
pub(crate) async fn postgres(store: PgStore, readiness: Readiness, part: Part, schema: &'static str) -> String {
    let mut liveness = Liveness::new(Instant::now(), SILENCE);
    loop {
        sleep(jittered(EVERY)).await;
        let check = async {
            store.check_login().await?;
            store.check_schema().await
        };
        let answer = timeout(PATIENCE, check).await.ok();
        match &answer {
            Some(Ok(())) => readiness.ready(schema),
            Some(Err(fault)) if fault.reason == OUT_OF_RANGE => {
                readiness.waiting(schema, format!("{}: {}", part.place, fault.message));
                part.judge(&readiness, &mut liveness, Some(Ok::<_, String>(())));
                continue;
            }
            // It answers, so that there is nothing to wait for: it says that nothing will work.
            Some(Err(fault)) if fault.reason == READ_ONLY => {
                readiness.waiting(part.name, format!("{}: {}", part.place, fault.message));
                continue;
            }
            Some(Err(fault)) if fault.reason == UNSAFE => return fault.message.clone(),
            Some(Err(_)) | None => {}
        }
        part.judge(&readiness, &mut liveness, answer);
    }
}

/// Watches whether the directory can be brought up to date. PostgreSQL may answer while what is in it can't be read.
pub(crate) async fn directory(refresher: Arc<Refresher>, readiness: Readiness, part: Part) {
    loop {
        sleep(jittered(EVERY)).await;
        match refresher.stale() {
            Some((age, why)) if age >= SILENCE => {
                let what = "agents, suspensions and keys can't be brought up to date";
                readiness.waiting(part.name, format!("{}: {what}: {why}", part.place));
            }
            Some(_) | None => readiness.ready(part.name),
        }
    }
}

/// Watches the log.
pub(crate) async fn log(bus: Arc<dyn Bus>, topic: TopicName, readiness: Readiness, part: Part) {
    let mut liveness = Liveness::new(Instant::now(), SILENCE);
    loop {
        sleep(jittered(EVERY)).await;
        let answer = timeout(PATIENCE, bus.topic(&topic)).await.ok();
        part.judge(&readiness, &mut liveness, answer.map(|answer| answer.map(drop)));
    }
}

/// How often agents that are gone are looked for in the metrics.
const FORGET: Duration = Duration::from_secs(60);

/// Removes from the metrics what is counted for agents that are gone. Again and again: their last calls end after they are removed.
pub(crate) async fn forget(directory: Directory, metrics: Arc<Metrics>) {
    loop {
        sleep(FORGET).await;
        let snapshot = directory.snapshot();
        metrics.forget_agents(|agent| snapshot.agent_named(agent).is_none());
    }
}

/// Measures how far this replica is behind each topic that it follows. Apart from the probes: a question about offsets may wait behind
/// agents that read old messages, and that must not look like an outage.
pub(crate) async fn lag(messages: Messages, contexts: Arc<Contexts>, metrics: Arc<Metrics>) {
    let mut known: BTreeSet<TopicName> = BTreeSet::new();
    loop {
        let mut lags = Vec::new();
        match timeout(SILENCE, messages.lag()).await {
            Ok(Ok(lag)) => lags.push(lag),
            Ok(Err(error)) => tracing::debug!(%error, "the lag of the messages is not known"),
            Err(_) => {}
        }
        match timeout(SILENCE, contexts.lags()).await {
            Ok(Ok(more)) => {
                lags.extend(more);
                let followed: BTreeSet<TopicName> = lags.iter().map(|(topic, _)| topic.clone()).collect();
                for gone in known.difference(&followed) {
                    metrics.not_followed(gone.as_str());
                }
                known = followed;
            }
            Ok(Err(error)) => tracing::debug!(%error, "the lag of the contexts is not known"),
            Err(_) => {}
        }
        for (topic, records) in lags {
            metrics.lag(topic.as_str(), records);
        }
        sleep(jittered(EVERY)).await;
    }
}
