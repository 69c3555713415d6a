//! A tenant `acme` with two hub replicas, a tenant `globex` with one, and whoever is logged in: each test has agents of its own.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use acb_testbed::standalone::Standalone;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// More than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Tests of one process share the tenant, never an agent that receives.
const AGENTS: [(&str, &str); 30] = [
    ("sender", "{type: sender, role: AgentFull, publishes: [documents], subscribes: [documents]}"),
    ("login", "{type: person, role: AgentFull}"),
    ("finder", "{type: person, role: AgentFull}"),
    ("found", "{type: oddity, role: AgentFull, capabilities: [summarize, translate], location: attic}"),
    ("inbox", "{type: worker, role: AgentFull, groups: [readers, workers]}"),
    ("inbox-by-topic", "{type: worker, role: AgentFull}"),
    ("observer", "{type: watcher, role: Observer, groups: [watchers]}"),
    ("inbox-by-filter", "{type: worker, role: AgentFull}"),
    ("answers-text", "{type: worker, role: AgentFull}"),
    ("answers-file", "{type: worker, role: AgentFull}"),
    ("answers-command", "{type: worker, role: AgentFull}"),
    ("fails", "{type: worker, role: AgentFull}"),
    ("silent", "{type: worker, role: AgentFull}"),
    ("publisher", "{type: worker, role: AgentFull, publishes: [documents], subscribes: [documents]}"),
    ("reader", "{type: worker, role: AgentFull, subscribes: [documents]}"),
    ("absent", "{type: worker, role: AgentFull}"),
    ("heir", "{type: worker, role: AgentFull}"),
    ("reads-later", "{type: worker, role: AgentFull}"),
    ("root", "{type: person, role: Admin}"),
    ("stranger", "{type: worker, role: AgentFull}"),
    ("plans", "{type: worker, role: AgentFull}"),
    ("gets-later", "{type: worker, role: AgentFull}"),
    ("bills", "{type: worker, role: AgentFull}"),
    ("pays", "{type: worker, role: AgentFull}"),
    ("seals", "{type: worker, role: AgentFull}"),
    ("opens", "{type: worker, role: AgentFull, groups: [sealed-readers]}"),
    ("opens-too", "{type: worker, role: AgentFull, groups: [sealed-readers]}"),
    ("many-keys", "{type: worker, role: AgentFull}"),
    ("curls", "{type: worker, role: AgentFull}"),
    ("is-curled", "{type: worker, role: AgentFull}"),
];

/// An agent of tenant `acme`, in a file of its own.
pub(crate) fn agent(name: &str, spec: &str) -> String {
    format!("apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}, namespace: acb-acme}}\nspec: {spec}\n")
}

fn tenant(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\n\
         spec: {{tier: Professional, registration: Open, hub: {{replicas: {replicas}}}, contextTypes: [{{name: documents}}]}}\n"
    )
}

pub(crate) fn resources() -> Vec<(&'static str, String)> {
    let acme: Vec<String> = AGENTS.iter().map(|(name, spec)| agent(name, spec)).collect();
    let analyst = "apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata: {name: analyst, namespace: acb-globex}\n\
                   spec: {type: analyst, role: AgentFull}\n";
    vec![
        ("acme.yaml", format!("{}---\n{}", tenant("acme", 2), acme.join("---\n"))),
        ("globex.yaml", format!("{}---\n{analyst}", tenant("globex", 1))),
    ]
}

/// `acb`, with contexts and a folder of its own.
pub(crate) struct World {
    pub(crate) dev: Dev,
    pub(crate) folder: tempfile::TempDir,
}

/// The one that tests share, or one of a test's own.
pub(crate) enum Dev {
    Shared(&'static Standalone),
    Own(Standalone),
}

impl std::ops::Deref for Dev {
    type Target = Standalone;

    fn deref(&self) -> &Standalone {
        match self {
            Self::Shared(dev) => dev,
            Self::Own(dev) => dev,
        }
    }
}

impl World {
    /// With these agents of `acme` logged in, each as the context of its name.
    pub(crate) async fn of(agents: &[&str]) -> Self {
        Self::with(Dev::Shared(Standalone::shared(&resources()).await), agents).await
    }

