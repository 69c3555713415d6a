//! Keeps running what the planned Deployments say. New pods are ready before old ones go, so a change is never an outage.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    objects::ObjectStore,
    pod::Workload,
    ports::PortBook,
    process::{self, Phase, Pod, PodStatus, Programs},
    service::{Backend, Endpoints, Service},
    state::{self, StateDir, StateError, file_name},
};

/// Behind the notifications, so that a missed one costs a moment only.
const RESYNC: Duration = Duration::from_secs(2);

/// How a Deployment is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// What a pod runs, as planned.
    #[serde(default)]
    pub revision: String,
    /// As planned.
    pub replicas: u32,
    /// Pods of the current revision that are ready.
    pub ready: u32,
    /// Pods of an earlier revision that still run.
    pub outdated: u32,
    /// Why it can't run here; empty when it can.
    pub error: String,
    /// By name.
    pub pods: BTreeMap<String, PodStatus>,
}

impl DeploymentStatus {
    /// Whether every replica of the current revision takes traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.error.is_empty() && self.ready >= self.replicas
    }
}

/// Everything that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// By `namespace/name`.
    pub deployments: BTreeMap<String, DeploymentStatus>,
    /// What is behind each Service.
    pub endpoints: Endpoints,
}

/// Runs Deployments.
#[derive(Debug)]
pub struct Deployments {
    store: Arc<ObjectStore>,
    ports: Arc<PortBook>,
    programs: Arc<Programs>,
    pods_folder: PathBuf,
    logs_folder: PathBuf,
    file: PathBuf,
    endpoints_file: PathBuf,
    pods: BTreeMap<(String, String), Vec<Handle>>,
    changed: Arc<Notify>,
    running: watch::Sender<Running>,
}

#[derive(Debug)]
struct Handle {
    name: String,
    slot: u32,
    workload: Arc<Workload>,
    stop: CancellationToken,
    status: watch::Receiver<PodStatus>,
    task: JoinHandle<()>,
}

impl Handle {
    fn is_ready(&self) -> bool {
        self.status.borrow().ready && !self.stop.is_cancelled()
    }
}

impl Deployments {
    /// Takes over the pods of a state folder, whose lock must be held; what an earlier run left there is ended.
    pub async fn open(state: &StateDir, store: Arc<ObjectStore>, programs: Programs) -> Result<Self, StateError> {
        let pods_folder = state.folder("pods")?;
        process::sweep(&pods_folder).await?;
        let deployments = Self {
            store,
            ports: Arc::new(PortBook::open(state)?),
            programs: Arc::new(programs),
            pods_folder,
            logs_folder: state.folder("logs")?,
            file: state.root().join("running.json"),
            endpoints_file: state.root().join("endpoints.json"),
            pods: BTreeMap::new(),
            changed: Arc::new(Notify::new()),
            running: watch::Sender::new(Running::default()),
        };
        deployments.save();
        Ok(deployments)
    }

