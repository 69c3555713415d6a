//! The help that lists commands by what they are for, and what is said of wrong usage.

use std::{ffi::OsString, fmt::Write as _, process::ExitCode};

use clap::{
    Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    moved,
    output::{Exit, Failure, Format, Output, Syntax},
};

/// Every command that is shown, by what it is for.
pub(crate) const GROUPS: [(&str, &[&str]); 5] = [
    ("Run it", &["dev"]),
    ("For platform teams", &["get", "status", "plan", "bootstrap", "isolation"]),
    ("Log in as an agent", &["login", "logout", "whoami", "profile", "credentials"]),
    (
        "As an agent",
        &[
            "agent",
            "send",
            "request",
            "reply",
            "receive",
            "unread",
            "scheduled",
            "trace",
            "usage",
            "watch",
            "dead-letters",
            "context",
            "audit",
        ],
    ),
    ("Other", &["completion", "help"]),
];

/// The command line, with this help.
pub(crate) fn grouped(command: Command) -> Command {
    let mut template = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        // Writing to a String can't fail.
        let _ = write!(template, "\n{title}:\n");
        for name in names {
            let about = match command.find_subcommand(name).and_then(Command::get_about) {
                Some(about) => about.to_string(),
                None => "Shows the help of a command".to_owned(),
            };
            let _ = writeln!(template, "  {name:<13} {}", about.trim_end_matches('.'));
        }
    }
    template.push_str("\nOptions:\n{options}\n\n{after-help}\n");
    command.help_template(template)
}

/// What clap says: help on stdout, wrong usage on stderr, in the form that was asked for.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    let document = wants_document(std::env::args_os());
    let output = if document { Output::Document(Syntax::Json) } else { Output::from(Format::Table) };
    if let Some(hint) = moved(error) {
        return Failure::new(Exit::Usage, hint).report(output);
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            // Nobody reads it.
            Err(_) => ExitCode::FAILURE,
        },
        _ if document => {
            let text = error.render().to_string();
            Failure::new(Exit::Usage, text.trim().trim_start_matches("error: ")).report(output)
        }
        _ => {
            // Nothing can be done about a closed stderr.
            let _ = error.print();
            ExitCode::from(Exit::Usage as u8)
        }
    }
}

/// The hint for a command that was called so before.
fn moved(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) => moved::hint(name),
        _ => None,
    }
}

/// Whether a program reads the output. Asked where the arguments could not be parsed.
fn wants_document(arguments: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let said = words.iter().enumerate().find_map(|(index, word)| match word.as_str() {
        "-o" | "--output" => words.get(index + 1).cloned(),
        _ => word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o")).map(str::to_owned),
    });
    matches!(said.or_else(|| std::env::var("ACB_OUTPUT").ok()).as_deref(), Some("json" | "yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_known_where_the_rest_is_wrong() {
        let asked = |line: &str| wants_document(line.split(' ').map(OsString::from));
        for line in ["acb get -o json x y z", "acb --output=yaml nonsense", "acb send -ojson"] {
            assert!(asked(line), "{line}");
        }
        assert!(!asked("acb get -o table"));
    }
}
