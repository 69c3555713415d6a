//! Follows every watched kind into the cache, and notes which tenancies to look at. What is noted is a set: however much happens, it
//! holds each namespace once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt as _;
use kube_client::api::DynamicObject;
use kube_runtime::{
    WatchStreamExt as _,
    watcher::{self, Event},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    cache::{Cache, Change},
    kinds::{WATCHED, WatchedKind},
    requests::{Requests, plain},
    wake::wakes,
};
use crate::effect::kubernetes::ObjectKey;

/// Tenancies to look at.
#[derive(Debug, Default)]
pub(super) struct Woken {
    namespaces: Mutex<BTreeSet<String>>,
    notify: Notify,
}

impl Woken {
    pub(super) fn add(&self, namespaces: BTreeSet<String>) {
        if !namespaces.is_empty() {
            self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).extend(namespaces);
            self.notify.notify_one();
        }
    }

    /// Waits for some.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Follows all kinds.
pub(super) struct Watches {
    pub(super) cache: Arc<Cache>,
    pub(super) woken: Arc<Woken>,
    /// The kinds that were not listed yet.
    pub(super) missing: watch::Sender<Vec<String>>,
    /// How often it was asked to list anew.
    asked: watch::Sender<u64>,
    /// By kind: which of these requests its last list answers.
    listed: watch::Sender<BTreeMap<&'static str, u64>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        let missing = WATCHED.iter().filter(|kind| !kind.is_optional).map(|kind| kind.plural.to_owned()).collect();
        let (asked, listed) = (watch::Sender::new(0), watch::Sender::default());
        Self { cache: Arc::default(), woken: Arc::default(), missing: watch::Sender::new(missing), asked, listed }
    }

    /// Follows every kind until stopped.
    pub(super) fn start(self: &Arc<Self>, requests: &Requests, stop: &CancellationToken) {
        for kind in &WATCHED {
            let (watches, requests, stop) = (Arc::clone(self), requests.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watches.follow(kind, &requests) => {}
                }
            });
        }
    }

    /// Waits until what decides most was listed after now. A watch may be behind what the leader before this one wrote, or had read: whoever
    /// decides from less than that lets in who was shut out, or leaves behind what was made.
    pub(super) async fn list_anew(&self) {
        let mut listed = self.listed.subscribe();
        self.asked.send_modify(|asked| *asked += 1);
        let asked = *self.asked.borrow();
        let is_new = |listed: &BTreeMap<&str, u64>| {
            let mut kinds = WATCHED.iter().filter(|kind| kind.is_decided_by());
            kinds.all(|kind| listed.get(kind.plural).is_some_and(|answered| *answered >= asked))
        };
        // Its sender lives as long as this.
        let _ = listed.wait_for(is_new).await;
    }

    /// From one list to the next that is asked for.
    async fn follow(&self, kind: &'static WatchedKind, requests: &Requests) {
        let mut asked = self.asked.subscribe();
        loop {
            let answers = *asked.borrow_and_update();
            tokio::select! {
                () = self.follow_on(kind, requests, answers) => {}
                Ok(()) = asked.changed(), if kind.is_decided_by() => {}
            }
        }
    }

    async fn follow_on(&self, kind: &'static WatchedKind, requests: &Requests, answers: u64) {
        let config = kind.selector.map_or_else(watcher::Config::default, |selector| watcher::Config::default().labels(selector));
        let mut events = std::pin::pin!(watcher::watcher(requests.api(kind, ""), config).default_backoff());
        // What a list has named so far, and where the cache was when it was begun.
        let (mut named, mut mark) = (BTreeSet::new(), 0);
        let mut complained = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => (named, mark) = (BTreeSet::new(), self.cache.mark()),
                Ok(Event::InitApply(object)) => {
                    named.extend(self.put(kind, &object));
                }
                Ok(Event::InitDone) => {
                    let gone = self.cache.forget_others(kind, &named, mark);
                    gone.iter().for_each(|change| self.wake(change));
                    named.clear();
                    complained = false;
                    self.listed.send_modify(|listed| {
                        listed.insert(kind.plural, answers);
                    });
                    self.missing.send_if_modified(|missing| {
                        let before = missing.len();
                        missing.retain(|plural| plural != kind.plural);
                        missing.len() != before
                    });
                }
                Ok(Event::Apply(object)) => drop(self.put(kind, &object)),
                Ok(Event::Delete(object)) => {
                    let change = plain(kind.api_version, kind.kind, &object).and_then(|object| self.cache.remove(&object));
                    change.iter().for_each(|change| self.wake(change));
                }
                Err(error) if complained || kind.is_optional => debug!(kind = kind.plural, %error, "still not watched"),
                Err(error) => {
                    complained = true;
                    warn!(kind = kind.plural, %error, "not watched; tried again (are the CRDs installed, and the ClusterRole?)");
                }
            }
        }
    }

    fn put(&self, kind: &WatchedKind, object: &DynamicObject) -> Option<ObjectKey> {
        let object = plain(kind.api_version, kind.kind, object)?;
        let key = ObjectKey::of(&object)?;
        if let Some(change) = self.cache.put(object) {
            self.wake(&change);
        }
        Some(key)
    }

    fn wake(&self, change: &Change) {
        self.woken.add(self.cache.claims(|claims| wakes(change, claims)));
    }
}
