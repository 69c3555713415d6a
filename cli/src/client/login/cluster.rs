//! What a login takes, found on a cluster with the caller's own rights: the hub's address, the tenant's CA, the agent's key.

use acb_crds::{
    names::{AgentName, TenantName, objects},
    schema::{Kind, ObjectRef},
};
use acb_operator::tenant::hub::GRPC_PORT;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube_client::Api;
use serde_json::Value;

use super::{super::profile::Profile, agent::AgentOf};
use crate::{
    cluster::{Cluster, refused},
    output::{Exit, Failure},
    platform::PlatformArgs,
    standalone::text,
};

/// A profile without a name, and without a key where none is asked for.
pub(super) async fn find(
    platform: &PlatformArgs,
    who: &AgentOf,
    namespace: Option<&str>,
    with_key: bool,
) -> Result<Profile, Failure> {
    let AgentOf { tenant, agent } = who;
    let place = platform.cluster.place();
    let cluster = place.open().await?;
    let known = known(&cluster, tenant).await?;
    let namespace = match (namespace, text(&known, "/status/namespace")) {
        (Some(namespace), _) => namespace.to_owned(),
        (None, "") => tenant.namespace(),
        (None, namespace) => namespace.to_owned(),
    };
    let (servers, forwards) = servers(tenant, &known, cluster.is_inside);
    let api_key = if with_key { key(&cluster, &namespace, agent).await? } else { String::new() };
    Ok(Profile {
        api_key,
        tenant: tenant.to_string(),
        agent: agent.to_string(),
        cluster: forwards.then(|| place.pinned()),
        ..Profile::at(servers, authority(&cluster, &namespace).await?)
    })
}

/// The Tenant, as far as the caller may see it: most of a tenant's people may not, and its names follow from its own.
async fn known(cluster: &Cluster, tenant: &TenantName) -> Result<Value, Failure> {
    let object = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: tenant.to_string() };
    match cluster.find(&object).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Failure::new(Exit::NotFound, format_args!("there is no Tenant {tenant}"))),
        Err(failure) if failure.is_denial() => Ok(Value::Null),
        Err(failure) => Err(failure),
    }
}

/// Where the hub is, and whether it takes a port-forward to get there.
fn servers(tenant: &TenantName, known: &Value, is_inside: bool) -> (Vec<String>, bool) {
    let service = format!("{}.{}.svc", objects::HUB, tenant.hub_namespace());
    let listed = known.pointer("/status/endpoints").and_then(Value::as_array).into_iter().flatten();
    let outside: Vec<String> = listed
        // A node's name is a guess of the operator's, and may lead nowhere: the port-forward does not.
        .filter(|endpoint| !matches!(text(endpoint, "/type"), "ClusterIP" | "NodePort"))
        .map(|endpoint| text(endpoint, "/address"))
        // A pattern is no address to connect to.
        .filter(|address| !address.starts_with('*'))
        .map(|address| format!("https://{address}"))
        .collect();
    if is_inside || outside.is_empty() { (vec![format!("https://{service}:{GRPC_PORT}")], !is_inside) } else { (outside, false) }
}

async fn authority(cluster: &Cluster, namespace: &str) -> Result<String, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("ConfigMap {namespace}/{}, which holds the tenant's CA", objects::CA);
    let map = maps.get(objects::CA).await.map_err(|error| refused(&what, &error))?;
    let pem = map.data.and_then(|mut data| data.remove("ca.crt"));
    pem.ok_or_else(|| Failure::failed(format_args!("{what}: it has no ca.crt")))
}

async fn key(cluster: &Cluster, namespace: &str, agent: &AgentName) -> Result<String, Failure> {
    let object = ObjectRef { kind: Kind::Agent, namespace: namespace.to_owned(), name: agent.to_string() };
    let found = cluster.find(&object).await?;
    let found = found.ok_or_else(|| Failure::new(Exit::NotFound, format_args!("there is no {object}")))?;
    let name = text(&found, "/status/apiKeySecret");
    if name.is_empty() {
        let message = format!("{object} has no API key yet: `acb get agents --cluster {agent}` says why");
        return Err(Failure::new(Exit::Unavailable, message));
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("Secret {namespace}/{name}, which holds the agent's API key");
    let secret = secrets.get(name).await.map_err(|error| {
        let failure = refused(&what, &error);
        if failure.is_denial() {
            Failure::new(Exit::Denied, format_args!("{failure}; give the key with --api-key-file"))
        } else {
            failure
        }
    })?;
    let bytes = secret.data.and_then(|mut data| data.remove("api-key")).map(|bytes| bytes.0);
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| Failure::failed(format_args!("{what}: it has no api-key")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hub_without_an_address_outside_is_forwarded_to() {
        let tenant = TenantName::parse("acme").unwrap();
        let service = vec!["https://hub.acbhub-acme.svc:8443".to_owned()];
        let known = |endpoints: &[(&str, &str)]| {
            let endpoints: Vec<Value> = endpoints.iter().map(|(of, address)| json!({"type": of, "address": address})).collect();
            json!({"status": {"endpoints": endpoints}})
        };
        let inside = ("ClusterIP", "hub.acbhub-acme.svc:8443");
        let inner = known(&[inside, ("NodePort", "*:31234")]);
        assert_eq!(servers(&tenant, &inner, false), (service.clone(), true));
        assert_eq!(servers(&tenant, &Value::Null, false), (service.clone(), true));
        let both = known(&[inside, ("LoadBalancer", "203.0.113.7:8443")]);
        assert_eq!(servers(&tenant, &both, false), (vec!["https://203.0.113.7:8443".to_owned()], false));
        assert_eq!(servers(&tenant, &both, true), (service, false));
    }
}
