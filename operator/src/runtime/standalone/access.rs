//! What a person needs to reach a tenant's hub on this machine: where it is, its authority's certificate and the keys of its agents,
//! as private files below `access/` of the state folder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use acb_crds::{Agent, Tenant, names::objects, schema::Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    objects::ObjectStore,
    state::{self, StateDir, StateError, file_name},
};
use crate::effect::kubernetes::{ObjectKey, secret_data};

/// How a tenant's hub is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `https://127.0.0.1:PORT` of every replica, with commas; empty while none is ready.
    pub server: String,
    /// The certificate of the tenant's authority.
    pub ca_file: Option<PathBuf>,
    /// The API key of each agent, by its name.
    pub api_key_files: BTreeMap<String, PathBuf>,
}

/// Reads, and writes down, how each tenant is reached; by the tenant's name.
pub fn export(state: &StateDir, store: &ObjectStore) -> Result<BTreeMap<String, Access>, StateError> {
    let folder = state.folder("access")?;
    let tenants = typed::<Tenant>(store, Kind::Tenant)?;
    let agents = typed::<Agent>(store, Kind::Agent)?;
    let mut accesses = BTreeMap::new();
    for tenant in tenants {
        let (Some(name), Some(status)) = (tenant.metadata.name, tenant.status) else { continue };
        let Some(namespace) = status.namespace else { continue };
        let servers: Vec<String> = status.endpoints.iter().map(|endpoint| format!("https://{}", endpoint.address)).collect();
        let mut access = Access { server: servers.join(","), ..Access::default() };
        let own = folder.join(file_name(&name));
        let ca = store.read_object(&ObjectKey::new("v1", "ConfigMap", &namespace, objects::CA))?;
        if let Some(ca) = ca.as_ref().and_then(|ca| ca.pointer("/data/ca.crt")).and_then(Value::as_str) {
            access.ca_file = Some(keep(&own.join("ca.crt"), ca.as_bytes())?);
        }
        for agent in agents.iter().filter(|agent| agent.metadata.namespace.as_ref() == Some(&namespace)) {
            let secret = agent.status.as_ref().and_then(|status| status.api_key_secret.as_ref());
            let (Some(agent), Some(secret)) = (&agent.metadata.name, secret) else { continue };
            let secret = store.read_object(&ObjectKey::new("v1", "Secret", &namespace, secret))?;
            let data = secret.as_ref().and_then(secret_data).unwrap_or_default();
            if let Some(key) = data.get("api-key") {
                let path = own.join(format!("{}.api-key", file_name(agent)));
                access.api_key_files.insert(agent.clone(), keep(&path, key)?);
            }
        }
        accesses.insert(name, access);
    }
    if state::read_json(&state.root().join("access.json"))?.as_ref() != Some(&accesses) {
        state::write_json(&state.root().join("access.json"), &accesses)?;
    }
    Ok(accesses)
}

/// How each tenant is reached, as last written down.
pub fn read(state: &StateDir) -> Result<BTreeMap<String, Access>, StateError> {
    Ok(state::read_json(&state.root().join("access.json"))?.unwrap_or_default())
}

fn typed<T: serde::de::DeserializeOwned>(store: &ObjectStore, kind: Kind) -> Result<Vec<T>, StateError> {
    Ok(store.of_kind(kind.as_str())?.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect())
}

fn keep(path: &Path, bytes: &[u8]) -> Result<PathBuf, StateError> {
    if std::fs::read(path).ok().as_deref() != Some(bytes) {
        state::write(path, bytes)?;
    }
    Ok(path.to_owned())
}
