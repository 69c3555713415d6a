//! Why a step of the cluster, or a scenario, failed.

use std::{io, path::Path, path::PathBuf, process::ExitStatus};

/// What went wrong, for the person in front of the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file or program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("`{command}` ended with {status}: {said}")]
    Command {
        /// As it was called.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
    /// A daemon ended that should run.
    #[error("{name} ended; its last words in {log}:\n{tail}")]
    Ended {
        /// Which.
        name: String,
        /// Where its log is.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// Something did not come about in time.
    #[error("not after {seconds} s: {what}. Last seen: {last}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What was so instead.
        last: String,
    },
    /// The machine lacks something.
    #[error("{0}")]
    Missing(String),
    /// Something is not as it must be.
    #[error("{0}")]
    Wrong(String),
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Not the JSON that was expected.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Names the file or program that an operating system's refusal is about.
pub(crate) fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { path: path.as_ref().to_path_buf(), source }
}

/// What is not as it must be.
pub(crate) fn wrong<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Wrong(what.into()))
}
