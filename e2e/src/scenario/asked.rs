//! `plan-asked`: who is answered by the operator that plans, on a real API server. The operator runs on this machine, with the rights that
//! the chart gives it and no others; what it is asked comes by its port, as a port-forward would bring it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use acb_operator::{
    bootstrap::{self, Server},
    local_postgres::{LocalPostgres, LocalPostgresOptions},
};
use serde_json::{Value, json};

use super::{
    World,
    account::{self, NAMESPACE, said},
    plan::AUDIENCE,
};
use crate::{
    error::{Error, Result, at, wrong},
    place::{free_ports, write_private},
    process::{self, Daemon, eventually},
};

const SYSTEM: &str = "acb-system";
const PASSWORD: &str = "of-this-run-alone";

pub(super) fn run(world: &mut World) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().map_err(at("a runtime"))?;
    let folder = tempfile::Builder::new().prefix("acb-e2e-asked-").tempdir().map_err(at("a temporary folder"))?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(at(folder.path()))?;
    let postgres = runtime.block_on(async {
        let options = LocalPostgresOptions { fsync: false, ..LocalPostgresOptions::new(folder.path().join("state")) };
        let postgres = LocalPostgres::start(options).await.map_err(|error| Error::Wrong(error.to_string()))?;
        let made = bootstrap::bootstrap(postgres.superuser(), PASSWORD, Server::Exclusive).await;
        made.map(|_| postgres).map_err(|error| Error::Wrong(error.to_string()))
    })?;
    let crds = world.place.root.join("crds/yaml").display().to_string();
    let manifests = world.place.root.join("config/operator").display().to_string();
    world.kubectl.run(&["apply", "--server-side", "--filename", &crds])?;
    world.kubectl.run(&["apply", "--kustomize", &manifests])?;
    let result = asked(world, folder.path(), postgres.port());
    world.kubectl.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
    world.kubectl.run(&["delete", "clusterrolebinding", "e2e-asked", "--ignore-not-found"])?;
    world.kubectl.run(&["delete", "--kustomize", &manifests, "--timeout=60s"])?;
    world.kubectl.run(&["delete", "--filename", &crds, "--timeout=60s"])?;
    runtime.block_on(postgres.stop());
    result
}

fn asked(world: &mut World, folder: &Path, postgres: u16) -> Result<()> {
    for kind in ["tenants", "agents", "quotas"] {
        world.kubectl.wait_for("Established", &[&format!("crd/{kind}.acb.dev")], 30)?;
    }
    let [plans, ops] = free_ports(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let operator = operator(world, folder, postgres, plans, ops)?;
    let result = leads(world, &operator).and_then(|()| check(world, plans));
    // It takes the Tenant down before it ends.
    let removed = world.kubectl.run(&["delete", "tenant", "asked", "--ignore-not-found", "--timeout=60s"]);
    operator.stop(Duration::from_secs(20));
    result.and(removed.map(drop))
}

/// Starts it as its ServiceAccount.
fn operator(world: &mut World, folder: &Path, postgres: u16, plans: u16, ops: u16) -> Result<Daemon> {
    let config = folder.join("config.yaml");
    let text = format!(
        "bus: {{kind: postgres}}\nhubImage: acb-hub:none\n\
         postgres: {{host: 127.0.0.1, port: {postgres}, database: acb, sslMode: prefer}}\n"
    );
    fs::write(&config, text).map_err(at(&config))?;
    fs::create_dir(folder.join("postgres")).map_err(at(folder))?;
    write_private(&folder.join("postgres/username"), "acb_operator")?;
    write_private(&folder.join("postgres/password"), PASSWORD)?;
    let kubeconfig = account::kubeconfig(world, &account::token(world, SYSTEM, "acb-operator", None)?)?;
    let mut command = Command::new(world.place.root.join("target/debug/acb-operator"));
    command.env("KUBECONFIG", kubeconfig).env("POD_NAMESPACE", SYSTEM).env("POD_NAME", "asked");
    command.arg("--config").arg(config).arg(format!("--plan-port={plans}")).arg(format!("--ops-port={ops}"));
    world.state.start("operator", &mut command)
}

fn leads(world: &World, operator: &Daemon) -> Result<()> {
    operator.wait(60, || {
        let lease = world.kubectl.find(&["--namespace", SYSTEM, "lease", "acb-operator"]).ok().flatten().unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with("asked_"))
    })
}

