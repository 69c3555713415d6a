//! Faults as gRPC statuses: the code, the message, and a `google.rpc.ErrorInfo` with the stable reason.

use std::collections::HashMap;

use acb_hub_core::fault::{self, Exhausted, Fault};
use http::{HeaderMap, Response};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every reason.
pub const ERROR_DOMAIN: &str = "acb.dev";

/// The most that a request message takes on the wire: above it, it is not read.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// The same for a method that anybody may call: a credential or a name, and a stranger decides how many of them the hub reads at one time.
pub const MAX_PUBLIC_REQUEST_BYTES: usize = 16 * 1024;

/// The most that a message takes. It is in the headers twice, each time encoded; over 16 KiB of headers a client reads nothing at all.
const MAX_MESSAGE_BYTES: usize = 2500;

/// What the caller sees of a fault.
#[must_use]
pub fn to_status(mut fault: Fault) -> Status {
    clip(&mut fault.message);
    let mut details = ErrorDetails::with_error_info(fault.reason, ERROR_DOMAIN, HashMap::new());
    if let Some(Exhausted { subject, limit, most, .. }) = fault.exhausted.as_deref() {
        details.add_quota_failure_violation(subject.clone(), format!("{limit} is {most}"));
    }
    if let Some(after) = fault.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(Code::from(fault.code as i32), fault.message, details)
}

fn clip(message: &mut String) {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
        message.truncate(end);
        message.push('…');
    }
}

/// Gives failures of the gRPC library, which has none, a stable reason and something to do.
pub(crate) fn explain(response: Response<Body>) -> Response<Body> {
    better(response.headers()).map_or(response, Status::into_http)
}

/// The same at the end of a stream.
pub(crate) fn explain_trailers(trailers: HeaderMap) -> HeaderMap {
    let Some(status) = better(&trailers) else { return trailers };
    let mut told = HeaderMap::new();
    if status.add_header(&mut told).is_ok() { told } else { trailers }
}

/// What is to be said instead of a failure.
fn better(headers: &HeaderMap) -> Option<Status> {
    let status = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)?;
    if !headers.contains_key("grpc-status-details-bin")
        && let Some(fault) = library_fault(&status)
    {
        return Some(to_status(fault));
    }
    if status.message().len() <= MAX_MESSAGE_BYTES {
        return None;
    }
    let mut message = status.message().to_owned();
    clip(&mut message);
    Some(Status::new(status.code(), message))
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

/// The stable reason of a failure; none of one that the gRPC library made.
pub(crate) fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// The code as records and metrics have it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => fault::Code::InvalidArgument.name(),
        Code::DeadlineExceeded => fault::Code::DeadlineExceeded.name(),
        Code::NotFound => fault::Code::NotFound.name(),
        Code::AlreadyExists => fault::Code::AlreadyExists.name(),
        Code::PermissionDenied => fault::Code::PermissionDenied.name(),
        Code::ResourceExhausted => fault::Code::ResourceExhausted.name(),
        Code::FailedPrecondition => fault::Code::FailedPrecondition.name(),
        Code::Aborted => fault::Code::Aborted.name(),
        Code::OutOfRange => fault::Code::OutOfRange.name(),
        Code::Unimplemented => fault::Code::Unimplemented.name(),
        Code::Internal => fault::Code::Internal.name(),
        Code::Unavailable => fault::Code::Unavailable.name(),
        Code::DataLoss => fault::Code::DataLoss.name(),
        Code::Unauthenticated => fault::Code::Unauthenticated.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HTTP/2 counts them.
    fn size(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn no_failure_is_larger_than_what_clients_take() {
        for text in ["x", "%", "\u{202e}", "ü"] {
            let long = text.repeat(20_000);
            let ours = to_status(Fault::invalid("TOO_LONG", long.clone()));
            assert_eq!(reason(&ours), "TOO_LONG");
            assert!(size(ours.into_http::<Body>().headers()) < 14 * 1024, "{text}");
            let foreign = explain(Status::not_found(long.clone()).into_http());
            assert!(size(foreign.headers()) < 14 * 1024, "{text}");
            let mut trailers = HeaderMap::new();
            Status::not_found(long).add_header(&mut trailers).unwrap();
            let trailers = explain_trailers(trailers);
            assert!(size(&trailers) < 14 * 1024, "{text}");
            assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::NotFound);
        }
    }
}
