//! What is printed.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Says what happens. A closed stdout is no reason to stop.
pub(crate) fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
