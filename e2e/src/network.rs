//! The pods' network: a bridge on this machine, whose address is the node's. Nothing leaves the machine by it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
};

use crate::{
    error::{Result, at, wrong},
    place::NODE,
    process::{output, run},
};

/// The bridge.
pub(crate) const BRIDGE: &str = "acb-e2e0";
/// The node's address, the API server's, the DNS server's, PostgreSQL's and Kafka's.
pub(crate) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1));
/// The pods' addresses.
pub(crate) const PODS: &str = "10.244.0.0/24";
/// The Services' addresses.
pub(crate) const SERVICES: &str = "10.96.0.0/16";
/// The first of them is the API server's.
pub(crate) const API_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether there is a bridge, whoever made it.
pub(crate) fn exists() -> bool {
    Path::new("/sys/class/net").join(BRIDGE).exists()
}

/// Makes the bridge and turns on forwarding. Answers with what forwarding was.
pub(crate) fn up() -> Result<String> {
    if exists() {
        return wrong("a cluster of another checkout runs on this machine: end it with `make cluster-down` there");
    }
    let table = output(Command::new("nft").args(["list", "table", "ip", "kube-proxy"]))?;
    if table.status.success() {
        return wrong(
            "this machine is a Kubernetes node: the nftables table kube-proxy exists. Use another, or remove it: nft delete table ip kube-proxy",
        );
    }
    let address = format!("{HOST}/24");
    for arguments in [
        ["link", "add", BRIDGE, "type", "bridge"].as_slice(),
        &["address", "add", &address, "dev", BRIDGE],
        &["link", "set", BRIDGE, "up"],
    ] {
        run(Command::new("ip").args(arguments))?;
    }
    let forwarding = fs::read_to_string(FORWARDING).map_err(at(FORWARDING))?;
    fs::write(FORWARDING, "1").map_err(at(FORWARDING))?;
    Ok(forwarding.trim().to_owned())
}

/// Removes the bridge, kube-proxy's rules and the addresses that were given out. `forwarding` is what it was, where that is known.
pub(crate) fn down(forwarding: Option<&str>) {
    // Each of these may be gone already.
    let _ = output(Command::new("ip").args(["link", "delete", BRIDGE]));
    for family in ["ip", "ip6"] {
        let _ = output(Command::new("nft").args(["delete", "table", family, "kube-proxy"]));
    }
    if let Some(forwarding) = forwarding {
        let _ = fs::write(FORWARDING, forwarding);
    }
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("acb-e2e-") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What containerd gives to the CNI plugins.
pub(crate) fn cni() -> serde_json::Value {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "acb-e2e",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": format!("{NODE}/cni"),
                    // The first address is the bridge's.
                    "ranges": [[{"subnet": PODS, "rangeStart": "10.244.0.10", "gateway": HOST.to_string()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    })
}
