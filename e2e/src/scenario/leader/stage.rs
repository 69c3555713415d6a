//! Two operators as processes of this machine, on a real API server, PostgreSQL and Kafka, all behind relays. The kubelet's part is
//! nobody's: no hub runs.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_operator::{effect::SecretData, plan::KafkaStep, runtime::kubernetes::config::Config};
use acb_testbed::{
    Kafka, KafkaListener, OperatorFiles, Outside, Postgres, Relay,
    operator::{NAMESPACE, Told},
    postgres::Version,
    relay::{Hold, Matches, Protocol},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    error::{Error, Result, at, wrong},
    place::{free_ports, write_private},
    process::{Daemon, eventually},
    scenario::World,
};

/// Everything that a plan looks at.
const LOOKED_AT: &str = "tenants.acb.dev,agents.acb.dev,quotas.acb.dev,namespaces,configmaps,services,serviceaccounts,deployments,\
                         poddisruptionbudgets,horizontalpodautoscalers,networkpolicies,rolebindings,secrets";
const NAMES: [&str; 2] = ["leader-a", "leader-b"];
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The resync would undo what these scenarios ask the operators to undo before.
const TOLD: Told = Told { resync_seconds: 3600, concurrency: 16 };
/// Nothing runs there: it is about the operators.
const NOWHERE: &str = "acb.dev/e2e-nowhere";

/// One of the two.
pub(super) struct Operator {
    pub(super) name: &'static str,
    ops_port: u16,
    process: Option<Daemon>,
}

struct Systems {
    postgres: Postgres,
    // Ends with this.
    _kafka: Kafka,
    relays: BTreeMap<&'static str, Relay>,
    /// Through the relays.
    files: OperatorFiles,
    told: Config,
    reach: Config,
    kubeconfig: PathBuf,
    // The files that `reach` names.
    _direct: OperatorFiles,
}

pub(super) struct Stage<'a> {
    world: &'a mut World,
    runtime: Runtime,
    begun: Instant,
    systems: Option<Systems>,
    operators: [Operator; 2],
    /// As they were last applied.
    tenants: BTreeMap<String, Value>,
}

fn relay_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Kafka => "Kafka",
        Protocol::Postgres => "PostgreSQL",
        Protocol::Http => "Kubernetes",
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Wrong(error.to_string())
}

/// A tenant as it begins.
fn tenant(name: &str) -> Value {
    json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name, "labels": {}},
        "spec": {
            "tier": "Professional", "deletionPolicy": "Delete",
            "contextTypes": [{"name": "notes", "partitions": 1, "retention": "1d"}],
            "hub": {"replicas": 1, "nodeSelector": {NOWHERE: "true"}},
        },
    })
}

impl<'a> Stage<'a> {
    pub(super) fn new(world: &'a mut World) -> Result<Self> {
        let ports: [u16; 2] = free_ports(LOOPBACK)?;
        let operators = [0, 1].map(|n| Operator { name: NAMES[n], ops_port: ports[n], process: None });
        Ok(Self { world, runtime: crate::runtime()?, begun: Instant::now(), systems: None, operators, tenants: BTreeMap::new() })
    }

    fn systems(&self) -> Result<&Systems> {
        self.systems.as_ref().ok_or_else(|| Error::Wrong("the stage is not set".to_owned()))
    }

    /// Installs what the chart does, without the operator itself, and starts two of them.
    pub(super) fn set(&mut self) -> Result<()> {
        let kubectl = self.world.kubectl.clone();
        let folder = |name: &str| self.world.place.root.join(name).display().to_string();
        kubectl.run(&["apply", "--server-side", "--filename", &folder("crds/yaml")])?;
        for kind in ["tenants", "agents", "quotas"] {
            kubectl.wait_for("Established", &[&format!("crd/{kind}.acb.dev")], 30)?;
        }
        kubectl.run(&["apply", "--kustomize", &folder("config/operator")])?;
        kubectl.run(&["--namespace", NAMESPACE, "delete", "deployment", "acb-operator", "--timeout=60s"])?;
        // Left behind by who led before.
        kubectl.run(&["--namespace", NAMESPACE, "delete", "lease", "acb-operator", "--ignore-not-found"])?;
        let api = self.proxy()?;
        self.systems = Some(self.start_systems(api)?);
        for index in [0, 1] {
            self.start(index)?;
            self.wait_leader(&[0], 30)?;
        }
        Ok(())
    }

