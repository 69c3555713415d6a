//! CoreDNS: the names of Services, for pods.

use std::{fs, net::IpAddr, process::Command};

use crate::{
    error::{Result, at},
    kubectl::Kubectl,
    network::HOST,
    place::{Place, free_ports},
    process::output,
    state::State,
};

/// What it must see of the cluster.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: acb-e2e-dns}
rules:
  - {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: acb-e2e-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: acb-e2e-dns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: acb-e2e-dns}]
"#;

/// Starts it on the node's address, and waits until it has seen the Services.
pub(crate) fn start(place: &Place, state: &mut State) -> Result<()> {
    Kubectl::admin(place).apply(RIGHTS)?;
    let [ready] = free_ports(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))?;
    let config = place.run().join("Corefile");
    let text = format!(
        ".:53 {{\n  bind {HOST}\n  errors\n  ready 127.0.0.1:{ready}\n  cache 5\n  kubernetes cluster.local in-addr.arpa {{\n    \
         kubeconfig {}\n    ttl 5\n  }}\n}}\n",
        place.kubeconfig("dns").display()
    );
    fs::write(&config, text).map_err(at(&config))?;
    let daemon = state.start("coredns", Command::new(place.bin("coredns")).arg("-conf").arg(&config))?;
    let url = format!("http://127.0.0.1:{ready}/ready");
    daemon.wait(60, || {
        output(Command::new("curl").args(["--silent", "--fail", "--max-time", "2", &url])).is_ok_and(|said| said.status.success())
    })
}
