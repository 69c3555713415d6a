//! One writer: who holds the Lease. Every write of it names the version that it is about, so that of two that try one fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube_client::{Api, api::PostParams};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    FIELD_MANAGER,
    lease::{DURATION, RENEW_EVERY, RETRY_EVERY, Record, Sight},
    requests::{Refusal, Requests},
};
use crate::{effect::fence::Fence, reconcile::jitter};

/// The Lease, in the operator's namespace.
const LEASE: &str = "acb-operator";
/// Its annotation by which a process that may have changed Kafka after its term asks whoever leads to look once more.
const LATE: &str = "acb.dev/late-writer";
const LATE_TRIES: u32 = 10;

/// Stands for election under one name.
pub(super) struct Election {
    requests: Requests,
    leases: Api<Lease>,
    me: String,
}

/// A term, for as long as the lease is held.
pub(super) struct Term {
    /// What every effect asks.
    pub(super) fence: Arc<Fence>,
    /// Told when the lease is another's, or ran out.
    pub(super) lost: CancellationToken,
    /// Told when an earlier leader's write came late.
    pub(super) look_again: Arc<Notify>,
    renewing: JoinHandle<Option<Lease>>,
    stop: CancellationToken,
}

/// Who is told what becomes of a term.
struct Told {
    lost: CancellationToken,
    look_again: Arc<Notify>,
}

