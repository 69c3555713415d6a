//! `acb audit follow`.

use std::pin::pin;

use acb_sdk::AuditQuery;

use super::{list, view};
use crate::{
    client::{refusal::refused, target::Target},
    output::{self, Failure, Output},
    stop::Stop,
};

/// Of the columns: what comes is not known yet.
const WIDTHS: [usize; 5] = [6, 27, 16, 60, 0];

/// Shows audit records as they are logged, until it is stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Follow {
    #[command(flatten)]
    target: Target,
    /// Only what this agent did.
    #[arg(long)]
    agent: Option<String>,
    /// Only this operation, such as GetContext.
    #[arg(long)]
    operation: Option<String>,
    /// From this number on, and not only what is logged from now on.
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Ends after so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Follow {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let mut stop = Stop::listen()?;
        let mut query = AuditQuery::all();
        if let Some(agent) = self.agent {
            query = query.agent(agent);
        }
        if let Some(operation) = self.operation {
            query = query.operation(operation);
        }
        let mut unread = pin!(output::unread());
        let mut trail = tokio::select! {
            trail = client.follow_audit(query, self.from) => trail.map_err(|error| refused("audit records", &error))?,
            () = stop.asked() => return Ok(()),
            failure = &mut unread => return Err(failure),
        };
        if let Output::Table { .. } = output {
            output::row(&WIDTHS, &list::COLUMNS)?;
        }
        for _ in 0..self.count.unwrap_or(u64::MAX) {
            let logged = tokio::select! {
                logged = trail.next() => logged.map_err(|error| refused("audit records", &error))?,
                () = stop.asked() => break,
                failure = &mut unread => return Err(failure),
            };
            match output {
                Output::Document(syntax) => syntax.record(&view::document(&logged))?,
                Output::Table { .. } => output::row(&WIDTHS, &list::cells(&logged))?,
            }
        }
        Ok(())
    }
}
