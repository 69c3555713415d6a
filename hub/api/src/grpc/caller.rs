//! The proven caller of a gRPC request, where it comes from, and its trail.

use std::net::IpAddr;

use acb_hub_core::{
    directory::{caller::Caller, trail::Trail},
    door::origin::Origin,
    fault::{Code, Fault},
};
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

/// What its audit record says it was about: for whoever carries it out to fill.
pub(crate) fn trail<T>(request: &Request<T>) -> Trail {
    request.extensions().get::<Trail>().cloned().unwrap_or_default()
}

/// Who answers for whatever is asked without a token: what such callers use up is counted by it.
pub(crate) fn source<T>(request: &Request<T>) -> IpAddr {
    request.extensions().get::<Origin>().copied().unwrap_or_default().source
}
