//! Which audit records are meant.

use std::time::{Duration, SystemTime};

use acb_sdk::AuditQuery;

use crate::client::payload;

/// Which.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Only what this agent did.
    #[arg(long)]
    agent: Option<String>,
    /// Only this operation, such as GetContext.
    #[arg(long)]
    operation: Option<String>,
    /// Only records of within this time, such as 2h.
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    newer_than: Option<Duration>,
    /// Only records of longer ago than this.
    #[arg(long, value_name = "TIME", value_parser = payload::duration)]
    older_than: Option<Duration>,
    /// Only records with this number or a higher one.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
}

impl Filter {
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    pub(super) fn query(self) -> AuditQuery {
        let ago = |time: Duration| SystemTime::now().checked_sub(time).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut query = AuditQuery::all().from_number(self.from);
        if let Some(agent) = self.agent {
            query = query.agent(agent);
        }
        if let Some(operation) = self.operation {
            query = query.operation(operation);
        }
        if let Some(time) = self.newer_than {
            query = query.since(ago(time));
        }
        if let Some(time) = self.older_than {
            query = query.until(ago(time));
        }
        query
    }
}
