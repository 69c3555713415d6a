//! Lists the attacks. `acb isolation TENANT` runs them.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser;

/// What a tenant would try against its neighbours.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Names the attacks, one a line, with what each would have had were its wall down.
    #[arg(long, required = true)]
    list: bool,
}

fn main() -> ExitCode {
    Arguments::parse();
    let mut out = io::stdout().lock();
    for attack in acb_isolation::attacks() {
        if writeln!(out, "{:<36} {}", attack.name, attack.prize).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
