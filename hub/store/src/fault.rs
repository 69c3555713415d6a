//! What a failed query means to a caller. PostgreSQL's own words go to the log, not to agents.

use acb_hub_core::fault::{Code, Fault};

/// Names the query that failed.
pub(crate) fn fault(query: &'static str, error: sqlx::Error) -> Fault {
    tracing::warn!(query, %error, "query failed");
    let passing = match &error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connections, transactions to repeat, lack of resources, an operator's intervention, logins.
            ["08", "28", "40", "53", "57", "3D"].iter().any(|class| code.starts_with(class))
        }),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
            false
        }
        _ => true,
    };
    if passing {
        Fault::unavailable("POSTGRES_UNAVAILABLE", format!("PostgreSQL did not do {query}: try again"))
    } else {
        Fault::new(Code::Internal, "STORE_FAILED", format!("{query} failed: see the hub's log"))
    }
}
