//! A tenant, as a cluster has it and as far as the caller may see it.

use acb_crds::{
    names::{TenantName, objects},
    schema::{Kind, ObjectRef},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Event as CoreEvent, Pod as CorePod, Secret},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube_client::{Api, api::ListParams};

use super::{
    lag::{self, Lags},
    page::{Credential, Event, Hub, Pod, TenantStatus},
};
use crate::{
    cluster::{Cluster, refused},
    output::{Exit, Failure},
    standalone::text,
};

/// Where a hub says how it is.
const OPS_PORT: u16 = 8080;
/// The most events that are shown: the last ones.
const EVENTS: usize = 10;

/// Looks. What is denied is left out, and said.
pub(super) async fn look(cluster: &Cluster, name: &TenantName) -> Result<TenantStatus, Failure> {
    let object = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: name.to_string() };
    let tenant = cluster.find(&object).await?;
    let tenant = tenant.ok_or_else(|| Failure::new(Exit::NotFound, format_args!("there is no Tenant {name}")))?;
    let namespace = text(&tenant, "/status/namespace").to_owned();
    let hub_namespace = text(&tenant, "/status/hubNamespace").to_owned();
    let mut status = TenantStatus { tenant, ..TenantStatus::default() };
    if namespace.is_empty() || hub_namespace.is_empty() {
        return Ok(status);
    }
    let unseen = &mut status.unseen;
    status.agents = seen(cluster.list(Kind::Agent, Some(&namespace)).await, unseen)?;
    status.hub = hub(cluster, &hub_namespace, unseen).await?;
    for namespace in [&namespace, &hub_namespace] {
        status.credentials.extend(credentials(cluster, namespace, unseen).await?);
    }
    // Those of a Tenant, which has no namespace, are in `default`.
    let mut events = Vec::new();
    for namespace in [namespace.as_str(), hub_namespace.as_str(), "default"] {
        let found = events_of(cluster, namespace, unseen).await?;
        let is_ours = |event: &CoreEvent| {
            let about = &event.involved_object;
            namespace != "default" || (about.kind.as_deref() == Some("Tenant") && about.name.as_deref() == Some(name.as_str()))
        };
        events.extend(found.into_iter().filter(is_ours).map(event));
    }
    events.sort_by(|a: &Event, b: &Event| b.at.cmp(&a.at));
    events.truncate(EVENTS);
    status.events = events;
    Ok(status)
}

/// What was found; nothing where the caller may not see it.
fn seen<T: Default>(found: Result<T, Failure>, unseen: &mut Vec<String>) -> Result<T, Failure> {
    match found {
        Err(failure) if failure.is_denial() => {
            unseen.push(failure.to_string());
            Ok(T::default())
        }
        found => found,
    }
}

async fn hub(cluster: &Cluster, namespace: &str, unseen: &mut Vec<String>) -> Result<Hub, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("Deployment {namespace}/{}", objects::HUB);
    let deployment = deployments.get_opt(objects::HUB).await.map_err(|error| refused(&what, &error));
    let deployment = seen(deployment, unseen)?.unwrap_or_default();
    let pods: Api<CorePod> = Api::namespaced(cluster.client.clone(), namespace);
    // Not those of the Jobs that attack the walls.
    let of_hub = ListParams::default().labels(objects::HUB_PODS);
    let pods = pods.list(&of_hub).await.map_err(|error| refused(&format!("pods of {namespace}"), &error));
    let pods = seen(pods.map(|pods| pods.items), unseen)?;
    let (spec, status) = (deployment.spec.unwrap_or_default(), deployment.status.unwrap_or_default());
    let containers = spec.template.spec.unwrap_or_default().containers;
    let number = |count: Option<i32>| u64::try_from(count.unwrap_or_default()).unwrap_or_default();
    let pods: Vec<Pod> = pods.into_iter().map(pod).collect();
    let lag = lags(cluster, namespace, &pods, unseen).await?;
    Ok(Hub {
        replicas: number(spec.replicas),
        ready: number(status.ready_replicas),
        image: containers.into_iter().next().and_then(|container| container.image).unwrap_or_default(),
        pods,
        lag,
    })
}

