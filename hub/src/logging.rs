//! JSON lines on standard output; tenant, agent, method and correlation id come from the request's span.

use tracing_subscriber::EnvFilter;

/// From now on. `RUST_LOG` says what is wanted; `info` where it is unset.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .init();
}
