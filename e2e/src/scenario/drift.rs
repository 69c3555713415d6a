//! What somebody changed behind the operator's back comes back.

use acb_operator::{
    observed::ObservedKafka,
    plan::{KafkaQuota, KafkaStep},
};

use super::{
    World,
    hand::{change_kafka, observe_kafka, sql, tenant_id},
    tenant,
};
use crate::{
    error::{Error, Result, wrong},
    process::eventually,
};

pub(super) fn drift(world: &mut World) -> Result<()> {
    kubernetes(world)?;
    postgres(world)?;
    kafka(world)?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], 60)
}

fn kubernetes(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    kubectl.run(&["--namespace", "acbhub-acme", "delete", "service", "hub"])?;
    eventually(60, "the deleted Service of the hub is back", || {
        match kubectl.find(&["--namespace", "acbhub-acme", "service", "hub"]) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it is not there".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    kubectl.run(&["--namespace", "acbhub-acme", "scale", "deployment", "hub", "--replicas=1"])?;
    eventually(60, "the scaled hub has its two replicas again", || {
        let hub = kubectl.get(&["--namespace", "acbhub-acme", "deployment", "hub"]).map_err(|error| error.to_string())?;
        if hub["spec"]["replicas"] == 2 { Ok(()) } else { Err(hub["spec"]["replicas"].to_string()) }
    })?;
    kubectl.run(&["--namespace", "acbhub-acme", "rollout", "status", "deployment/hub", "--timeout=90s"])?;
    if tenant::hub_pods(world, "acme")?.len() == 2 { Ok(()) } else { wrong("acme has not two hub pods") }
}

/// What is only added: an apply alone would leave it.
pub(super) fn added(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    // What the API server fills in by itself must be no difference, or the operator would write for ever.
    let tenant = kubectl.get(&["tenant", "acme"])?;
    let conditions = tenant.pointer("/status/conditions").and_then(serde_json::Value::as_array);
    if let Some(conflict) = conditions.into_iter().flatten().find(|condition| condition["type"] == "Conflicting") {
        return wrong(format!("before anybody changed anything: {}", conflict["message"]));
    }
    for (object, patch, pointer) in [
        ("networkpolicy/default-deny", r#"{"spec":{"podSelector":{"matchLabels":{"x":"y"}}}}"#, "/spec/podSelector/matchLabels"),
        ("service/hub", r#"{"spec":{"externalIPs":["192.0.2.1"]}}"#, "/spec/externalIPs"),
        (
            "deployment/hub",
            r#"{"spec":{"template":{"spec":{"hostAliases":[{"ip":"192.0.2.1","hostnames":["x"]}]}}}}"#,
            "/spec/template/spec/hostAliases",
        ),
    ] {
        kubectl.run(&["--namespace", "acbhub-acme", "patch", object, "--type=merge", "--patch", patch])?;
        eventually(60, &format!("what was added to {object} is gone"), || {
            let found = kubectl.get(&["--namespace", "acbhub-acme", object]).map_err(|error| error.to_string())?;
            found.pointer(pointer).map_or(Ok(()), |left| Err(left.to_string()))
        })?;
    }
    kubectl.run(&["--namespace", "acbhub-acme", "rollout", "status", "deployment/hub", "--timeout=120s"])?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], 60)
}

fn postgres(world: &World) -> Result<()> {
    let id = tenant_id(world, "acme")?;
    sql(world, &format!("ALTER ROLE acb_t_{id} NOLOGIN"))?;
    eventually(90, "acme's login to PostgreSQL works again", || {
        match sql(world, &format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'acb_t_{id}'")) {
            Ok(text) if text == "t" => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// A topic's configuration, the ACLs and the client quota; one after the other, so that none hides behind another's repair.
fn kafka(world: &World) -> Result<()> {
    let user = format!("acb_t_{}", tenant_id(world, "acme")?);
    let right = observe_kafka(world, "acme")?;
    if !right.acls || !right.misconfigured.is_empty() {
        return wrong(format!("Kafka is not as it should be to begin with: {right:?}"));
    }
    let Some(topic) = right.topics.get("acb.acme.documents") else { return wrong("there is no topic acb.acme.documents") };
    let mut short = topic.clone();
    short.retention_seconds = 60;
    let quota = KafkaQuota { producer_bytes_per_second: Some(1), ..KafkaQuota::default() };
    for (what, step) in [
        ("the retention of a topic", KafkaStep::EnsureTopic { topic: short }),
        ("the ACLs", KafkaStep::EnsureAcls { username: user.clone(), prefix: "acb.other.".to_owned() }),
        ("the client quota", KafkaStep::EnsureQuota { username: user, quota }),
    ] {
        comes_back(world, what, &[step], &right)?;
    }
    Ok(())
}

fn comes_back(world: &World, what: &str, change: &[KafkaStep], right: &ObservedKafka) -> Result<()> {
    let look = || observe_kafka(world, "acme").map_err(|error: Error| error.to_string());
    // The operator may be quicker than our look: then it is changed again.
    eventually(20, &format!("{what} in Kafka is changed"), || {
        change_kafka(world, change).map_err(|error| error.to_string())?;
        if look()? == *right { Err("it is not".to_owned()) } else { Ok(()) }
    })?;
    eventually(90, &format!("{what} in Kafka is set back"), || {
        let now = look()?;
        if now == *right { Ok(()) } else { Err(format!("{now:?}")) }
    })
}
