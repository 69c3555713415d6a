//! `acb audit list`.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use acb_sdk::{
    audit_record,
    v1::{AuditRecord, LoggedAuditRecord},
};
use futures::{StreamExt as _, TryStreamExt as _};

use super::{filter::Filter, view};
use crate::{
    client::{refusal::refused, target::Target},
    output::{self, Failure, Output},
};

pub(super) const COLUMNS: [&str; 5] = ["NUMBER", "TIME", "WHO", "WHAT", "OUTCOME"];

/// What became of a call that began so long ago is not on its way any more.
const UNKNOWN_AFTER: Duration = Duration::from_secs(60);

/// Lists audit records.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl List {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let records = client.audit_records(self.filter.query()).take(limit);
        let records: Vec<LoggedAuditRecord> = records.try_collect().await.map_err(|error| refused("audit records", &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&records.iter().map(view::document).collect::<Vec<_>>()),
            Output::Table { .. } => table(&records),
        }
    }
}

fn table(records: &[LoggedAuditRecord]) -> Result<(), Failure> {
    let read: Vec<_> = records.iter().map(|logged| (logged.number, audit_record(&logged.record))).collect();
    let ends = read.iter().filter_map(|(_, record)| record.as_ref()).filter(|record| !view::is_beginning(record));
    let ends: HashMap<&[u8], &AuditRecord> = ends.map(|record| (record.call.as_ref(), record)).collect();
    let rows = read.iter().map(|(number, record)| match record {
        Some(record) => cells_of(*number, record, ends.get(record.call.as_ref()).copied()),
        None => unreadable(*number),
    });
    output::table(&COLUMNS, rows.collect())
}

/// A record by itself: what comes later is not known.
pub(super) fn cells(logged: &LoggedAuditRecord) -> Vec<String> {
    audit_record(&logged.record).map_or_else(|| unreadable(logged.number), |record| cells_of(logged.number, &record, None))
}

fn unreadable(number: u64) -> Vec<String> {
    vec![number.to_string(), String::new(), String::new(), "not readable by this version".to_owned(), String::new()]
}

fn cells_of(number: u64, record: &AuditRecord, end: Option<&AuditRecord>) -> Vec<String> {
    let what = match record.count {
        0 => record.operation.clone(),
        count => format!("{} {count} times", record.operation),
    };
    let mut outcome = match (view::is_beginning(record), end) {
        (false, _) => record.outcome.clone(),
        (true, Some(end)) => format!("{}: then {}", view::phase(record), end.outcome),
        (true, None) if is_old(record) => format!("{}: unknown", view::phase(record)),
        (true, None) => format!("{}: on its way", view::phase(record)),
    };
    if !record.reason.is_empty() {
        outcome = format!("{outcome} {}", record.reason);
    }
    let who = if record.agent.is_empty() { record.source.clone() } else { record.agent.clone() };
    let about = match record.object_version {
        0 => record.object.clone(),
        version => format!("{} version {version}", record.object),
    };
    let what = match record.change.as_str() {
        "" => format!("{what} {about}"),
        change => format!("{what} {about}: {change}"),
    };
    vec![number.to_string(), view::time(record), who, what.trim_end().to_owned(), outcome]
}

fn is_old(record: &AuditRecord) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Duration::from_micros(u64::try_from(record.at).unwrap_or(0));
    now.saturating_sub(at) > UNKNOWN_AFTER
}
