//! A planned Deployment as what runs here. It knows command, args, env, Secret and ConfigMap volumes, probes, replicas and the
//! grace period; anything else is an error that names the field, except for what only a cluster can give a meaning.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::{Fields, Unsupported};

/// Where a Deployment says how the pod is confined, placed or weighed: one machine has no nodes, and its processes run as
/// whoever started them.
const CLUSTER_ONLY_POD: [&str; 13] = [
    "securityContext",
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "restartPolicy",
    "dnsPolicy",
    "schedulerName",
    "imagePullSecrets",
];
/// The image names the program only where there is no command; the rest is enforced by a container runtime.
const CLUSTER_ONLY_CONTAINER: [&str; 4] = ["imagePullPolicy", "resources", "securityContext", "terminationMessagePolicy"];
/// How a rollout is paced and remembered. Here new pods are ready before old ones go, always.
const CLUSTER_ONLY_DEPLOYMENT: [&str; 5] =
    ["strategy", "revisionHistoryLimit", "progressDeadlineSeconds", "minReadySeconds", "selector"];

/// A Deployment, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many pods.
    pub replicas: u32,
    /// Labels of its pods, by which a Service finds them.
    pub labels: BTreeMap<String, String>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// What a pod runs.
    pub container: Container,
    /// Changes when, and only when, what a pod runs changes.
    pub revision: String,
}

/// The one container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Where there is no command, the program is named after the image.
    pub image: String,
    /// Program and first arguments; empty: the image's.
    pub command: Vec<String>,
    /// More arguments.
    pub args: Vec<String>,
    /// In order.
    pub env: Vec<(String, EnvValue)>,
    /// By name.
    pub ports: Vec<Port>,
    /// Volumes by the path at which the container sees them.
    pub mounts: Vec<Mount>,
    /// When traffic may come.
    pub readiness: Option<Probe>,
    /// When to start over.
    pub liveness: Option<Probe>,
}

/// A value of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    /// As it stands.
    Literal(String),
    /// `metadata.name`
    PodName,
    /// `metadata.namespace`
    PodNamespace,
    /// `status.podIP`
    PodIp,
}

/// A port of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The number in a cluster; here every process gets free ones.
    pub container_port: u32,
}

/// A volume, and where the container sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute.
    pub path: String,
    /// What is in it.
    pub source: VolumeSource,
}

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    /// A Secret by name.
    Secret(String),
    /// A Secret by name; nothing where it is not there.
    OptionalSecret(String),
    /// A ConfigMap by name.
    ConfigMap(String),
    /// Nothing at first.
    Empty,
}

/// An HTTP probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Such as `/readyz`.
    pub path: String,
    /// Name of the port.
    pub port: String,
    /// Before the first.
    pub initial_delay: Duration,
    /// Between two.
    pub period: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// So many failures in a row mean failed.
    pub failure_threshold: u32,
}

impl Workload {
    /// Reads a Deployment.
    pub fn from_deployment(deployment: &Value) -> Result<Self, Unsupported> {
        let text = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let mut root = Fields::new(format!("Deployment {namespace}/{name}: "), deployment.clone())?;
        root.ignore(&["apiVersion", "kind", "metadata", "status"]);
        let mut spec = root.required_object("spec")?;
        root.finish()?;
        let replicas = spec.number("replicas")?.unwrap_or(1);
        spec.ignore(&CLUSTER_ONLY_DEPLOYMENT);
        let mut template = spec.required_object("template")?;
        spec.finish()?;

        let template_value = deployment.pointer("/spec/template").map(Value::to_string).unwrap_or_default();
        let revision = hex::encode(&Sha256::digest(template_value)[..5]);
        let mut metadata = template.required_object("metadata")?;
        let labels = labels(&mut metadata)?;
        metadata.ignore(&["annotations", "name"]);
        metadata.finish()?;
        let mut pod = template.required_object("spec")?;
        template.finish()?;

        pod.ignore(&CLUSTER_ONLY_POD);
        let grace = Duration::from_secs(pod.number("terminationGracePeriodSeconds")?.unwrap_or(30).into());
        let volumes = volumes(&mut pod)?;
        let mut containers = pod.objects("containers")?;
        let (Some(container), true) = (containers.pop(), containers.is_empty()) else {
            return Err(pod.wrong("containers", "a pod here has exactly one container"));
        };
        pod.finish()?;
        let container = Container::read(container, &volumes)?;
        Ok(Self { namespace, name, replicas, labels, grace, container, revision })
    }
}

