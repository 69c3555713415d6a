//! The gRPC server: HTTP/2 over the connections of [`crate::tls`], everything behind the door.

use std::{io, time::Duration};

use acb_hub_core::door::admission::Door;
use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

use crate::{door::Guarded, tls::Connection};

/// More than any header of ours, and little enough that many don't hurt.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// What a peer may send ahead of who reads it, on one call and on all calls of a connection. It lies in memory before anybody has counted it, so it
/// is small; who reads goes on reading while a message is incomplete, so that a large message needs no larger window.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A peer that is gone without a word is noticed within the sum.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves connections until stopped, then waits for what is open to end.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>>,
    routes: Routes,
    door: Door,
    stop: CancellationToken,
) -> io::Result<()> {
    let guarded = Guarded::new(routes.prepare(), door.clone());
    let served = Server::builder()
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(guarded, incoming, stop.cancelled_owned());
    tokio::select! {
        served = served => served.map_err(io::Error::other),
        () = door.watch() => Err(io::Error::other("nobody looks at open calls any more")),
    }
}
