//! The scripts that shells load, as shells load them.

use std::process::{Command, Output, Stdio};

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_acb")).args(["completion", shell]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

/// What bash offers after `line`.
fn bash(line: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acb.bash");
    std::fs::write(&path, script("bash")).unwrap();
    // As `complete` has it called: the words so far, and the one that is to be completed.
    let program = r#"
        source "$1"; shift
        set -- $1 "${2-}"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        handler=$(complete -p acb | sed 's/.*-F \([^ ]*\).*/\1/')
        "$handler" acb "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let (words, last) = line.rsplit_once(' ').unwrap();
    let mut command = Command::new("bash");
    let Output { status, stdout, stderr } = command
        .args(["--noprofile", "--norc", "-c", program, "bash"])
        .arg(path)
        .args([words, last])
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    assert!(status.success() && stderr.is_empty(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    assert_eq!(bash("acb rep"), ["reply"]);
    assert_eq!(bash("acb profile us"), ["use"]);
    assert_eq!(bash("acb context push --res"), ["--resume"]);
    assert_eq!(bash("acb reply --comm"), ["--command"]);
    assert_eq!(bash("acb whoami --output js"), ["json"]);
    let commands = bash("acb ");
    for command in [
        "dev",
        "get",
        "plan",
        "login",
        "send",
        "request",
        "reply",
        "receive",
        "unread",
        "scheduled",
        "usage",
        "audit",
        "watch",
        "dead-letters",
        "agent",
        "context",
        "profile",
        "logout",
        "status",
    ] {
        assert!(commands.iter().any(|offered| offered == command), "{command} is not in {commands:?}");
    }
    for before in ["shared", "contexts", "push"] {
        assert!(!commands.iter().any(|offered| offered == before), "{before} is in {commands:?}");
    }
}

#[test]
fn commands_are_listed_by_what_they_are_for() {
    let help = Command::new(env!("CARGO_BIN_EXE_acb")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for part in ["\nRun it:\n  dev ", "\nFor platform teams:\n  get ", "\nAs an agent:\n", "\nOptions:\n", "Exit codes: 0 done"] {
        assert!(help.contains(part), "{part:?} is not in {help}");
    }
}

#[test]
fn what_was_called_otherwise_before_says_what_it_is_called_now() {
    for (before, now) in [
        ("contexts use x", "acb profile use"),
        ("agents --type x", "acb agent discover"),
        ("share file --type documents", "acb context share"),
        ("shared list --filter x", "acb context"),
        ("push file --type documents -c x", "acb context push"),
        ("pull id -f file", "acb context pull ID [DEST]"),
        ("whoami -c x", "--profile"),
        ("login --tenant acme --agent a --cluster", "acb login acme/a --cluster"),
        ("context pull id -f file", "acb context pull id file"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        let output = command.args(before.split(' ')).env("ACB_CONFIG", "/nowhere/config.yaml").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{before}: {said}");
        assert!(said.contains(now), "{before}: {said}");
    }
    // A profile of before that is chosen by the environment is not silently somebody else's.
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
    let output = command.arg("whoami").env("ACB_CONTEXT", "x").env("ACB_CONFIG", "/nowhere/config.yaml").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("ACB_PROFILE"));
}

#[test]
fn wrong_usage_is_said_in_the_form_that_was_asked_for() {
    let run = |line: &str| Command::new(env!("CARGO_BIN_EXE_acb")).args(line.split(' ')).output().unwrap();
    for line in ["plan --clustr -f x -o json", "-o json nonsense", "get --output=json cows"] {
        let output = run(line);
        let said: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &said["exitCode"]), (Some(2), &serde_json::json!(2)), "{line}");
        assert!(!said["error"].as_str().unwrap().starts_with("error"), "{said}");
    }
    assert!(String::from_utf8_lossy(&run("plan --clustr -f x").stderr).starts_with("error: unexpected argument"));
}

#[test]
fn a_script_that_nobody_reads_is_no_crash() {
    let line = format!("'{}' completion bash | true", env!("CARGO_BIN_EXE_acb"));
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
}

#[test]
fn every_shell_has_a_script() {
    for (shell, begins) in [("bash", "_acb()"), ("zsh", "#compdef acb"), ("fish", "# Print an optspec")] {
        let script = script(shell);
        assert!(script.starts_with(begins), "{shell}: {}", &script[..80]);
        assert!(script.contains("resume") && script.contains("from-start"), "{shell}");
    }
    let unknown = Command::new(env!("CARGO_BIN_EXE_acb")).args(["completion", "tcsh"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
