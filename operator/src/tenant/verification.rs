//! When the walls of a tenant are attacked, and what came of it. Pure.

use acb_crds::{
    Tenant,
    tenant::{HubStatus, IsolationStatus},
};
use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::condition::READY;

/// Where an attack was not refused, or nothing was proved, it is looked again sooner: somebody is at work on it.
const AGAIN_AFTER: Duration = Duration::hours(1);

/// How a Job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It runs, or waits for this.
    Runs(Option<String>),
    /// It ended, with this.
    Ended(Box<IsolationStatus>),
}

/// Since when the walls of a tenant are to be attacked again; `None`: there is no hub that could, its agents are refused, or it is on its way
/// out. Who was never looked at comes first.
#[must_use]
pub fn due_since(tenant: &Tenant, interval_seconds: u32) -> Option<OffsetDateTime> {
    let status = tenant.status.as_ref()?;
    let is_ready = status.conditions.iter().any(|condition| condition.r#type == READY && condition.status == "True");
    let runs = status.hub.as_ref().is_some_and(|HubStatus { ready_replicas, .. }| *ready_replicas > 0);
    if !is_ready || !runs || tenant.spec.suspend == Some(true) || tenant.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let last = status.isolation.as_ref().and_then(|last| Some((last, OffsetDateTime::parse(&last.checked_at, &Rfc3339).ok()?)));
    let Some((last, checked_at)) = last else { return Some(OffsetDateTime::UNIX_EPOCH) };
    let interval = Duration::seconds(i64::from(interval_seconds));
    let wait = if is_verified(last) { interval } else { interval.min(AGAIN_AFTER) };
    // A time that is out of range was written by nobody who knows it.
    Some(checked_at.checked_add(wait).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

fn is_verified(found: &IsolationStatus) -> bool {
    found.failure.is_none() && found.succeeded.is_empty() && found.is_unbroken()
}

/// Whether a Job has ended, and why it failed where it did.
fn end(job: &Value) -> Option<Option<String>> {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().filter(|condition| condition["status"] == "True").find_map(|condition| {
        match condition["type"].as_str()? {
            "Complete" => Some(None),
            "Failed" => {
                let text = |name: &str| condition[name].as_str().unwrap_or_default();
                Some(Some(format!("{}: {}", text("reason"), text("message"))))
            }
            _ => None,
        }
    })
}

/// Whether a Job has ended.
#[must_use]
pub fn has_ended(job: &Value) -> bool {
    end(job).is_some()
}

/// How a Job is doing, by itself and its pods.
#[must_use]
pub fn progress(job: &Value, pods: &[Value]) -> Progress {
    let containers = || pods.iter().flat_map(|pod| pod.pointer("/status/containerStatuses").and_then(Value::as_array)).flatten();
    let told = containers().find_map(|container| {
        let text = container.pointer("/state/terminated/message")?.as_str()?;
        serde_json::from_str::<IsolationStatus>(text).ok()
    });
    if let Some(told) = told {
        return Progress::Ended(Box::new(told));
    }
    let exit = containers().find_map(|container| {
        let terminated = container.pointer("/state/terminated")?;
        Some(format!("its program ended with {} ({})", terminated["exitCode"], terminated["reason"].as_str().unwrap_or_default()))
    });
    let waits = pods.iter().find_map(waits_for);
    match end(job) {
        None => Progress::Runs(waits),
        Some(failed) => {
            let why: Vec<String> = [failed, exit, waits].into_iter().flatten().collect();
            let why = if why.is_empty() { "its pod is gone".to_owned() } else { why.join("; ") };
            let failure = Some(format!("the Job ended without a word: {why}"));
            Progress::Ended(Box::new(IsolationStatus { failure, ..IsolationStatus::default() }))
        }
    }
}

/// What keeps a pod from running.
fn waits_for(pod: &Value) -> Option<String> {
    let said = |part: &Value| {
        let text = |name: &str| part[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("reason"), text("message"))
    };
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let waiting = containers.filter_map(|container| container.pointer("/state/waiting")).map(said);
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let unscheduled = conditions.filter(|found| found["type"] == "PodScheduled" && found["status"] == "False").map(said);
    waiting.chain(unscheduled).next()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    const DAY: u32 = 86_400;

    fn tenant(isolation: Value) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": "acme", "uid": "u"},
            "spec": {"tier": "Free"},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "Provisioned", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "hub": {"replicas": 2, "readyReplicas": 1},
                "isolation": isolation,
            },
        }))
        .unwrap()
    }

    fn due(tenant: &Tenant) -> Option<String> {
        due_since(tenant, DAY).map(|due| due.format(&Rfc3339).unwrap())
    }

    #[test]
    fn a_tenant_is_attacked_once_it_is_there_and_then_each_day_and_each_hour_while_something_is_wrong() {
        assert_eq!(due(&tenant(Value::Null)).unwrap(), "1970-01-01T00:00:00Z");
        let at = |rest: Value| {
            let mut isolation = json!({"checkedAt": "2026-01-01T00:00:00Z", "attacks": 9, "refused": 9});
            isolation.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            due(&tenant(isolation)).unwrap()
        };
        assert_eq!(at(json!({})), "2026-01-02T00:00:00Z");
        for wrong in [
            json!({"refused": 8}),
            json!({"failure": "x"}),
            json!({"attacks": 0, "refused": 0}),
            json!({"succeeded": ["x against y: z"]}),
        ] {
            assert_eq!(at(wrong), "2026-01-01T01:00:00Z");
        }
        for damaged in ["", "yesterday", "9999-12-31T23:59:59Z"] {
            assert_eq!(at(json!({"checkedAt": damaged})), "1970-01-01T00:00:00Z", "{damaged}");
        }
    }

    #[test]
    fn a_tenant_that_is_suspended_or_leaves_or_has_no_hub_is_not_attacked() {
        let whole = tenant(Value::Null);
        let mut suspended = whole.clone();
        suspended.spec.suspend = Some(true);
        let mut without_hub = whole.clone();
        without_hub.status.as_mut().unwrap().hub = None;
        let mut down = whole.clone();
        down.status.as_mut().unwrap().hub.as_mut().unwrap().ready_replicas = 0;
        let mut not_ready = whole.clone();
        not_ready.status.as_mut().unwrap().conditions[0].status = "False".to_owned();
        let mut leaving = serde_json::to_value(&whole).unwrap();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let leaving: Tenant = serde_json::from_value(leaving).unwrap();
        for tenant in [suspended, without_hub, down, not_ready, leaving] {
            assert_eq!(due(&tenant), None, "{tenant:?}");
        }
    }

    fn ended(condition: Value) -> Value {
        json!({"status": {"conditions": [condition]}})
    }

    fn failure(progress: Progress) -> String {
        match progress {
            Progress::Ended(found) => found.failure.unwrap(),
            runs => panic!("{runs:?}"),
        }
    }

    #[test]
    fn what_a_pod_told_is_what_came_of_it() {
        let told = json!({"checkedAt": "", "attacks": 140, "refused": 139, "neighbours": ["globex"], "succeeded": ["postgres.read.agent"]});
        let pod =
            json!({"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 0, "message": told.to_string()}}}]}});
        for job in [json!({}), ended(json!({"type": "Complete", "status": "True"}))] {
            let Progress::Ended(found) = progress(&job, std::slice::from_ref(&pod)) else { panic!() };
            assert_eq!((found.attacks, found.refused, found.succeeded.len()), (140, 139, 1));
        }
    }

    #[test]
    fn a_job_that_told_nothing_proves_nothing() {
        assert_eq!(progress(&json!({}), &[]), Progress::Runs(None));
        let waiting = json!({"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}});
        let Progress::Runs(Some(why)) = progress(&json!({}), std::slice::from_ref(&waiting)) else { panic!() };
        assert!(why.contains("no such image"), "{why}");
        let late = ended(json!({"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}));
        assert!(failure(progress(&late, &[])).contains("DeadlineExceeded"));
        for message in ["", "{", "killed", "[]"] {
            let pod = json!({"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": message}}}]}});
            let why = failure(progress(&late, &[pod]));
            assert!(why.contains("137") && why.contains("OOMKilled"), "{message:?}: {why}");
        }
        assert!(failure(progress(&ended(json!({"type": "Complete", "status": "True"})), &[])).contains("its pod is gone"));
    }
}