    /// What runs, as it changes.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<Running> {
        self.running.subscribe()
    }

    /// Runs until `stop`; then ends every pod within its grace period, or at once with `kill`.
    pub async fn run(mut self, stop: CancellationToken, kill: CancellationToken) {
        let mut changes = self.store.changes();
        let changed = Arc::clone(&self.changed);
        let mut resync = interval(RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            if let Err(error) = self.reconcile(&kill) {
                error!(%error, "the Deployments can't be read");
            }
            self.publish();
            tokio::select! {
                () = stop.cancelled() => {}
                _ = changes.changed() => {}
                () = changed.notified() => {}
                _ = resync.tick() => {}
            }
        }
        let handles: Vec<_> = std::mem::take(&mut self.pods).into_values().flatten().collect();
        handles.iter().for_each(|handle| handle.stop.cancel());
        for handle in handles {
            // A pod's task that panicked has dropped its child, which kills it.
            let _ = handle.task.await;
        }
        self.publish();
    }

    fn reconcile(&mut self, kill: &CancellationToken) -> Result<(), StateError> {
        let mut wanted = BTreeSet::new();
        for object in self.store.of_kind("Deployment")? {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            wanted.insert(key.clone());
            // One that can't run here leaves what ran before it alone; `publish` says why.
            if let Ok(workload) = Workload::from_deployment(&object) {
                self.roll(key, Arc::new(workload), kill);
            }
        }
        for (key, handles) in &mut self.pods {
            if !wanted.contains(key) {
                handles.iter().for_each(|handle| handle.stop.cancel());
            }
            handles.retain(|handle| handle.status.borrow().phase != Phase::Ended);
        }
        self.pods.retain(|_, handles| !handles.is_empty());
        Ok(())
    }

    fn roll(&mut self, key: (String, String), workload: Arc<Workload>, kill: &CancellationToken) {
        let mut handles = self.pods.remove(&key).unwrap_or_default();
        let is_current = |handle: &Handle| handle.workload.revision == workload.revision && handle.slot < workload.replicas;
        let replicas = usize::try_from(workload.replicas).unwrap_or(usize::MAX);
        let ready = handles.iter().filter(|handle| is_current(handle) && handle.is_ready()).count();
        // One of the old for each of the new that is ready: as many as there should be take traffic, all the time.
        let mut old = handles.iter().filter(|handle| !is_current(handle) && handle.is_ready()).count();
        for handle in &handles {
            let is_surplus = handle.workload.revision == workload.revision && handle.slot >= workload.replicas;
            let is_replaced = !is_current(handle) && handle.is_ready() && old + ready > replicas;
            if is_surplus || is_replaced || (ready >= replicas && !is_current(handle)) {
                old -= usize::from(is_replaced);
                handle.stop.cancel();
            }
        }
        // One more than there should be, as a Deployment's maxSurge has it: what each takes of a login's connections is counted for that.
        let most = replicas.min((replicas + 1).saturating_sub(old).max(1));
        let mut current = handles.iter().filter(|handle| is_current(handle)).count();
        for slot in 0..workload.replicas {
            let name = format!("{}-{}-{slot}", workload.name, workload.revision);
            // Also while one of that name is ending: it has the folder.
            if current < most && !handles.iter().any(|handle| handle.name == name) {
                handles.push(self.start(name, slot, Arc::clone(&workload), kill));
                current += 1;
            }
        }
        self.pods.insert(key, handles);
    }

    fn start(&self, name: String, slot: u32, workload: Arc<Workload>, kill: &CancellationToken) -> Handle {
        let namespace = file_name(&workload.namespace);
        let folder = self.pods_folder.join(&namespace).join(file_name(&name));
        let log = self.logs_folder.join(format!("{namespace}.{}-{slot}.log", file_name(&workload.name)));
        let pod = Pod {
            name: name.clone(),
            slot,
            workload: Arc::clone(&workload),
            store: Arc::clone(&self.store),
            ports: Arc::clone(&self.ports),
            programs: Arc::clone(&self.programs),
            folder,
            log,
        };
        let stop = CancellationToken::new();
        let (sender, status) = watch::channel(PodStatus::default());
        let (mut seen, changed) = (status.clone(), Arc::clone(&self.changed));
        tokio::spawn(async move {
            while seen.changed().await.is_ok() {
                changed.notify_one();
            }
            changed.notify_one();
        });
        let task = tokio::spawn(pod.run(stop.clone(), kill.clone(), sender));
        Handle { name, slot, workload, stop, status, task }
    }

    fn publish(&self) {
        let mut running = Running::default();
        for object in self.store.of_kind("Deployment").unwrap_or_default() {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let key = (text("/metadata/namespace"), text("/metadata/name"));
            let handles = self.pods.get(&key).map_or(&[][..], Vec::as_slice);
            let pods = handles.iter().map(|handle| (handle.name.clone(), handle.status.borrow().clone())).collect();
            let mut status = DeploymentStatus { pods, ..DeploymentStatus::default() };
            match Workload::from_deployment(&object) {
                Ok(workload) => {
                    let count = |current: bool| {
                        let of = |handle: &&Handle| (handle.workload.revision == workload.revision) == current;
                        handles.iter().filter(of).filter(|handle| !current || handle.is_ready()).count()
                    };
                    status.replicas = workload.replicas;
                    status.revision.clone_from(&workload.revision);
                    status.ready = u32::try_from(count(true)).unwrap_or(u32::MAX);
                    status.outdated = u32::try_from(count(false)).unwrap_or(u32::MAX);
                }
                Err(error) => status.error = error.to_string(),
            }
            running.deployments.insert(format!("{}/{}", key.0, key.1), status);
        }
        running.endpoints = self.endpoints();
        let changed = self.running.send_if_modified(|before| {
            let changed = *before != running;
            if changed {
                *before = running;
            }
            changed
        });
        if changed {
            self.save();
        }
    }

    fn endpoints(&self) -> Endpoints {
        let ready: Vec<_> = self.pods.values().flatten().filter(|handle| handle.is_ready()).collect();
        let ports: Vec<_> = ready.iter().map(|handle| handle.status.borrow().ports.clone()).collect();
        let backends: Vec<_> = ready
            .iter()
            .zip(&ports)
            .map(|(handle, ports)| Backend { namespace: &handle.workload.namespace, labels: &handle.workload.labels, ports })
            .collect();
        let mut endpoints = Endpoints::default();
        for object in self.store.of_kind("Service").unwrap_or_default() {
            match Service::from_object(&object) {
                Ok(service) => {
                    let key = format!("{}/{}", service.namespace, service.name);
                    endpoints.services.insert(key, service.addresses(&backends));
                }
                Err(error) => warn!(%error, "a Service is not played"),
            }
        }
        endpoints
    }

    fn save(&self) {
        let running = self.running.borrow().clone();
        let saved =
            state::write_json(&self.file, &running).and_then(|()| state::write_json(&self.endpoints_file, &running.endpoints));
        if let Err(error) = saved {
            warn!(%error, "what runs is not written down");
        }
    }
}

