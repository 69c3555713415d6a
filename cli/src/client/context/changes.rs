//! The changes of a context type, as they come.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use acb_sdk::{Client, Since, context_event::Kind};
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    super::{payload, refused},
    view::view,
};
use crate::{
    output::{self, Failure, Output},
    stop::Stop,
};

/// Which changes.
#[derive(Debug, clap::Args)]
pub(in crate::client) struct Changes {
    /// The changes of the contexts of this type, instead of messages.
    #[arg(long, value_name = "TYPE", conflicts_with = "topic")]
    pub(in crate::client) contexts: Option<String>,
    /// With --contexts: from the oldest that the log still holds.
    #[arg(long, requires = "contexts")]
    from_start: bool,
    /// With --contexts: from this time on, such as 2026-01-31T12:00:00Z, or 10m for ten minutes ago.
    #[arg(long, requires = "contexts", conflicts_with = "from_start", value_parser = since, value_name = "TIME")]
    since: Option<SystemTime>,
    /// Only what matches: a CEL expression over messages, such as `message.topic == "orders"`; with --contexts over contexts, such as
    /// `context.metadata["priority"] == "high"`, and `left` is printed where one no longer does.
    #[arg(long, value_name = "EXPRESSION")]
    pub(in crate::client) filter: Option<String>,
}

impl Changes {
    pub(in crate::client) async fn print(
        &self,
        client: &Client,
        context_type: &str,
        count: Option<u64>,
        output: Output,
    ) -> Result<(), Failure> {
        let object = format!("context type {context_type:?}");
        let since = match self.since {
            Some(time) => Since::Time(time),
            None if self.from_start => Since::Start,
            None => Since::Now,
        };
        let filter = self.filter.as_deref().unwrap_or_default();
        let mut stop = Stop::listen()?;
        let subscription = client.subscribe_matching(context_type, filter, since).await;
        let mut subscription = subscription.map_err(|error| refused(&object, &error))?;
        let mut left = count.unwrap_or(u64::MAX);
        let mut unread = pin!(output::unread());
        while left > 0 {
            let event = tokio::select! {
                event = subscription.next() => event.map_err(|error| refused(&object, &error))?,
                () = stop.asked() => break,
                failure = &mut unread => return Err(failure),
            };
            let what = match event.kind() {
                Kind::Created => "created",
                Kind::Updated => "updated",
                Kind::Deleted => "deleted",
                Kind::Left => "left",
                Kind::Subscribed | Kind::Bookmark | Kind::Unspecified => continue,
            };
            let is_gone = matches!(event.kind(), Kind::Deleted | Kind::Left);
            let context = event.context.unwrap_or_default();
            match output {
                Output::Document(syntax) => syntax.record(&json!({"event": what, "context": view(&context)}))?,
                Output::Table { .. } if is_gone => output::line(format_args!("{what}  {}  v{}", context.id, context.version))?,
                Output::Table { .. } => output::line(format_args!(
                    "{what}  {}  v{}  {} bytes  by {}",
                    context.id, context.version, context.size, context.creator
                ))?,
            }
            left -= 1;
        }
        Ok(())
    }
}

/// A time of RFC 3339, or how long ago.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.into());
    }
    let ago: Option<Duration> = payload::duration(text).ok();
    ago.and_then(|ago| SystemTime::now().checked_sub(ago))
        .ok_or_else(|| "write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_ago() {
        assert_eq!(since("1970-01-01T00:01:00Z"), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(60)));
        let ago = SystemTime::now().duration_since(since("10m").unwrap()).unwrap();
        // The clock may have been set meanwhile, a little.
        assert!(ago.abs_diff(Duration::from_secs(600)) < Duration::from_secs(10), "{ago:?}");
        for text in ["", "yesterday", "2026-01-31", "-1m"] {
            assert!(since(text).is_err(), "{text}");
        }
    }
}
