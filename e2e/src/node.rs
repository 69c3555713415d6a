//! containerd, the kubelet and kube-proxy: a node, with sockets and data of its own.

use std::{
    fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};
use serde_json::{Value, json};

use crate::{
    error::{Result, at, wrong},
    kubectl::Kubectl,
    network::{self, HOST, PODS},
    place::{NODE, Place, SOCKETS, free_ports},
    process::{self, output, run, send},
    state::State,
};

/// Where Debian's package puts them.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";
/// The image of a pod's sandbox.
pub(crate) const PAUSE: &str = "acb.dev/e2e/pause:1";

/// containerd's socket.
pub(crate) fn socket() -> String {
    format!("{SOCKETS}/containerd.sock")
}

/// Starts the node, and waits until Kubernetes calls it ready.
pub(crate) fn start(place: &Place, state: &mut State) -> Result<()> {
    for folder in [SOCKETS.to_owned(), format!("{NODE}/cni.d")] {
        fs::create_dir_all(&folder).map_err(at(&folder))?;
    }
    write_json(&format!("{NODE}/cni.d/10-acb-e2e.conflist"), &network::cni())?;
    start_containerd(place, state)?;
    let pause = place.images().join("pause.tar");
    import(&pause)?;
    start_kubelet(place, state)?;
    start_proxy(place, state)
}

fn write_json(path: &str, value: &Value) -> Result<()> {
    fs::write(path, serde_json::to_string_pretty(value)?).map_err(at(path))
}

/// Loads an image of a docker archive, as it is named there.
pub(crate) fn import(archive: &Path) -> Result<()> {
    let socket = socket();
    run(Command::new("ctr").args(["--address", &socket, "--namespace", "k8s.io", "images", "import"]).arg(archive)).map(drop)
}

/// Gives an image another name, too.
pub(crate) fn tag(image: &str, other: &str) -> Result<()> {
    let socket = socket();
    let tag = ["--address", &socket, "--namespace", "k8s.io", "images", "tag", "--force", image, other];
    run(Command::new("ctr").args(tag)).map(drop)
}

/// Puts an image of the node into a registry under another name, which the node then forgets. `hosts` says how the registry is reached.
pub(crate) fn push(image: &str, to: &str, hosts: &Path) -> Result<()> {
    tag(image, to)?;
    let socket = socket();
    let ctr = || {
        let mut command = Command::new("ctr");
        command.args(["--address", &socket, "--namespace", "k8s.io", "images"]);
        command
    };
    run(ctr().arg("push").arg("--hosts-dir").arg(hosts).arg(to))?;
    run(ctr().args(["rm", to])).map(drop)
}

/// Lets containerd know the authority of a registry. It looks at each pull.
pub(crate) fn trust_registry(address: &str, authority: &str) -> Result<()> {
    let folder = Path::new(NODE).join("registries").join(address);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let file = folder.join("ca.crt");
    fs::write(&file, authority).map_err(at(&file))?;
    let hosts = format!("server = \"https://{address}\"\n[host.\"https://{address}\"]\nca = {file:?}\n");
    fs::write(folder.join("hosts.toml"), hosts).map_err(at(&folder))
}

fn start_containerd(place: &Place, state: &mut State) -> Result<()> {
    let config = place.run().join("containerd.toml");
    // Without `restrict_oom_score_adj` no sandbox starts on a machine without CAP_SYS_RESOURCE.
    let text = format!(
        r#"version = 2
root = "{NODE}/containerd"
state = "{SOCKETS}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_selinux = false
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{NODE}/registries"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{NODE}/cni.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        socket = socket(),
    );
    fs::write(&config, text).map_err(at(&config))?;
    let daemon = state.start("containerd", Command::new("containerd").arg("--config").arg(&config))?;
    let socket = socket();
    daemon
        .wait(30, || output(Command::new("ctr").args(["--address", &socket, "version"])).is_ok_and(|said| said.status.success()))
}

