//! Whether an object that is there is the one that is wanted.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::defaults;

/// The annotation with the digest of what was applied. Without it a field that is no longer wanted could not be told from one that
/// someone else, such as an API server, filled in.
pub(crate) const APPLIED: &str = "acb.dev/applied";

fn sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            out.push('{');
            for name in names {
                out.push_str(&format!("{name:?}:"));
                sorted(&fields[name], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// What tells a text from another, short enough for an annotation.
#[must_use]
pub(crate) fn digest(text: impl AsRef<[u8]>) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// The object, with the digest of itself.
#[must_use]
pub(crate) fn marked(mut object: Value) -> Value {
    let mut text = String::new();
    sorted(&object, &mut text);
    let digest = digest(text);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[APPLIED] = json!(digest);
    }
    object
}

/// Whether `found` was applied as something other than `wanted`, which is not marked yet.
#[must_use]
pub(crate) fn is_of_another(wanted: &Value, found: &Value) -> bool {
    let mark = |object: &Value| object["metadata"]["annotations"][APPLIED].clone();
    mark(found) != mark(&marked(wanted.clone()))
}

/// Whether `found` lacks anything of `wanted`, or has what nobody but ACB may give it. What else it has is not ours, but for lists: those
/// are as they are wanted, or not.
#[must_use]
pub(crate) fn differs(wanted: &Value, found: &Value) -> bool {
    lacks(wanted, found) || without_foreign(wanted, found).is_some()
}

/// `wanted`, with null for each key that `found` has and that is to go: as a merge patch, it leaves what was wanted. `None` where there is
/// nothing to take away.
#[must_use]
pub(crate) fn without_foreign(wanted: &Value, found: &Value) -> Option<Value> {
    let kind = wanted.get("kind").and_then(Value::as_str).unwrap_or_default();
    let mut patch = wanted.clone();
    remove_foreign(kind, &mut Vec::new(), &mut patch, found).then_some(patch)
}

fn remove_foreign<'a>(kind: &str, path: &mut Vec<&'a str>, patch: &mut Value, found: &'a Value) -> bool {
    let mut is_other = false;
    match (patch, found) {
        (Value::Object(patch), Value::Object(found)) => {
            let gone: Map<String, Value> = found
                .iter()
                .filter(|(key, value)| !patch.contains_key(*key) && defaults::is_foreign(kind, path, key, value))
                .map(|(key, _)| (key.clone(), Value::Null))
                .collect();
            is_other |= !gone.is_empty();
            for (key, value) in patch.iter_mut() {
                if let Some((key, found)) = found.get_key_value(key) {
                    path.push(key);
                    is_other |= remove_foreign(kind, path, value, found);
                    path.pop();
                }
            }
            patch.extend(gone);
        }
        // A merge patch writes lists whole, and takes nothing away inside of one: what is to go there is just not written.
        (Value::Array(patch), Value::Array(found)) => {
            for (value, found) in patch.iter_mut().zip(found) {
                let mut tried = value.clone();
                path.push("*");
                is_other |= remove_foreign(kind, path, &mut tried, found);
                path.pop();
            }
        }
        _ => {}
    }
    is_other
}

