//! How commands answer: a table or JSON on stdout, errors on stderr, and an exit code that scripts can tell apart.

use std::{fmt, io::Write, os::fd::AsFd as _, process::ExitCode};

use serde::Serialize;
use tokio::{io::Interest, net::unix::pipe::Sender};

/// What `--output` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned, for people.
    #[default]
    Table,
    /// The same, with further columns where there are some.
    Wide,
    /// One JSON document (streams: one a line), for programs.
    Json,
    /// The same as YAML (streams: one document after another).
    Yaml,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Table {
        /// With all columns.
        wide: bool,
    },
    /// For programs.
    Document(Syntax),
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl From<Format> for Output {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table { wide: false },
            Format::Wide => Self::Table { wide: true },
            Format::Json => Self::Document(Syntax::Json),
            Format::Yaml => Self::Document(Syntax::Yaml),
        }
    }
}

impl Output {
    /// Whether a program reads it.
    pub(crate) fn is_document(self) -> bool {
        matches!(self, Self::Document(_))
    }
}

impl Syntax {
    /// The result of a command, indented.
    pub(crate) fn document(self, value: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Json => line(serde_json::to_string_pretty(value).map_err(Failure::failed)?),
            Self::Yaml => line(yaml(value)?.trim_end()),
        }
    }

    /// One result of several that come one after another: a line, or a document of its own.
    pub(crate) fn record(self, value: &impl Serialize) -> Result<(), Failure> {
        match self {
            Self::Json => line(serde_json::to_string(value).map_err(Failure::failed)?),
            Self::Yaml => line(format_args!("---\n{}", yaml(value)?.trim_end())),
        }
    }
}

fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    // By way of JSON: it gives YAML the same names, and nothing that only one of the two can say.
    let value = serde_json::to_value(value).map_err(Failure::failed)?;
    serde_saphyr::to_string(&value).map_err(Failure::failed)
}

/// What the exit code says. The numbers are documented in the help and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was tried, and failed.
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// What was named is not there.
    NotFound = 3,
    /// Not allowed, or not known who asks.
    Denied = 4,
    /// No answer, or not in time.
    Unavailable = 5,
    /// Of `plan`: there are changes, and nothing is wrong.
    Changes = 6,
}

/// Why a command ended without success.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    refusal: Option<Refusal>,
}

/// What programs and those who search a hub's log need of what it refused.
#[derive(Clone, Debug)]
struct Refusal {
    reason: String,
    correlation_id: Option<String>,
}

impl Failure {
    /// A failure with its exit code.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), refusal: None }
    }

    /// The failure of a call to a hub.
    pub(crate) fn refused(exit: Exit, message: impl fmt::Display, error: &acb_sdk::Error) -> Self {
        let refusal = Refusal { reason: error.reason().to_owned(), correlation_id: error.correlation_id().map(str::to_owned) };
        Self { refusal: Some(refusal), ..Self::new(exit, message) }
    }

    /// It was tried, and failed.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The same, with what else to know.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { message: self.message + hint, ..self }
    }

    /// Whether it may go better the next time.
    pub(crate) fn is_transient(&self) -> bool {
        self.exit == Exit::Unavailable
    }

    /// Whether somebody said no, and will again.
    pub(crate) fn is_denial(&self) -> bool {
        self.exit == Exit::Denied
    }

    fn document(&self) -> serde_json::Value {
        let mut document = serde_json::json!({"error": self.message, "exitCode": self.exit as u8});
        if let Some(Refusal { reason, correlation_id }) = &self.refusal {
            document["reason"] = reason.as_str().into();
            if let Some(id) = correlation_id {
                document["correlationId"] = id.as_str().into();
            }
        }
        document
    }

    /// Prints the error and gives the process's exit code.
    pub(crate) fn report(&self, output: Output) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        if !self.message.is_empty() {
            // Nothing can be done about a closed stderr.
            let _ = match output {
                Output::Table { .. } => writeln!(stderr, "error: {}", self.message),
                Output::Document(_) => writeln!(stderr, "{}", self.document()),
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

/// Bytes on stdout, as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::failed)
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
        Output::Table { .. } => writeln!(stderr, "{message}"),
        Output::Document(_) => writeln!(stderr, "{}", serde_json::json!({"message": message})),
    };
}

/// A table without borders, as kubectl prints them.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let widths = widths(header, &rows);
    row(&widths, header)?;
    rows.iter().try_for_each(|cells| row(&widths, cells))
}

/// How wide the columns of a table are.
pub(crate) fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for cells in rows {
        for (width, text) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell(text).chars().count());
        }
    }
    widths
}

/// A row of a table.
pub(crate) fn row(widths: &[usize], cells: &[impl AsRef<str>]) -> Result<(), Failure> {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(text, width)| format!("{:<width$}", cell(text.as_ref()))).collect();
    line(padded.join("   ").trim_end())
}

/// What others wrote can't steer the terminal from a cell, nor begin a new row.
pub(crate) fn cell(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// A text for a terminal. Control characters, which could steer it, and those that turn the direction of what follows are shown escaped.
/// Line ends and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            _ if character.is_control() || turns(character) => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

/// The marks, embeddings, overrides and isolates of bidirectional text, and the separators that some terminals end a line at.
fn turns(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(printable("invoice\u{202e}fdp.exe"), "invoice\\u{202e}fdp.exe");
        assert_eq!(printable("Grüße, 世界"), "Grüße, 世界");
    }
}
