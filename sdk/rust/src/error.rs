//! The one error of the SDK.

use std::{error::Error as _, fmt, time::Duration};

use tonic::Status;
use tonic_types::StatusExt as _;

/// What kind of failure it is, as gRPC names them.
pub use tonic::Code;

/// Why a call did not succeed.
///
/// ```
/// use acb_sdk::{Code, Error};
///
/// fn advice(error: &Error) -> &'static str {
///     match error.code() {
///         Code::NotFound => "name another one",
///         _ if error.is_retryable() => "try again later",
///         _ => "read the message",
///     }
/// }
///
/// let error = Error::refused(Code::NotFound, "RECIPIENT_NOT_FOUND", "agent \"nobody\" does not exist");
/// assert_eq!(advice(&error), "name another one");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The hub answered, and said no.
    Refused {
        /// What kind.
        code: Code,
        /// Stable, in capitals, such as `RECIPIENT_NOT_FOUND`. Empty where the hub gave none.
        reason: String,
        /// For people.
        message: String,
        /// When a limit that was reached has room again. `None` where it is no such refusal, or where waiting does not help.
        retry_after: Option<Duration>,
        /// By what the call is found in the hub's log and in the audit trail. Empty for what is no single call, such as a message of a session.
        correlation_id: String,
    },
    /// No replica answered, or the connection broke.
    Unavailable(String),
    /// Every replica that answered showed a certificate that the given CA did not sign, or that is not for it. Nothing was sent.
    Untrusted(String),
    /// The time that was given for it ran out.
    Timeout(String),
    /// Wrong use of the SDK or a wrong setting: no request was made.
    Usage(String),
    /// A payload could not be encoded or decoded.
    Payload(String),
    /// What was received does not have the checksum that was announced.
    Damaged(String),
    /// Reading or writing locally failed.
    Io(String),
}

impl Error {
    /// A refusal, as a hub answers it.
    pub fn refused(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into(), message: message.into(), retry_after: None, correlation_id: String::new() }
    }

    /// By what the call is found in the hub's log and in the audit trail, where it was one that a hub refused.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        match self {
            Self::Refused { correlation_id, .. } if !correlation_id.is_empty() => Some(correlation_id),
            _ => None,
        }
    }

    /// The same refusal, of this call.
    #[must_use]
    pub(crate) fn of_call(mut self, id: &str) -> Self {
        if let Self::Refused { correlation_id, .. } = &mut self {
            id.clone_into(correlation_id);
        }
        self
    }

    /// When a limit that was reached has room again: the SDK has waited for that already, up to two minutes.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same refusal, of a limit that has room again after a while.
    #[must_use]
    pub(crate) fn until(mut self, after: Option<Duration>) -> Self {
        if let Self::Refused { retry_after, .. } = &mut self {
            *retry_after = after;
        }
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Untrusted(_) => Code::Unauthenticated,
            Self::Timeout(_) => Code::DeadlineExceeded,
            Self::Usage(_) | Self::Payload(_) => Code::InvalidArgument,
            Self::Damaged(_) => Code::DataLoss,
            Self::Io(_) => Code::Unknown,
        }
    }

    /// The stable reason, in capitals.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused { reason, .. } => reason,
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::Untrusted(_) => "UNTRUSTED",
            Self::Timeout(_) => "TIMEOUT",
            Self::Usage(_) => "USAGE",
            Self::Payload(_) => "PAYLOAD",
            Self::Damaged(_) => "DAMAGED",
            Self::Io(_) => "IO",
        }
    }

    /// What failed, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Refused { message, .. } => message,
            Self::Unavailable(message)
            | Self::Untrusted(message)
            | Self::Timeout(message)
            | Self::Usage(message)
            | Self::Payload(message)
            | Self::Damaged(message)
            | Self::Io(message) => message,
        }
    }

    /// Whether the same call may succeed later, without anything being changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
    }

    /// The same failure, with what was being done in front of its message.
    #[must_use]
    pub(crate) fn during(self, what: impl fmt::Display) -> Self {
        let say = |message: String| format!("{what}: {message}");
        match self {
            Self::Refused { code, reason, message, retry_after, correlation_id } => {
                Self::Refused { code, reason, message: say(message), retry_after, correlation_id }
            }
            Self::Unavailable(message) => Self::Unavailable(say(message)),
            Self::Untrusted(message) => Self::Untrusted(say(message)),
            Self::Timeout(message) => Self::Timeout(say(message)),
            Self::Usage(message) => Self::Usage(say(message)),
            Self::Payload(message) => Self::Payload(say(message)),
            Self::Damaged(message) => Self::Damaged(say(message)),
            Self::Io(message) => Self::Io(say(message)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, reason, message, .. } if reason.is_empty() => write!(f, "{message} ({code:?})"),
            Self::Refused { reason, message, .. } => write!(f, "{message} ({reason})"),
            other => f.write_str(other.message()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if broke(&status) && status.get_error_details().error_info().is_none() {
            let cause = innermost(&status).unwrap_or_default();
            let message = if cause.is_empty() || status.message().contains(&cause) {
                status.message().to_owned()
            } else {
                format!("{}: {cause}", status.message())
            };
            return Self::Unavailable(message);
        }
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        let (code, message) = (status.code(), status.message().to_owned());
        Self::Refused { code, reason, message, retry_after, correlation_id: String::new() }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Whether the connection (or the replica at its end) is at fault, so that another replica may do better.
///
/// A status that a hub sent has no source; one that the transport made has.
pub(crate) fn broke(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

fn innermost(status: &Status) -> Option<String> {
    let mut error = status.source()?;
    while let Some(deeper) = error.source() {
        error = deeper;
    }
    Some(error.to_string())
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn reason_comes_from_the_details() {
        let details = ErrorDetails::with_error_info("CONTEXT_NOT_FOUND", "acb.dev", std::collections::HashMap::new());
        let error = Error::from(Status::with_error_details(Code::NotFound, "no such context", details));
        assert_eq!((error.code(), error.reason(), error.message()), (Code::NotFound, "CONTEXT_NOT_FOUND", "no such context"));
        assert!(!error.is_retryable());
        assert_eq!(error.to_string(), "no such context (CONTEXT_NOT_FOUND)");
    }

    #[test]
    fn a_plain_status_will_do() {
        let error = Error::from(Status::permission_denied("no"));
        assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, ""));
        assert!(Error::from(Status::unavailable("stopping")).is_retryable());
    }
}
