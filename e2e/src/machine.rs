//! What this machine has of what a node needs.

use std::{env, fs, path::Path};

/// What a node lacks here: each with what to do about it. Empty where nothing is.
pub(crate) fn lacks() -> Vec<String> {
    let mut lacks = Vec::new();
    if !rustix::process::geteuid().is_root() {
        lacks.push("root: network namespaces, mounts and cgroups are made for pods".to_owned());
    }
    for (program, package) in [
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("containerd-shim-runc-v2", "containerd"),
        ("runc", "runc"),
        ("nft", "nftables"),
        ("ip", "iproute2"),
    ] {
        if !installed(program) {
            lacks.push(format!("{program}: scripts/install-dependencies e2e, or install {package}"));
        }
    }
    for plugin in ["bridge", "host-local", "loopback"] {
        if !Path::new(crate::node::CNI_PLUGINS).join(plugin).exists() {
            lacks.push(format!("the CNI plugin {plugin} in {}: install containernetworking-plugins", crate::node::CNI_PLUGINS));
        }
    }
    if !fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("\toverlay\n") {
        lacks.push("the file system overlay: modprobe overlay".to_owned());
    }
    if !writable_cgroups() {
        lacks.push("writable cgroups below /sys/fs/cgroup".to_owned());
    }
    lacks
}

fn installed(program: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

fn writable_cgroups() -> bool {
    let root = Path::new("/sys/fs/cgroup");
    // Version 1 has a folder for each controller.
    let root = if root.join("memory").exists() { root.join("memory") } else { root.to_path_buf() };
    let probe = root.join("acb-e2e-probe");
    let made = fs::create_dir(&probe).is_ok();
    made && fs::remove_dir(&probe).is_ok()
}
