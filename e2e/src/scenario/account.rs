//! A ServiceAccount outside of the cluster, as a CI job has one: a kubeconfig with its token, and `acb` that uses it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::World;
use crate::{
    error::{Result, at},
    place::write_private,
    process,
};

/// Where accounts are.
pub(super) const NAMESPACE: &str = "e2e-ci";

/// `acb` with this kubeconfig, and with contexts of its own.
pub(super) fn acb(world: &World, kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(world.place.root.join("target/debug/acb"));
    let home = world.place.run().join("home");
    command.env("KUBECONFIG", kubeconfig).env("HOME", &home).env("ACB_CONFIG", home.join("acb.yaml")).args(arguments);
    process::output(&mut command)
}

/// What it printed, and how it ended.
pub(super) fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}: {out}{err}", output.status)
}

/// Makes an account, and the namespace where it is missing.
pub(super) fn make(world: &World, name: &str) -> Result<()> {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}},
    ]});
    world.kubectl.apply(&objects.to_string()).map(drop)
}

/// A file with a token of an account: of the API server's own audience, or of another.
pub(super) fn token(world: &World, namespace: &str, name: &str, audience: Option<&str>) -> Result<PathBuf> {
    let audience = audience.map(|audience| format!("--audience={audience}"));
    let mut arguments = vec!["--namespace", namespace, "create", "token", name, "--duration=1h"];
    arguments.extend(audience.as_deref());
    let kind = if audience.is_some() { "bound" } else { "token" };
    let file = world.place.run().join(format!("{name}.{kind}"));
    write_private(&file, world.kubectl.run(&arguments)?.trim())?;
    Ok(file)
}

/// A kubeconfig with a token.
pub(super) fn kubeconfig(world: &World, token: &Path) -> Result<PathBuf> {
    let admin = world.place.kubeconfig("admin");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&admin).map_err(at(&admin))?)?;
    let token_text = std::fs::read_to_string(token).map_err(at(token))?;
    config["users"] = json!([{"name": "account", "user": {"token": token_text}}]);
    config["contexts"][0]["context"]["user"] = json!("account");
    // Beside the token's whole name: of two tokens of one account each has its own.
    let mut file = token.as_os_str().to_owned();
    file.push(".kubeconfig");
    let file = PathBuf::from(file);
    write_private(&file, &config.to_string())?;
    Ok(file)
}
