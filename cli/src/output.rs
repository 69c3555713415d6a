//! How commands answer: a table or JSON on stdout, errors on stderr, and an exit code that scripts can tell apart.

use std::{fmt, io::Write, os::fd::AsFd as _, process::ExitCode};

use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe::Sender};

/// Where results are printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// Aligned, for people.
    #[default]
    Table,
    /// One JSON document (streams: one a line), for programs.
    Json,
}

/// What the exit code says. The numbers are documented in the help and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried, and failed.
    Failed = 1,
    /// Wrong arguments; for `plan`: there are changes.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// Not allowed, or not known who asks.
    Denied = 4,
    /// No answer, or not in time.
    Unavailable = 5,
}

/// Why a command ended without success.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with its exit code.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// It was tried, and failed.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// Whether somebody said no, and will again.
    pub(crate) fn is_denial(&self) -> bool {
        self.exit == Exit::Denied
    }

    /// Prints the error and gives the process's exit code.
    pub(crate) fn report(&self, output: Output) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        if !self.message.is_empty() {
            // Nothing can be done about a closed stderr.
            let _ = match output {
                Output::Table => writeln!(stderr, "error: {}", self.message),
                Output::Json => {
                    writeln!(stderr, "{}", serde_json::json!({"error": self.message, "exitCode": self.exit as u8}))
                }
            };
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A line on stdout. A reader that went away (`| head`) ends the command as a failure, not as a crash.
pub(crate) fn line(text: impl fmt::Display) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(Failure::failed)
}

/// Resolves once nobody reads stdout any more: what waits long for its next line would not notice before it prints that.
pub(crate) async fn unread() -> Failure {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    // A file can't be watched, and is never unread. What is watched is not written to here, so it may block as it does.
    if let Ok(stdout) = stdout.and_then(Sender::from_owned_fd_unchecked)
        && stdout.ready(Interest::ERROR).await.is_ok()
    {
        return Failure::failed(std::io::Error::from(rustix::io::Errno::PIPE));
    }
    std::future::pending().await
}

/// Something to know beside the result, on stderr: what reads stdout is not disturbed.
pub(crate) fn note(output: Output, message: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nothing can be done about a closed stderr.
    let _ = match output {
        Output::Table => writeln!(stderr, "{message}"),
        Output::Json => writeln!(stderr, "{}", serde_json::json!({"message": message})),
    };
}

/// A JSON document on stdout, indented.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// A table without borders, as kubectl prints them.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    line(render(header.to_vec()))?;
    rows.iter().try_for_each(|row| line(render(row.iter().map(String::as_str).collect())))
}
