//! Transactions.

use std::ops;

use sqlx::{Error, Executor as _};

use crate::session::Session;

/// A transaction. Rolled back where it is dropped.
#[derive(Debug)]
pub struct Transaction(pub(crate) Session);

impl Transaction {
    /// Makes it durable.
    ///
    /// # Errors
    /// As any query: whether it was committed is not known then.
    pub async fn commit(self) -> Result<(), Error> {
        self.end("COMMIT").await
    }

    /// Undoes it.
    ///
    /// # Errors
    /// As any query.
    pub async fn rollback(self) -> Result<(), Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<(), Error> {
        self.0.execute(how).await?;
        self.0.in_transaction(false);
        Ok(())
    }
}

impl ops::Deref for Transaction {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl ops::DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.0
    }
}
