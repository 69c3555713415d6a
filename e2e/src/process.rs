//! Daemons: started with a log, recorded by process id, ended by it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, at};

const POLL: Duration = Duration::from_millis(100);

/// A process that was started, and can be told from a later one that got its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Daemon {
    /// What it is.
    pub(crate) name: String,
    /// Its process id.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
    /// Where its log is.
    pub(crate) log: PathBuf,
    /// The program and its arguments.
    #[serde(default)]
    command: Vec<String>,
}

impl Daemon {
    /// Starts it, in a process group of its own, so that Ctrl-C in a terminal does not end what is to be left up.
    pub(crate) fn start(name: &str, logs: &Path, command: &mut Command) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        File::create(&log).map_err(at(&log))?;
        Self::spawn(name, log, command)
    }

    /// Starts the same again, after it ended. Its log goes on.
    pub(crate) fn start_again(&self) -> Result<Self> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Error::Wrong(format!("it is not recorded how {} was started", self.name)));
        };
        Self::spawn(&self.name, self.log.clone(), Command::new(program).args(arguments))
    }

    fn spawn(name: &str, log: PathBuf, command: &mut Command) -> Result<Self> {
        let out = File::options().append(true).open(&log).map_err(at(&log))?;
        let err = out.try_clone().map_err(at(&log))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(at(command.get_program()))?;
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let started = started(pid).unwrap_or_default();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let command = words.map(|word| word.to_string_lossy().into_owned()).collect();
        Ok(Self { name: name.to_owned(), pid, started, log, command })
    }

    /// Whether it runs.
    pub(crate) fn runs(&self) -> bool {
        reap(self.pid);
        started(self.pid) == Some(self.started)
    }

    /// Sends it a signal, where it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.runs() {
            send(self.pid, signal);
        }
    }

    /// Ends it, with SIGKILL where it takes longer than its grace.
    pub(crate) fn stop(&self, grace: Duration) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + grace;
        while self.runs() {
            if Instant::now() > deadline {
                self.signal(Signal::KILL);
            }
            sleep(POLL);
        }
    }

    /// Waits until `ready` is true. Fails at the deadline, or as soon as the daemon has ended.
    pub(crate) fn wait(&self, seconds: u64, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while !ready() {
            if !self.runs() {
                return Err(Error::Ended { name: self.name.clone(), log: self.log.clone(), tail: tail(&self.log) });
            }
            if Instant::now() > deadline {
                let what = format!("{} is ready (log: {})", self.name, self.log.display());
                return Err(Error::Late { what, seconds, last: tail(&self.log) });
            }
            sleep(POLL);
        }
        Ok(())
    }
}

/// A child of ours that ended stays a process until somebody asks for it.
fn reap(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// Sends a signal to a process.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// When a process started, in clock ticks since boot; none where there is no such process, or only its exit status.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(3000)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Runs a program to its end, whatever that is.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(at(command.get_program()))
}

/// Runs a program to a good end, and answers with what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Error::Command { command: format!("{command:?}"), status: output.status, said: said.trim().to_owned() })
}

/// Waits until `look` finds something. What it says instead is told at the deadline.
pub(crate) fn eventually<T>(seconds: u64, what: &str, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() > deadline => return Err(Error::Late { what: what.to_owned(), seconds, last }),
            Err(_) => sleep(POLL * 2),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_told_from_a_later_process_of_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start("sleeper", dir.path(), Command::new("sleep").arg("60")).unwrap();
        assert!(daemon.runs());
        assert!(!Daemon { started: daemon.started + 1, ..daemon.clone() }.runs());
        daemon.stop(Duration::from_secs(5));
        assert!(!daemon.runs());
    }

    #[test]
    fn what_ended_is_started_again_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let say = Daemon::start("says", dir.path(), Command::new("sh").args(["-c", "echo once; sleep 60"])).unwrap();
        let said = |times: usize| {
            eventually(10, "it has spoken", || {
                let text = fs::read_to_string(&say.log).unwrap();
                if text.matches("once").count() == times { Ok(()) } else { Err(text) }
            })
        };
        said(1).unwrap();
        say.stop(Duration::from_secs(5));
        let again = say.start_again().unwrap();
        said(2).unwrap();
        assert!(again.runs() && !say.runs());
        again.stop(Duration::from_secs(5));
    }

    #[test]
    fn waiting_ends_with_the_daemon_and_shows_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start("brief", dir.path(), Command::new("sh").args(["-c", "echo no such port; exit 1"])).unwrap();
        let error = daemon.wait(60, || false).unwrap_err().to_string();
        assert!(error.contains("brief ended") && error.contains("no such port"), "{error}");
    }
}
