//! Every attack with a tenant's own credentials, as the cluster gave them to its hub.

use std::{collections::BTreeMap, fs, process::Command};

use acb_isolation::{Attacker, HubAccess, KafkaAccess, PostgresAccess, Thing, Victim};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::World;
use crate::{
    error::{Error, Result, at, wrong},
    kubectl::Kubectl,
    network::HOST,
    place::Place,
    process::run,
    say,
};

/// `isolation`: each of the two against the other.
pub(super) fn both(world: &mut World) -> Result<()> {
    for (attacker, victim) in [("acme", "globex"), ("globex", "acme")] {
        let said = with_cluster_names(&world.place, &["attack", attacker, victim])?;
        say(&format!("         {}", said.trim()));
    }
    Ok(())
}

/// Runs this program where the names of Services mean what they mean to pods: in a mount namespace with another resolv.conf.
fn with_cluster_names(place: &Place, arguments: &[&str]) -> Result<String> {
    let names = place.run().join("resolv.conf");
    let text = format!("nameserver {HOST}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n");
    fs::write(&names, text).map_err(at(&names))?;
    let program = std::env::current_exe().map_err(at("acb-e2e"))?;
    let script = r#"mount --bind "$1" /etc/resolv.conf && shift && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "acb-e2e"]);
    run(command.arg(&names).arg(&program).args(arguments))
}

/// `acb-e2e attack`: runs the attacks, and fails where one was not refused.
pub(crate) async fn attack(place: &Place, attacker: &str, victim: &str) -> Result<()> {
    let kubectl = Kubectl::admin(place);
    let report = acb_isolation::run(&own(&kubectl, attacker)?, &[other(&kubectl, victim)?], |_| ()).await;
    let breaches: Vec<String> =
        report.breaches().map(|row| format!("{} against {}: {:?}", row.attack, row.victim, row.outcome)).collect();
    if report.attempts() == 0 || !breaches.is_empty() {
        return wrong(format!(
            "{} of {} attacks of {attacker} were not refused:\n{}",
            breaches.len(),
            report.attempts(),
            breaches.join("\n")
        ));
    }
    let mut walls: BTreeMap<String, usize> = BTreeMap::new();
    for row in &report.rows {
        *walls.entry(format!("{:?}", row.wall)).or_default() += 1;
    }
    let (refused, nothing) = (report.refused(), report.nothing());
    say(&format!(
        "{refused} of {} attacks of {attacker} on {victim} were refused, {nothing} had nothing to be tried on: {walls:?}",
        report.attempts()
    ));
    Ok(())
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| Error::Wrong(format!("{} has no {pointer}", value["metadata"]["name"])))
}

/// A field of a Secret.
fn secret(kubectl: &Kubectl, namespace: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let object = kubectl.get(&["--namespace", namespace, "secret", name])?;
    let fields = object["data"].as_object().cloned().unwrap_or_default();
    let decode = |(field, value): (String, Value)| {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        (field, String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok(fields.into_iter().map(decode).collect())
}

pub(super) fn field(secret: &BTreeMap<String, String>, name: &str) -> Result<String> {
    secret.get(name).cloned().ok_or_else(|| Error::Wrong(format!("a Secret of the hub has no {name}")))
}

/// The Secret that a volume of the hub holds.
pub(super) fn hub_secret(kubectl: &Kubectl, tenant: &str, volume: &str) -> Result<BTreeMap<String, String>> {
    let namespace = format!("acbhub-{tenant}");
    let hub = kubectl.get(&["--namespace", &namespace, "deployment", "hub"])?;
    let volumes = hub["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let Some(found) = volumes.iter().find(|known| known["name"] == volume) else {
        return wrong(format!("the hub in {namespace} has no volume {volume}"));
    };
    secret(kubectl, &namespace, &text(found, "/secret/secretName")?)
}

fn authority(kubectl: &Kubectl, tenant: &str) -> Result<String> {
    text(&kubectl.get(&["--namespace", &format!("acb-{tenant}"), "configmap", "acb-ca"])?, "/data/ca.crt")
}

fn endpoints(tenant: &Value) -> Result<Vec<String>> {
    Ok(vec![format!("https://{}", text(tenant, "/status/endpoints/0/address")?)])
}

fn first_agent(kubectl: &Kubectl, tenant: &str) -> Result<Value> {
    let agents = kubectl.get(&["--namespace", &format!("acb-{tenant}"), "agents.acb.dev"])?;
    match agents["items"].get(0) {
        Some(agent) => Ok(agent.clone()),
        None => wrong(format!("{tenant} has no agent")),
    }
}

fn own(kubectl: &Kubectl, name: &str) -> Result<Attacker> {
    let tenant = kubectl.get(&["tenant", name])?;
    let key = secret(kubectl, &format!("acb-{name}"), &text(&first_agent(kubectl, name)?, "/status/apiKeySecret")?)?;
    let config = kubectl.get(&["--namespace", &format!("acbhub-{name}"), "configmap", "hub-config"])?;
    let config: Value = serde_json::from_str(&text(&config, "/data/hub.json")?)?;
    let login = hub_secret(kubectl, name, "postgres")?;
    let user = hub_secret(kubectl, name, "kafka")?;
    let port = config["postgres"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    Ok(Attacker {
        tenant: name.to_owned(),
        tenant_id: text(&tenant, "/status/tenantId")?,
        hub: HubAccess {
            endpoints: endpoints(&tenant)?,
            ca_pem: authority(kubectl, name)?,
            api_key: Some(field(&key, "api-key")?),
            signing_key: Some(field(&hub_secret(kubectl, name, "keys")?, "signing.key")?),
        },
        postgres: PostgresAccess {
            host: text(&config, "/postgres/host")?,
            port: port.ok_or_else(|| Error::Wrong("hub.json names no port of PostgreSQL".to_owned()))?,
            database: text(&config, "/postgres/database")?,
            username: field(&login, "username")?,
            password: field(&login, "password")?,
            ssl_mode: text(&config, "/postgres/sslMode")?,
            ca_pem: login.get("ca.crt").cloned(),
        },
        kafka: Some(KafkaAccess {
            bootstrap_servers: text(&config, "/bus/bootstrapServers")?,
            ca_pem: user.get("ca.crt").cloned(),
            username: field(&user, "username")?,
            password: field(&user, "password")?,
        }),
        witnesses: Vec::new(),
    })
}

fn other(kubectl: &Kubectl, name: &str) -> Result<Victim> {
    let tenant = kubectl.get(&["tenant", name])?;
    // An id that nothing has, of the form that all have: what is not there and what is refused must look the same.
    let nonexistent = "6f1d7c1e-52a4-4c3b-9d0e-8a7b6c5d4e3f";
    Ok(Victim {
        tenant: name.to_owned(),
        tenant_id: text(&tenant, "/status/tenantId")?,
        hub_endpoints: endpoints(&tenant)?,
        ca_pem: authority(kubectl, name)?,
        agent: text(&first_agent(kubectl, name)?, "/metadata/name")?,
        // Not one that the attacker may have itself: a message to that is its own affair.
        group: format!("{name}-only"),
        context_type: text(&tenant, "/spec/contextTypes/0/name")?,
        context_id: nonexistent.to_owned(),
        upload_id: nonexistent.to_owned(),
        invented: vec![Thing::Group, Thing::Context, Thing::Upload],
    })
}
