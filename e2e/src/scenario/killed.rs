//! What dies, and what goes on.

use super::{World, agent_pod, install::SYSTEM, tenant};
use crate::{
    error::{Result, wrong},
    node,
    process::eventually,
};

/// `hub-killed`: each replica in turn, while an agent is connected and another asks it.
pub(super) fn hub(world: &mut World) -> Result<()> {
    let answers = agent_pod::start(world, "acme", "worker-a", "answers", &["reply", "--topic", "alive", "still here"])?;
    agent_pod::wait_running(world, &answers)?;
    for pod in tenant::hub_pods(world, "acme")? {
        node::kill(&world.kubectl, "acbhub-acme", &pod)?;
        let reply = agent_pod::ask(world, "acme", "supervisor", "worker-a", "alive")?;
        if !reply.contains("still here") {
            return wrong(format!("with {pod} killed worker-a answered {reply:?}"));
        }
        world.kubectl.run(&["--namespace", "acbhub-acme", "rollout", "status", "deployment/hub", "--timeout=90s"])?;
    }
    agent_pod::remove(world, &answers)
}

/// `operator-killed`: the leader, while a tenant is being made; another goes on with it.
pub(super) fn operator(world: &mut World) -> Result<()> {
    let before = leader(world)?;
    world.kubectl.apply(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: initech}\nspec: {tier: Free, deletionPolicy: Delete}\n",
    )?;
    let pod = before.split('_').next().unwrap_or_default();
    node::kill(&world.kubectl, SYSTEM, pod)?;
    eventually(60, "another leader", || match leader(world) {
        Ok(now) if now != before && !now.is_empty() => Ok(()),
        Ok(now) => Err(now),
        Err(error) => Err(error.to_string()),
    })?;
    world.kubectl.wait_for("Ready", &["tenant/initech"], 60)
}

fn leader(world: &World) -> Result<String> {
    let lease = world.kubectl.get(&["--namespace", SYSTEM, "lease", "acb-operator"])?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}
