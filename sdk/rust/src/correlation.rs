//! What ties the calls and messages of one exchange together, through several agents and hubs.

use std::sync::Arc;

use tonic::metadata::{Ascii, MetadataValue};
use uuid::Uuid;

/// The header that names it.
const HEADER: &str = "x-correlation-id";

tokio::task_local! {
    /// What the application works on.
    static WORK: Arc<str>;
    /// Of one call that is part of no work that was named: the same each time that it is tried.
    static CALL: Arc<str>;
}

/// Ties together all that this future does with a client: each of its calls, and each message that names nothing else, has this correlation id. It is
/// in the hub's log, in its audit trail, and with those who receive the messages. At most 128 visible ASCII characters; the hub takes no notice of
/// others. Handlers run with that of their message. A task that is spawned has none of its own.
///
/// ```no_run
/// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
/// use acb_sdk::{Message, correlated};
///
/// correlated("order-4711", client.send(Message::to_agent("packer").text("pack it"))).await?;
/// # Ok(())
/// # }
/// ```
pub async fn correlated<F: Future>(correlation_id: impl Into<String>, work: F) -> F::Output {
    WORK.scope(correlation_id.into().into(), work).await
}

/// The correlation id of what is being done, such as in a handler that of its message. `None` outside of [`correlated`].
#[must_use]
pub fn correlation_id() -> Option<String> {
    WORK.try_with(|id| id.to_string()).ok()
}

/// The id of the work that something is part of, or else of the call.
fn present() -> Option<Arc<str>> {
    WORK.try_with(Arc::clone).or_else(|_| CALL.try_with(Arc::clone)).ok()
}

/// Gives a call, with all its tries, a correlation id of its own where it is part of nothing that has one. Says which it has.
pub(crate) async fn of_call<F: Future>(call: F) -> (F::Output, Arc<str>) {
    let id = present().unwrap_or_else(|| Uuid::new_v4().to_string().into());
    (CALL.scope(id.clone(), call).await, id)
}

/// The header of a request that is made now.
pub(crate) fn header() -> (&'static str, Option<MetadataValue<Ascii>>) {
    (HEADER, present().and_then(|id| id.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_has_the_id_of_the_work_that_it_is_part_of() {
        let header = || header().1.map(|value| value.to_str().unwrap().to_owned());
        assert_eq!((correlation_id(), header()), (None, None));
        let (sent, own) = of_call(async { (header(), correlation_id()) }).await;
        assert_eq!(sent, (Some(own.to_string()), None), "what it sends is not tied to it");
        let (sent, id) = correlated("order-1", of_call(async { (header(), correlation_id()) })).await;
        assert_eq!((sent, &*id), ((Some("order-1".to_owned()), Some("order-1".to_owned())), "order-1"));
        assert_eq!(correlated("two\nlines", async { header() }).await, None);
    }
}