/// What the operator answered.
struct Answer {
    status: u16,
    text: String,
}

/// Posts a question as somebody. kubectl sends no token without TLS, which here the port-forward would be.
fn ask(plans: u16, token: &str, question: &str) -> Result<Answer> {
    let local = at("the operator's port for plans");
    let exchange = || {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, plans))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            socket,
            "POST /plan HTTP/1.1\r\nHost: acb\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{question}",
            question.len()
        )?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    };
    let text: String = exchange().map_err(local)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    let text = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Answer { status, text })
}

fn check(world: &World, plans: u16) -> Result<()> {
    for name in ["planner", "stranger"] {
        account::make(world, name)?;
    }
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-asked"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acb-planner"},
        "subjects": [{"kind": "ServiceAccount", "name": "planner", "namespace": NAMESPACE}],
    });
    world.kubectl.apply(&binding.to_string())?;
    let tenant = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "asked"},
        "spec": {"tier": "Free", "deletionPolicy": "Delete"},
    });
    let question = json!({"objects": [tenant]}).to_string();
    let question = question.as_str();
    let token = |name: &str, audience| {
        let file = account::token(world, NAMESPACE, name, audience)?;
        fs::read_to_string(&file).map_err(at(&file))
    };
    let (planner, stranger) = (token("planner", None)?, token("stranger", None)?);

    let fresh = eventually(30, "the planner has its rights, and the leader its database", || {
        let answer = ask(plans, &planner, question).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.text) } else { Err(answer.text) }
    })?;
    if !fresh.contains("+ Deployment acbhub-asked/hub") || fresh.contains(PASSWORD) {
        return wrong(format!("a plan of what is new: {fresh}"));
    }
    if world.kubectl.find(&["tenant", "asked"])?.is_some() {
        return wrong("a plan made the Tenant");
    }
    let bound = token("planner", Some(AUDIENCE))?;
    let (forged, elsewhere) = (format!("{planner}x"), token("stranger", Some("https://elsewhere.example"))?);
    for (what, token, text, status, says) in [
        ("a token for plans", &bound, question, 200, "acbhub-asked"),
        ("who has no right", &stranger, question, 403, "may neither plan nor apply Tenant asked"),
        ("a forged token", &forged, question, 401, "not one that this cluster knows"),
        ("a token for something else", &elsewhere, question, 401, "not one that this cluster knows"),
        ("no question", &planner, "{\"objects\": 7}", 400, "not a question"),
        ("no document", &planner, "{\"objects\": [{\"kind\": \"Pod\"}]}", 400, "document 1 is no Tenant"),
    ] {
        let answer = ask(plans, token, text)?;
        if answer.status != status || !answer.text.contains(says) {
            return wrong(format!("{what}: wanted {status} and {says:?}, and it was {} {}", answer.status, answer.text));
        }
    }
    replay(world)?;
    world.kubectl.apply(&tenant.to_string())?;
    eventually(60, "nothing is left to do for what was applied", || {
        let answer = ask(plans, &planner, question).map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_str(&answer.text).map_err(|error| error.to_string())?;
        let steps = report["objects"][0]["steps"].as_array().map(Vec::len);
        if steps == Some(0) { Ok(()) } else { Err(answer.text) }
    })
}

/// A token for plans is of no use to anyone who sees it.
fn replay(world: &World) -> Result<()> {
    let kubeconfig = account::kubeconfig(world, &account::token(world, NAMESPACE, "planner", Some(AUDIENCE))?)?;
    let mut command = Command::new(world.place.bin("kubectl"));
    let replayed = process::output(command.env("KUBECONFIG", kubeconfig).args(["get", "--raw", "/apis"]))?;
    if !replayed.status.success() && said(&replayed).contains("Unauthorized") {
        return Ok(());
    }
    wrong(format!("the API server took a token for plans: {}", said(&replayed)))
}
