//! What a transfer shows while it runs.

use std::io::IsTerminal as _;

use acb_sdk::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::Output;

/// A bar for a person at a terminal; for anybody else one that shows nothing.
pub(super) fn bar(output: Output) -> ProgressBar {
    if output.is_document() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Sets it to how far the transfer is.
pub(super) fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.bytes);
}

/// How fast it was.
pub(super) fn rate(bytes: u64, seconds: f64) -> String {
    // Precise enough: a payload has at most 100 MiB.
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    format!("{:.1} MB/s", megabytes / seconds.max(0.001))
}
