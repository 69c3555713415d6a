//! A tenant, as the state folder of `acb dev` has it.

use std::time::Duration;

use acb_crds::{
    names::{TenantName, objects},
    schema::Kind,
};
use acb_operator::runtime::standalone::{deployments::read_running, objects::ObjectStore, probe};
use serde_json::Value;

use super::{
    lag::{self, Lags},
    page::{Credential, Hub, Pod, TenantStatus},
};
use crate::{
    output::{Exit, Failure},
    standalone::{State, text},
};

/// How long a replica may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks.
pub(super) async fn look(state: &State, name: &TenantName) -> Result<TenantStatus, Failure> {
    let state = state.existing()?;
    let store = ObjectStore::open(&state).map_err(Failure::failed)?;
    let of_kind = |kind: &str| store.of_kind(kind).map_err(Failure::failed);
    let tenants = of_kind(Kind::Tenant.as_str())?;
    let tenant = tenants.into_iter().find(|tenant| text(tenant, "/metadata/name") == name.to_string());
    let tenant =
        tenant.ok_or_else(|| Failure::new(Exit::NotFound, format_args!("there is no Tenant {name}: see `acb get tenants`")))?;
    let namespaces = [text(&tenant, "/status/namespace").to_owned(), text(&tenant, "/status/hubNamespace").to_owned()];
    let is_in = |object: &Value, namespace: &str| text(object, "/metadata/namespace") == namespace;
    let mut agents = of_kind(Kind::Agent.as_str())?;
    agents.retain(|agent| is_in(agent, &namespaces[0]));
    let credential = |secret: &Value| Credential {
        namespace: text(secret, "/metadata/namespace").to_owned(),
        name: text(secret, "/metadata/name").to_owned(),
        created_at: text(secret, "/metadata/creationTimestamp").to_owned(),
    };
    let secrets = of_kind("Secret")?;
    let secrets = secrets.iter().filter(|secret| namespaces.iter().any(|namespace| is_in(secret, namespace)));
    let running = if state.holder().is_some() { read_running(&state).map_err(Failure::failed)? } else { Default::default() };
    let deployment = running.deployments.get(&format!("{}/{}", namespaces[1], objects::HUB)).cloned().unwrap_or_default();
    let mut lag = Lags::new();
    for port in deployment.pods.values().filter(|pod| pod.ready).filter_map(|pod| pod.ports.get("ops")) {
        // A replica that ends at this moment is no reason to show nothing.
        if let Ok(metrics) = probe::http_get(*port, "/metrics", PATIENCE, lag::MOST).await {
            lag::add(&mut lag, &metrics);
        }
    }
    let pods = deployment.pods.into_iter().map(|(name, pod)| Pod {
        name,
        phase: format!("{:?}", pod.phase),
        ready: pod.ready,
        restarts: u64::from(pod.restarts),
        message: pod.message,
        created_at: String::new(),
    });
    let hub = Hub {
        replicas: u64::from(deployment.replicas),
        ready: u64::from(deployment.ready),
        image: "acb-hub, as a process".to_owned(),
        pods: pods.collect(),
        lag,
    };
    let mut unseen = Vec::new();
    if state.holder().is_none() {
        unseen.push("hub: acb dev is not running".to_owned());
    }
    if !deployment.error.is_empty() {
        unseen.push(format!("hub: {}", deployment.error));
    }
    Ok(TenantStatus { hub, agents, credentials: secrets.map(credential).collect(), events: Vec::new(), unseen, tenant })
}