/// Asks each replica that is ready, by way of the API server.
async fn lags(cluster: &Cluster, namespace: &str, pods: &[Pod], unseen: &mut Vec<String>) -> Result<Lags, Failure> {
    let mut lags = Lags::new();
    for pod in pods.iter().filter(|pod| pod.ready) {
        let what = format!("the metrics of pod {namespace}/{} (pods/proxy)", pod.name);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{}:{OPS_PORT}/proxy/metrics", pod.name);
        let request = http::Request::get(path).body(Vec::new()).map_err(Failure::failed)?;
        match cluster.client.request_text(request).await {
            Ok(metrics) => lag::add(&mut lags, &metrics),
            Err(error) if refused(&what, &error).is_denial() => unseen.push(refused(&what, &error).to_string()),
            // A replica that ends at this moment is no reason to show nothing.
            Err(error) => unseen.push(format!("{what}: {error}")),
        }
    }
    Ok(lags)
}

fn pod(pod: CorePod) -> Pod {
    let status = pod.status.unwrap_or_default();
    let ready = status.conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let mut message = status.message.unwrap_or_default();
    let mut restarts = 0;
    for container in status.container_statuses.into_iter().flatten() {
        restarts += u64::try_from(container.restart_count).unwrap_or_default();
        let waiting = container.state.and_then(|state| state.waiting);
        let ended = container.last_state.and_then(|state| state.terminated);
        if let Some(waiting) = waiting {
            message = [waiting.reason, waiting.message].into_iter().flatten().collect::<Vec<_>>().join(": ");
        } else if let Some(ended) = ended {
            message = format!("ended with {} before ({})", ended.exit_code, ended.reason.unwrap_or_default());
        }
    }
    Pod {
        name: pod.metadata.name.unwrap_or_default(),
        phase: status.phase.unwrap_or_default(),
        ready,
        restarts,
        message,
        created_at: time(pod.metadata.creation_timestamp.as_ref()),
    }
}

/// Names and ages alone: what is in them is not asked for.
async fn credentials(cluster: &Cluster, namespace: &str, unseen: &mut Vec<String>) -> Result<Vec<Credential>, Failure> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=acb-operator");
    let listed = secrets.list_metadata(&ours).await.map_err(|error| refused(&format!("secrets of {namespace}"), &error));
    let listed = seen(listed.map(|listed| listed.items), unseen)?;
    let credential = |secret: kube_client::core::PartialObjectMeta<Secret>| Credential {
        namespace: namespace.to_owned(),
        name: secret.metadata.name.unwrap_or_default(),
        created_at: time(secret.metadata.creation_timestamp.as_ref()),
    };
    Ok(listed.into_iter().map(credential).collect())
}

async fn events_of(cluster: &Cluster, namespace: &str, unseen: &mut Vec<String>) -> Result<Vec<CoreEvent>, Failure> {
    let events: Api<CoreEvent> = Api::namespaced(cluster.client.clone(), namespace);
    let listed = events.list(&ListParams::default()).await.map_err(|error| refused(&format!("events of {namespace}"), &error));
    seen(listed.map(|listed| listed.items), unseen)
}

fn event(event: CoreEvent) -> Event {
    let about = event.involved_object;
    let at = event.last_timestamp.as_ref().map(|at| time(Some(at)));
    Event {
        // The newer kind of events has no other time than this one.
        at: at.unwrap_or_else(|| time(event.metadata.creation_timestamp.as_ref())),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        object: format!("{} {}", about.kind.unwrap_or_default(), about.name.unwrap_or_default()),
        message: event.message.unwrap_or_default(),
    }
}

/// In RFC 3339.
fn time(at: Option<&Time>) -> String {
    at.map(|at| at.0.to_string()).unwrap_or_default()
}