/// Whether `found` lacks anything of `wanted`.
fn lacks(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().any(|(name, value)| found.get(name).is_none_or(|found| lacks(value, found)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() != found.len() || wanted.iter().zip(found).any(|(wanted, found)| lacks(wanted, found))
        }
        (wanted, found) => wanted != found,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_a_list_has_more_is_a_difference_and_what_an_object_has_more_is_none() {
        assert!(differs(&json!({"env": [1]}), &json!({"env": [1, 2]})));
        assert!(!differs(&json!({"spec": {"a": 1}}), &json!({"spec": {"a": 1, "b": 2}, "status": {}})));
    }

    /// A change of a converged object.
    fn drift(object: &Value, pointer: &str, key: &str, value: Value) -> Value {
        let mut found = object.clone();
        found.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap().insert(key.to_owned(), value);
        found
    }

    #[test]
    fn what_is_wholly_acbs_has_nothing_that_others_added() {
        let policy = json!({"kind": "NetworkPolicy", "metadata": {"name": "default-deny"}, "spec": {
            "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}});
        let binding =
            json!({"kind": "RoleBinding", "roleRef": {"name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "a"}]});
        let service = json!({"kind": "Service", "spec": {"selector": {"app": "hub"}, "ports": [{"port": 8443}]}});
        let budget =
            json!({"kind": "PodDisruptionBudget", "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
        let account = json!({"kind": "ServiceAccount", "metadata": {"name": "hub"}, "automountServiceAccountToken": false});
        let deployment = json!({"kind": "Deployment", "spec": {"template": {"spec": {
            "securityContext": {"runAsNonRoot": true}, "volumes": [],
            "containers": [{"name": "hub", "securityContext": {"readOnlyRootFilesystem": true}, "ports": [{"containerPort": 1}]}]}}}});
        for (object, pointer, key, value) in [
            (&policy, "/spec/podSelector", "matchLabels", json!({"x": "y"})),
            (&policy, "/spec", "egress", json!([{}])),
            (&policy, "/spec/ingress/0/from/0", "namespaceSelector", json!({})),
            (&binding, "/subjects/0", "namespace", json!("evil")),
            (&service, "/spec", "externalIPs", json!(["192.0.2.1"])),
            (&service, "/spec/selector", "other", json!("pods")),
            (&budget, "/spec/selector/matchLabels", "c", json!("d")),
            (&account, "", "extra", json!(true)),
            (&deployment, "/spec/template/spec", "hostNetwork", json!(true)),
            (&deployment, "/spec/template/spec", "initContainers", json!([{"name": "x"}])),
            (&deployment, "/spec/template/spec/containers/0", "args", json!(["--x"])),
            (&deployment, "/spec/template/spec/containers/0", "lifecycle", json!({})),
            (&deployment, "/spec/template/spec/containers/0/securityContext", "privileged", json!(true)),
            (&deployment, "/spec/template/spec/containers/0/ports/0", "hostPort", json!(1)),
        ] {
            let found = drift(object, pointer, key, value);
            assert!(!differs(object, object) && differs(object, &found), "{pointer}/{key}");
            let patch = without_foreign(object, &found).unwrap();
            if !pointer.contains("/0") {
                assert_eq!(patch.pointer(&format!("{pointer}/{key}")), Some(&Value::Null), "{patch}");
            } else {
                assert_eq!(patch.pointer(&format!("{pointer}/{key}")), None, "a list is written whole: {patch}");
            }
        }
    }

    #[test]
    fn what_a_server_fills_in_and_others_may_add_is_no_difference() {
        let service = json!({"kind": "Service", "spec": {"selector": {"app": "hub"}, "ports": [{"port": 8443}]}});
        let account = json!({"kind": "ServiceAccount", "metadata": {"name": "hub"}, "automountServiceAccountToken": false});
        let deployment = json!({"kind": "Deployment", "metadata": {}, "spec": {"template": {"metadata": {"annotations": {}}, "spec": {
            "serviceAccountName": "hub", "affinity": {"podAffinity": {}}, "volumes": [{"configMap": {"name": "a"}}],
            "containers": [{
                "name": "hub", "env": [{"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"path": "/"}}}]}}}});
        for (object, pointer, key, value) in [
            (&service, "/spec", "clusterIP", json!("10.0.0.1")),
            (&service, "/spec", "sessionAffinity", json!("None")),
            (&service, "/spec/ports/0", "nodePort", json!(30000)),
            (&account, "", "imagePullSecrets", json!([{"name": "x"}])),
            (&account, "/metadata", "uid", json!("u")),
            (&deployment, "", "status", json!({})),
            (&deployment, "/spec", "progressDeadlineSeconds", json!(600)),
            (&deployment, "/spec/template/metadata/annotations", "kubectl.kubernetes.io/restartedAt", json!("now")),
            (&deployment, "/spec/template/spec", "dnsPolicy", json!("ClusterFirst")),
            (&deployment, "/spec/template/spec", "serviceAccount", json!("hub")),
            (&deployment, "/spec/template/spec/affinity/podAffinity", "x", json!([])),
            (&deployment, "/spec/template/spec/volumes/0/configMap", "defaultMode", json!(420)),
            (&deployment, "/spec/template/spec/containers/0", "imagePullPolicy", json!("IfNotPresent")),
            (&deployment, "/spec/template/spec/containers/0/env/0/valueFrom/fieldRef", "apiVersion", json!("v1")),
            (&deployment, "/spec/template/spec/containers/0/readinessProbe", "successThreshold", json!(1)),
            (&deployment, "/spec/template/spec/containers/0/readinessProbe/httpGet", "scheme", json!("HTTP")),
        ] {
            assert!(!differs(object, &drift(object, pointer, key, value)), "{pointer}/{key}");
        }
    }
}
