//! What runs, so that it can be ended by process id: by this process, or by a later one.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result, at},
    place::Place,
    process::Daemon,
};

const GRACE: Duration = Duration::from_secs(15);

/// Recorded in `target/e2e/state.json` at every change.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    logs: PathBuf,
    /// In the order in which they were started.
    pub(crate) daemons: Vec<Daemon>,
    /// What IP forwarding was before, where there is a network of ours.
    pub(crate) forwarding: Option<String>,
    /// Why there is no node; empty where there is one.
    pub(crate) lacks: Vec<String>,
}

impl State {
    /// What is recorded, or a state in which nothing runs.
    pub(crate) fn load(place: &Place) -> Result<Self> {
        let (path, logs) = (place.state(), place.logs());
        match fs::read(&path) {
            Ok(bytes) => Ok(Self { path, logs, ..serde_json::from_slice(&bytes)? }),
            Err(_) => Ok(Self { path, logs, daemons: Vec::new(), forwarding: None, lacks: Vec::new() }),
        }
    }

    pub(crate) fn save(&self) -> Result<()> {
        fs::write(&self.path, serde_json::to_string_pretty(self)?).map_err(at(&self.path))
    }

    /// Starts a daemon, and records it before anything else can fail.
    pub(crate) fn start(&mut self, name: &str, command: &mut Command) -> Result<Daemon> {
        let daemon = Daemon::start(name, &self.logs, command)?;
        self.daemons.retain(|known| known.name != name);
        self.daemons.push(daemon.clone());
        self.save()?;
        Ok(daemon)
    }

    /// Ends one, and remembers it for [`start_again`](Self::start_again).
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        self.named(name)?.stop(GRACE);
        Ok(())
    }

    /// Starts one again that was stopped.
    pub(crate) fn start_again(&mut self, name: &str) -> Result<Daemon> {
        let daemon = self.named(name)?.start_again()?;
        for known in self.daemons.iter_mut().filter(|known| known.name == name) {
            *known = daemon.clone();
        }
        self.save()?;
        Ok(daemon)
    }

    fn named(&self, name: &str) -> Result<&Daemon> {
        let found = self.daemons.iter().find(|daemon| daemon.name == name);
        found.ok_or_else(|| Error::Wrong(format!("there is no daemon {name}")))
    }

    pub(crate) fn runs(&self) -> bool {
        self.daemons.iter().any(Daemon::runs)
    }

    /// Ends every daemon, the last started first.
    pub(crate) fn stop_all(&mut self) {
        while let Some(daemon) = self.daemons.pop() {
            daemon.stop(GRACE);
        }
    }

    /// Nothing runs any more.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}
