//! `acb-e2e`: a real Kubernetes cluster on one machine, and what users do with ACB on it.

mod authority;
mod backends;
mod cluster;
mod control_plane;
mod dns;
mod error;
mod image;
mod kubectl;
mod machine;
mod network;
mod node;
mod output;
mod owner;
mod place;
mod process;
mod report;
mod runtime;
mod scenario;
mod state;

use std::{io::Write as _, net::IpAddr, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{cluster::Extent, error::Result, kubectl::Kubectl, output::say, place::Place, runtime::runtime};

/// A real Kubernetes cluster on one machine, and what users do with ACB on it.
#[derive(Debug, Parser)]
#[command(name = "acb-e2e")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings a cluster up, and leaves it.
    Up {
        /// Without a node.
        #[arg(long)]
        control_plane: bool,
    },
    /// Ends the cluster, and removes what it made.
    Down,
    /// Brings a cluster up where none runs, runs scenarios on it, and ends it again.
    Run {
        /// All scenarios, also those that take long.
        #[arg(long)]
        all: bool,
        /// Without a node: the scenarios that need none.
        #[arg(long)]
        control_plane: bool,
        /// These alone, and what they build on.
        scenario: Vec<String>,
    },
    /// Names the scenarios.
    List,
    /// Names what this machine lacks of what a node needs, and fails where there is something.
    Lacks,
    /// Attacks a tenant with another's credentials. The scenario `isolation` runs it where the names of Services are known.
    #[command(hide = true)]
    Attack { attacker: String, victim: String },
    /// Runs PostgreSQL and Kafka for the cluster. `up` starts it.
    #[command(hide = true)]
    Backends {
        #[arg(long)]
        host: IpAddr,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "acb-e2e: {error}");
            ExitCode::FAILURE
        }
    }
}

fn extent(control_plane: bool) -> Extent {
    if control_plane { Extent::ControlPlane } else { Extent::Whole }
}

fn run(command: Command) -> Result<ExitCode> {
    let place = Place::here()?;
    match command {
        Command::Up { control_plane } => {
            let state = cluster::up(&place, extent(control_plane))?;
            for lack in &state.lacks {
                say(&format!("no node: {lack}"));
            }
            say(&format!("\nexport KUBECONFIG={}", place.kubeconfig("admin").display()));
            say(&format!("export PATH={}:$PATH", place.bin("").display()));
            if state.lacks.is_empty() {
                let values = scenario::install::prepare(&place, &Kubectl::admin(&place))?;
                say("helm install acb-crds charts/acb-crds --namespace acb-system");
                say(&format!("helm install acb charts/acb --namespace acb-system --values {}", values.display()));
                say("kubectl rollout status deployment/acb-operator --namespace acb-system");
                say("# and on with docs/install.md, \"The first tenant\"");
            }
            say("\nmake cluster-down        # ends it");
        }
        Command::Down => cluster::down(&place)?,
        Command::Run { all, control_plane, scenario } => return scenario::run(&place, all, extent(control_plane), &scenario),
        Command::List => scenario::list(),
        Command::Lacks => {
            let lacks = machine::lacks();
            lacks.iter().for_each(|lack| say(&format!("no node: {lack}")));
            return Ok(if lacks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Attack { attacker, victim } => runtime()?.block_on(scenario::isolation::attack(&place, &attacker, &victim))?,
        Command::Backends { host } => runtime()?.block_on(backends::serve(&place, host))?,
    }
    Ok(ExitCode::SUCCESS)
}
