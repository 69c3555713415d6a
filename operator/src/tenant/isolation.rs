//! The Job that attacks the walls between tenants with what this tenant's hub has, and nothing more. Pure.

use acb_crds::{Agent, Tenant, names::objects, tenant::IsolationStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{namespace::TENANT_LABEL, space::labels_of};
use crate::platform::PlatformIsolation;

/// The policies of its pods.
pub(super) const OUT: &str = "isolation-to-platform";
pub(super) const INTO_HUB: &str = "isolation-to-hub";

/// What a Job is.
pub const JOB: (&str, &str) = ("batch/v1", "Job");
/// The variable with the [`Mission`].
pub const MISSION: &str = "ACB_ISOLATION_MISSION";
/// Where its container tells how it ended: its pod has no right to write anything to the API.
pub const TOLD: &str = "/dev/termination-log";
/// The kubelet keeps no more of that.
pub const MOST_TOLD: usize = 4096;

/// A Job that takes longer is ended.
pub const DEADLINE_SECONDS: u64 = 1800;
/// Its program ends by itself before that, and tells what it found: of a Job that is ended the pods are removed, and with them what they told.
/// The rest is for the image to be pulled.
pub const PROGRAM_SECONDS: u64 = 1500;
/// How long an ended one is there for people to read its log.
const KEPT_SECONDS: u32 = 3600;
/// Beside those that are always attacked, so many are.
const AT_RANDOM: usize = 20;
/// So many attacks that got through are named.
pub const MOST_KEPT: usize = 10;
/// In a line of `succeeded`, between an attack and whom it was against.
const AGAINST: &str = " against ";
/// At the end of one that was found before, and not refused since.
const BEFORE: &str = " (found before, not refused since)";
/// Attacks at the neighbour's door, which are not made where it can't be connected to.
const DOORS: [&str; 2] = ["hub.door.", "hub.token."];
/// A variable of a process has at most 128 KiB. An authority has about 1.
const MOST_AUTHORITY: usize = 2500;

/// Whom a Job attacks. Names, addresses and public certificates: nothing here is a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mission {
    /// The tenant's id: 20 hex digits.
    pub tenant_id: String,
    /// `host:port` of its hub.
    pub endpoints: Vec<String>,
    /// The others.
    pub neighbours: Vec<Neighbour>,
}

/// One that is attacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// Its name.
    pub tenant: String,
    /// 20 hex digits.
    pub tenant_id: String,
    /// `host:port` of its hub.
    pub endpoints: Vec<String>,
    /// Its authority (PEM).
    pub authority: String,
    /// An agent that it alone has.
    pub agent: String,
    /// A group that it alone has.
    pub group: String,
    /// One of its context types.
    pub context_type: String,
}

/// An attack that got through, as `succeeded` of the status has it.
#[must_use]
pub fn line(attack: &str, victim: &str, what: &str) -> String {
    format!("{attack}{AGAINST}{victim}: {what}")
}

/// The name of the attack in a [`line`], and whom it was against.
fn parts(line: &str) -> Option<(&str, &str)> {
    let (attack, rest) = line.split_once(AGAINST)?;
    Some((attack, rest.split_once(':')?.0))
}

fn victim_of(line: &str) -> Option<String> {
    parts(line).map(|(_, victim)| victim.to_owned())
}

/// What is said once attacks ended: also what got through before, until it is refused. A neighbour that was not attacked, a Job that could
/// not run and an attack that proved nothing take no breach back. Only a neighbour that is gone does.
#[must_use]
pub fn kept(before: Option<&IsolationStatus>, found: IsolationStatus, is_there: impl Fn(&str) -> bool) -> IsolationStatus {
    let all_ended = found.failure.is_none()
        && found.inconclusive.is_empty()
        && found.attacks > 0
        && (found.is_unbroken() || !found.succeeded.is_empty());
    let is_refused = |attack: &str, victim: &str| {
        let has_door = DOORS.iter().any(|door| attack.starts_with(door));
        let was_tried = |victim: &str| found.neighbours.iter().any(|name| name == victim);
        let was_unreached = found.unreached.iter().any(|name| name == victim);
        all_ended && was_tried(victim) && !(has_door && was_unreached)
    };
    let mut succeeded = found.succeeded.clone();
    for line in before.iter().flat_map(|before| &before.succeeded) {
        let Some((attack, victim)) = parts(line) else { continue };
        let is_told = succeeded.iter().any(|told| parts(told) == Some((attack, victim)));
        if is_told || succeeded.len() >= MOST_KEPT || !is_there(victim) || is_refused(attack, victim) {
            continue;
        }
        let line = line.trim_end_matches(BEFORE);
        succeeded.push(format!("{line}{BEFORE}"));
    }
    IsolationStatus { succeeded, ..found }
}

/// By which the pods are found.
pub(super) fn selector(tenant: &str) -> Value {
    json!({"app.kubernetes.io/component": objects::ISOLATION, TENANT_LABEL: tenant})
}

/// The same, as a list is asked for.
#[must_use]
pub fn selector_text(tenant: &str) -> String {
    format!("app.kubernetes.io/component={},{TENANT_LABEL}={tenant}", objects::ISOLATION)
}

