//! kubectl and helm, as a user calls them.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::{
    error::{Error, Result, at, wrong},
    place::Place,
    process::{self, eventually},
};

/// kubectl with somebody's kubeconfig.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    helm: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// With every right.
    pub(crate) fn admin(place: &Place) -> Self {
        Self {
            program: place.bin("kubectl"),
            helm: place.bin("helm"),
            kubeconfig: place.kubeconfig("admin"),
            home: place.run().join("home"),
        }
    }

    fn of(&self, program: &PathBuf) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        command
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.of(&self.program);
        command.args(arguments);
        command
    }

    /// What it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        process::run(&mut self.command(arguments))
    }

    /// However it ends.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&mut self.command(arguments))
    }

    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.of(&self.helm);
        process::run(command.args(arguments))
    }

    /// With these documents on its standard input.
    pub(crate) fn with_input(&self, arguments: &[&str], documents: &str) -> Result<Output> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(at(&self.program))?;
        if let Some(mut input) = child.stdin.take() {
            // It says why where it does not read to the end.
            let _ = input.write_all(documents.as_bytes());
        }
        child.wait_with_output().map_err(at(&self.program))
    }

    /// `kubectl apply -f -`.
    pub(crate) fn apply(&self, documents: &str) -> Result<String> {
        let output = self.with_input(&["apply", "--filename", "-"], documents)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Command { command: "kubectl apply --filename -".to_owned(), status: output.status, said })
    }

    /// An object, or a list, as the API server has it.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "--output", "json"];
        all.extend(arguments);
        Ok(serde_json::from_str(&self.run(&all)?)?)
    }

    /// The object, or none where there is none.
    pub(crate) fn find(&self, arguments: &[&str]) -> Result<Option<Value>> {
        let mut all = vec!["get", "--output", "json", "--ignore-not-found"];
        all.extend(arguments);
        let text = self.run(&all)?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// `kubectl wait --for=condition=…`, which fails with the object's conditions.
    pub(crate) fn wait_for(&self, condition: &str, object: &[&str], seconds: u64) -> Result<()> {
        let condition = format!("--for=condition={condition}");
        let timeout = format!("--timeout={seconds}s");
        let mut all = vec!["wait", &condition, &timeout];
        all.extend(object);
        self.run(&all).map(drop).or_else(|error| {
            let mut describe = vec!["describe"];
            describe.extend(object);
            let seen = self.run(&describe).unwrap_or_default();
            wrong(format!("{error}\n{seen}"))
        })
    }

    /// Waits until no such object is left.
    pub(crate) fn wait_gone(&self, object: &[&str], seconds: u64) -> Result<()> {
        eventually(seconds, &format!("{} is gone", object.join(" ")), || match self.find(object) {
            Ok(None) => Ok(()),
            Ok(Some(value)) => Err(value["metadata"].to_string()),
            Err(error) => Err(error.to_string()),
        })
    }
}
