use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const TENANT: &str = "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: initech}\nspec: {tier: Starter}\n";

/// `acb dev` on the samples, ended with the test however that ends.
struct Dev {
    child: Child,
    folder: tempfile::TempDir,
}

impl Dev {
    fn start(folder: tempfile::TempDir) -> Self {
        // PostgreSQL's own user has to pass through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let hub = Path::new(env!("CARGO_BIN_EXE_acb")).with_file_name("acb-hub");
        assert!(hub.is_file(), "{} is missing: cargo build -p acb-hub", hub.display());
        let yaml = folder.path().join("yaml");
        if !yaml.exists() {
            fs::create_dir(&yaml).unwrap();
            let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
            for sample in fs::read_dir(samples).unwrap() {
                let sample = sample.unwrap();
                fs::copy(sample.path(), yaml.join(sample.file_name())).unwrap();
            }
        }
        let log = fs::File::create(folder.path().join("dev.log")).unwrap();
        let mut command = Self::command(folder.path(), "yaml");
        // What an agent of a cluster is logged in as stays.
        let elsewhere =
            "current: ''\nprofiles: [{name: acme/worker-b, servers: [https://acme.example:8443], ca: x, apiKey: acb_1_one}]\n";
        fs::write(folder.path().join("config.yaml"), elsewhere).unwrap();
        command.arg("--login").env("ACB_CONFIG", folder.path().join("config.yaml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { child, folder }
    }

    fn command(folder: &Path, yaml: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        command.args(["dev", "-f"]).arg(folder.join(yaml)).arg("--state").arg(folder.join("state"));
        command.arg("--ready-file").arg(folder.join("ready.json")).stdin(Stdio::null());
        command
    }

    fn get(&self, what: &[&str]) -> (i32, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        command.arg("get").args(what).args(["-o", "json", "--state"]).arg(self.folder.path().join("state"));
        let output = command.output().unwrap();
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn until<T>(&mut self, what: &str, found: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            let log = || fs::read_to_string(self.folder.path().join("dev.log")).unwrap();
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("waiting for {what}: acb dev ended with {status}\n{}", log());
            }
            assert!(Instant::now() < deadline, "waiting for {what}\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn until_ready(&mut self, tenant: &str, replicas: usize) -> Vec<String> {
        self.until(tenant, |dev| {
            let (_, object) = dev.get(&["tenant", tenant]);
            let ready = object["status"]["conditions"].as_array()?.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let endpoints = object["status"]["endpoints"].as_array()?.iter();
            let endpoints: Vec<String> =
                endpoints.filter_map(|endpoint| Some(endpoint["address"].as_str()?.to_owned())).collect();
            (ready && endpoints.len() == replicas).then_some(endpoints)
        })
    }

    fn processes(&self) -> Vec<i32> {
        let running = fs::read(self.folder.path().join("state/running.json")).unwrap();
        let running: Value = serde_json::from_slice(&running).unwrap();
        let hubs = running["deployments"].as_object().unwrap().values();
        let pods = hubs.flat_map(|hub| hub["pods"].as_object().unwrap().values());
        pods.filter_map(|pod| pod["pid"].as_i64()).map(|pid| i32::try_from(pid).unwrap()).collect()
    }

    fn end(mut self) -> tempfile::TempDir {
        signal(i32::try_from(self.child.id()).unwrap(), rustix::process::Signal::TERM);
        self.until_ended();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    fn until_ended(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(45);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "acb dev does not end");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // SIGTERM, so that it ends its own; what a test that failed leaves is not waited for long.
            signal(i32::try_from(self.child.id()).unwrap_or_default(), rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(40);
            while self.child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

fn is_alive(pid: i32) -> bool {
    rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
}

#[test]
fn what_is_refused_stands_beside_what_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("yaml");
    fs::create_dir(&yaml).unwrap();
    let agent = |name: &str, more: &str| {
        let metadata = format!("metadata: {{name: {name}, namespace: acb-initech}}");
        format!("apiVersion: acb.dev/v1alpha1\nkind: Agent\n{metadata}\nspec: {{role: AgentFull{more}}}\n")
    };
    let too_many = TENANT.replace("initech", "hooli").replace("tier: Starter", "tier: Free, hub: {replicas: 50}");
    let documents = [("good", agent("good", "")), ("held", agent("held", ", suspend: true")), ("hooli", too_many)];
    for (name, text) in documents.into_iter().chain([("initech", TENANT.to_owned())]) {
        fs::write(yaml.join(name).with_extension("yaml"), text).unwrap();
    }
    let mut dev = Dev::start(folder);
    dev.until_ready("initech", 1);
    let file = dev.folder.path().join("ready.json");
    dev.until("the ready file", |_| file.is_file().then_some(()));
    let config = dev.folder.path().join("config.yaml");
    dev.until("the login", |_| fs::read_to_string(&config).unwrap().contains("initech/good").then_some(()));
    let ready: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(ready.as_object().unwrap().keys().collect::<Vec<_>>(), ["initech"], "{ready}");
    let kept = fs::read_to_string(&config).unwrap();
    assert!(!ready.to_string().contains("held") && !kept.contains("held"), "its key opens nothing: {ready}, {kept}");
    let log = fs::read_to_string(dev.folder.path().join("dev.log")).unwrap();
    assert!(log.contains(" s, but for hooli: `acb get tenants` says why."), "{log}");
    let (_, hooli) = dev.get(&["tenant", "hooli"]);
    assert_eq!(hooli["status"]["conditions"][0]["reason"], "AboveTier", "{hooli}");
}

#[test]
fn two_tenants_from_samples_and_one_more() {
    let mut dev = Dev::start(tempfile::tempdir().unwrap());
    let acme = dev.until_ready("acme", 2);
    dev.until_ready("globex", 2);

    let (code, object) = dev.get(&["tenant", "acme"]);
    assert_eq!(code, 0);
    for file in [&object["access"]["caFile"], &object["access"]["apiKeyFiles"]["supervisor"]] {
        let mode = fs::metadata(file.as_str().unwrap()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(dev.get(&["tenant", "nobody"]).0, 3);

    let started = fs::read_to_string(dev.folder.path().join("state/postgres/data/postmaster.opts")).unwrap();
    let most = started.split("max_connections=").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    assert!(
        most.is_some_and(|most| most.parse::<u32>().unwrap() > 500),
        "tenants would take each other's connections: {started}"
    );

    let ready = dev.folder.path().join("ready.json");
    dev.until("the ready file", |_| ready.is_file().then_some(()));
    let config = dev.folder.path().join("config.yaml");
    let acb = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_acb")).args(words).env("ACB_CONFIG", &config).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    dev.until("the profiles", |_| acb(&["profile", "list"]).contains("globex/analyst").then_some(()));
    let profiles = acb(&["profile", "list"]);
    assert!(profiles.contains("acme.example") && profiles.contains("acme/supervisor"), "{profiles}");
    assert!(acb(&["whoami", "-p", "acme/supervisor"]).contains("supervisor"));
    let log = fs::read_to_string(dev.folder.path().join("dev.log")).unwrap();
    for part in ["Logged in: ", "of another place: acme/worker-b", "All tenants are ready after"] {
        assert!(log.contains(part), "{part:?} is not in {log}");
    }
    let second = Dev::command(dev.folder.path(), "yaml").output().unwrap();
    assert!(ready.is_file(), "that of the one that runs");
    assert_eq!(second.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&second.stderr).contains(&dev.child.id().to_string()));

    let file = dev.folder.path().join("yaml/initech.yaml");
    fs::write(&file, TENANT).unwrap();
    dev.until_ready("initech", 1);
    fs::write(&file, TENANT.replace("Starter", "Golden")).unwrap();
    let reason = |dev: &Dev| dev.get(&["tenant", "initech"]).1["status"]["conditions"][0]["reason"].clone();
    dev.until("the refusal", |dev| (reason(dev) == "InvalidSpec").then_some(()));
    let (_, object) = dev.get(&["tenant", "initech"]);
    assert_eq!(object["spec"]["tier"], "Starter", "what was good stays");
    assert_eq!(object["status"]["endpoints"].as_array().unwrap().len(), 1, "and goes on");
    fs::remove_file(&file).unwrap();
    dev.until("the removal", |dev| (dev.get(&["tenant", "initech"]).0 == 3).then_some(()));

    let hubs = dev.processes();
    signal(hubs[0], rustix::process::Signal::KILL);
    dev.until("the hub's return", |dev| {
        (dev.processes().len() == hubs.len() && !dev.processes().contains(&hubs[0])).then_some(())
    });
    assert_eq!(dev.until_ready("acme", 2), acme, "where clients knew it");

    let hubs = dev.processes();
    let folder = dev.end();
    assert!(hubs.into_iter().all(|pid| !is_alive(pid)));

    // Warm: the same endpoints again, and what an abrupt end leaves is swept.
    let mut dev = Dev::start(folder);
    assert_eq!(dev.until_ready("acme", 2), acme);
    dev.until_ready("globex", 2);
    let hubs = dev.processes();
    signal(i32::try_from(dev.child.id()).unwrap(), rustix::process::Signal::KILL);
    dev.until_ended();
    let deadline = Instant::now() + Duration::from_secs(40);
    while hubs.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline, "a hub outlives acb dev");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_fails_around_it_is_said_and_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (access, ready) = (folder.path().join("state/access.json"), folder.path().join("ready.json"));
    // What can't be written: there is a folder of that name.
    for name in ["yaml", "other", "state/access.json"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["yaml", "other"] {
        fs::write(folder.path().join(name).join("initech.yaml"), TENANT).unwrap();
    }
    fs::write(&ready, "of a run that was killed").unwrap();
    let mut dev = Dev::start(folder);
    let log = |dev: &Dev| fs::read_to_string(dev.folder.path().join("dev.log")).unwrap();
    dev.until("the error", |dev| log(dev).contains("not written down").then_some(()));
    assert!(!ready.exists());
    fs::remove_dir(&access).unwrap();
    dev.until("another try", |_| access.is_file().then_some(()));

    // PostgreSQL dies.
    let postmaster = dev.folder.path().join("state/postgres/data/postmaster.pid");
    let pid = fs::read_to_string(&postmaster).unwrap().lines().next().unwrap().parse().unwrap();
    signal(pid, rustix::process::Signal::KILL);
    dev.until_ended();
    assert_eq!(dev.child.wait().unwrap().code(), Some(5), "{}", log(&dev));
    assert!(log(&dev).contains("error: PostgreSQL ended with signal: 9"), "{}", log(&dev));
    let state = dev.folder.path().join("state");
    let get = Command::new(env!("CARGO_BIN_EXE_acb")).args(["get", "tenants", "--state"]).arg(&state).output().unwrap();
    assert!(get.status.success() && String::from_utf8_lossy(&get.stderr).contains("acb dev is not running"), "{get:?}");

    // The state is not another folder's.
    let other = Dev::command(dev.folder.path(), "other").output().unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("--replace"), "{other:?}");

    // Nobody reads any more what it says.
    dev.child = Dev::command(dev.folder.path(), "yaml").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(dev.child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("Walls")).unwrap().unwrap();
    drop(lines);
    fs::write(dev.folder.path().join("yaml/initech.yaml"), TENANT.replace("Starter", "Golden")).unwrap();
    dev.until_ended();
    assert_eq!(dev.child.wait().unwrap().code(), Some(1));
    assert!(!postmaster.exists(), "PostgreSQL was stopped");
}
