//! `acb`, the command line: runs ACB on one machine, shows what is planned and what is, and speaks to a tenant's hub.

mod bootstrap;
mod client;
mod cluster;
mod dev;
mod get;
mod help;
mod isolation;
mod moved;
mod output;
mod plan;
mod platform;
mod standalone;
mod status;
mod stop;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::output::{Exit, Failure, Format, Output};

/// The Agentic Context Bus: isolated hubs for agents, from a few resources.
#[derive(Debug, Parser)]
#[command(
    name = "acb",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 denied or not authenticated, 5 unavailable or out of \
                  time, 6 (plan) there are changes."
)]
struct Cli {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "ACB_OUTPUT")]
    output: Format,
    /// What is logged to stderr: a tracing filter, such as `info` or `acb_operator=debug`.
    #[arg(long, global = true, default_value = "warn,kube_client=off", env = "ACB_LOG", value_name = "FILTER")]
    log: String,
    /// How it is logged.
    #[arg(long, global = true, value_enum, default_value_t, env = "ACB_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all of ACB on this machine, from a folder of YAML: a private PostgreSQL, and hubs as processes.
    Dev(dev::DevArgs),
    /// Shows tenants, agents or quotas, and how they are, here or on a cluster.
    Get(get::GetArgs),
    /// Shows how a tenant is: its hub, agents and credentials, what happened last, and what it waits for.
    Status(status::StatusArgs),
    /// Shows what would be done for a folder of YAML, here or on a cluster.
    ///
    /// Exit code 6 where there are changes, 1 where something is refused.
    Plan(plan::PlanArgs),
    /// Prepares a PostgreSQL server for ACB: roles, database, provisioning functions. Needs a superuser; can be repeated.
    Bootstrap(bootstrap::BootstrapArgs),
    /// Attacks a tenant's neighbours with that tenant's own credentials. Fails where an attack was not refused.
    Isolation(isolation::IsolationArgs),
    /// Prints the completion script of a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Client(client::Command),
}

/// The whole command line.
fn command_line() -> clap::Command {
    help::grouped(Cli::command())
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match command_line().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return help::report(&error),
    };
    let output = Output::from(cli.output);
    if let Err(failure) = start_logging(&cli.log, cli.log_format) {
        return failure.report(output);
    }
    match run(cli.command, output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(output),
    }
}

fn start_logging(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Exit::Usage, format!("--log {filter}: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::run(args, output).await,
        Command::Get(args) => get::run(&args, output).await,
        Command::Plan(args) => plan::run(&args, output).await,
        Command::Bootstrap(args) => bootstrap::run(&args, output).await,
        Command::Isolation(args) => isolation::run(&args, output).await,
        Command::Status(args) => status::run(&args, output).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command_line(), "acb", &mut script);
            output::bytes(&script)
        }
        Command::Client(command) => client::run(command, output).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let mut grouped: Vec<&str> = help::GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        grouped.sort_unstable();
        let command = Cli::command();
        let mut shown: Vec<&str> = command
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .map(clap::Command::get_name)
            .chain(["help"])
            .collect();
        shown.sort_unstable();
        assert_eq!(grouped, shown);
        command.debug_assert();
    }

    /// The texts of a command and of all below it, by the words that call it.
    fn texts(command: &clap::Command, words: &str, found: &mut Vec<(String, String)>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
            let words = format!("{words} {}", below.get_name());
            found.push((words.clone(), below.get_about().map(ToString::to_string).unwrap_or_default()));
            texts(below, &words, found);
        }
    }

    #[test]
    fn each_command_has_a_text_of_its_own() {
        let mut found = Vec::new();
        texts(&Cli::command(), "acb", &mut found);
        assert!(found.len() > 40, "{found:?}");
        let mut seen = std::collections::BTreeMap::new();
        for (words, text) in &found {
            assert!(text.len() > 10, "{words} says nothing of itself");
            if let Some(other) = seen.insert(text.split(';').next(), words) {
                panic!("{other} and {words} say the same of themselves: {text}");
            }
        }
    }
}