fn labels(metadata: &mut Fields) -> Result<BTreeMap<String, String>, Unsupported> {
    match metadata.take("labels") {
        None => Ok(BTreeMap::new()),
        Some(value) => serde_json::from_value(value).map_err(|error| metadata.wrong("labels", error.to_string())),
    }
}

fn volumes(pod: &mut Fields) -> Result<BTreeMap<String, VolumeSource>, Unsupported> {
    let mut volumes = BTreeMap::new();
    for mut volume in pod.objects("volumes")? {
        let name = volume.required_text("name")?;
        let source = if let Some(mut secret) = volume.object("secret")? {
            // Files are the owner's alone here, whatever mode a cluster would give them.
            secret.ignore(&["defaultMode"]);
            let name = secret.required_text("secretName")?;
            let source = match secret.take("optional") {
                None | Some(Value::Bool(false)) => VolumeSource::Secret(name),
                Some(Value::Bool(true)) => VolumeSource::OptionalSecret(name),
                Some(other) => return Err(secret.wrong("optional", format!("expected true or false, found {other}"))),
            };
            secret.finish()?;
            source
        } else if let Some(mut config) = volume.object("configMap")? {
            config.ignore(&["defaultMode"]);
            let source = VolumeSource::ConfigMap(config.required_text("name")?);
            config.finish()?;
            source
        } else if let Some(mut empty) = volume.object("emptyDir")? {
            // One file system holds everything here: there is no medium to choose and no share to limit.
            empty.ignore(&["medium", "sizeLimit"]);
            empty.finish()?;
            VolumeSource::Empty
        } else {
            volume.finish()?;
            return Err(pod.wrong("volumes", format!("{name} is neither a Secret, a ConfigMap nor an emptyDir")));
        };
        volume.finish()?;
        volumes.insert(name, source);
    }
    Ok(volumes)
}

impl Container {
    fn read(mut fields: Fields, volumes: &BTreeMap<String, VolumeSource>) -> Result<Self, Unsupported> {
        fields.ignore(&CLUSTER_ONLY_CONTAINER);
        let mut ports = Vec::new();
        for mut port in fields.objects("ports")? {
            port.ignore(&["protocol"]);
            let container_port = port.number("containerPort")?.ok_or_else(|| port.wrong("containerPort", "is missing"))?;
            ports.push(Port { name: port.required_text("name")?, container_port });
            port.finish()?;
        }
        let mut mounts = Vec::new();
        for mut mount in fields.objects("volumeMounts")? {
            // What is materialised is read-only in effect: a change by the process is overwritten with the next version.
            mount.ignore(&["readOnly"]);
            let (name, path) = (mount.required_text("name")?, mount.required_text("mountPath")?);
            let source = volumes.get(&name).ok_or_else(|| mount.wrong("name", format!("there is no volume {name}")))?;
            let plain = Path::new(&path).components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
            if !path.starts_with('/') || path.len() < 2 || !plain {
                return Err(mount.wrong("mountPath", format!("{path} is not an absolute path without `..`")));
            }
            mount.finish()?;
            mounts.push(Mount { path: path.trim_end_matches('/').to_owned(), source: source.clone() });
        }
        let mut env = Vec::new();
        for mut entry in fields.objects("env")? {
            let name = entry.required_text("name")?;
            env.push((name, env_value(&mut entry)?));
            entry.finish()?;
        }
        let container = Self {
            name: fields.required_text("name")?,
            image: fields.text("image")?.unwrap_or_default(),
            command: fields.strings("command")?,
            args: fields.strings("args")?,
            env,
            readiness: probe(&mut fields, "readinessProbe", &ports)?,
            liveness: probe(&mut fields, "livenessProbe", &ports)?,
            ports,
            mounts,
        };
        // A startup probe only holds the liveness probe back, which here starts with the first readiness.
        fields.ignore(&["startupProbe"]);
        fields.finish()?;
        Ok(container)
    }

