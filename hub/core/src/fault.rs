//! The one error that a caller sees: a code, a stable reason, and a message that says what to do.

use std::{fmt, time::Duration};

/// What kind of failure it is. The numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Code {
    /// The request is malformed.
    InvalidArgument = 3,
    /// The deadline passed first.
    DeadlineExceeded = 4,
    /// Not there, or not for the caller to know.
    NotFound = 5,
    /// There is one already.
    AlreadyExists = 6,
    /// The caller's role does not allow it.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The state does not allow it.
    FailedPrecondition = 9,
    /// Something else came between: read again, then try again.
    Aborted = 10,
    /// Beyond a range.
    OutOfRange = 11,
    /// There is no such method.
    Unimplemented = 12,
    /// A bug.
    Internal = 13,
    /// Try again, with backoff.
    Unavailable = 14,
    /// What was sent or stored is damaged.
    DataLoss = 15,
    /// No valid credential.
    Unauthenticated = 16,
}

impl Code {
    /// In lower case, as records and metrics have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// What kind.
    pub code: Code,
    /// Stable, in capitals, such as `RECIPIENT_NOT_FOUND`.
    pub reason: &'static str,
    /// For people: what failed, for which object, and what to do.
    pub message: String,
    /// Which limit was reached, where it is one that somebody set.
    pub exhausted: Option<Box<Exhausted>>,
    /// When to try again, where no limit that somebody set is in the way.
    passes_in: Option<Duration>,
}

/// A limit that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Whose it is, such as `agent worker-a`.
    pub subject: String,
    /// Its name in the resources, such as `messagesPerMinute`.
    pub limit: &'static str,
    /// What it is.
    pub most: u64,
    /// When there is room again; `None`: not while the limit is as it is.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault.
    pub fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), exhausted: None, passes_in: None }
    }

    /// The same, of a limit that somebody set.
    #[must_use]
    pub fn exhausted(self, exhausted: Exhausted) -> Self {
        Self { exhausted: Some(Box::new(exhausted)), ..self }
    }

    /// The same, which passes by itself: to be tried again after so long.
    #[must_use]
    pub fn passing_in(self, after: Duration) -> Self {
        Self { passes_in: Some(after), ..self }
    }

    /// When to try again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.passes_in.or_else(|| self.exhausted.as_ref()?.retry_after)
    }

    /// The request is malformed.
    pub fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// Not there, or not for the caller to know.
    pub fn not_found(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, reason, message)
    }

    /// A part that the hub needs does not answer. The message must hold no secret.
    pub fn unavailable(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, reason, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}
