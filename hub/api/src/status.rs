//! Faults as gRPC statuses: the code, the message, and a `google.rpc.ErrorInfo` with the stable reason.

use std::collections::HashMap;

use acb_hub_core::fault::{self, Fault};
use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every reason.
pub const ERROR_DOMAIN: &str = "acb.dev";

/// The most that a request message takes on the wire: above it, it is not read.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// The same for a method that anybody may call: a credential or a name, and a stranger decides how many of them the hub reads at one time.
pub const MAX_PUBLIC_REQUEST_BYTES: usize = 16 * 1024;

/// What the caller sees of a fault.
#[must_use]
pub fn to_status(fault: Fault) -> Status {
    let details = ErrorDetails::with_error_info(fault.reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::from(fault.code as i32), fault.message, details)
}

/// Gives failures of the gRPC library, which has none, a stable reason and something to do.
pub(crate) fn explain(response: Response<Body>) -> Response<Body> {
    let bare = response.headers().contains_key("grpc-status") && !response.headers().contains_key("grpc-status-details-bin");
    if !bare {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    match library_fault(&status) {
        Some(fault) => to_status(fault).into_http(),
        None => response,
    }
}

/// The same for a request stream, whose failures a handler sees.
#[must_use]
pub fn explain_status(status: Status) -> Status {
    library_fault(&status).map_or(status, to_status)
}

fn library_fault(status: &Status) -> Option<Fault> {
    match (status.code(), status.message()) {
        (Code::OutOfRange, message) if message.contains("message length too large") => Some(Fault::new(
            fault::Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            format!(
                "this method's request takes at most {}: stream larger payloads with StreamService",
                message.rsplit_once("the limit is: ").map_or("less", |(_, limit)| limit)
            ),
        )),
        (Code::Internal, message) if message.contains("failed to decode Protobuf") => Some(Fault::invalid(
            "REQUEST_MALFORMED",
            "the bytes are not the method's request message: build it from the acb.v1 protos",
        )),
        (Code::Internal, "Missing request message.") => {
            Some(Fault::invalid("REQUEST_MISSING", "the call has no request message: send one"))
        }
        (Code::Unimplemented, _) => Some(Fault::new(
            fault::Code::Unimplemented,
            "NO_SUCH_METHOD",
            "the hub has no such method: see its reflection service",
        )),
        _ => None,
    }
}

/// The code as a metric's label.
pub(crate) fn code_name(code: i32) -> &'static str {
    match Code::from(code) {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
