//! Credentials are replaced while agents work, as docs/day-two.md says.

use std::{collections::BTreeMap, process::Command};

use acb_kafka::Connection;
use serde_json::json;

use super::{
    World, agent_pod,
    isolation::{field, hub_secret},
    load::{self, Load},
};
use crate::{
    backends::Backends,
    error::{Result, wrong},
    place::write_private,
    process::{eventually, output},
    runtime,
};

const NAMESPACE: &str = "acb-hooli";
const AGENT: &str = "sender";

/// A login of the hub.
struct Login {
    username: String,
    password: String,
}

impl Login {
    fn read(world: &World, volume: &str) -> Result<Self> {
        let secret = hub_secret(&world.kubectl, load::TENANT, volume)?;
        Ok(Self { username: field(&secret, "username")?, password: field(&secret, "password")? })
    }

    fn opens_postgres(&self, world: &World) -> Result<bool> {
        let port = Backends::read(&world.place)?.postgres_port.to_string();
        let passwords = world.place.run().join("pgpass-tenant");
        write_private(&passwords, &format!("127.0.0.1:*:*:{}:{}\n", self.username, self.password))?;
        let mut command = Command::new("psql");
        command.env("PGPASSFILE", &passwords).args([
            "--no-psqlrc",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--username",
            &self.username,
        ]);
        let output = output(command.args(["--no-password", "--dbname", "acb", "--command", "SELECT 1"]))?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(true),
            false if said.contains("password authentication failed") => Ok(false),
            false => wrong(format!("psql as {}: {said}", self.username)),
        }
    }

    fn opens_kafka(&self, world: &World) -> Result<bool> {
        let backends = Backends::read(&world.place)?;
        let opened = runtime()?.block_on(async {
            let settings = acb_kafka::Settings::new(&backends.kafka_bootstrap, &self.username, &self.password);
            Connection::open(&settings.with_tls(backends.kafka_ca.as_bytes())?).await
        });
        match opened {
            Ok(_) => Ok(true),
            Err(acb_kafka::Error::Login(..)) => Ok(false),
            Err(error) => wrong(format!("Kafka as {}: {error}", self.username)),
        }
    }
}

/// `rotate`: everything that a hub logs in and signs with, under load; then the key of an agent.
pub(super) fn rotate(world: &mut World) -> Result<()> {
    let load = Load::start(world)?;
    let pods = load::hubs(world)?;
    let logins = || -> Result<[Login; 2]> { Ok([Login::read(world, "postgres")?, Login::read(world, "kafka")?]) };
    let [old_postgres, old_kafka] = logins()?;
    let before = credentials(world)?;
    let tenant = format!("tenant/{}", load::TENANT);
    world.kubectl.run(&["annotate", &tenant, "acb.dev/rotate=e2e", "--overwrite"])?;
    eventually(180, "every credential is of the next generation, and the ones before are gone", || {
        let now = credentials(world).map_err(|error| error.to_string())?;
        let replaced = before.iter().all(|(kind, generation)| now.get(kind) == Some(&(generation + 1)));
        let old = format!("hub-postgres-{}", before.get("hub-postgres").copied().unwrap_or_default());
        let is_left = world.kubectl.find(&["--namespace", &format!("acbhub-{}", load::TENANT), "secret", &old]);
        if replaced && is_left.map_err(|error| error.to_string())?.is_none() {
            Ok(())
        } else {
            Err(format!("{before:?} became {now:?}"))
        }
    })?;
    world.kubectl.wait_for("Ready", &[&tenant], 60)?;
    load.flows(world)?;
    let told = load.finish(world)?;
    if told.refused > 0 {
        return wrong(format!("{} messages were refused during a rotation", told.refused));
    }
    let now = load::hubs(world)?;
    if now.len() != pods.len() || now.iter().any(|(pod, starts)| pods.contains_key(pod) || *starts > 0) {
        return wrong(format!("each replica was to be replaced once: {pods:?} became {now:?}"));
    }
    let [postgres, kafka] = logins()?;
    let opened = [
        old_postgres.opens_postgres(world)?,
        old_kafka.opens_kafka(world)?,
        postgres.opens_postgres(world)?,
        kafka.opens_kafka(world)?,
    ];
    if opened != [false, false, true, true] {
        return wrong(format!("old and new logins open PostgreSQL and Kafka: {opened:?}, and not only the new ones"));
    }
    agent_key(world)
}

/// An agent's key: after it is replaced it lets the agent in, too, until its Secret is deleted.
fn agent_key(world: &World) -> Result<()> {
    let old = key(world)?;
    let mut leaked = world.kubectl.get(&["--namespace", NAMESPACE, "secret", &old])?;
    leaked["metadata"] = json!({"name": "leaked", "namespace": NAMESPACE});
    world.kubectl.apply(&leaked.to_string())?;
    let with_leaked = || agent_pod::start_with_key(world, load::TENANT, AGENT, "leaked", "leaked", &["whoami"]);
    replace_key(world, "e2e")?;
    agent_pod::is_let_in(world, load::TENANT, AGENT)?;
    let pod = with_leaked()?;
    agent_pod::wait_done(world, &pod, 60)?;
    agent_pod::remove(world, &pod)?;
    // docs/day-two.md: a key that was replaced already has leaked.
    world.kubectl.run(&["--namespace", NAMESPACE, "delete", "secret", &old])?;
    replace_key(world, "e2e-leaked")?;
    let pod = with_leaked()?;
    let said = agent_pod::wait_refused(world, &pod)?;
    agent_pod::remove(world, &pod)?;
    world.kubectl.run(&["--namespace", NAMESPACE, "delete", "secret", "leaked"])?;
    agent_pod::is_let_in(world, load::TENANT, AGENT)?;
    if said.contains("CREDENTIAL_REFUSED") {
        Ok(())
    } else {
        wrong(format!("the leaked key was refused for another reason: {said}"))
    }
}

/// The Secret of the agent's key.
fn key(world: &World) -> Result<String> {
    let agent = world.kubectl.get(&["--namespace", NAMESPACE, "agent.acb.dev", AGENT])?;
    Ok(agent["status"]["apiKeySecret"].as_str().unwrap_or_default().to_owned())
}

/// Asks for another key, and waits until it is there.
fn replace_key(world: &World, value: &str) -> Result<()> {
    let before = key(world)?;
    let asked = format!("acb.dev/rotate={value}");
    world.kubectl.run(&["--namespace", NAMESPACE, "annotate", "agent.acb.dev", AGENT, &asked, "--overwrite"])?;
    eventually(60, "the agent has another key", || match key(world).map_err(|error| error.to_string())? {
        now if now == before => Err(now),
        _ => Ok(()),
    })
}

/// The Secrets of the tenant's status, without the numbers of their generations, and those.
fn credentials(world: &World) -> Result<BTreeMap<String, u64>> {
    let tenant = world.kubectl.get(&["tenant", load::TENANT])?;
    let all = tenant["status"]["credentials"].as_array().cloned().unwrap_or_default();
    let split = |secret: &str| Some((secret.rsplit_once('-')?.0.to_owned(), secret.rsplit_once('-')?.1.parse().ok()?));
    let found: BTreeMap<String, u64> = all.iter().filter_map(|one| split(one["secret"].as_str()?)).collect();
    if found.len() == 4 { Ok(found) } else { wrong(format!("the status names no four Secrets: {all:?}")) }
}
