//! Events are published beside the reconciles: an API server that takes them slowly, or not at all, holds up nothing. What is in an event
//! is in a status, too, so that one that finds no place is dropped.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube_runtime::events::{Event, Recorder};
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::timeout,
};
use tracing::debug;

/// What may wait to be published.
const WAITING: usize = 1_000;
/// An event is worth a moment, and no more.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(2);

/// Publishes in the order in which events come, until nobody can send any more.
pub(super) fn publish(recorder: Recorder) -> Events {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(publish_all(recorder, receiver));
    Events(sender)
}

async fn publish_all(recorder: Recorder, mut events: Receiver<(Event, ObjectReference)>) {
    while let Some((event, object)) = events.recv().await {
        match timeout(PUBLISHED_WITHIN, recorder.publish(&event, &object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(?object, %error, "an event was not published"),
            Err(_) => debug!(?object, "an event was not published in time"),
        }
    }
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(super) struct Events(Sender<(Event, ObjectReference)>);

impl Events {
    /// Never waits.
    pub(super) fn put(&self, event: Event, object: ObjectReference) {
        if let Err(error) = self.0.try_send((event, object)) {
            debug!(%error, "an event is dropped");
        }
    }
}
