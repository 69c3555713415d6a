//! The end of a tenant, and of the operator.

use super::{World, drift::sql, install, install::SYSTEM, tenant};
use crate::error::{Result, wrong};

/// `delete`: with Delete nothing is left, with Retain the data is.
pub(super) fn delete(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let id = |name: &str| -> Result<String> {
        let object = kubectl.get(&["tenant", name])?;
        Ok(object["status"]["tenantId"].as_str().unwrap_or_default().to_owned())
    };
    let (gone, kept) = (id("initech")?, id("globex")?);
    kubectl.run(&["delete", "tenant", "initech", "globex", "--timeout=180s"])?;
    for namespace in ["acb-initech", "acbhub-initech"] {
        kubectl.wait_gone(&["namespace", namespace], 90)?;
    }
    // Retained data is of no use without the keys to it: the namespaces stay, the hub does not.
    kubectl.wait_gone(&["--namespace", "acbhub-globex", "deployment", "hub"], 90)?;
    kubectl.get(&["namespace", "acb-globex"])?;
    let rows = |id: &str| sql(world, &format!("SELECT count(*) FROM acb.tenant WHERE tenant_id = decode('{id}', 'hex')"));
    let (gone, kept) = (rows(&gone)?, rows(&kept)?);
    match (gone.trim(), kept.trim()) {
        ("0", "1") => Ok(()),
        (gone, kept) => wrong(format!("rows of the tenant with Delete: {gone}, with Retain: {kept}; 0 and 1 were expected")),
    }
}

/// `upgrade`: the same charts again, while hubs run.
pub(super) fn upgrade(world: &mut World) -> Result<()> {
    let before = tenant::hub_pods(world, "acme")?;
    install::helm(world)?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], 60)?;
    if tenant::hub_pods(world, "acme")? == before { Ok(()) } else { wrong("an upgrade to the same version restarted acme's hub") }
}

/// `uninstall`: the operator goes; tenants, their hubs and their data stay.
pub(super) fn uninstall(world: &mut World) -> Result<()> {
    let before = tenant::hub_pods(world, "acme")?;
    world.kubectl.helm(&["uninstall", "acb", "--namespace", SYSTEM, "--wait", "--timeout", "120s"])?;
    world.kubectl.get(&["tenant", "acme"])?;
    if tenant::hub_pods(world, "acme")? == before { Ok(()) } else { wrong("acme's hub went with the operator") }
}
