//! How a record is shown.

use acb_sdk::{
    audit_record,
    v1::{AuditPhase, AuditRecord, LoggedAuditRecord},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// What the bytes of a record say. A reader takes nothing else from a file, and nothing twice: what stands there is compared with the bytes.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Says {
    at: String,
    call: String,
    phase: String,
    replica: String,
    operation: String,
    agent: String,
    agent_id: String,
    key: String,
    object: String,
    version: u64,
    bytes: u64,
    source: String,
    outcome: String,
    reason: String,
    correlation_id: String,
    count: u64,
    /// Left out where there is none: files of before it was there are read, too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    change: String,
}

impl Says {
    pub(super) fn of(record: &AuditRecord) -> Self {
        let record = record.clone();
        Self {
            at: time(&record),
            call: id(&record.call),
            phase: phase(&record),
            agent_id: id(&record.agent_id),
            replica: record.replica,
            operation: record.operation,
            agent: record.agent,
            key: record.key,
            object: record.object,
            version: record.object_version,
            bytes: record.bytes,
            source: record.source,
            outcome: record.outcome,
            reason: record.reason,
            correlation_id: record.correlation_id,
            count: record.count,
            change: record.change,
        }
    }
}

/// The whole of a record, with the bytes that are the leaf. What is exported is this.
pub(super) fn document(logged: &LoggedAuditRecord) -> Value {
    let (record, leaf) = (BASE64_STANDARD.encode(&logged.record), BASE64_STANDARD.encode(&logged.leaf_hash));
    let mut value = json!({"number": logged.number, "record": record, "leafHash": leaf});
    if let Some(read) = audit_record(&logged.record) {
        value["says"] = json!(Says::of(&read));
    }
    value
}

pub(super) fn phase(record: &AuditRecord) -> String {
    record.phase().as_str_name().trim_start_matches("AUDIT_PHASE_").to_lowercase()
}

/// Whether something follows, where all goes well.
pub(super) fn is_beginning(record: &AuditRecord) -> bool {
    matches!(record.phase(), AuditPhase::Intent | AuditPhase::Begin)
}

pub(super) fn time(record: &AuditRecord) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(record.at) * 1000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

fn id(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map(|id| id.to_string()).unwrap_or_default()
}
