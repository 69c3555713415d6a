//! `plan`, on the folders that people have.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

const TENANT: &str = "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {tier: Free}\n";

fn plan(folder: &Path, file: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
    command.args(["plan", "-f", file, "--state", "no-state"]).env_remove("ACB_TARGET").current_dir(folder);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn changes_have_an_exit_code_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("acme.yaml"), TENANT).unwrap();
    let planned = plan(folder.path(), "acme.yaml");
    assert_eq!(planned.status.code(), Some(6), "{planned:?}");
    assert!(text(&planned.stdout).contains("acme"));
    // Wrong usage passes for no change.
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
    assert_eq!(command.args(["plan", "--clustr", "-f", "."]).output().unwrap().status.code(), Some(2));
}

#[test]
fn a_gitops_folder_is_planned_for_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("base/teams")).unwrap();
    for (name, content) in [
        ("base/kustomization.yaml", "resources: [namespace.yaml, teams/acme.YAML]\nnamePrefix: x-\n"),
        ("base/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"),
        ("base/app.json", r#"{"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "app"}}"#),
        ("base/teams/acme.YAML", TENANT),
        ("base/README.md", "nothing"),
    ] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let planned = plan(folder.path(), "base");
    assert_eq!(planned.status.code(), Some(6), "{planned:?}");
    let said = text(&planned.stderr);
    for note in [
        "kustomization.yaml: passed over: Kustomization. It is not run: `kubectl kustomize DIR | acb plan -f -`",
        "namespace.yaml: passed over: Namespace team of v1\n",
        "app.json: passed over: Application app of argoproj.io/v1alpha1\n",
    ] {
        assert!(said.contains(note), "{note:?} is not in {said}");
    }
    // As kustomize prints it, and as `acb get -o json` does.
    let list = r#"{"kind": "TenantList", "apiVersion": "v1", "items": [{"apiVersion": "acb.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme"}, "spec": {"tier": "Free"}}]}"#;
    for given in [format!("apiVersion: v1\nkind: ConfigMap\n---\n{TENANT}"), list.to_owned()] {
        fs::write(folder.path().join("stdin"), given).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_acb"));
        let stdin = fs::File::open(folder.path().join("stdin")).unwrap();
        let planned = command.args(["plan", "-f", "-", "--state", "no-state"]).stdin(stdin).output().unwrap();
        assert_eq!(planned.status.code(), Some(6), "{planned:?}");
    }
}

#[test]
fn a_folder_with_nothing_in_it_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n").unwrap();
    for file in [".", "config.yaml"] {
        let planned = plan(folder.path(), file);
        assert_eq!(planned.status.code(), Some(3), "{planned:?}");
        assert!(text(&planned.stderr).contains("no Tenant, Agent or Quota of acb.dev/v1alpha1 is in it"), "{planned:?}");
    }
    let mut dev = Command::new(env!("CARGO_BIN_EXE_acb"));
    let dev = dev.args(["dev", "-f", "."]).arg("--state").arg(folder.path().join("state")).current_dir(folder.path()).output();
    let dev = dev.unwrap();
    assert!(dev.status.code() == Some(3) && text(&dev.stderr).contains("no Tenant"), "{dev:?}");
}
