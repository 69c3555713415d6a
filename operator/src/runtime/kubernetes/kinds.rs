//! The kinds that are watched, and how each is asked for. A kind that a plan may hold has to be here.

use kube_client::core::{ApiResource, GroupVersionKind};

use crate::tenant::{isolation::JOB, network::TLS_ROUTE};

/// What everything that the operator makes is labelled with.
pub(super) const OWNED: &str = "app.kubernetes.io/managed-by=acb-operator";

/// A kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WatchedKind {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) is_namespaced: bool,
    /// Those with this label alone.
    pub(super) selector: Option<&'static str>,
    /// Not every cluster knows it: nothing waits for it.
    pub(super) is_optional: bool,
}

const fn resource(kind: &'static str, plural: &'static str, is_namespaced: bool) -> WatchedKind {
    WatchedKind { api_version: acb_crds::API_VERSION, kind, plural, is_namespaced, selector: None, is_optional: false }
}

const fn owned(api_version: &'static str, kind: &'static str, plural: &'static str) -> WatchedKind {
    WatchedKind { api_version, kind, plural, is_namespaced: true, selector: Some(OWNED), is_optional: false }
}

/// Everything that is watched. Secrets are not: the operator may read them in tenants' namespaces only, and asks when it needs one.
pub(super) const WATCHED: [WatchedKind; 14] = [
    resource("Tenant", "tenants", false),
    resource("Agent", "agents", true),
    resource("Quota", "quotas", true),
    // Also those of others: a namespace with a tenant's name that is not the tenant's must be seen.
    WatchedKind {
        api_version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        is_namespaced: false,
        selector: None,
        is_optional: false,
    },
    owned("v1", "ConfigMap", "configmaps"),
    owned("v1", "Service", "services"),
    owned("v1", "ResourceQuota", "resourcequotas"),
    // Also those of others: agents prove themselves with them.
    WatchedKind {
        api_version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        is_namespaced: true,
        selector: None,
        is_optional: false,
    },
    owned("apps/v1", "Deployment", "deployments"),
    owned("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    owned("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    owned("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    owned("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    WatchedKind { is_optional: true, ..owned(TLS_ROUTE.0, TLS_ROUTE.1, "tlsroutes") },
];

/// What is asked for in hubs' namespaces alone, while walls are attacked.
pub(super) const JOBS: WatchedKind = owned(JOB.0, JOB.1, "jobs");
pub(super) const PODS: WatchedKind = owned("v1", "Pod", "pods");

const SECRET: WatchedKind = WatchedKind {
    api_version: "v1",
    kind: "Secret",
    plural: "secrets",
    is_namespaced: true,
    selector: Some(OWNED),
    is_optional: false,
};

impl WatchedKind {
    /// The kind of an object; `None`: no plan may hold it.
    pub(super) fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        WATCHED.iter().chain([&SECRET]).find(|known| known.api_version == api_version && known.kind == kind)
    }

    /// Whether something is let in, or left behind, by what is known of it. What else the operator makes is only set right later than it could be.
    pub(super) fn is_decided_by(&self) -> bool {
        self.api_version == acb_crds::API_VERSION || matches!(self.kind, "Namespace" | "Deployment" | "ServiceAccount")
    }

    /// As the client asks for it.
    pub(super) fn resource(&self) -> ApiResource {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.kind), self.plural)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn kinds_are_asked_for_by_group_and_version() {
        let deployment = WatchedKind::find("apps/v1", "Deployment").unwrap().resource();
        assert_eq!((deployment.group.as_str(), deployment.version.as_str()), ("apps", "v1"));
        let namespace = WatchedKind::find("v1", "Namespace").unwrap().resource();
        assert_eq!((namespace.group.as_str(), namespace.api_version.as_str()), ("", "v1"));
        assert_eq!(WatchedKind::find("v1", "Pod"), None);
    }
}
