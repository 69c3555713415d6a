//! Handlers of received messages, by topic.

use std::{collections::HashMap, fmt};

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::{correlation::correlated, message::Received, trace_context};

/// What a handler may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Handler = Box<dyn Fn(Received) -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

#[derive(Default)]
pub(crate) struct Handlers {
    by_topic: HashMap<String, Handler>,
    other: Option<Handler>,
}

impl Handlers {
    pub(crate) fn on<T, F, Fut>(&mut self, topic: String, handler: F)
    where
        T: DeserializeOwned + Send + 'static,
        F: Fn(T, Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let decoded = move |received: Received| -> BoxFuture<'static, Result<(), BoxError>> {
            match received.json::<T>() {
                Ok(payload) => Box::pin(handler(payload, received)),
                Err(error) => Box::pin(std::future::ready(Err(error.into()))),
            }
        };
        self.by_topic.insert(topic, Box::new(decoded));
    }

    pub(crate) fn on_other<F, Fut>(&mut self, handler: F)
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.other = Some(Box::new(move |received| Box::pin(handler(received))));
    }

    /// Handles one message; acknowledges it where its handler succeeded.
    pub(crate) async fn handle(&self, mut received: Received) {
        let (id, topic) = (received.message().id.clone(), received.message().topic.clone());
        let Some(handler) = self.by_topic.get(&topic).or(self.other.as_ref()) else {
            tracing::warn!(message = %id, %topic, "no handler for this topic: the message is not acknowledged");
            return;
        };
        let acker = received.take_acker();
        let (correlation, message) = (received.correlation_id().to_owned(), received.shared());
        match correlated(correlation, trace_context::handled(&message, handler(received))).await {
            Ok(()) => {
                if let Some(acker) = acker {
                    acker.ack();
                }
            }
            Err(error) => tracing::error!(message = %id, %topic, %error, "a handler failed: the message is not acknowledged"),
        }
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("topics", &self.by_topic.keys()).finish_non_exhaustive()
    }
}