fn late_writer(lease: &Lease) -> Option<&str> {
    lease.metadata.annotations.as_ref()?.get(LATE).map(String::as_str)
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
        duration: seconds.map_or(DURATION, Duration::from_secs),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// The lease with `holder`; an empty one gives it back.
fn held(mut lease: Lease, holder: &str) -> Lease {
    let before = record(&lease);
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    let now = Some(MicroTime(Timestamp::now()));
    if before.holder != holder {
        spec.acquire_time.clone_from(&now);
        spec.lease_transitions = Some(before.transitions.saturating_add(i32::from(!holder.is_empty())));
    }
    spec.holder_identity = Some(holder.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = now;
    lease
}

impl Election {
    /// `me` must be another for every process, also in the same pod.
    pub(super) fn new(requests: Requests, namespace: &str, me: String) -> Self {
        let leases = Api::namespaced(requests.client().clone(), namespace);
        Self { requests, leases, me }
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, Refusal> {
        let options = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        if lease.metadata.resource_version.is_some() {
            self.requests.send("update", &"the Lease", self.leases.replace(LEASE, &options, lease)).await
        } else {
            self.requests.send("create", &"the Lease", self.leases.create(&options, lease)).await
        }
    }

    async fn look(&self) -> Result<Lease, Refusal> {
        let found = self.requests.send("get", &"the Lease", self.leases.get_opt(LEASE)).await?;
        Ok(found.unwrap_or_else(|| {
            let mut lease = Lease::default();
            lease.metadata.name = Some(LEASE.to_owned());
            lease
        }))
    }

    /// Waits until this process leads; `None` where it is to stop before.
    pub(super) async fn win(self: &Arc<Self>, stop: &CancellationToken) -> Option<Term> {
        let mut sight = None;
        let mut told = String::new();
        loop {
            match self.look().await {
                Ok(lease) => {
                    let now = Instant::now();
                    let seen = Sight::of(sight.take(), record(&lease), now);
                    if seen.is_free(&self.me, now) {
                        // Counted from before it is sent: what comes later only shortens the term.
                        match self.write(&held(lease, &self.me)).await {
                            Ok(lease) => return Some(self.begin(lease, now)),
                            Err(refusal) => warn!(error = %crate::effect::EffectError::from(refusal), "the Lease was not taken"),
                        }
                    } else if told != record(&lease).holder {
                        told = record(&lease).holder;
                        info!(leader = told, "standing by");
                    }
                    sight = Some(seen);
                }
                Err(refusal) => warn!(error = %crate::effect::EffectError::from(refusal), "the Lease can't be read"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(RETRY_EVERY.mul_f64(0.8 + 0.4 * jitter())) => {}
            }
        }
    }

    fn begin(self: &Arc<Self>, lease: Lease, since: Instant) -> Term {
        info!(identity = self.me, "leading");
        let fence = Arc::new(Fence::until(since + DURATION));
        let (lost, stop, look_again) = (CancellationToken::new(), CancellationToken::new(), Arc::new(Notify::new()));
        let told = Told { lost: lost.clone(), look_again: Arc::clone(&look_again) };
        let renewing = tokio::spawn(Arc::clone(self).renew(lease, Arc::clone(&fence), told, stop.clone()));
        Term { fence, lost, look_again, renewing, stop }
    }

    /// Renews until it is told to stop, or the lease is lost. Gives the lease back where it is still held.
    async fn renew(self: Arc<Self>, mut lease: Lease, fence: Arc<Fence>, told: Told, stop: CancellationToken) -> Option<Lease> {
        let mut wait = RENEW_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Some(lease),
                () = sleep_until(fence.ends_at().into()) => {
                    warn!("the Lease could not be renewed in time");
                    break;
                }
                () = sleep(wait) => {}
            }
            let (sent, wanted) = (Instant::now(), held(lease.clone(), &self.me));
            let renewed = tokio::select! {
                () = stop.cancelled() => return Some(lease),
                () = sleep_until(fence.ends_at().into()) => continue,
                renewed = self.write(&wanted) => renewed,
            };
            wait = match renewed {
                Ok(renewed) => {
                    lease = renewed;
                    fence.extend(sent + DURATION);
                    RENEW_EVERY
                }
                Err(refusal) => {
                    warn!(error = %crate::effect::EffectError::from(refusal), "the Lease was not renewed");
                    // It may be another's now, or a write of ours whose answer was lost.
                    match self.look().await {
                        Ok(found) if record(&found).holder == self.me => {
                            if late_writer(&found) != late_writer(&lease) {
                                info!(
                                    writer = late_writer(&found),
                                    "an earlier leader wrote late: everything is looked at again"
                                );
                                told.look_again.notify_one();
                            }
                            lease = found;
                        }
                        Ok(found) => {
                            warn!(leader = record(&found).holder, "the Lease is another's");
                            break;
                        }
                        Err(_) => {}
                    }
                    RETRY_EVERY
                }
            };
        }
        fence.end();
        told.lost.cancel();
        None
    }

    /// Asks whoever leads to look at Kafka once more: a change of this process may have arrived there after its term. Where this can't be
    /// said, a resync finds it.
    pub(super) async fn ask_to_look_again(&self) {
        for _ in 0..LATE_TRIES {
            let attempt = match self.look().await {
                Ok(mut lease) => {
                    let now = format!("{} {}", self.me, Timestamp::now());
                    lease.metadata.annotations.get_or_insert_default().insert(LATE.to_owned(), now);
                    self.write(&lease).await
                }
                Err(refusal) => Err(refusal),
            };
            match attempt {
                Ok(_) => return info!("a change of Kafka may have come late: the leader is asked to look again"),
                Err(refusal) => {
                    warn!(error = %crate::effect::EffectError::from(refusal), "the leader was not asked to look again")
                }
            }
            sleep(RETRY_EVERY).await;
        }
    }

    /// Ends a term that is no longer needed: whoever stands by may take over at once. Nothing may be under way any more.
    pub(super) async fn give_back(&self, term: Term) {
        term.fence.end();
        term.stop.cancel();
        let Ok(Some(lease)) = term.renewing.await else { return };
        let mut attempt = self.write(&held(lease, "")).await;
        // A renewal that was broken off may have been written.
        if attempt.is_err()
            && let Ok(found) = self.look().await
            && record(&found).holder == self.me
        {
            attempt = self.write(&held(found, "")).await;
        }
        match attempt {
            Ok(_) => info!("the Lease was given back"),
            Err(refusal) => {
                warn!(error = %crate::effect::EffectError::from(refusal), "the Lease was not given back: it runs out by itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{convert::Infallible, sync::Mutex};

    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube_client::{Client, client::Body};
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::runtime::kubernetes::metrics::Metrics;

    type Stored = Arc<Mutex<Option<Value>>>;

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}),
        )
    }

    /// As an API server keeps a Lease: a write of an older version is a conflict.
    fn answer(stored: &Stored, method: &Method, body: Option<Value>) -> (u16, Value) {
        let mut stored = stored.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str().map(|text| text.parse::<u64>().unwrap());
        match (method, stored.clone(), body) {
            (&Method::GET, Some(lease), _) => (200, lease),
            (&Method::POST, None, Some(mut lease)) => {
                lease["metadata"]["resourceVersion"] = json!("1");
                *stored = Some(lease.clone());
                (201, lease)
            }
            (&Method::PUT, Some(known), Some(mut lease)) if version(&known) == version(&lease) => {
                lease["metadata"]["resourceVersion"] = json!((version(&known).unwrap() + 1).to_string());
                *stored = Some(lease.clone());
                (200, lease)
            }
            (_, None, _) => failure(404, "NotFound"),
            (..) => failure(409, "Conflict"),
        }
    }

    fn election(stored: &Stored, me: &str) -> Arc<Election> {
        let stored = Arc::clone(stored);
        let service = tower::service_fn(move |request: Request<Body>| {
            let stored = Arc::clone(&stored);
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let (code, answer) = answer(&stored, &parts.method, serde_json::from_slice(&bytes).ok());
                Ok::<_, Infallible>(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        let requests = Requests::new(Client::new(service, "default"), Metrics::default());
        Arc::new(Election::new(requests, "acb-system", me.to_owned()))
    }

    #[tokio::test]
    async fn a_leader_hears_of_a_late_write_and_goes_on_leading() {
        let (stored, stop) = (Stored::default(), CancellationToken::new());
        let (first, second) = (election(&stored, "a"), election(&stored, "b"));
        let term = first.win(&stop).await.unwrap();
        second.ask_to_look_again().await;
        timeout(RENEW_EVERY + Duration::from_secs(5), term.look_again.notified()).await.unwrap();
        assert!(!term.lost.is_cancelled());
        term.fence.check(RENEW_EVERY).unwrap();
        let lease: Lease = serde_json::from_value(stored.lock().unwrap().clone().unwrap()).unwrap();
        assert_eq!(record(&lease).holder, "a");
        assert!(late_writer(&lease).unwrap().starts_with("b "));
        // Who takes over begins with what is there, and is told of nothing.
        first.give_back(term).await;
        let next = second.win(&stop).await.unwrap();
        assert!(timeout(Duration::from_millis(100), next.look_again.notified()).await.is_err());
        second.give_back(next).await;
    }
}
