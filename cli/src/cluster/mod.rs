//! A cluster, as the kubeconfig says: with the caller's own rights, and with no others.

pub(crate) mod forward;
pub(crate) mod planner;

use std::path::PathBuf;

use acb_crds::schema::{Kind, ObjectRef};
use clap::Args;
use kube_client::{
    Api, Client, Config, Error,
    api::{ApiResource, DynamicObject, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::output::{Exit, Failure};

/// Which cluster, where it is one.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ClusterArgs {
    /// Short for `--target cluster`: the cluster of the kubeconfig's current context, or of the pod that this runs in.
    #[arg(long)]
    cluster: bool,
    /// The same, of this context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// Kubeconfig [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// Whether a cluster is meant at all.
    pub(crate) fn is_given(&self) -> bool {
        self.cluster || self.kube_context.is_some() || self.kubeconfig.is_some()
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        Place { kubeconfig: self.kubeconfig.clone(), context: self.kube_context.clone() }
    }
}

/// Where a cluster is found again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Place {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubeconfig: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<String>,
}

impl Place {
    /// Pins what would change with somebody's next `kubectl config use-context`, or in another folder.
    pub(crate) fn pinned(&self) -> Self {
        let read = || match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let current = || read().ok().and_then(|config| config.current_context);
        let given = self.kubeconfig.as_ref();
        Self {
            kubeconfig: given.map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())),
            context: self.context.clone().or_else(current),
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        match self.pinned().context {
            Some(context) => format!("the cluster of context {context}"),
            None => "the cluster that this runs in".to_owned(),
        }
    }

    async fn config(&self) -> Result<(Config, bool), Failure> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let found = match &self.kubeconfig {
            Some(file) => match Kubeconfig::read_from(file) {
                Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await,
                Err(error) => Err(error),
            },
            None => Config::from_kubeconfig(&options).await,
        };
        let found = match found {
            Ok(config) => Ok((config, false)),
            // In a pod there is no kubeconfig, as a rule.
            Err(error) if self == &Self::default() => Config::incluster().map(|config| (config, true)).map_err(|_| error),
            Err(error) => Err(error),
        };
        found.map_err(|error| {
            Failure::new(Exit::Usage, format_args!("kubeconfig: {error}; name one with --kubeconfig, or $KUBECONFIG"))
        })
    }

    /// Reads who and where. Connects to nothing yet.
    pub(crate) async fn open(&self) -> Result<Cluster, Failure> {
        let (config, is_inside) = self.config().await?;
        let client = Client::try_from(config.clone()).map_err(|error| Failure::failed(format_args!("kubeconfig: {error}")))?;
        Ok(Cluster { config, client, is_inside })
    }
}

/// A cluster, and its caller.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) config: Config,
    pub(crate) client: Client,
    /// Whether this runs in one of its pods.
    pub(crate) is_inside: bool,
}

/// The failure that the API server's answer is: for what, and with what exit code.
pub(crate) fn refused(what: &str, error: &Error) -> Failure {
    match error {
        Error::Api(status) => {
            let exit = match status.code {
                401 | 403 => Exit::Denied,
                404 => Exit::NotFound,
                429 | 500.. => Exit::Unavailable,
                _ => Exit::Failed,
            };
            Failure::new(exit, format_args!("{what}: {}", status.message))
        }
        Error::Auth(error) => Failure::new(Exit::Denied, format_args!("{what}: {error}")),
        other => Failure::new(Exit::Unavailable, format_args!("{what}: {}", innermost(other))),
    }
}

/// What is at the bottom of it: the rest only says that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

impl Cluster {
    fn resources(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let plural = format!("{}s", kind.as_str().to_lowercase());
        let (group, version) = acb_crds::API_VERSION.split_once('/').unwrap_or_default();
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.as_str()), &plural);
        match namespace.filter(|namespace| kind != Kind::Tenant && !namespace.is_empty()) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// One of the kinds' objects, where it is there.
    pub(crate) async fn find(&self, object: &ObjectRef) -> Result<Option<Value>, Failure> {
        match self.resources(object.kind, Some(&object.namespace)).get(&object.name).await {
            Ok(found) => plain(object.kind, &found).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(refused(&object.to_string(), &error)),
        }
    }

    /// All objects of a kind, of a namespace or of all.
    pub(crate) async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Value>, Failure> {
        let listed = self.resources(kind, namespace).list(&ListParams::default()).await;
        let listed = listed.map_err(|error| refused(&format!("{kind}s"), &error))?;
        listed.items.iter().map(|object| plain(kind, object)).collect()
    }
}

/// As plain data, with the kind that lists leave out.
fn plain(kind: Kind, object: &DynamicObject) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(object).map_err(Failure::failed)?;
    value["apiVersion"] = acb_crds::API_VERSION.into();
    value["kind"] = kind.as_str().into();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Ok(value)
}