    /// The name under which the program is looked for: the command's first word, or the image without registry and tag.
    #[must_use]
    pub fn program(&self) -> &str {
        match self.command.first() {
            Some(program) => program.rsplit('/').next().unwrap_or(program),
            None => {
                let image = self.image.split('@').next().unwrap_or_default();
                let last = image.rsplit('/').next().unwrap_or_default();
                last.split(':').next().unwrap_or_default()
            }
        }
    }

    /// A path or value as the process must see it: `root` stands before every path that leads to, or into, a mount.
    #[must_use]
    pub fn rewrite(&self, value: &str, root: &Path) -> String {
        let path = value.trim_end_matches('/');
        let leads =
            |inner: &str, outer: &str| inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        let concerns = path.len() > 1
            && path.starts_with('/')
            && self.mounts.iter().any(|mount| leads(path, &mount.path) || leads(&mount.path, path));
        if concerns {
            return format!("{}{path}", root.display());
        }
        // `--config=/etc/acb/config`
        match value.split_once('=') {
            Some((flag, rest)) if flag.starts_with('-') => format!("{flag}={}", self.rewrite(rest, root)),
            _ => value.to_owned(),
        }
    }
}

fn env_value(entry: &mut Fields) -> Result<EnvValue, Unsupported> {
    let Some(mut from) = entry.object("valueFrom")? else {
        return Ok(EnvValue::Literal(entry.text("value")?.unwrap_or_default()));
    };
    let mut field = from.required_object("fieldRef")?;
    field.ignore(&["apiVersion"]);
    let value = match field.required_text("fieldPath")?.as_str() {
        "metadata.name" => EnvValue::PodName,
        "metadata.namespace" => EnvValue::PodNamespace,
        "status.podIP" => EnvValue::PodIp,
        other => return Err(field.wrong("fieldPath", format!("{other} has no value here"))),
    };
    field.finish()?;
    from.finish()?;
    Ok(value)
}

