//! The walls, attacked by the Jobs that the operator starts: they stand, one comes down, and it is put back.

use serde_json::Value;

use super::{
    World,
    hand::{sql, tenant_id},
    install,
};
use crate::{
    error::{Result, wrong},
    process::eventually,
    say,
};

/// To start a Job, to make the attacks, and to say what came of them.
const SEEN_WITHIN: u64 = 240;
/// Of this table nobody decides anything: its wall can be missing for a while.
const TABLE: &str = "acb.credential_use";
const BINDING: [&str; 4] = ["--namespace", "acbhub-acme", "rolebinding", "acb-operator-isolation"];

/// `isolation-verified`.
pub(super) fn run(world: &mut World) -> Result<()> {
    let ended = attacked(world);
    // Also where something failed: nothing after this is to share the machine with attacks.
    let down = sql(world, &format!("ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"));
    install::helm(world, &[])?;
    ended?;
    down?;
    eventually(60, "the operator's right to start Jobs is gone", || match world.kubectl.find(&BINDING) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("the RoleBinding is there".to_owned()),
        Err(error) => Err(error.to_string()),
    })
}

fn attacked(world: &World) -> Result<()> {
    install::helm(world, &["isolation.enabled=true", "isolation.intervalSeconds=10", "isolation.neighbours={globex}"])?;
    let verified = becomes(world, "True", "")?;
    let Some(attacks) = verified["attacks"].as_u64().filter(|attacks| *attacks >= 100) else {
        return wrong(format!("so few attacks prove little: {verified}"));
    };
    let (refused, nothing) = (verified["refused"].as_u64().unwrap_or(0), verified["nothing"].as_u64().unwrap_or(0));
    if refused < 100 || refused + nothing != attacks || !verified["neighbours"].to_string().contains("globex") {
        return wrong(format!("not all were refused, or not globex was attacked: {verified}"));
    }
    say(&format!("         {refused} attacks of acme were refused, {nothing} had nothing to be tried on"));

    let globex = tenant_id(world, "globex")?;
    sql(
        world,
        &format!(
            "INSERT INTO {TABLE} (tenant_id, credential, used_at) VALUES (decode('{globex}', 'hex'), 'e2e', now()) ON CONFLICT DO NOTHING"
        ),
    )?;
    sql(world, &format!("ALTER TABLE {TABLE} NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY"))?;
    let broken = becomes(world, "False", "postgres.read.credential_use")?;
    if broken["succeeded"].as_array().map(Vec::len) != Some(1) {
        return wrong(format!("one wall is down, and not one attack got through: {broken}"));
    }
    let events = world.kubectl.get(&["events", "--all-namespaces", "--field-selector", "reason=AttackSucceeded"])?;
    if !events["items"].to_string().contains("acme") {
        return wrong("there is no Event about it");
    }
    sql(world, &format!("ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"))?;
    becomes(world, "True", "").map(drop)
}

/// Waits for the condition; what it rests on.
fn becomes(world: &World, status: &str, named: &str) -> Result<Value> {
    eventually(SEEN_WITHIN, &format!("IsolationVerified of acme is {status}"), || {
        let tenant = world.kubectl.get(&["tenant", "acme"]).map_err(|error| error.to_string())?;
        let conditions = tenant.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(condition) = conditions.into_iter().find(|condition| condition["type"] == "IsolationVerified") else {
            return Err("there is no such condition yet".to_owned());
        };
        let message = condition["message"].as_str().unwrap_or_default();
        if condition["status"] != status || !message.contains(named) {
            return Err(condition.to_string());
        }
        Ok(tenant["status"]["isolation"].clone())
    })
}
