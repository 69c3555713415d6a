//! The proven caller of a gRPC request, and its trail.

use acb_hub_core::{
    directory::{caller::Caller, trail::Trail},
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
