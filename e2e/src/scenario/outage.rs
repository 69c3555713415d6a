//! What ACB stands on is away for a while, under load, and comes back.

use std::{
    thread::sleep,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    World,
    hand::{observe_kafka, sql},
    install::SYSTEM,
    load,
    load::Load,
    operator,
};
use crate::{
    backends::{self, Backends, Order},
    error::{Result, wrong},
    process::eventually,
};

/// How long the API server is away: less than after what Kubernetes gives a node up.
const API_AWAY: Duration = Duration::from_secs(20);
/// In milliseconds: with the API server away nothing may pause for longer.
const STEADY: u64 = 3000;

/// `kafka-down`.
pub(super) fn kafka(world: &mut World) -> Result<()> {
    // First that it is back, from outside of the cluster: what fails after that is ACB's.
    away(world, (Order::StopKafka, Order::StartKafka), "Kafka", || observe_kafka(world, load::TENANT).map(drop))
}

/// `postgres-down`.
pub(super) fn postgres(world: &mut World) -> Result<()> {
    away(world, (Order::StopPostgres, Order::StartPostgres), "PostgreSQL", || sql(world, "SELECT 1").map(drop))
}

fn away(world: &World, (stop, start): (Order, Order), system: &str, is_back: impl Fn() -> Result<()>) -> Result<()> {
    let load = Load::start(world)?;
    let hubs = load::hubs(world)?;
    backends::order(stop)?;
    let named = operator::says(world, &[&tenant()], "Retrying", system, 120).and_then(|()| is_ready(world));
    // Also where it was not named: later scenarios need it.
    backends::order(start)?;
    eventually(30, &format!("{system} answers its superuser"), || is_back().map_err(|error| error.to_string()))?;
    named?;
    for condition in ["Synced", "Ready"] {
        world.kubectl.wait_for(condition, &[&tenant()], 120)?;
    }
    load.flows(world)?;
    load.finish(world)?;
    same_hubs(world, &hubs)
}

/// What the operator can't reach is no reason to say of a tenant that it can't be used.
fn is_ready(world: &World) -> Result<()> {
    let found = world.kubectl.get(&[&tenant()])?;
    let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    let is_told = |ready: &serde_json::Value| ready["status"] == "True" || ready["reason"] == "HubUnavailable";
    if ready.all(is_told) {
        Ok(())
    } else {
        wrong(format!("a store is away, and the tenant is not Ready for it: {}", found["status"]))
    }
}

fn tenant() -> String {
    format!("tenant/{}", load::TENANT)
}

fn same_hubs(world: &World, before: &std::collections::BTreeMap<String, u64>) -> Result<()> {
    let now = load::hubs(world)?;
    if now == *before { Ok(()) } else { wrong(format!("hubs were replaced or started again: {before:?} became {now:?}")) }
}

/// `api-server-down`: hubs don't need it.
pub(super) fn api_server(world: &mut World) -> Result<()> {
    let load = Load::start(world)?;
    let hubs = load::hubs(world)?;
    let down = now();
    world.state.stop("kube-apiserver")?;
    sleep(API_AWAY);
    let up = now();
    let daemon = world.state.start_again("kube-apiserver")?;
    daemon.wait(60, || world.kubectl.run(&["get", "--raw", "/readyz"]).is_ok())?;
    operator::resynced(world)?;
    world.kubectl.wait_for("Synced", &[&tenant()], 60)?;
    load.flows(world)?;
    let told = load.finish(world)?;
    told.was_steady(down, up, STEADY)?;
    if told.refused > 0 {
        return wrong(format!("{} messages were refused, though hubs don't need the API server", told.refused));
    }
    same_hubs(world, &hubs)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// `wrong-credentials`: the operator's own, replaced in its Secrets by wrong ones, and mended there.
pub(super) fn credentials(world: &mut World) -> Result<()> {
    load::ready(world)?;
    let hubs = load::hubs(world)?;
    let backends = Backends::read(&world.place)?;
    replaced(world, "acb-operator-kafka", &backends.kafka_password, "Kafka", || Ok(()))?;
    replaced(world, "acb-operator-postgres", &backends.postgres_password, "PostgreSQL", || {
        // The file in the pod follows the Secret by and by; sessions that were logged in before know nothing of it.
        eventually(120, "the operator's new logins to PostgreSQL are refused", || {
            sql(world, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'acb_operator'")
                .map_err(|error| error.to_string())?;
            operator::says(world, &[&tenant()], "Refused", "", 1).map_err(|error| error.to_string())
        })
    })?;
    same_hubs(world, &hubs)
}

fn replaced(world: &World, secret: &str, right: &str, system: &str, bites: impl Fn() -> Result<()>) -> Result<()> {
    let put = |password: &str| {
        let patch = json!({"data": {"password": STANDARD.encode(password)}}).to_string();
        world.kubectl.run(&["--namespace", SYSTEM, "patch", "secret", secret, "--patch", &patch]).map(drop)
    };
    put("wrong")?;
    let named = bites().and_then(|()| operator::says(world, &[&tenant()], "Refused", system, 150));
    put(right)?;
    named?;
    world.kubectl.wait_for("Synced", &[&tenant()], 180)?;
    is_ready(world)
}