    /// On an `acb dev` of its own.
    pub(crate) async fn on(dev: Standalone, agents: &[&str]) -> Self {
        Self::with(Dev::Own(dev), agents).await
    }

    async fn with(dev: Dev, agents: &[&str]) -> Self {
        let world = Self { dev, folder: tempfile::tempdir().unwrap() };
        for agent in agents {
            world.log_in(agent, &world.servers()).await;
        }
        world
    }

    /// Ends an `acb dev` of its own in order.
    pub(crate) async fn end(self) {
        if let Dev::Own(dev) = self.dev {
            dev.stop().await.unwrap();
        }
    }

    /// All replicas of `acme`, as `--server` takes them.
    pub(crate) fn servers(&self) -> String {
        self.dev.tenant("acme").unwrap().endpoints.join(",")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn log_in(&self, agent: &str, servers: &str) {
        let acme = self.dev.tenant("acme").unwrap();
        let (ca, key) = (&acme.ca_file, acme.api_key_file(agent).unwrap());
        self.run(&["login", "-p", agent, "-s", servers, "--ca", text(ca), "--api-key-file", text(key)]).await.ok();
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("ACB_")) {
                command.env_remove(name);
            }
        }
        command.env("ACB_CONFIG", self.path("config.yaml")).env("ACB_STATE", self.dev.state());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs `acb` to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(env!("CARGO_BIN_EXE_acb"));
        let output = timeout(LONG, command.args(arguments).output()).await;
        let output = output.unwrap_or_else(|_| panic!("acb {arguments:?} does not end")).unwrap();
        Ended::new(arguments, output.status, &output.stdout, &output.stderr)
    }

    /// As [`run`](Self::run), with `-o json`: what it prints, where it succeeds.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).await.ok().json()
    }

    /// Waits for what is to come true.
    pub(crate) async fn until<T>(&self, what: &str, mut looked: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            if let Some(found) = looked().await {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "waiting until {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts `acb`.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_acb"));
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { arguments: arguments.iter().map(|word| (*word).to_owned()).collect(), child, lines }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A command that runs.
pub(crate) struct Running {
    arguments: Vec<String>,
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(LONG, self.lines.read_line(&mut line)).await;
        read.unwrap_or_else(|_| panic!("acb {:?} prints nothing", self.arguments)).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// As `head -1` leaves it: nobody reads any more.
    pub(crate) async fn unread(self) -> Ended {
        drop(self.lines);
        let ending = timeout(LONG, self.child.wait_with_output()).await;
        let output = ending.unwrap_or_else(|_| panic!("acb {:?} does not end", self.arguments)).unwrap();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Ended::new(&arguments, output.status, &output.stdout, &output.stderr)
    }

    pub(crate) async fn end(mut self) -> Ended {
        let mut stdout = Vec::new();
        let reading = async {
            self.lines.read_to_end(&mut stdout).await.unwrap();
            self.child.wait_with_output().await.unwrap()
        };
        let output = timeout(LONG, reading).await.unwrap_or_else(|_| panic!("acb {:?} does not end", self.arguments));
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Ended::new(&arguments, output.status, &stdout, &output.stderr)
    }
}

/// A command that ended.
pub(crate) struct Ended {
    shown: String,
    code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn new(arguments: &[&str], status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Self {
        let (stdout, stderr) = (String::from_utf8_lossy(stdout).into_owned(), String::from_utf8_lossy(stderr).into_owned());
        Self { shown: format!("acb {arguments:?}: {status}\n{stdout}{stderr}"), code: status.code(), stdout, stderr }
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.shown);
        self
    }

    /// It failed with this exit code, printed nothing else, and says all of this.
    pub(crate) fn fails(self, code: i32, says: &[&str]) -> Self {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{}", self.shown);
        for part in says {
            assert!(self.stderr.contains(part), "{part:?} is not said: {}", self.shown);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.shown);
        self
    }

    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.shown))
    }
}
