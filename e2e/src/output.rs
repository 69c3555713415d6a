//! What is printed.

use std::io::Write as _;

/// Prints a line. Who closed our output reads it no more.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
