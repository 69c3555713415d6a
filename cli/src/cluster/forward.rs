//! A port of this machine that leads into a pod, through the API server and the kubelet. What goes through it is as private as what is
//! spoken in it: whoever is on this machine may connect.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use acb_crds::names::{TenantName, objects::HUB_PODS};
use k8s_openapi::api::core::v1::Pod;
use kube_client::{Api, Client, Error, api::ListParams, client::UpgradeConnectionError};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::refused;
use crate::output::{Exit, Failure};

/// To find a pod, and to be let in.
const OPEN_WITHIN: Duration = Duration::from_secs(15);
/// More than a client has open at a time.
const CONNECTIONS: usize = 16;

/// Where it leads.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Into this pod.
    Pod {
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Into any pod of a tenant's hub that is ready.
    Hub(TenantName),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Hub(tenant) => write!(f, "the hub of tenant {tenant}"),
        }
    }
}

/// Forwards until this process ends.
#[derive(Debug)]
pub(crate) struct Forward {
    address: SocketAddr,
    failure: watch::Receiver<Option<Failure>>,
}

struct Way {
    client: Client,
    to: Destination,
    port: u16,
}

impl Forward {
    /// Listens on a free port of the loopback address. The pod is looked for when somebody connects.
    pub(crate) async fn open(client: &Client, to: Destination, port: u16) -> Result<Self, Failure> {
        let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listening.map_err(|error| Failure::failed(format_args!("a local port: {error}")))?;
        let address = listener.local_addr().map_err(Failure::failed)?;
        let (sender, failure) = watch::channel(None);
        tokio::spawn(accept(listener, Arc::new(Way { client: client.clone(), to, port }), Arc::new(sender)));
        Ok(Self { address, failure })
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Why the last connection that did not get through did not: what its client saw is only that it was closed.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Waits until a connection is denied, which no further try would mend.
    pub(crate) async fn denied(&self) -> Failure {
        let mut failure = self.failure.clone();
        let denied = failure.wait_for(|failure| failure.as_ref().is_some_and(Failure::is_denial)).await;
        match denied.ok().and_then(|denied| denied.clone()) {
            Some(denied) => denied,
            None => std::future::pending().await,
        }
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>, failure: Arc<watch::Sender<Option<Failure>>>) {
    // Ended with this task.
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < CONNECTIONS => {
                let Ok((socket, _)) = accepted else { continue };
                let (way, failure) = (Arc::clone(&way), Arc::clone(&failure));
                open.spawn(async move {
                    if let Err(why) = way.carry(socket).await {
                        tracing::debug!(%why, "port-forward");
                        failure.send_replace(Some(why));
                    }
                });
            }
        }
    }
}

impl Way {
    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The pod to go to now.
    async fn pod(&self) -> Result<(String, String), Failure> {
        let tenant = match &self.to {
            Destination::Pod { namespace, name } => return Ok((namespace.clone(), name.clone())),
            Destination::Hub(tenant) => tenant,
        };
        let namespace = tenant.hub_namespace();
        let params = ListParams::default().labels(HUB_PODS);
        let listed =
            self.pods(&namespace).list(&params).await.map_err(|error| refused(&format!("pods of {namespace}"), &error))?;
        let mut ready: Vec<String> =
            listed.items.iter().filter(|pod| is_ready(pod)).filter_map(|pod| pod.metadata.name.clone()).collect();
        // Another one each time, so that one that hangs is not asked for ever.
        let turn = uuid::Uuid::new_v4().as_u128() % (ready.len().max(1) as u128);
        let turn = usize::try_from(turn).unwrap_or_default();
        if ready.is_empty() {
            return Err(Failure::new(Exit::Unavailable, format_args!("{}: none of its pods is ready", self.to)));
        }
        Ok((namespace, ready.swap_remove(turn)))
    }

    /// Carries one connection, to its end.
    async fn carry(&self, mut socket: TcpStream) -> Result<(), Failure> {
        let late = |_| {
            Failure::new(
                Exit::Unavailable,
                format_args!("port-forward to {}: no answer within {} s", self.to, OPEN_WITHIN.as_secs()),
            )
        };
        let opening = async {
            let (namespace, pod) = self.pod().await?;
            let forwarder = self.pods(&namespace).portforward(&pod, &[self.port]).await;
            forwarder.map_err(|error| self.shut(&namespace, &error))
        };
        let mut forwarder = timeout(OPEN_WITHIN, opening).await.map_err(late)??;
        let (Some(mut stream), Some(error)) = (forwarder.take_stream(self.port), forwarder.take_error(self.port)) else {
            return Err(Failure::failed("port-forward: no stream"));
        };
        tokio::select! {
            // Either end may close, and so ends the connection.
            _ = copy_bidirectional(&mut socket, &mut stream) => {}
            Some(why) = error => {
                return Err(Failure::new(Exit::Unavailable, format_args!("port-forward to {}: {}", self.to, why.trim())));
            }
        }
        drop(stream);
        forwarder.abort();
        Ok(())
    }

    fn shut(&self, namespace: &str, error: &Error) -> Failure {
        let what = format!("port-forward to {}", self.to);
        match error {
            Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => match status.as_u16() {
                401 | 403 => Failure::new(
                    Exit::Denied,
                    format_args!("{what}: not allowed; it takes `get` and `create` of pods/portforward in namespace {namespace}"),
                ),
                404 => Failure::new(Exit::Unavailable, format_args!("{what}: the pod is gone")),
                _ => Failure::new(Exit::Unavailable, format_args!("{what}: the API server answers {status}")),
            },
            other => refused(&what, other),
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_is_going_is_not_gone_to() {
        let pod = |ready: &str, deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleted}, "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert!(is_ready(&pod("True", None)));
        assert!(!is_ready(&pod("False", None)) && !is_ready(&pod("True", Some("2026-01-01T00:00:00Z"))));
        assert!(!is_ready(&Pod::default()));
    }
}
