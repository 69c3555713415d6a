//! The gRPC services: each translates, calls core, and translates back.

pub mod agent;
pub mod auth;
pub mod context;
pub mod message;
pub mod stream;

use acb_hub_core::{
    directory::caller::Caller,
    fault::{Code, Fault},
};
use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::{Request, Status};

use crate::status::to_status;

/// Who calls. The door leaves it with the request; a method that the door lets through without a token has none.
#[allow(clippy::result_large_err)]
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        to_status(Fault::new(
            Code::Unauthenticated,
            "TOKEN_REQUIRED",
            "this method needs an access token: call AuthService.ExchangeToken first",
        ))
    })
}

/// Protobuf's form of a time.
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}
