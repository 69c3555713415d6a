//! `image-pull-secret`: a hub's image comes from a registry that asks for a login.

use std::{fs, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{World, install, operator};
use crate::{
    authority::Authority,
    backends::random,
    error::{Result, at},
    network::HOST,
    node,
    place::{free_ports, write_private},
    process::eventually,
};

const TENANT: &str = "fetched";
const HUB: &str = "acbhub-fetched";
const DAEMON: &str = "registry";

/// `image-pull-secret`.
pub(super) fn secret(world: &mut World) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let registry = Registry::start(world)?;
    let repository = format!("{}/acb-hub", registry.address);
    let image = format!("{repository}:{version}");
    registry.push(world, &format!("docker.io/library/acb-hub:{version}"), &image)?;
    install::helm(world, &[&format!("hubImageRepositories={{{repository}}}")])?;
    let tenant = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": TENANT},
        "spec": {"tier": "Free", "deletionPolicy": "Delete", "hub": {"image": image, "imagePullSecrets": [{"name": "registry"}]}},
    });
    world.kubectl.apply(&tenant.to_string())?;
    // Without the login the registry refuses.
    eventually(120, "the kubelet is refused the image", || {
        let pods = world.kubectl.get(&["--namespace", HUB, "pods"]).map_err(|error| error.to_string())?;
        let waiting = &pods["items"][0]["status"]["containerStatuses"][0]["state"]["waiting"];
        let refused =
            waiting["message"].as_str().is_some_and(|message| message.contains("401") || message.contains("authorization"));
        if refused { Ok(()) } else { Err(waiting.to_string()) }
    })?;
    operator::says(world, &["tenant", TENANT], "Waiting", "0 of 1", 30)?;
    let login = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "registry", "namespace": HUB},
        "stringData": {".dockerconfigjson": json!({"auths": {&registry.address: {"auth": registry.login}}}).to_string()},
    });
    world.kubectl.apply(&login.to_string())?;
    let ready = world.kubectl.wait_for("Ready", &[&format!("tenant/{TENANT}")], 120);
    world.kubectl.run(&["delete", "tenant", TENANT, "--timeout=180s"])?;
    install::helm(world, &[])?;
    world.state.stop(DAEMON)?;
    ready
}

/// A registry on the node's address, that asks for a login.
struct Registry {
    /// Host and port.
    address: String,
    /// User and password, as HTTP's Basic authentication has them.
    login: String,
}

impl Registry {
    fn start(world: &mut World) -> Result<Self> {
        let folder = world.place.run().join("registry");
        let authority = Authority::new("acb-e2e-registry")?;
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        fs::write(folder.join("ca.crt"), authority.pem()).map_err(at(&folder))?;
        authority.server("registry", &[], &[HOST])?.write(&folder, "registry")?;
        let login = STANDARD.encode(format!("puller:{}", random()?));
        write_private(&folder.join("login"), &login)?;
        let [port] = free_ports(HOST)?;
        let address = format!("{HOST}:{port}");
        let file = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(world.place.bin("registry"));
        command.args(["-address", &address, "-certificate", &file("registry.crt"), "-key", &file("registry.key")]);
        let daemon = world.state.start(DAEMON, command.args(["-login", &file("login")]))?;
        daemon.wait(30, || std::net::TcpStream::connect(&address).is_ok())?;
        node::trust_registry(&address, &authority.pem())?;
        Ok(Self { address, login })
    }

    /// Puts an image of the node into it, under another name.
    fn push(&self, world: &World, image: &str, to: &str) -> Result<()> {
        let folder = world.place.run().join("registry/push");
        write_private(
            &folder.join(&self.address).join("hosts.toml"),
            &format!(
                "[host.\"https://{0}\"]\nca = {1:?}\n[host.\"https://{0}\".header]\nauthorization = \"Basic {2}\"\n",
                self.address,
                world.place.run().join("registry/ca.crt"),
                self.login,
            ),
        )?;
        node::push(image, to, &folder)
    }
}
