//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP), heard from the start: none is lost between two waits.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::Failure;

/// Listens for them.
#[derive(Debug)]
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// `None` where it was ignored before, as `nohup` does: then nobody asks.
    hangup: Option<Signal>,
}

impl Stop {
    /// From now on a signal is for whoever asks, and ends nothing by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::failed)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::failed)?,
            hangup: match std::fs::read_to_string("/proc/self/status") {
                Ok(status) if ignores_hangup(&status) => None,
                _ => Some(signal(SignalKind::hangup()).map_err(Failure::failed)?),
            },
        })
    }

    /// Resolves with the next signal.
    pub(crate) async fn asked(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hangup => {}
        }
    }
}

/// By what Linux says of a process: a mask in which the first signal is the lowest bit.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_closed_terminal_asks_for_the_end() {
        let mut stop = Stop::listen().unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        tokio::time::timeout(Duration::from_secs(10), stop.asked()).await.expect("asked");
    }

    #[test]
    fn nohup_is_respected() {
        let status = |mask: &str| format!("SigBlk:\t0000000000000001\nSigIgn:\t{mask}\nSigCgt:\t0000000000000001\n");
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")) && !ignores_hangup(""));
    }
}
