//! What there is in all systems, to be compared.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::operator::Operator;

impl Operator {
    /// Everything that is there, without what depends on when it was made and how often it was made anew.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let (systems, mut all) = (&self.systems, BTreeMap::new());
        let mut put = |what: String, value: &Value| {
            let mut text = value.to_string();
            for secret in systems.kubernetes.secrets.keys() {
                text = text.replace(&format!("\"{}\"", secret.object_name()), &format!("\"{}\"", secret.name));
            }
            all.insert(self.documents.neutral(&what), self.documents.neutral(&text));
        };
        for (key, object) in &systems.kubernetes.objects {
            let mut object = object.clone();
            strip(&mut object);
            let is_scaled = || {
                systems
                    .kubernetes
                    .objects
                    .keys()
                    .any(|other| other.kind == "HorizontalPodAutoscaler" && other.namespace == key.namespace)
            };
            if key.kind == "Deployment" && is_scaled() {
                // The autoscaler's alone.
                object["spec"]["replicas"] = json!("scaled");
            }
            put(key.to_string(), &object);
        }
        let mut secrets: BTreeMap<String, usize> = BTreeMap::new();
        for secret in systems.kubernetes.secrets.keys() {
            *secrets.entry(format!("Secret {}/{}", secret.namespace, secret.name)).or_default() += 1;
        }
        secrets.into_iter().for_each(|(secret, count)| put(secret, &json!(count)));
        for (id, rows) in &systems.postgres.tenants {
            let seen = &rows.observed;
            put(format!("row {id}"), &json!(seen.tenant));
            put(format!("login {id}"), &json!(seen.login.map(|login| (login.enabled, login.connection_limit))));
            put(format!("retired {id}"), &json!(seen.retired.keys().collect::<Vec<_>>()));
            seen.agents.iter().for_each(|(agent, row)| put(format!("agent {agent}"), &json!(row)));
            seen.api_keys.iter().for_each(|(agent, keys)| put(format!("keys {agent}"), &json!(keys.len())));
            seen.topics.iter().for_each(|(topic, spec)| put(format!("topic {topic}"), &json!(spec)));
        }
        if let Some(kafka) = &systems.kafka {
            kafka.topics.iter().for_each(|(topic, spec)| put(format!("topic {topic}"), &json!(spec)));
            kafka.users.iter().for_each(|(user, found)| put(format!("user {user}"), &json!([found.prefixes, found.quota])));
        }
        all
    }
}

/// Takes out digests and versions.
fn strip(object: &mut Value) {
    const DIGESTS: [&str; 6] =
        ["acb.dev/applied", "acb.dev/tls-for", "acb.dev/made-from", "acb.dev/pods", "acb.dev/rolled-by", "acb.dev/config"];
    match object {
        Value::Object(fields) => {
            fields.remove("resourceVersion");
            fields.retain(|name, _| !DIGESTS.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => {
            // Where the password before is, from the second one on.
            items.retain(|item| !item["name"].as_str().is_some_and(|name| name.ends_with("-previous")));
            items.iter_mut().for_each(strip);
        }
        _ => {}
    }
}
