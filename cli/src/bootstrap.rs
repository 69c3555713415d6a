//! `acb bootstrap`: what a DBA runs once on a PostgreSQL server, and again after a major upgrade or a restore.

use std::{path::PathBuf, str::FromStr};

use acb_operator::bootstrap::{self, BootstrapError, Server};
use clap::Args;
use sqlx::postgres::PgConnectOptions;

use crate::output::{self, Exit, Failure, Output};

/// Which server, and as whom.
#[derive(Args, Debug)]
pub(crate) struct BootstrapArgs {
    /// File with the superuser's URL, `postgres://USER:PASSWORD@HOST:PORT/postgres`. A password is never an argument.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "port", "user", "password_file"])]
    postgres_url_file: Option<PathBuf>,
    /// Server.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port.
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// A superuser.
    #[arg(long, default_value = "postgres")]
    user: String,
    /// File with the superuser's password [default: none is sent].
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the password that the operator's login `acb_operator` gets.
    #[arg(long, value_name = "FILE")]
    operator_password_file: PathBuf,
    /// The server is ACB's alone: tenants are barred from its other databases, too [default: others use it].
    #[arg(long)]
    exclusive: bool,
    /// The rows were restored from a backup: every token that was issued until now ends, or those that were revoked since would live again.
    #[arg(long)]
    restored: bool,
}

fn read(path: &PathBuf) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() { Err(Failure::new(Exit::Usage, format!("{} is empty", path.display()))) } else { Ok(text) }
}

/// Bootstraps a server.
pub(crate) async fn run(args: &BootstrapArgs, output: Output) -> Result<(), Failure> {
    let superuser = match &args.postgres_url_file {
        Some(file) => PgConnectOptions::from_str(&read(file)?)
            .map_err(|_| Failure::new(Exit::Usage, format!("{} holds no postgres:// URL", file.display())))?,
        None => {
            let options = PgConnectOptions::new_without_pgpass().host(&args.host).port(args.port).username(&args.user);
            match &args.password_file {
                Some(file) => options.password(&read(file)?),
                None => options,
            }
        }
    };
    let server = if args.exclusive { Server::Exclusive } else { Server::Shared };
    let password = read(&args.operator_password_file)?;
    let warnings = bootstrap::bootstrap(&superuser, &password, server).await.map_err(failure)?;
    let ended = if args.restored { Some(bootstrap::end_tokens(&superuser).await.map_err(failure)?) } else { None };
    match output {
        Output::Document(syntax) => {
            syntax.document(&serde_json::json!({"bootstrapped": true, "warnings": warnings, "tokensEndedOfTenants": ended}))
        }
        Output::Table { .. } => {
            warnings.iter().try_for_each(|warning| output::line(format!("warning: {warning}")))?;
            output::line("Bootstrapped: roles, database acb and provisioning functions are up to date.")?;
            ended.map_or(Ok(()), |tenants| {
                output::line(format!("Ended the tokens of {tenants} tenants; their agents log in anew."))
            })
        }
    }
}

fn failure(error: BootstrapError) -> Failure {
    match &error {
        BootstrapError::Sql { what: "connecting", .. } => Failure::new(Exit::Unavailable, error),
        BootstrapError::NotSuperuser(_) => Failure::new(Exit::Denied, error),
        _ => Failure::failed(error),
    }
}