/// Whom a tenant attacks this time: who is always attacked, those against whom an attack got through the last time, and of the others twenty,
/// drawn by `lot`.
#[must_use]
pub fn draw<'a>(
    own: &Tenant,
    all: &'a [&'a Tenant],
    isolation: &PlatformIsolation,
    lot: impl Fn(&str) -> String,
) -> Vec<&'a Tenant> {
    let name = |tenant: &Tenant| tenant.metadata.name.clone().unwrap_or_default();
    let is_there = |tenant: &&&Tenant| {
        let status = tenant.status.as_ref();
        tenant.metadata.deletion_timestamp.is_none()
            && status.is_some_and(|status| status.tenant_id.is_some() && status.hub.is_some())
    };
    let last = own.status.as_ref().and_then(|status| status.isolation.as_ref());
    let broken: Vec<String> = last.iter().flat_map(|last| &last.succeeded).filter_map(|line| victim_of(line)).collect();
    let others = all.iter().filter(|tenant| name(tenant) != name(own)).filter(is_there);
    let (mut always, mut others): (Vec<&Tenant>, Vec<&Tenant>) =
        others.copied().partition(|tenant| isolation.neighbours.contains(&name(tenant)) || broken.contains(&name(tenant)));
    others.sort_by_cached_key(|tenant| lot(tenant.metadata.uid.as_deref().unwrap_or_default()));
    always.extend(others.into_iter().take(AT_RANDOM));
    always
}

/// A neighbour, as anybody may know it. What has the same name with the attacker is its own affair, and no prize.
#[must_use]
pub fn neighbour(tenant: &Tenant, authority: &str, theirs: &[Agent], own: &[Agent]) -> Neighbour {
    let status = tenant.status.clone().unwrap_or_default();
    let name = tenant.metadata.name.clone().unwrap_or_default();
    let agent_of = |agent: &Agent| agent.metadata.name.clone().unwrap_or_default();
    let has_group = |group: &str| own.iter().any(|agent| agent.spec.groups.iter().any(|own| own == group));
    let only = || format!("{name}-only");
    let agent = theirs.iter().map(agent_of).find(|theirs| own.iter().all(|own| agent_of(own) != *theirs));
    let mut groups = theirs.iter().flat_map(|agent| &agent.spec.groups).cloned();
    let types = status.context_types.first().map(|found| found.name.clone());
    Neighbour {
        tenant_id: status.tenant_id.unwrap_or_default(),
        endpoints: status
            .endpoints
            .into_iter()
            .map(|endpoint| endpoint.address)
            .filter(|address| !address.starts_with('*'))
            .collect(),
        authority: Some(authority).filter(|pem| pem.len() <= MOST_AUTHORITY).unwrap_or_default().to_owned(),
        agent: agent.unwrap_or_else(only),
        group: groups.find(|group| !has_group(group)).unwrap_or_else(only),
        context_type: types.unwrap_or_else(|| "documents".to_owned()),
        tenant: name,
    }
}

/// The Job, made from the hub's Deployment as it is: with its logins and its signing key, where its pods may run. `None`: there is no hub to
/// make it from.
#[must_use]
pub fn job(tenant: &str, name: &str, hub: &Value, mission: &Mission, isolation: &PlatformIsolation) -> Option<Value> {
    let pod = hub.pointer("/spec/template/spec")?;
    let namespace = hub.pointer("/metadata/namespace")?;
    let volumes: Vec<Value> = pod["volumes"].as_array()?.iter().filter_map(volume).collect();
    let mounts: Vec<Value> = volumes
        .iter()
        .filter_map(|volume| volume["name"].as_str())
        .map(|name| json!({"name": name, "mountPath": format!("/etc/acb/{name}"), "readOnly": true}))
        .collect();
    let mut inner = json!({
        "restartPolicy": "Never",
        "serviceAccountName": objects::ISOLATION,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 5,
        "securityContext": pod["securityContext"],
        "containers": [{
            "name": objects::ISOLATION,
            "image": isolation.image,
            "command": ["/acb", "isolation", tenant, "--cluster"],
            "env": [
                {"name": "ACB_CONFIG_DIR", "value": "/etc/acb"},
                {"name": MISSION, "value": serde_json::to_string(mission).ok()?},
            ],
            "volumeMounts": mounts,
            "terminationMessagePath": TOLD,
            "terminationMessagePolicy": "File",
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        }],
        "volumes": volumes,
    });
    for field in ["nodeSelector", "affinity", "tolerations", "imagePullSecrets", "priorityClassName"] {
        if let Some(given) = pod.get(field) {
            inner[field] = given.clone();
        }
    }
    let labels = labels_of(tenant, objects::ISOLATION);
    Some(json!({
        "apiVersion": JOB.0, "kind": JOB.1,
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": inner},
        },
    }))
}

/// What of the hub's volumes an attacker gets: its configuration, its logins, its signing key and the tenant's public certificate.
fn volume(volume: &Value) -> Option<Value> {
    let mut volume = volume.clone();
    let item = match volume["name"].as_str()? {
        "config" | "postgres" | "kafka" => None,
        "keys" => Some("signing.key"),
        "tls" => Some("ca.crt"),
        _ => return None,
    };
    if let Some(item) = item {
        volume["secret"]["items"] = json!([{"key": item, "path": item}]);
    }
    Some(volume)
}