fn start_kubelet(place: &Place, state: &mut State) -> Result<()> {
    let [port, health] = free_ports(HOST)?;
    let pki = place.run().join("pki");
    let config = place.run().join("kubelet.yaml");
    let value = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": HOST.to_string(),
        "port": port,
        "healthzPort": health,
        "containerRuntimeEndpoint": format!("unix://{}", socket()),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "clusterDNS": [HOST.to_string()],
        "clusterDomain": "cluster.local",
        "podLogsDir": format!("{NODE}/pod-logs"),
        "makeIPTablesUtilChains": false,
        "tlsCertFile": pki.join("kubelet.crt"),
        "tlsPrivateKeyFile": pki.join("kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "syncFrequency": "10s",
        // What is full here is full of build results, not of pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": [],
    });
    fs::write(&config, serde_json::to_string_pretty(&value)?).map_err(at(&config))?;
    let mut command = Command::new(place.bin("kubelet"));
    command.args([
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", place.kubeconfig("kubelet").display()),
        format!("--root-dir={NODE}/kubelet"),
        format!("--cert-dir={NODE}/kubelet-pki"),
        format!("--node-ip={HOST}"),
        "--hostname-override=acb-e2e".to_owned(),
    ]);
    let daemon = state.start("kubelet", &mut command)?;
    let kubectl = Kubectl::admin(place);
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    daemon.wait(90, || kubectl.run(&["get", "node", "acb-e2e", "--output", ready]).is_ok_and(|status| status == "True"))
}

fn start_proxy(place: &Place, state: &mut State) -> Result<()> {
    let [health, metrics] = free_ports(HOST)?;
    let config = place.run().join("proxy.yaml");
    let value = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": "acb-e2e",
        "healthzBindAddress": format!("{HOST}:{health}"),
        "metricsBindAddress": format!("{HOST}:{metrics}"),
        "clientConnection": {"kubeconfig": place.kubeconfig("proxy")},
        "conntrack": {"maxPerCore": 0},
        // Pods of one bridge answer each other directly: without this, not from the address of the Service that was called.
        "nftables": {"masqueradeAll": true, "minSyncPeriod": "0s"},
    });
    fs::write(&config, serde_json::to_string_pretty(&value)?).map_err(at(&config))?;
    let daemon =
        state.start("kube-proxy", Command::new(place.bin("kube-proxy")).arg(format!("--config={}", config.display())))?;
    daemon.wait(30, || {
        output(Command::new("nft").args(["list", "table", "ip", "kube-proxy"])).is_ok_and(|said| said.status.success())
    })
}

/// Sends a signal to the first container of a pod. Kubernetes knows of it only by what comes of it.
pub(crate) fn signal(kubectl: &Kubectl, namespace: &str, pod: &str, signal: &str) -> Result<()> {
    let object = kubectl.get(&["--namespace", namespace, "pod", pod])?;
    let id = object["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    let Some(id) = id.strip_prefix("containerd://") else {
        return wrong(format!("pod {namespace}/{pod} has no container: {}", object["status"]));
    };
    let socket = socket();
    let kill = ["--address", &socket, "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, id];
    run(Command::new("ctr").args(kill)).map(drop)
}

/// Ends all containers, whose processes outlive containerd, and removes every mount and folder of the node.
pub(crate) fn clean() {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let shims = shims();
        if shims.is_empty() || Instant::now() > deadline {
            break;
        }
        for shim in &shims {
            // The first process of a container takes all others of its namespace with it.
            for child in children(*shim) {
                send(child, Signal::KILL);
            }
        }
        sleep(Duration::from_millis(200));
        for shim in shims {
            send(shim, Signal::KILL);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = |path: &&str| [NODE, SOCKETS].iter().any(|folder| path.starts_with(&format!("{folder}/")));
    // Later mounts may lie within earlier ones.
    for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(ours) {
        let _ = unmount(path, UnmountFlags::DETACH);
    }
    for folder in [NODE, SOCKETS] {
        let _ = fs::remove_dir_all(folder);
    }
    let root = Path::new("/sys/fs/cgroup");
    remove_cgroup(&root.join("kubepods"));
    for controller in fs::read_dir(root).into_iter().flatten().flatten() {
        remove_cgroup(&controller.path().join("kubepods"));
    }
}

/// A cgroup that holds a process stays.
fn remove_cgroup(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(path);
}

/// The process ids of containerd's shims: those that were told our socket.
fn shims() -> Vec<i32> {
    let socket = socket();
    let ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.first().is_some_and(|program| program.ends_with(b"containerd-shim-runc-v2")) && words.contains(&socket.as_bytes())
    };
    processes().filter(ours).collect()
}

fn children(parent: i32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let field = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(1)?.parse().ok());
        field == Some(parent)
    };
    processes().filter(is_child).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Keeps what pods wrote, for whoever looks into a failure.
pub(crate) fn keep_logs(place: &Place) {
    let to = place.logs().join("pods");
    let _ = fs::remove_dir_all(&to);
    let _ =
        process::run(Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(format!("{NODE}/pod-logs")).arg(&to));
}