fn probe(container: &mut Fields, key: &str, ports: &[Port]) -> Result<Option<Probe>, Unsupported> {
    let Some(mut fields) = container.object(key)? else { return Ok(None) };
    let mut get = fields.required_object("httpGet")?;
    get.ignore(&["scheme"]);
    let port = match get.take("port") {
        Some(Value::String(name)) => ports.iter().find(|port| port.name == name),
        Some(number) => ports.iter().find(|port| number.as_u64() == Some(port.container_port.into())),
        None => None,
    };
    let port = port.ok_or_else(|| get.wrong("port", "is not one of the container's ports"))?;
    let path = get.text("path")?.unwrap_or_else(|| "/".into());
    get.finish()?;
    let mut seconds = |key: &str, default: u32| -> Result<Duration, Unsupported> {
        Ok(Duration::from_secs(fields.number(key)?.unwrap_or(default).into()))
    };
    let initial_delay = seconds("initialDelaySeconds", 0)?;
    let period = seconds("periodSeconds", 10)?;
    let timeout = seconds("timeoutSeconds", 1)?;
    let failure_threshold = fields.number("failureThreshold")?.unwrap_or(3).max(1);
    fields.ignore(&["successThreshold"]);
    fields.finish()?;
    Ok(Some(Probe { path, port: port.name.clone(), initial_delay, period, timeout, failure_threshold }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    pub(crate) fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "hub", "namespace": "acbhub-acme"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "hub"}},
                "template": {
                    "metadata": {"labels": {"app": "hub"}},
                    "spec": {
                        "securityContext": {"runAsNonRoot": true},
                        "terminationGracePeriodSeconds": 30,
                        "containers": [{
                            "name": "hub", "image": "registry.example/acb-hub:1", "args": ["--config=/etc/acb/config"],
                            "env": [
                                {"name": "ACB_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                                {"name": "ACB_CONFIG_DIR", "value": "/etc/acb"},
                            ],
                            "ports": [{"name": "ops", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "ops"}, "periodSeconds": 1},
                            "volumeMounts": [{"name": "keys", "mountPath": "/etc/acb/keys", "readOnly": true}],
                        }],
                        "volumes": [{"name": "keys", "secret": {"secretName": "hub-keys-1"}}],
                    },
                },
            },
        })
    }

    #[test]
    fn a_planned_deployment_is_understood() {
        let workload = Workload::from_deployment(&deployment()).unwrap();
        assert_eq!((workload.replicas, workload.grace), (2, Duration::from_secs(30)));
        assert_eq!(workload.container.program(), "acb-hub");
        assert_eq!(workload.container.env[0], ("ACB_POD_NAME".into(), EnvValue::PodName));
        assert_eq!(workload.container.mounts[0].source, VolumeSource::Secret("hub-keys-1".into()));
        assert_eq!(workload.container.readiness.as_ref().unwrap().port, "ops");
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it() {
        for (pointer, key, path) in [
            ("/spec/template/spec", "hostNetwork", "spec.template.spec.hostNetwork"),
            ("/spec/template/spec/containers/0", "lifecycle", "spec.template.spec.containers[0].lifecycle"),
            ("/spec/template/spec/containers/0/env/1", "valueFrom", "spec.template.spec.containers[0].env[1].valueFrom"),
            ("/spec/template/spec/volumes/0/secret", "items", "spec.template.spec.volumes[0].secret.items"),
            ("/spec", "paused", "spec.paused"),
        ] {
            let mut deployment = deployment();
            deployment.pointer_mut(pointer).unwrap()[key] = json!({"x": 1});
            let error = Workload::from_deployment(&deployment).unwrap_err();
            assert!(error.path.starts_with(&format!("Deployment acbhub-acme/hub: {path}")), "{error}");
        }
    }

    #[test]
    fn a_mount_stays_inside_its_root() {
        let mut deployment = deployment();
        deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/etc/../../x");
        assert!(Workload::from_deployment(&deployment).is_err());
    }

    #[test]
    fn paths_to_and_into_mounts_are_rewritten() {
        let container = Workload::from_deployment(&deployment()).unwrap().container;
        let rewrite = |value: &str| container.rewrite(value, Path::new("/state/pod"));
        assert_eq!(rewrite("/etc/acb"), "/state/pod/etc/acb");
        assert_eq!(rewrite("/etc/acb/keys/pepper"), "/state/pod/etc/acb/keys/pepper");
        assert_eq!(rewrite("--dir=/etc/acb"), "--dir=/state/pod/etc/acb");
        for plain in ["/", "/etc/ssl", "/etc/acb/keysmith", "8443", "etc/acb", "url=/etc/acb"] {
            assert_eq!(rewrite(plain), plain);
        }
    }

    #[test]
    fn the_revision_follows_the_template_alone() {
        let mut changed = deployment();
        let before = Workload::from_deployment(&changed).unwrap().revision;
        changed["spec"]["replicas"] = json!(3);
        assert_eq!(Workload::from_deployment(&changed).unwrap().revision, before);
        changed["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"] = json!("hub-keys-2");
        assert_ne!(Workload::from_deployment(&changed).unwrap().revision, before);
    }
}
