//! Objects and Secrets, as an API server keeps what the operator applies. Of a Secret it is known which one it is, not what is in it.

use std::collections::{BTreeMap, BTreeSet};

use acb_operator::{
    effect::{
        EffectError,
        kubernetes::{AUTHORITY, ObjectKey, SecretDetails},
    },
    plan::{KubernetesStep, SecretContent, SecretRef},
};
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct Secret {
    /// Which one it is: the next of the same name is another.
    pub(crate) serial: u64,
    /// Of hub keys: a rotation keeps it.
    pub(crate) pepper: u64,
    pub(crate) asked: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Kubernetes {
    pub(crate) objects: BTreeMap<ObjectKey, Value>,
    pub(crate) secrets: BTreeMap<SecretRef, Secret>,
    /// The pods of each hub, as its Deployment had them when they last came to be.
    rolled: BTreeMap<String, Value>,
    /// Whether no pod is replaced.
    pub(crate) is_stuck: bool,
    serial: u64,
}

pub(crate) fn namespace(name: &str) -> ObjectKey {
    ObjectKey::new("v1", "Namespace", "", name)
}

pub(crate) fn hub(namespace: &str) -> ObjectKey {
    ObjectKey::new("apps/v1", "Deployment", namespace, "hub")
}

impl Kubernetes {
    pub(crate) fn apply(&mut self, step: &KubernetesStep) -> Result<(), EffectError> {
        match step {
            KubernetesStep::Apply { object } => {
                let key = ObjectKey::of(object).expect("an object has a kind and a name");
                self.in_namespace(&key.namespace)?;
                let mut object = object.clone();
                self.serial += 1;
                // An API server fills in fields of its own.
                object["metadata"]["resourceVersion"] = json!(self.serial.to_string());
                let rolled = self.rolled.get(&key.namespace) == Some(&object["spec"]["template"]);
                object["status"] = json!({"phase": "Active", "rolled": key.kind == "Deployment" && rolled});
                self.objects.insert(key, object);
            }
            KubernetesStep::EnsureSecret { secret, content, asked } => {
                self.in_namespace(&secret.namespace)?;
                let needed = match content {
                    SecretContent::TlsLeaf { authority, .. } | SecretContent::ApiKey { authority } => Some(authority),
                    SecretContent::RotatedHubKeys { previous } => Some(previous),
                    _ => None,
                };
                let before = needed.map(|needed| self.secret(needed).map(|found| found.pepper)).transpose()?;
                if !self.secrets.contains_key(secret) {
                    self.serial += 1;
                    let pepper = before.filter(|_| matches!(content, SecretContent::RotatedHubKeys { .. }));
                    let made = Secret { serial: self.serial, pepper: pepper.unwrap_or(self.serial), asked: asked.clone() };
                    self.secrets.insert(secret.clone(), made);
                }
            }
            KubernetesStep::PublishCertificate { namespace, name, authority } => {
                self.in_namespace(namespace)?;
                self.secret(authority)?;
                let metadata = json!({"annotations": {AUTHORITY: authority.object_name()}});
                let object = json!({"metadata": metadata, "data": {"ca.crt": "PEM"}});
                self.objects.insert(ObjectKey::new("v1", "ConfigMap", namespace, name), object);
            }
            KubernetesStep::Delete { api_version, kind, namespace, name } => {
                self.remove(&ObjectKey::new(api_version, kind, namespace, name));
            }
        }
        Ok(())
    }

    /// Removes an object; of a namespace also everything in it.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        if key.kind == "Secret" {
            self.secrets.retain(|secret, _| secret.namespace != key.namespace || secret.object_name() != key.name);
        }
        if key.kind == "Namespace" {
            self.objects.retain(|found, _| found.namespace != key.name);
            self.secrets.retain(|found, _| found.namespace != key.name);
        }
    }

    fn in_namespace(&self, name: &str) -> Result<(), EffectError> {
        if name.is_empty() || name == "acb-system" || self.objects.contains_key(&namespace(name)) {
            return Ok(());
        }
        Err(EffectError::refused("the Kubernetes API", format!("namespace {name} is not there")))
    }

    /// # Errors
    /// Where it is missing.
    pub(crate) fn secret(&self, secret: &SecretRef) -> Result<&Secret, EffectError> {
        self.secrets.get(secret).ok_or_else(|| EffectError::MissingSecret(secret.clone()))
    }

    pub(crate) fn details(&self) -> BTreeMap<SecretRef, SecretDetails> {
        let details = |found: &Secret| SecretDetails { made: String::new(), asked: found.asked.clone() };
        self.secrets.iter().map(|(secret, found)| (secret.clone(), details(found))).collect()
    }

    /// Every hub has the pods that its Deployment wants, and each Deployment says so.
    pub(crate) fn roll(&mut self) {
        if self.is_stuck {
            let there: BTreeSet<String> = self.deployments().map(|(namespace, _)| namespace.to_owned()).collect();
            self.rolled.retain(|namespace, _| there.contains(namespace));
        } else {
            self.rolled = self.deployments().map(|(namespace, pods)| (namespace.to_owned(), pods.clone())).collect();
        }
        for (key, object) in self.objects.iter_mut().filter(|(key, _)| key.kind == "Deployment") {
            let rolled = self.rolled.get(&key.namespace) == Some(&object["spec"]["template"]);
            object["status"]["rolled"] = json!(rolled);
        }
    }

    pub(crate) fn clone_rolled(&self) -> BTreeMap<String, Value> {
        self.rolled.clone()
    }

    fn deployments(&self) -> impl Iterator<Item = (&str, &Value)> {
        let of = self.objects.iter().filter(|(key, _)| key.kind == "Deployment");
        of.map(|(key, object)| (key.namespace.as_str(), &object["spec"]["template"]))
    }

    /// The Secrets that the pods of a hub have.
    pub(crate) fn mounted(&self, namespace: &str) -> BTreeSet<String> {
        let volumes = self.rolled.get(namespace).and_then(|pods| pods.pointer("/spec/volumes")).and_then(Value::as_array);
        let names = volumes.into_iter().flatten().filter_map(|volume| volume["secret"]["secretName"].as_str());
        names.map(str::to_owned).collect()
    }
}
