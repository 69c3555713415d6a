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
    assert_eq!(bash("acb contexts us"), ["use"]);
    assert_eq!(bash("acb push --res"), ["--resume"]);
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
        "watch",
        "dead-letters",
        "share",
        "push",
        "pull",
    ] {
        assert!(commands.iter().any(|offered| offered == command), "{command} is not in {commands:?}");
    }
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
