//! What dies, and what goes on.

use super::{World, install::SYSTEM, load, load::Load, operator, tenant};
use crate::{error::Result, node, process::eventually};

/// `hub-killed`: each replica in turn, under load.
pub(super) fn hub(world: &mut World) -> Result<()> {
    let load = Load::start(world)?;
    let namespace = format!("acbhub-{}", load::TENANT);
    let before = load::hubs(world)?;
    for pod in tenant::hub_pods(world, load::TENANT)? {
        node::signal(&world.kubectl, &namespace, &pod, "SIGKILL")?;
        load.flows(world)?;
        eventually(60, &format!("{pod} has started again"), || match load::hubs(world) {
            Ok(now) if now.get(&pod) > before.get(&pod) => Ok(()),
            Ok(now) => Err(format!("{now:?}")),
            Err(error) => Err(error.to_string()),
        })?;
        world.kubectl.run(&["--namespace", &namespace, "rollout", "status", "deployment/hub", "--timeout=90s"])?;
    }
    load.flows(world)?;
    load.finish(world).map(drop)
}

/// `operator-killed`: the leader, while a tenant is being made; another goes on with it.
pub(super) fn operator(world: &mut World) -> Result<()> {
    let before = operator::leader(world)?;
    let pod = operator::leader_pod(world)?;
    world.kubectl.apply(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: initech}\nspec: {tier: Free, deletionPolicy: Delete}\n",
    )?;
    node::signal(&world.kubectl, SYSTEM, &pod, "SIGKILL")?;
    eventually(60, "another leader", || match operator::leader(world) {
        Ok(now) if now != before && !now.is_empty() => Ok(()),
        Ok(now) => Err(now),
        Err(error) => Err(error.to_string()),
    })?;
    world.kubectl.wait_for("Ready", &["tenant/initech"], 60)
}
