//! What the parts of the bus share.

use std::sync::Arc;

use acb_hub_core::log::bus::BusError;
use acb_hub_pool::Pool;
use tokio_util::sync::CancellationToken;

use super::{session::Own, wake::Wake};

/// What every part of the bus needs: whose log, where, and how it learns of changes.
#[derive(Clone)]
pub(crate) struct Log {
    pub(super) pool: Pool,
    pub(super) tenant: [u8; 10],
    pub(super) own: Arc<Own>,
    pub(super) wake: Arc<Wake>,
    pub(super) stop: CancellationToken,
}

/// The message that a caller of the bus sees: never more than what failed. Why it did, PostgreSQL's own words say, which go to the log.
pub(super) fn unavailable(what: &str, error: &sqlx::Error) -> BusError {
    tracing::warn!(what, %error, "PostgreSQL did not do what the bus asked");
    BusError::Unavailable(format!("PostgreSQL did not {what}: {}", told(error)))
}

/// What agents may hear of a failure: PostgreSQL's own words name tables, logins and hosts.
pub(super) fn told(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("25006") => "it takes no writes, as a standby does".to_owned(),
            Some(state) => format!("it refused with SQLSTATE {state}"),
            None => "it refused".to_owned(),
        },
        sqlx::Error::PoolTimedOut => "no session was free in time".to_owned(),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => {
            "it answered something else than was asked for".to_owned()
        }
        _ => "it does not answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_hears_has_none_of_postgresql_s_words() {
        let words = || "relation \"acb.bus_record\" at db.internal".to_owned();
        let lost = sqlx::Error::Io(std::io::Error::other(words()));
        for error in
            [lost, sqlx::Error::Protocol(words()), sqlx::Error::Decode(words().into()), sqlx::Error::Encode(words().into())]
        {
            let heard = unavailable("read the log", &error).to_string();
            assert!(heard.starts_with("PostgreSQL did not read the log: it ") && !heard.contains("internal"), "{heard}");
        }
    }
}
