//! What is said where a hub refuses.

use acb_sdk::{Code, Error};

use crate::output::{Exit, Failure};

/// The failure that an error of the SDK is: for which object, what failed, and what to do.
pub(super) fn refused(object: &str, error: &Error) -> Failure {
    let (exit, advice) = match error.code() {
        _ if matches!(error, Error::Untrusted(_)) => (Exit::Denied, "; give the CA of this tenant with `acb login --ca`"),
        Code::NotFound => (Exit::NotFound, ""),
        Code::Unauthenticated => (Exit::Denied, "; get a new API key and run `acb login` again"),
        Code::PermissionDenied => (Exit::Denied, "; the agent's role or context types do not allow it, see its Agent resource"),
        Code::Unavailable => (Exit::Unavailable, "; is the hub running? `acb profile list` shows its address"),
        Code::DeadlineExceeded => (Exit::Unavailable, "; try again, or give it more time"),
        _ if matches!(error, Error::Usage(_) | Error::Payload(_)) => (Exit::Usage, ""),
        _ => (Exit::Failed, ""),
    };
    Failure::refused(exit, format_args!("{object}: {error}{advice}"), error)
}
