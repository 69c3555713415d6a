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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http::{Request, Response};
    use kube_client::{Client, client::Body};
    use kube_runtime::events::{EventType, Reporter};
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_that_does_not_answer_costs_each_event_a_moment_and_nobody_else_anything() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            counting.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let reporter = Reporter { controller: "test".into(), instance: None };
        let events = publish(Recorder::new(Client::new(service, "default"), reporter));
        // More than may wait: what finds no place is dropped, and none of these calls waits.
        for number in 0..WAITING + 10 {
            let event = Event {
                type_: EventType::Normal,
                reason: format!("Reason{number}"),
                note: None,
                action: "Apply".to_owned(),
                secondary: None,
            };
            events.put(event, ObjectReference::default());
        }
        assert_eq!(events.0.capacity(), 0, "the queue is bounded");
        sleep(10 * PUBLISHED_WITHIN + PUBLISHED_WITHIN / 2).await;
        let asked = asked.load(Ordering::Relaxed);
        assert!((10..=11).contains(&asked), "{asked} were tried: each has its moment, and the next one comes");
    }
}