    /// Speaks plain HTTP here, and TLS to the API server, as the operator's ServiceAccount.
    fn proxy(&mut self) -> Result<u16> {
        let token = self.world.kubectl.run(&["--namespace", NAMESPACE, "create", "token", "acb-operator", "--duration=2h"])?;
        let admin = self.world.place.kubeconfig("admin");
        let mut config: Value = serde_json::from_slice(&fs::read(&admin).map_err(at(&admin))?)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        let kubeconfig = self.world.place.kubeconfig("leader-proxy");
        write_private(&kubeconfig, &config.to_string())?;
        let mut command = Command::new(self.world.place.bin("kubectl"));
        command.env("KUBECONFIG", &kubeconfig).args(["proxy", "--port=0"]);
        let daemon = self.world.state.start("leader-proxy", &mut command)?;
        let port = || {
            let log = fs::read_to_string(&daemon.log).ok()?;
            log.lines().find_map(|line| line.strip_prefix("Starting to serve on 127.0.0.1:"))?.trim().parse().ok()
        };
        daemon.wait(20, || port().is_some())?;
        port().ok_or_else(|| Error::Wrong("kubectl proxy names no port".to_owned()))
    }

    fn start_systems(&self, api: u16) -> Result<Systems> {
        // What is missing for them is said by a panic, as tests want it.
        let (postgres, kafka) = self.runtime.block_on(async {
            let kafka = tokio::spawn(Kafka::start(KafkaListener::Plain));
            let postgres = tokio::spawn(Postgres::start_with(Version::Installed, false, &[("max_connections", "200")]));
            Ok::<_, Error>((postgres.await.map_err(failed)?, kafka.await.map_err(failed)?))
        })?;
        let mut relays = BTreeMap::new();
        for (protocol, port) in
            [(Protocol::Kafka, kafka.port()), (Protocol::Postgres, postgres.server().port()), (Protocol::Http, api)]
        {
            let behind = SocketAddr::from((LOOPBACK, port));
            let relay = self.runtime.block_on(Relay::start(protocol, behind)).map_err(failed)?;
            relays.insert(relay_name(protocol), relay);
        }
        let port = |protocol| relays.get(relay_name(protocol)).map_or(0, |relay| relay.port);
        let files = OperatorFiles::new((&postgres, port(Protocol::Postgres)), Some((&kafka, port(Protocol::Kafka))), TOLD);
        let direct = OperatorFiles::new((&postgres, postgres.server().port()), Some((&kafka, kafka.port())), TOLD);
        let (files, direct) = (files.map_err(failed)?, direct.map_err(failed)?);
        let (told, reach) = (files.load().map_err(failed)?, direct.load().map_err(failed)?);
        let kubeconfig = self.world.place.kubeconfig("leader");
        let server = format!("http://127.0.0.1:{}", port(Protocol::Http));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "relay",
            "clusters": [{"name": "relay", "cluster": {"server": server}}],
            "users": [{"name": "relay", "user": {}}],
            "contexts": [{"name": "relay", "context": {"cluster": "relay", "user": "relay"}}],
        });
        write_private(&kubeconfig, &config.to_string())?;
        Ok(Systems { postgres, _kafka: kafka, relays, files, told, reach, kubeconfig, _direct: direct })
    }

    /// Starts an operator that does not run.
    pub(super) fn start(&mut self, index: usize) -> Result<()> {
        let systems = self.systems()?;
        let program = self.world.place.root.join("target/debug/acb-operator");
        let Operator { name, ops_port, .. } = self.operators[index];
        let mut command = systems.files.command(&program, &systems.kubeconfig, name, ops_port);
        let daemon = self.world.state.start(name, &mut command)?;
        // Both stand by ready.
        daemon.wait(30, || self.get(index, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")))?;
        self.operators[index].process = Some(daemon);
        Ok(())
    }

    /// What an operator's port for probes answers.
    fn get(&self, index: usize, path: &str) -> Option<String> {
        let address = SocketAddr::from((LOOPBACK, self.operators[index].ops_port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: e2e\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub(super) fn process(&self, index: usize) -> Result<&Daemon> {
        let name = self.operators[index].name;
        self.operators[index].process.as_ref().ok_or_else(|| Error::Wrong(format!("{name} was not started")))
    }

    pub(super) fn log(&self, index: usize) -> Result<String> {
        let log = &self.process(index)?.log;
        fs::read_to_string(log).map_err(at(log))
    }

    /// Waits until one of these leads, and says which.
    pub(super) fn wait_leader(&self, of: &[usize], seconds: u64) -> Result<usize> {
        let names: Vec<&str> = of.iter().map(|&index| self.operators[index].name).collect();
        eventually(seconds, &format!("one of {names:?} leads"), || {
            let lease = self.world.kubectl.get(&["--namespace", NAMESPACE, "lease", "acb-operator"]);
            let lease = lease.map_err(|error| error.to_string())?;
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            let name = holder.split('_').next().unwrap_or_default();
            of.iter().copied().find(|&index| self.operators[index].name == name).ok_or_else(|| holder.to_owned())
        })
    }

    /// Waits until an operator says of itself that it stands by.
    pub(super) fn wait_standing_by(&self, index: usize) -> Result<()> {
        let process = self.process(index)?;
        process.wait(30, || {
            self.get(index, "/metrics")
                .is_some_and(|text| text.contains("leader_election_master_status{name=\"acb-operator\"} 0"))
        })?;
        let log = self.log(index)?;
        if log.contains("panicked") { wrong(format!("{} panicked: {}", process.name, process.log.display())) } else { Ok(()) }
    }

    /// Stops an operator's process, without ending it. None of its threads runs when this returns.
    pub(super) fn pause(&self, index: usize) -> Result<()> {
        let process = self.process(index)?;
        process.signal(Signal::STOP);
        eventually(10, &format!("{} is stopped", process.name), || {
            let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).map_err(|error| error.to_string())?;
            let state = |task: fs::DirEntry| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
            };
            if tasks.flatten().all(state) { Ok(()) } else { Err("a thread of it runs".to_owned()) }
        })
    }

    pub(super) fn go_on(&self, index: usize) -> Result<()> {
        self.process(index)?.signal(Signal::CONT);
        Ok(())
    }

    pub(super) fn kill(&mut self, index: usize) -> Result<()> {
        let process = self.process(index)?;
        process.signal(Signal::KILL);
        eventually(10, &format!("{} is dead", process.name), || if process.runs() { Err("it runs".to_owned()) } else { Ok(()) })?;
        self.operators[index].process = None;
        Ok(())
    }

    pub(super) fn hold(&self, via: Protocol, matches: Matches) -> Result<Arc<Hold>> {
        let relay = self.systems()?.relays.get(relay_name(via));
        relay.map(|relay| relay.hold(matches)).ok_or_else(|| Error::Wrong("no such relay".to_owned()))
    }

    /// The id of a tenant that was provisioned.
    pub(super) fn id(&self, tenant: &str) -> Result<String> {
        let object = self.world.kubectl.get(&["tenant", tenant])?;
        object["status"]["tenantId"].as_str().map(str::to_owned).ok_or_else(|| failed(format!("{tenant} has no id")))
    }

    /// Changes what is wanted of a tenant. [`apply`](Self::apply) says it to the API server.
    pub(super) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.tenants.entry(name.to_owned()).or_insert_with(|| tenant(name)));
    }

    /// Says what is wanted of these tenants, all at once.
    pub(super) fn apply<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<()> {
        let items: Vec<&Value> = names.into_iter().filter_map(|name| self.tenants.get(name)).collect();
        if items.is_empty() {
            return Ok(());
        }
        self.world.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).map(drop)
    }

    /// Has the operators look at these tenants, whatever they wait for.
    pub(super) fn wake(&self, tenants: &[&str]) -> Result<()> {
        let now = format!("woken={}", Instant::now().duration_since(self.begun).as_millis());
        let mut arguments = vec!["label", "--overwrite", "tenants.acb.dev"];
        arguments.extend(tenants);
        arguments.push(&now);
        self.kubectl(&arguments).map(drop)
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.world.kubectl.run(arguments)
    }

    /// An agent of a tenant.
    pub(super) fn apply_agent(&self, tenant: &str) -> Result<()> {
        let agent = json!({
            "apiVersion": "acb.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": agent(tenant), "namespace": format!("acb-{tenant}")}, "spec": {"role": "AgentFull"},
        });
        eventually(30, &format!("an agent of {tenant} is taken"), || {
            self.world.kubectl.apply(&agent.to_string()).map(drop).map_err(|error| error.to_string())
        })
    }

    pub(super) fn wait_gone(&self, tenant: &str) -> Result<()> {
        self.world.kubectl.wait_gone(&["tenant", tenant], 60)
    }

    /// As a database administrator.
    pub(super) fn sql(&self, statement: &str) -> Result<()> {
        self.runtime.block_on(self.systems()?.postgres.execute(statement));
        Ok(())
    }

    /// As an administrator of Kafka.
    pub(super) fn kafka(&self, steps: &[KafkaStep]) -> Result<()> {
        let systems = self.systems()?;
        let kafka = systems.reach.kafka.as_ref().ok_or_else(|| failed("no Kafka is configured"))?.effect().map_err(failed)?;
        self.runtime.block_on(kafka.apply(steps, &Outside::default())).map_err(failed)
    }

    /// What an operator would still do.
    fn remaining(&self) -> Result<Vec<String>> {
        let systems = self.systems()?;
        let list = self.world.kubectl.get(&[LOOKED_AT, "--all-namespaces"])?;
        let mut outside = Outside::default();
        for object in list["items"].as_array().into_iter().flatten() {
            let mut data = SecretData::new();
            if object["kind"] == "Secret" {
                for (key, value) in object["data"].as_object().into_iter().flatten() {
                    data = data.with(key, STANDARD.decode(value.as_str().unwrap_or_default()).map_err(failed)?);
                }
            }
            outside.add(object, data);
        }
        self.runtime.block_on(outside.remaining(&systems.told, &systems.reach)).map_err(failed)
    }

    /// Waits until every tenant is as it should be, in Kubernetes, PostgreSQL and Kafka. Answers with how long it took.
    pub(super) fn converge(&self, seconds: u64) -> Result<Duration> {
        let begun = Instant::now();
        eventually(seconds, "everything is as the resources say", || match self.remaining() {
            Ok(lines) if lines.is_empty() => Ok(()),
            Ok(lines) => Err(lines.join("\n")),
            Err(error) => Err(error.to_string()),
        })?;
        Ok(begun.elapsed())
    }

    /// Removes everything again.
    pub(super) fn strike(mut self) -> Result<()> {
        let kubectl = self.world.kubectl.clone();
        for index in [0, 1] {
            let _ = self.go_on(index);
        }
        // The operators have to let go of what they hold: before they end, and Agents before the namespaces that they are in.
        let spaces: Vec<String> =
            self.tenants.keys().flat_map(|name| [format!("acb-{name}"), format!("acbhub-{name}")]).collect();
        let mut namespaces = vec!["delete", "namespace", "--ignore-not-found", "--timeout=120s"];
        namespaces.extend(spaces.iter().map(String::as_str));
        let removed = kubectl
            .run(&["delete", "agents.acb.dev", "--all", "--all-namespaces", "--timeout=60s"])
            .and_then(|_| kubectl.run(&["delete", "tenants.acb.dev", "--all", "--timeout=120s"]))
            .and_then(|_| if spaces.is_empty() { Ok(String::new()) } else { kubectl.run(&namespaces) });
        if removed.is_err() {
            // Nobody is left who would let them go.
            let free = ["--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
            for name in self.tenants.keys() {
                let (agent, space) = (agent(name), format!("acb-{name}"));
                for object in [vec!["tenants.acb.dev", name], vec!["--namespace", &space, "agents.acb.dev", &agent]] {
                    let _ = kubectl.run(&[&["patch"], object.as_slice(), &free].concat());
                }
            }
        }
        let folder = |name: &str| self.world.place.root.join(name).display().to_string();
        let (operator, crds) = (folder("config/operator"), folder("crds/yaml"));
        let mut daemons: Vec<Daemon> = self.operators.iter_mut().filter_map(|operator| operator.process.take()).collect();
        daemons.extend(self.world.state.daemons.iter().filter(|daemon| daemon.name == "leader-proxy").cloned());
        daemons.iter().for_each(|daemon| daemon.stop(Duration::from_secs(20)));
        self.world.state.daemons.retain(|known| daemons.iter().all(|daemon| daemon.name != known.name));
        self.world.state.save()?;
        kubectl.run(&["delete", "--kustomize", &operator, "--ignore-not-found", "--timeout=90s"])?;
        kubectl.run(&["delete", "--filename", &crds, "--ignore-not-found", "--timeout=90s"])?;
        // Kafka and PostgreSQL end with what held them.
        let systems = self.systems.take();
        self.runtime.block_on(async move { drop(systems) });
        removed.map(drop)
    }
}

/// The name of a tenant's agent.
pub(super) fn agent(tenant: &str) -> String {
    format!("{tenant}-worker")
}
