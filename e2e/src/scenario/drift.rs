//! What somebody changed behind the operator's back comes back.

use std::process::Command;

use super::{World, tenant};
use crate::{
    backends::Backends,
    error::{Result, wrong},
    place::write_private,
    process::{eventually, run},
};

pub(super) fn drift(world: &mut World) -> Result<()> {
    kubernetes(world)?;
    postgres(world)?;
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

fn postgres(world: &World) -> Result<()> {
    let object = world.kubectl.get(&["tenant", "acme"])?;
    let id = object["status"]["tenantId"].as_str().unwrap_or_default().to_owned();
    if id.len() != 20 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return wrong(format!("acme has no id in its status: {}", object["status"]));
    }
    sql(world, &format!("ALTER ROLE acb_t_{id} NOLOGIN"))?;
    eventually(90, "acme's login to PostgreSQL works again", || {
        let text = sql(world, &format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'acb_t_{id}'"));
        match text {
            Ok(text) if text.trim() == "t" => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// As the superuser, who is not on the cluster.
pub(super) fn sql(world: &World, statement: &str) -> Result<String> {
    let backends = Backends::read(&world.place)?;
    let passwords = world.place.run().join("pgpass");
    write_private(&passwords, &format!("127.0.0.1:*:*:postgres:{}\n", backends.postgres_superuser_password))?;
    let port = backends.postgres_port.to_string();
    run(Command::new("psql")
        .env("PGPASSFILE", &passwords)
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--host", "127.0.0.1", "--port", &port])
        .args(["--username", "postgres", "--dbname", "acb", "--command", statement]))
}
