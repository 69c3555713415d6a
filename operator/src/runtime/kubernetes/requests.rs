//! One request to the API server: its time, its errors, its count.

use std::{future::Future, time::Duration};

use kube_client::{Api, Client, Error, api::DynamicObject};
use serde_json::Value;
use tokio::time::timeout;

use super::{kinds::WatchedKind, metrics::Metrics};
use crate::effect::{EffectError, kubernetes::ObjectKey};

const SYSTEM: &str = "the Kubernetes API";
/// An API server that takes longer is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the API server.
#[derive(Clone)]
pub(super) struct Requests {
    client: Client,
    metrics: Metrics,
}

/// What came of a request, as far as it is no error for everyone.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not there.
    Missing,
    /// It is there already.
    Exists,
    /// Someone wrote in between: what the API server said.
    Conflict(String),
    /// May not: what the API server said.
    Forbidden(String),
    /// Anything else.
    Other(EffectError),
}

impl From<Refusal> for EffectError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing => Self::unavailable(SYSTEM, "an object is gone that was there a moment ago"),
            Refusal::Exists => Self::unavailable(SYSTEM, "an object is there that was not a moment ago"),
            Refusal::Conflict(detail) => Self::unavailable(SYSTEM, detail),
            Refusal::Forbidden(detail) if is_of_rbac(&detail) => {
                Self::refused(SYSTEM, format!("{detail}: compare the operator's ClusterRole with docs/rbac.md"))
            }
            Refusal::Forbidden(detail) => Self::refused(SYSTEM, detail),
            Refusal::Other(error) => error,
        }
    }
}

/// Whether a right is missing. A quota or an admission policy refuses with the same code, and with words of its own: no RoleBinding mends
/// that.
fn is_of_rbac(detail: &str) -> bool {
    detail.contains(" cannot ") && detail.contains(" resource ")
}

impl Refusal {
    /// The same, of a request in a namespace where a RoleBinding gives the right, which may not be there or not be known yet.
    pub(super) fn within(self, namespace: &str) -> EffectError {
        match self {
            Self::Forbidden(detail) if !namespace.is_empty() && is_of_rbac(&detail) => {
                EffectError::Closed { namespace: namespace.to_owned(), detail }
            }
            other => other.into(),
        }
    }
}

impl Requests {
    pub(super) fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The objects of a kind, in a namespace where it has one.
    pub(super) fn api(&self, kind: &WatchedKind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.resource();
        if kind.is_namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        }
    }

    /// The objects beside this one.
    pub(super) fn api_of(&self, key: &ObjectKey) -> Result<Api<DynamicObject>, EffectError> {
        let kind = WatchedKind::find(&key.api_version, &key.kind).ok_or_else(|| {
            EffectError::refused("the operator", format!("{key}: it does not watch {} of {}", key.kind, key.api_version))
        })?;
        Ok(self.api(kind, &key.namespace))
    }

    /// One request; `verb` and `what` are for people and metrics.
    pub(super) async fn send<T>(
        &self,
        verb: &'static str,
        what: &(dyn std::fmt::Display + Sync),
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refusal> {
        self.metrics.requested(verb);
        match timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(refusal(verb, what, &error)),
            Err(_) => Err(Refusal::Other(EffectError::unavailable(
                SYSTEM,
                format!("{verb} {what}: no answer within {} s", PATIENCE.as_secs()),
            ))),
        }
    }
}

/// What an answer means for a step.
fn refusal(verb: &str, what: &dyn std::fmt::Display, error: &Error) -> Refusal {
    let Error::Api(status) = error else {
        return Refusal::Other(EffectError::unavailable(SYSTEM, format!("{verb} {what}: {error}")));
    };
    let detail = format!("{verb} {what}: {}", status.message);
    match status.code {
        404 => Refusal::Missing,
        409 if status.reason == "AlreadyExists" => Refusal::Exists,
        409 => Refusal::Conflict(detail),
        429 | 500.. => Refusal::Other(EffectError::unavailable(SYSTEM, detail)),
        403 if status.message.contains("is being terminated") => Refusal::Other(EffectError::unavailable(SYSTEM, detail)),
        403 => Refusal::Forbidden(detail),
        // A token that is being replaced.
        401 => Refusal::Other(EffectError::unavailable(SYSTEM, detail)),
        _ => Refusal::Other(EffectError::refused(SYSTEM, detail)),
    }
}

/// An answer as plain data, with the kind that lists leave out.
pub(super) fn plain(api_version: &str, kind: &str, object: &DynamicObject) -> Option<Value> {
    let mut value = serde_json::to_value(object).ok()?;
    value["apiVersion"] = api_version.into();
    value["kind"] = kind.into();
    Some(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use kube_client::core::Status;

    use super::*;

    fn of(code: u16, reason: &str, message: &str) -> Refusal {
        let status = Status { code, reason: reason.into(), message: message.into(), ..Status::default() };
        refusal("patch", &"Deployment acbhub-acme/hub", &Error::Api(Box::new(status)))
    }

    #[test]
    fn only_a_right_that_is_missing_is_waited_for() {
        let right = "secrets is forbidden: User \"x\" cannot list resource \"secrets\" in API group \"\" in the namespace \"acbhub-acme\"";
        assert!(matches!(of(403, "Forbidden", right).within("acbhub-acme"), EffectError::Closed { .. }));
        for other in
            ["deployments.apps \"hub\" is forbidden: exceeded quota: q", "admission webhook \"g\" denied the request: no"]
        {
            let error = of(403, "Forbidden", other).within("acbhub-acme");
            assert!(!error.is_transient() && error.to_string().contains(other), "{error}");
            assert!(!error.to_string().contains("rbac.md"), "{error}");
        }
    }

    #[test]
    fn what_time_mends_is_tried_again() {
        for (code, reason, message) in [
            (409, "Conflict", "the object has been modified"),
            (503, "ServiceUnavailable", "etcd"),
            (429, "TooManyRequests", "slow down"),
            (403, "Forbidden", "unable to create new content in namespace x because it is being terminated"),
        ] {
            assert!(EffectError::from(of(code, reason, message)).is_transient(), "{code}");
        }
        for (code, reason) in [(422, "Invalid"), (400, "BadRequest"), (403, "Forbidden")] {
            let error = EffectError::from(of(code, reason, "why"));
            assert!(!error.is_transient() && error.to_string().contains("Deployment acbhub-acme/hub"), "{error}");
        }
        assert!(matches!(of(404, "NotFound", ""), Refusal::Missing));
        assert!(matches!(of(409, "AlreadyExists", ""), Refusal::Exists));
    }
}
