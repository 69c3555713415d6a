//! What a failed query means to a caller. PostgreSQL's own words, and the query's name, go to the log and not to agents.

use acb_hub_core::fault::{Code, Fault};

use crate::kit::query_timer::Running;

/// The reason where PostgreSQL takes no writes.
pub const READ_ONLY: &str = "POSTGRES_READ_ONLY";

impl Running<'_> {
    /// What the query's failure means.
    pub(crate) fn fault(&self, error: sqlx::Error) -> Fault {
        tracing::warn!(query = self.name(), %error, "query failed");
        match kind(&error) {
            Kind::ReadOnly => read_only(),
            Kind::Passing => Fault::unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL did not answer as it should: try again"),
            Kind::Lasting => {
                Fault::new(Code::Internal, "STORE_FAILED", "PostgreSQL refused what the hub asked: see the hub's log")
            }
        }
    }
}

/// As a standby does, or a server that was told to.
pub(crate) fn read_only() -> Fault {
    Fault::unavailable(READ_ONLY, "PostgreSQL takes no writes, as a standby does, or a server whose disk is full: try again")
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    ReadOnly,
    /// Another attempt may work.
    Passing,
    /// It would fail again.
    Lasting,
}

fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => error.code().map_or(Kind::Lasting, |code| of_state(&code)),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::Encode(_) => {
            Kind::Lasting
        }
        _ => Kind::Passing,
    }
}

/// By SQLSTATE.
fn of_state(code: &str) -> Kind {
    // Connections, logins, a missing database, transactions to repeat, lack of resources, an operator's intervention, the server's disk; a
    // transaction that was idle for too long, a lock that was not free.
    const PASSING: [&str; 10] = ["08", "28", "3D", "40", "53", "57", "58", "25P03", "25P04", "55P03"];
    match code {
        "25006" => Kind::ReadOnly,
        _ if PASSING.iter().any(|class| code.starts_with(class)) => Kind::Passing,
        _ => Kind::Lasting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_wrong_is_not() {
        let passing =
            ["08006", "28P01", "3D000", "40001", "40P01", "53100", "53300", "57014", "57P01", "57P03", "58030", "25P03", "55P03"];
        for code in passing {
            assert_eq!(of_state(code), Kind::Passing, "{code}");
        }
        for code in ["23505", "42501", "42P01", "22P02", "25001", "25P02", "XX001"] {
            assert_eq!(of_state(code), Kind::Lasting, "{code}");
        }
        assert_eq!(of_state("25006"), Kind::ReadOnly);
        assert_eq!(kind(&sqlx::Error::PoolTimedOut), Kind::Passing);
        assert_eq!(kind(&sqlx::Error::Decode("no such enum".into())), Kind::Lasting);
    }
}
