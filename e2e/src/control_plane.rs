//! etcd, the API server, the controller manager and the scheduler.

use std::{fs, net::IpAddr, process::Command};

use crate::{
    authority::Authority,
    error::{Error, Result, at},
    kubectl::Kubectl,
    network::{API_SERVICE, PODS, SERVICES},
    place::{Place, free_ports},
    state::State,
};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Each of these has a kubeconfig of its own: file, user, group.
const USERS: [(&str, &str, Option<&str>); 6] = [
    ("admin", "acb-e2e-admin", Some("system:masters")),
    ("controller-manager", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
    ("kubelet", "system:node:acb-e2e", Some("system:nodes")),
    ("proxy", "system:kube-proxy", None),
    ("dns", "acb-e2e-dns", None),
];

/// Starts the control plane on this address, and waits until it answers.
pub(crate) fn start(place: &Place, state: &mut State, host: IpAddr) -> Result<()> {
    let missing = ["daemons", "coredns", "helm"].into_iter().find(|name| !place.bin(name).exists());
    if let Some(name) = missing {
        return Err(Error::Missing(format!("{} is missing: run e2e/build", place.bin(name).display())));
    }
    let certificates = place.run().join("pki");
    let authority = Authority::new("acb-e2e")?;
    let store = Authority::new("acb-e2e-etcd")?;
    fs::create_dir_all(&certificates).map_err(at(&certificates))?;
    fs::write(certificates.join("ca.crt"), authority.pem()).map_err(at(&certificates))?;
    fs::write(certificates.join("etcd-ca.crt"), store.pem()).map_err(at(&certificates))?;
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
    authority.server("kube-apiserver", &names, &[host, LOOPBACK, API_SERVICE])?.write(&certificates, "apiserver")?;
    authority.client("acb-e2e-apiserver", Some("system:masters"))?.write(&certificates, "apiserver-kubelet")?;
    authority.server("acb-e2e", &["acb-e2e"], &[host])?.write(&certificates, "kubelet")?;
    store.server("etcd", &["localhost"], &[LOOPBACK])?.write(&certificates, "etcd")?;
    // Signs the tokens of ServiceAccounts.
    authority.client("service-accounts", None)?.write(&certificates, "service-accounts")?;

    let [api] = free_ports(host)?;
    let server = format!("https://{host}:{api}");
    for (file, user, group) in USERS {
        authority.kubeconfig(place, file, &server, user, group)?;
    }
    let etcd = start_etcd(place, state)?;
    start_api_server(place, state, host, api, etcd)?;
    start_controllers(place, state)
}

fn start_etcd(place: &Place, state: &mut State) -> Result<u16> {
    let [client, peer] = free_ports(LOOPBACK)?;
    let pki = place.run().join("pki");
    let (client_url, peer_url) = (format!("https://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(place.bin("etcd"));
    command.arg("--name=acb-e2e").arg(format!("--data-dir={}", place.run().join("etcd").display()));
    command.args([
        format!("--listen-client-urls={client_url}"),
        format!("--advertise-client-urls={client_url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=acb-e2e={peer_url}"),
        format!("--cert-file={}", pki.join("etcd.crt").display()),
        format!("--key-file={}", pki.join("etcd.key").display()),
        format!("--trusted-ca-file={}", pki.join("etcd-ca.crt").display()),
        "--client-cert-auth=true".to_owned(),
        // Whoever loses power here makes a new cluster.
        "--unsafe-no-fsync=true".to_owned(),
    ]);
    let daemon = state.start("etcd", &mut command)?;
    daemon.wait(30, || fs::read_to_string(&daemon.log).unwrap_or_default().contains("ready to serve client requests"))?;
    Ok(client)
}

fn start_api_server(place: &Place, state: &mut State, host: IpAddr, port: u16, etcd: u16) -> Result<()> {
    let pki = place.run().join("pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let mut command = Command::new(place.bin("kube-apiserver"));
    command.args([
        format!("--etcd-servers=https://127.0.0.1:{etcd}"),
        format!("--etcd-cafile={}", file("etcd-ca.crt")),
        format!("--etcd-certfile={}", file("etcd.crt")),
        format!("--etcd-keyfile={}", file("etcd.key")),
        format!("--bind-address={host}"),
        format!("--secure-port={port}"),
        format!("--advertise-address={host}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        // A public key, or what holds one: of private keys only the older formats are read here.
        format!("--service-account-key-file={}", file("service-accounts.crt")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--anonymous-auth=false".to_owned(),
    ]);
    if host.is_loopback() {
        // No pod will look for it, and a loopback address is no endpoint.
        command.arg("--endpoint-reconciler-type=none");
    }
    let daemon = state.start("kube-apiserver", &mut command)?;
    let kubectl = Kubectl::admin(place);
    daemon.wait(60, || kubectl.run(&["get", "--raw", "/readyz"]).is_ok())
}

fn start_controllers(place: &Place, state: &mut State) -> Result<()> {
    let pki = place.run().join("pki");
    let [controllers, scheduler] = free_ports(LOOPBACK)?;
    let common = |user: &str, port: u16| {
        let kubeconfig = place.kubeconfig(user).display().to_string();
        [
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
        ]
    };
    let mut command = Command::new(place.bin("kube-controller-manager"));
    command.args(common("controller-manager", controllers)).args([
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pki.join("service-accounts.key").display()),
        format!("--root-ca-file={}", pki.join("ca.crt").display()),
        format!("--cluster-cidr={PODS}"),
        // Somebody waits: by default an autoscaler looks every 15 s, and disregards a pod's first minutes.
        "--horizontal-pod-autoscaler-sync-period=3s".to_owned(),
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s".to_owned(),
        "--horizontal-pod-autoscaler-initial-readiness-delay=3s".to_owned(),
    ]);
    let manager = state.start("kube-controller-manager", &mut command)?;
    let mut command = Command::new(place.bin("kube-scheduler"));
    command.args(common("scheduler", scheduler));
    state.start("kube-scheduler", &mut command)?;
    let kubectl = Kubectl::admin(place);
    // The first thing that a namespace needs of the controller manager.
    manager.wait(60, || kubectl.run(&["--namespace", "default", "get", "serviceaccount", "default"]).is_ok())
}
