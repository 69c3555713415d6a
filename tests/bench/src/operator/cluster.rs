//! The cluster that the operator's figures are measured on: the one of `KUBECONFIG`, or a control plane of this run's own.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use acb_testbed::operator::NAMESPACE;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{Failure, tell};

/// Where `acb-e2e up` leaves how its cluster is reached.
const OWN_KUBECONFIG: &str = "target/e2e/run/admin.kubeconfig";
const LOOK: Duration = Duration::from_millis(200);

pub(super) struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// What ends it, where this run made it.
    ends_with: Option<PathBuf>,
}

fn output(command: &mut Command, input: &str) -> Result<String, Failure> {
    let told = format!("{command:?}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // It says why where it does not read to the end.
        std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure(format!("{told}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

impl Cluster {
    /// The one of `KUBECONFIG`, or one that is made.
    pub(super) fn find() -> Result<Self, Failure> {
        let built = Path::new("target/e2e/bin/kubectl");
        let kubectl = if built.exists() { std::path::absolute(built)? } else { PathBuf::from("kubectl") };
        if let Some(kubeconfig) = std::env::var_os("KUBECONFIG") {
            return Ok(Self { kubeconfig: kubeconfig.into(), kubectl, ends_with: None });
        }
        let e2e = std::path::absolute("target/debug/acb-e2e")?;
        tell("bringing up a control plane");
        output(Command::new(&e2e).args(["up", "--control-plane"]), "")?;
        Ok(Self { kubeconfig: std::path::absolute(OWN_KUBECONFIG)?, kubectl, ends_with: Some(e2e) })
    }

    /// Whether it ends with this run.
    pub(super) fn is_own(&self) -> bool {
        self.ends_with.is_some()
    }

    /// Ends what this run made.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        match self.ends_with.take() {
            Some(e2e) => output(Command::new(e2e).arg("down"), "").map(drop),
            None => Ok(()),
        }
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        self.with_input(arguments, "")
    }

    pub(super) fn with_input(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        output(Command::new(&self.kubectl).env("KUBECONFIG", &self.kubeconfig).args(arguments), input)
    }

    pub(super) fn get(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut all = vec!["get", "--output=json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    /// Sends objects, by this command of kubectl.
    pub(super) fn send(&self, arguments: &[&str], items: &[Value]) -> Result<(), Failure> {
        let mut all = arguments.to_vec();
        all.extend(["--filename=-"]);
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        self.with_input(&all, &list).map(drop)
    }

    /// Waits until `look` finds something.
    pub(super) async fn wait<T>(
        &self,
        seconds: u64,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(Failure(format!("not after {seconds} s: {what}")));
            }
            sleep(LOOK).await;
        }
    }

    /// The kinds, and the operator's rights; the operators themselves are processes of this machine. Answers with the kubeconfig of their
    /// ServiceAccount.
    pub(super) fn install(&self, folder: &Path) -> Result<PathBuf, Failure> {
        let running =
            self.run(&["get", "deployments", "--all-namespaces", "--selector=app.kubernetes.io/name=acb", "--output=name"])?;
        if !running.trim().is_empty() {
            return Err(Failure(format!(
                "an operator is installed ({}): these figures need a cluster without one",
                running.trim()
            )));
        }
        self.run(&["apply", "--server-side", "--filename=crds/yaml"])?;
        self.run(&["wait", "--for=condition=Established", "--timeout=30s", "crd/tenants.acb.dev", "crd/agents.acb.dev"])?;
        self.run(&["apply", "--kustomize=config/operator"])?;
        self.run(&["--namespace", NAMESPACE, "delete", "deployment", "acb-operator", "--timeout=60s"])?;
        self.run(&["--namespace", NAMESPACE, "delete", "lease", "acb-operator", "--ignore-not-found"])?;
        let token = self.run(&["--namespace", NAMESPACE, "create", "token", "acb-operator", "--duration=4h"])?;
        let mut config: Value = serde_json::from_str(&self.run(&["config", "view", "--raw", "--minify", "--output=json"])?)?;
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = folder.join("operator.kubeconfig");
        private(&path, &config.to_string())?;
        Ok(path)
    }

    /// What [`install`](Self::install) made.
    pub(super) fn uninstall(&self) -> Result<(), Failure> {
        self.run(&["delete", "--kustomize=config/operator", "--ignore-not-found", "--timeout=90s"])?;
        self.run(&["delete", "--filename=crds/yaml", "--ignore-not-found", "--timeout=90s"]).map(drop)
    }

    /// How many writes the API server has taken, by what was written: but for Leases, and for nodes, which tell that they are there.
    pub(super) fn writes(&self) -> Result<BTreeMap<String, f64>, Failure> {
        let text = self.run(&["get", "--raw", "/metrics"])?;
        let mut writes = BTreeMap::new();
        for (what, count) in text.lines().filter(|line| line.starts_with("apiserver_request_total{")).filter_map(writes_of) {
            *writes.entry(what).or_default() += count;
        }
        Ok(writes)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What a line of the metrics counts, where that is a write that counts.
fn writes_of(line: &str) -> Option<(String, f64)> {
    let (labels, value) = line.rsplit_once("} ")?;
    let label = |name: &str| labels.split_once(&format!("{name}=\""))?.1.split('"').next();
    let writes = matches!(label("verb")?, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION");
    let counts = !matches!(label("resource")?, "leases" | "nodes" | "tokenreviews" | "subjectaccessreviews");
    (writes && counts && label("code")?.starts_with('2'))
        .then(|| Some((format!("{} {}", label("verb")?, label("resource")?), value.parse().ok()?)))?
}

fn private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_unless_it_is_a_lease() {
        let line = |verb: &str, resource: &str, code: u16| {
            format!(
                "apiserver_request_total{{code=\"{code}\",group=\"\",resource=\"{resource}\",subresource=\"\",verb=\"{verb}\"}} 7"
            )
        };
        assert_eq!(writes_of(&line("APPLY", "tenants", 200)), Some(("APPLY tenants".to_owned(), 7.0)));
        for other in
            [line("GET", "tenants", 200), line("PUT", "leases", 200), line("PUT", "tenants", 409), line("PATCH", "nodes", 200)]
        {
            assert_eq!(writes_of(&other), None, "{other}");
        }
    }
}
