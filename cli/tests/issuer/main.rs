//! Logins by a real OpenID Connect issuer, at the hub of `acb dev`: `make oidc`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use acb_oidc::{address::Reach, https::Https, url::Url};
use acb_testbed::{
    RealIssuer,
    standalone::{Home, Standalone},
};
use tokio::time::{Instant, sleep};

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const AGENTS: &str = "
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: ada, namespace: acb-acme}
spec: {type: person, role: AgentFull}
---
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: bob, namespace: acb-acme}
spec: {type: person, role: AgentFull}
---
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: worker, namespace: acb-acme}
spec: {type: worker, role: AgentFull}
";

fn tenant(issuer: Option<&RealIssuer>) -> String {
    let head = "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec:\n  tier: Professional\n";
    let Some(issuer) = issuer else { return head.to_owned() };
    let ca: String = issuer.ca().lines().map(|line| format!("          {line}\n")).collect();
    format!(
        "{head}  auth:
    oidc:
      - issuer: {}
        audiences: [people, 'urn:acb:test']
        certificateAuthority: |
{ca}        claimMappings:
          agent: {{expression: \"claims.sub == 'machine' ? 'worker' : claims.sub\"}}
          role: {{expression: \"claims.sub == 'machine' || 'leads' in claims.groups ? '' : 'Observer'\"}}
",
        issuer.url()
    )
}

struct User<'a> {
    home: &'a Home,
    issuer: &'a RealIssuer,
}

impl User<'_> {
    fn acb(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        command.args(args).env("ACB_CONFIG", self.home.path().join("profiles.yaml")).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.acb(args).output().unwrap()
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "acb {}\n{out}{err}", args.join(" "));
        out.into_owned()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "acb {} succeeds", args.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// What a person, or who runs the issuer, would do there.
    async fn at_issuer(&self, path: &str) {
        let https = Https::new(Some(self.issuer.ca()), Reach::Anywhere).unwrap();
        https.get(&Url::parse(&format!("{}/test/{path}", self.issuer.url())).unwrap()).await.unwrap();
    }

    /// Begins a login of a person, and gives the code that it shows.
    fn begin(&self, state: &Path, agent: &str) -> (Child, String) {
        let (ca, state) = (self.issuer.ca_file(), state.to_str().unwrap());
        let args = ["login", agent, "--state", state, "--oidc", self.issuer.url(), "--client-id", "people"];
        let mut command = self.acb(&args);
        command.args(["--scope", "openid offline_access", "--oidc-ca", ca.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let code =
            stderr.lines().find_map(|line| Some(line.ok()?.split_once("the code is ")?.1.trim_end_matches(')').to_owned()));
        (child, code.expect("a code is shown"))
    }
}

/// Tries until it succeeds: an issuer is asked for a new key once in ten seconds.
async fn until(mut holds: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs oidc-provider: make oidc"]
async fn people_and_programs_log_in_by_an_issuer_until_it_is_revoked() {
    let (home, issuer) = (Home::new().unwrap(), RealIssuer::start());
    let resources = home.path().join("resources");
    fs::create_dir(&resources).unwrap();
    fs::write(resources.join("tenant.yaml"), tenant(Some(&issuer))).unwrap();
    fs::write(resources.join("agents.yaml"), AGENTS).unwrap();
    let allowed = format!("{}=127.0.0.0/8,::1/128", issuer.url());
    let log = home.path().join("dev.log");
    let dev = Standalone::start_with(&home, &resources, &log, &[("ACB_OIDC_ISSUER", allowed)]).await.unwrap();
    let user = User { home: &home, issuer: &issuer };

    // A program, by its secret at the issuer.
    let (access, secret, ca) = (dev.tenant("acme").unwrap(), home.path().join("secret"), issuer.ca_file());
    fs::write(&secret, "machine-secret\n").unwrap();
    let machine = [
        "login",
        "--server",
        &access.endpoints[0],
        "--ca",
        access.ca_file.to_str().unwrap(),
        "--oidc",
        issuer.url(),
        "--client-id",
        "machine",
        "--client-secret-file",
        secret.to_str().unwrap(),
        "--resource",
        "urn:acb:test",
        "--oidc-ca",
        ca.to_str().unwrap(),
        "-p",
        "machine",
    ];
    assert!(user.succeeds(&machine).contains("as agent worker"));
    assert!(user.succeeds(&["whoami", "-p", "machine"]).contains("worker"));
    user.succeeds(&["send", "ada", "there", "-p", "machine", "--topic", "hello"]);

    // People, at another device.
    let (login, code) = user.begin(dev.state(), "acme/ada");
    user.at_issuer(&format!("approve?user_code={code}&account=ada")).await;
    let login = login.wait_with_output().unwrap();
    assert!(login.status.success() && String::from_utf8_lossy(&login.stdout).contains("as agent ada"), "{login:?}");
    assert!(user.succeeds(&["whoami", "-p", "acme/ada"]).contains("ada"));
    assert!(user.succeeds(&["unread", "-p", "acme/ada"]).contains('1'));
    // Who is somebody else there does not become her.
    let (login, code) = user.begin(dev.state(), "acme/ada");
    user.at_issuer(&format!("approve?user_code={code}&account=bob")).await;
    assert!(!login.wait_with_output().unwrap().status.success());
    assert!(user.succeeds(&["whoami", "-p", "acme/ada"]).contains("ada"));
    // And with less than a lead's rights.
    let (login, code) = user.begin(dev.state(), "acme/bob");
    user.at_issuer(&format!("approve?user_code={code}&account=bob")).await;
    assert!(login.wait_with_output().unwrap().status.success());
    let refused = user.fails(&["send", "ada", "there", "-p", "acme/bob", "--topic", "hello"]);
    assert!(refused.contains("observer"), "{refused}");

    // The issuer signs with another key.
    user.at_issuer("rotate").await;
    until(|| user.run(&["whoami", "-p", "machine"]).status.success(), "no token of the new key is taken").await;

    // The tenant gives it up.
    fs::write(resources.join("tenant.yaml"), tenant(None)).unwrap();
    until(|| !user.run(&["whoami", "-p", "machine"]).status.success(), "the issuer's tokens are still taken").await;
    let refused = user.fails(&["whoami", "-p", "acme/ada"]);
    assert!(refused.contains("proves no agent here"), "{refused}");
    dev.stop().await.unwrap();
}