/// What runs from a state folder, as last written.
pub fn read_running(state: &StateDir) -> Result<Running, StateError> {
    Ok(state::read_json(&state.root().join("running.json"))?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::effect::kubernetes::Objects;

    /// Any program will do for a pod without probes.
    fn deployment(replicas: u32, seconds: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": "acbhub-acme"},
            "spec": {"replicas": replicas, "template": {
                "metadata": {"labels": {"app": "hub"}},
                "spec": {"containers": [{
                    "name": "hub", "command": ["acb-hub"], "args": [seconds], "ports": [{"name": "grpc", "containerPort": 1}],
                }]},
            }},
        })
    }

    struct Bench {
        _folder: tempfile::TempDir,
        store: Arc<ObjectStore>,
        running: watch::Receiver<Running>,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Bench {
        async fn start(program: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(folder.path()).unwrap();
            let store = Arc::new(ObjectStore::open(&state).unwrap());
            let named = BTreeMap::from([("acb-hub".to_owned(), PathBuf::from(program))]);
            let programs = Programs { named, beside: None };
            let deployments = Deployments::open(&state, Arc::clone(&store), programs).await.unwrap();
            let (running, stop) = (deployments.running(), CancellationToken::new());
            let task = tokio::spawn(deployments.run(stop.clone(), CancellationToken::new()));
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub", "namespace": "acbhub-acme"},
                "spec": {"selector": {"app": "hub"}, "ports": [{"name": "grpc"}]},
            });
            store.apply(&service).await.unwrap();
            Self { _folder: folder, store, running, stop, task }
        }

        async fn until(&mut self, what: impl Fn(&DeploymentStatus) -> bool) -> Running {
            let hub = |running: &Running| running.deployments.get("acbhub-acme/hub").is_some_and(&what);
            let found = tokio::time::timeout(Duration::from_secs(20), self.running.wait_for(hub)).await;
            found.expect("in time").unwrap().clone()
        }

        async fn end(self) {
            self.stop.cancel();
            tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("in time").unwrap();
        }
    }

    fn pids(running: &Running) -> Vec<i32> {
        running.deployments["acbhub-acme/hub"].pods.values().filter_map(|pod| pod.pid).collect()
    }

    fn alive(pid: i32) -> bool {
        rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_rolls_and_the_end_leaves_nothing() {
        let mut bench = Bench::start("/bin/sleep").await;
        bench.store.apply(&deployment(2, "1000")).await.unwrap();
        let first = bench.until(|hub| hub.ready == 2).await;
        assert_eq!(first.endpoints.of("acbhub-acme", "hub", "grpc").len(), 2);

        bench.store.apply(&deployment(1, "1001")).await.unwrap();
        let second = bench.until(|hub| hub.ready == 1 && hub.outdated == 0 && hub.pods.len() == 1).await;
        assert!(pids(&first).into_iter().all(|pid| !alive(pid)));
        assert_eq!(second.endpoints.of("acbhub-acme", "hub", "grpc").len(), 1);
        bench.end().await;
        assert!(pids(&second).into_iter().all(|pid| !alive(pid)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_roll_has_one_pod_more_than_there_should_be_and_never_one_less() {
        let mut bench = Bench::start("/bin/sleep").await;
        bench.store.apply(&deployment(3, "1000")).await.unwrap();
        let first = bench.until(|hub| hub.ready == 3).await;
        bench.store.apply(&deployment(3, "1001")).await.unwrap();
        let mut running = bench.running.clone();
        loop {
            running.changed().await.unwrap();
            let now = running.borrow_and_update().clone();
            let hub = &now.deployments["acbhub-acme/hub"];
            let taking = hub.pods.values().filter(|pod| pod.ready && pod.phase == Phase::Running).count();
            assert!(taking <= 4, "{hub:?}");
            assert!(now.endpoints.of("acbhub-acme", "hub", "grpc").len() >= 3, "{now:?}");
            if hub.ready == 3 && hub.outdated == 0 {
                break;
            }
        }
        assert!(pids(&first).into_iter().all(|pid| !alive(pid)));
        bench.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_process_comes_back_where_it_was() {
        let mut bench = Bench::start("/bin/sleep").await;
        bench.store.apply(&deployment(1, "1000")).await.unwrap();
        let first = bench.until(|hub| hub.ready == 1).await;
        let pid = rustix::process::Pid::from_raw(pids(&first)[0]).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let second = bench.until(|hub| hub.ready == 1 && hub.pods.values().all(|pod| pod.restarts == 1)).await;
        assert_eq!(first.endpoints, second.endpoints);
        assert_ne!(pids(&first), pids(&second));
        bench.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_can_not_run_says_why() {
        let mut bench = Bench::start("/bin/false").await;
        bench.store.apply(&deployment(1, "1000")).await.unwrap();
        let crashed = |hub: &DeploymentStatus| hub.pods.values().any(|pod| pod.phase == Phase::CrashLoopBackOff);
        bench.until(crashed).await;
        let mut unknown = deployment(1, "1000");
        unknown["spec"]["paused"] = json!(true);
        bench.store.apply(&unknown).await.unwrap();
        bench.until(|hub| hub.error.contains("spec.paused")).await;
        bench.end().await;
    }
}
