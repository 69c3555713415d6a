//! `rollback`: a release goes in and is rolled back, under load, with a migration and a resource that only it can read.
//!
//! The next release is this one under other tags, which is what `helm` sees of it. What it would bring along is made by hand: a migration that
//! expands the schema, a kind with a role that this release doesn't know, and an Agent that has it.

use serde_json::json;

use super::{
    World, agent_pod,
    hand::{count, sql},
    install::{self, SYSTEM},
    load::{self, Load, TENANT},
    operator,
};
use crate::{
    error::{Result, wrong},
    node,
    process::eventually,
};

const NAMESPACE: &str = "acb-hooli";
const AGENT: &str = "moved-on";
const AGENTS: &str = "customresourcedefinition/agents.acb.dev";

pub(super) fn run(world: &mut World) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let next = format!("{version}-next");
    for image in ["acb-operator", "acb-hub"] {
        node::tag(&format!("docker.io/library/{image}:{version}"), &format!("docker.io/library/{image}:{next}"))?;
    }
    let load = Load::start(world)?;
    set_role(world, "AgentFull")?;
    world.kubectl.wait_for("Ready", &["--namespace", NAMESPACE, &format!("agent.acb.dev/{AGENT}")], 60)?;

    sql(world, "ALTER TABLE acb.agent ADD COLUMN of_the_next text; UPDATE acb.schema_version SET version = version + 1")?;
    install::helm(world, &[&format!("image.tag={next}"), &format!("hubImage=acb-hub:{next}")])?;
    rolled(world, &format!("acb-hub:{next}"))?;
    widen(world)?;
    set_role(world, "AgentNext")?;
    load.flows(world)?;

    world.kubectl.helm(&["rollback", "acb", "--namespace", SYSTEM, "--wait", "--timeout", "180s"])?;
    rolled(world, &format!("acb-hub:{version}"))?;
    load.flows(world)?;
    let agent = ["--namespace", NAMESPACE, "agent.acb.dev", AGENT];
    operator::says(world, &agent, "InvalidSpec", "AgentNext", 60)?;
    operator::resynced(world)?;
    // What this release can't read is left as the next one made it: nobody is shut out, and nobody gets more.
    agent_pod::is_let_in(world, TENANT, AGENT)?;
    let kept = count(world, &format!("acb.agent WHERE name = '{AGENT}' AND role = 'agent-full' AND NOT suspended"))?;
    let told = load.finish(world)?;

    set_role(world, "AgentFull")?;
    world.kubectl.wait_for("Ready", &["--namespace", NAMESPACE, &format!("agent.acb.dev/{AGENT}")], 60)?;
    world.kubectl.run(&["--namespace", NAMESPACE, "delete", "agent.acb.dev", AGENT, "--timeout=60s"])?;
    sql(world, "ALTER TABLE acb.agent DROP COLUMN of_the_next; UPDATE acb.schema_version SET version = version - 1")?;
    install::helm(world, &[])?;
    if kept != 1 {
        return wrong(format!("{kept} rows of {AGENT} are as they were; 1 was expected"));
    }
    if told.refused > 0 {
        return wrong(format!("{} messages were refused during an upgrade and its rollback", told.refused));
    }
    Ok(())
}

/// Gives the kind of the agents the role of the next release, as `helm upgrade acb-crds` of that would.
fn widen(world: &World) -> Result<()> {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/role/enum/-";
    let patch = json!([{"op": "add", "path": path, "value": "AgentNext"}]).to_string();
    world.kubectl.run(&["patch", AGENTS, "--type=json", "--patch", &patch]).map(drop)
}

fn set_role(world: &World, role: &str) -> Result<()> {
    let agent = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Agent", "metadata": {"name": AGENT, "namespace": NAMESPACE}, "spec": {"role": role},
    });
    let agent = agent.to_string();
    // An API server serves a changed kind a moment after it has taken it.
    eventually(30, &format!("an Agent with the role {role} is taken"), || {
        world.kubectl.apply(&agent).map(drop).map_err(|error| error.to_string())
    })
}

/// Waits until every hub is of an image, and its tenant is Ready.
fn rolled(world: &World, image: &str) -> Result<()> {
    load::rolled(world, image)?;
    world.kubectl.wait_for("Ready", &["tenants", "--all"], 300)
}
