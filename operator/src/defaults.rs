//! What an API server fills in of objects that are ACB's alone. Anything else that such an object has beyond what was applied is someone
//! else's hand: a selector that takes the wall down, a container's privilege, an address of a Service.

use serde_json::Value;

/// The parts of a kind that are compared whole, as pointers; the empty one: all but its `metadata`.
fn whole(kind: &str) -> &'static str {
    match kind {
        "NetworkPolicy" | "PodDisruptionBudget" | "ResourceQuota" | "Service" => "/spec",
        "RoleBinding" => "/subjects",
        "Deployment" => "/spec/template/spec",
        _ => "",
    }
}

/// Whether this kind is compared whole at all.
fn is_compared(kind: &str) -> bool {
    matches!(
        kind,
        "NetworkPolicy" | "PodDisruptionBudget" | "ResourceQuota" | "Service" | "RoleBinding" | "Deployment" | "ServiceAccount"
    )
}

/// Whether a key that nobody applied is to be taken away. `path` is the way to the object that has the key, with `*` for each place in a
/// list.
pub(crate) fn is_foreign(kind: &str, path: &[&str], key: &str, value: &Value) -> bool {
    if !is_compared(kind) || value.is_null() {
        return false;
    }
    let at = format!("/{}", path.join("/"));
    let at = at.trim_end_matches('/');
    let Some(inner) = at.strip_prefix(whole(kind)).filter(|inner| inner.is_empty() || inner.starts_with('/')) else {
        return false;
    };
    // What people wrote into the Tenant is for them and the API server to complete.
    if ["/affinity", "/tolerations"].iter().any(|given| inner.starts_with(given)) {
        return false;
    }
    !is_filled_in(kind, inner, key, value)
}

fn is_filled_in(kind: &str, inner: &str, key: &str, value: &Value) -> bool {
    match (kind, inner, key) {
        ("ServiceAccount", inner, _) if inner.starts_with("/metadata") => true,
        // OpenShift adds these to every ServiceAccount; they give no right to the Kubernetes API.
        ("ServiceAccount", "", "secrets" | "imagePullSecrets" | "status") => true,
        ("RoleBinding", "/*", "apiGroup") => value == "",
        ("Service", "", key) => match key {
            "clusterIP"
            | "clusterIPs"
            | "ipFamilies"
            | "ipFamilyPolicy"
            | "internalTrafficPolicy"
            | "externalTrafficPolicy"
            | "allocateLoadBalancerNodePorts"
            | "healthCheckNodePort"
            | "loadBalancerIP"
            | "loadBalancerClass"
            | "loadBalancerSourceRanges"
            | "trafficDistribution" => true,
            "sessionAffinity" => value == "None",
            _ => false,
        },
        ("Service", "/ports/*", "nodePort") => true,
        ("Deployment", "", key) => match key {
            "restartPolicy" => value == "Always",
            "dnsPolicy" => value == "ClusterFirst",
            "schedulerName" => value == "default-scheduler",
            // The old name of serviceAccountName, which follows it.
            "serviceAccount" => true,
            _ => false,
        },
        ("Deployment", "/containers/*", key) => match key {
            "terminationMessagePath" => value == "/dev/termination-log",
            "terminationMessagePolicy" => value == "File",
            // By the image's tag.
            "imagePullPolicy" => value == "Always" || value == "IfNotPresent",
            "resources" => value.as_object().is_some_and(serde_json::Map::is_empty),
            _ => false,
        },
        ("Deployment", "/containers/*/env/*/valueFrom/fieldRef", "apiVersion") => value == "v1",
        ("Deployment", "/containers/*/readinessProbe" | "/containers/*/livenessProbe", "successThreshold") => value == 1,
        ("Deployment", "/containers/*/readinessProbe/httpGet" | "/containers/*/livenessProbe/httpGet", "scheme") => {
            value == "HTTP"
        }
        ("Deployment", "/volumes/*/configMap", "defaultMode") => value == 0o644,
        _ => false,
    }
}
