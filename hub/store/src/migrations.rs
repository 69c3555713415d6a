//! The schema, as ordered migrations. The operator runs them; a hub only compares versions, and is not ready outside of its range.

/// One step of the schema. Only ever added at the end; each only expands for two minor releases.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: u32,
    /// What it brings.
    pub name: &'static str,
    /// Its statements, run in one transaction.
    pub sql: &'static str,
}

/// All of them, oldest first.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "tenancy", sql: include_str!("../migrations/0001_tenancy.sql") },
    Migration { version: 2, name: "agents", sql: include_str!("../migrations/0002_agents.sql") },
    Migration { version: 3, name: "bus", sql: include_str!("../migrations/0003_bus.sql") },
    Migration { version: 4, name: "mailboxes", sql: include_str!("../migrations/0004_mailboxes.sql") },
    Migration { version: 5, name: "contexts", sql: include_str!("../migrations/0005_contexts.sql") },
    Migration { version: 6, name: "lifetimes", sql: include_str!("../migrations/0006_lifetimes.sql") },
    Migration { version: 7, name: "schema-references", sql: include_str!("../migrations/0007_schema_references.sql") },
    Migration { version: 8, name: "sweeps", sql: include_str!("../migrations/0008_sweeps.sql") },
    Migration { version: 9, name: "log-cuts", sql: include_str!("../migrations/0009_log_cuts.sql") },
    Migration { version: 10, name: "positions", sql: include_str!("../migrations/0010_positions.sql") },
    Migration { version: 11, name: "outbox", sql: include_str!("../migrations/0011_outbox.sql") },
    Migration { version: 12, name: "dead-letters", sql: include_str!("../migrations/0012_dead_letters.sql") },
    Migration { version: 13, name: "bus-kind", sql: include_str!("../migrations/0013_bus_kind.sql") },
    Migration { version: 14, name: "retired-topics", sql: include_str!("../migrations/0014_retired_topics.sql") },
    Migration { version: 15, name: "auditor", sql: include_str!("../migrations/0015_auditor.sql") },
    Migration { version: 16, name: "registrations", sql: include_str!("../migrations/0016_registrations.sql") },
    Migration { version: 17, name: "timers", sql: include_str!("../migrations/0017_timers.sql") },
    Migration { version: 18, name: "audit", sql: include_str!("../migrations/0018_audit.sql") },
    Migration { version: 19, name: "timer-attempts", sql: include_str!("../migrations/0019_timer_attempts.sql") },
    Migration { version: 20, name: "message-traces", sql: include_str!("../migrations/0020_message_traces.sql") },
    Migration { version: 21, name: "service-accounts", sql: include_str!("../migrations/0021_service_accounts.sql") },
    Migration { version: 22, name: "credentials", sql: include_str!("../migrations/0022_credentials.sql") },
    Migration { version: 23, name: "usage", sql: include_str!("../migrations/0023_usage.sql") },
    Migration { version: 24, name: "stream-counts", sql: include_str!("../migrations/0024_stream_counts.sql") },
    Migration { version: 25, name: "audit-retention", sql: include_str!("../migrations/0025_audit_retention.sql") },
    Migration { version: 26, name: "request-limits", sql: include_str!("../migrations/0026_request_limits.sql") },
    Migration { version: 27, name: "encryption-keys", sql: include_str!("../migrations/0027_encryption_keys.sql") },
    Migration { version: 28, name: "accounts", sql: include_str!("../migrations/0028_accounts.sql") },
    Migration { version: 29, name: "issuer-overlap", sql: include_str!("../migrations/0029_issuer_overlap.sql") },
    Migration { version: 30, name: "oidc-issuers", sql: include_str!("../migrations/0030_oidc_issuers.sql") },
    Migration { version: 31, name: "operator-acts", sql: include_str!("../migrations/0031_operator_acts.sql") },
    Migration { version: 32, name: "usage-events", sql: include_str!("../migrations/0032_usage_events.sql") },
];

/// The version that this code was written for.
pub const LATEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_no_gaps_and_every_file_is_listed() {
        let versions: Vec<_> = MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, (1..=LATEST).collect::<Vec<_>>());
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count();
        assert_eq!(files, MIGRATIONS.len());
    }
}
