//! Who asks, and what they may: the API server says both. A token is never kept, logged or put into an error.

use std::collections::BTreeMap;

use acb_crds::{names::GROUP, schema::ObjectRef};
use http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{kinds::WatchedKind, requests::Requests};
use crate::{effect::EffectError, preview::question::AUDIENCE};

/// Who asks, as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Caller {
    #[serde(default)]
    pub(super) username: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Reviewed<S> {
    status: S,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Authentication {
    authenticated: bool,
    audiences: Vec<String>,
    user: Caller,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Authorization {
    allowed: bool,
    denied: bool,
}

/// Asks the API server about callers.
#[derive(Clone)]
pub(super) struct Callers {
    requests: Requests,
}

impl Callers {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests }
    }

    /// Whose token this is; `None`: nobody's that is known.
    ///
    /// # Errors
    /// Where the API server does not say.
    pub(super) async fn identify(&self, token: &str) -> Result<Option<Caller>, EffectError> {
        // First one for this alone; then one that is good for the API server itself.
        let bound = self.authenticate(token, &[AUDIENCE]).await?;
        if bound.authenticated && bound.audiences.iter().any(|audience| audience == AUDIENCE) {
            return Ok(Some(bound.user));
        }
        let own = self.authenticate(token, &[]).await?;
        Ok(own.authenticated.then_some(own.user))
    }

    async fn authenticate(&self, token: &str, audiences: &[&str]) -> Result<Authentication, EffectError> {
        let mut review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        if !audiences.is_empty() {
            review["spec"]["audiences"] = json!(audiences);
        }
        let reviewed: Reviewed<Authentication> =
            self.review("a TokenReview", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
        Ok(reviewed.status)
    }

    /// Whether a caller may do this with an object; without a name: with every one of its kind and namespace.
    ///
    /// # Errors
    /// Where the API server does not say.
    pub(super) async fn may(&self, caller: &Caller, verb: &str, object: &ObjectRef) -> Result<bool, EffectError> {
        let plural = WatchedKind::find(acb_crds::API_VERSION, object.kind.as_str()).map_or("", |kind| kind.plural);
        let mut spec = json!(caller);
        // A TokenReview calls it otherwise.
        if let Some(fields) = spec.as_object_mut() {
            let username = fields.remove("username").unwrap_or_default();
            fields.insert("user".to_owned(), username);
        }
        spec["resourceAttributes"] = json!({
            "group": GROUP, "resource": plural, "verb": verb, "namespace": object.namespace, "name": object.name,
        });
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let reviewed: Reviewed<Authorization> =
            self.review("a SubjectAccessReview", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
        Ok(reviewed.status.allowed && !reviewed.status.denied)
    }

    /// The client's own way to create would log what it can't read, and an answer repeats the token.
    async fn review<T: DeserializeOwned>(&self, what: &str, path: &str, review: &Value) -> Result<T, EffectError> {
        let failed = |why: &dyn std::fmt::Display| EffectError::unavailable("the Kubernetes API", format!("{what}: {why}"));
        let request = http::Request::post(path).header(CONTENT_TYPE, "application/json").body(review.to_string().into_bytes());
        let request = request.map_err(|error| failed(&error))?;
        let text = self.requests.send("create", &what, self.requests.client().request_text(request)).await?;
        serde_json::from_str(&text).map_err(|_| failed(&"the answer has no status that can be read"))
    }
}
