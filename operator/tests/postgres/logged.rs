//! What this process logs of statements.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_operator::bootstrap::{self, Server};
use acb_testbed::{Postgres, Version};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

#[tokio::test]
async fn no_verifier_is_logged_however_slow_its_statement_is() {
    let pg = Postgres::start(Version::Installed).await;
    let log = Log::default();
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || to.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let slow = pg.server().superuser().clone().log_slow_statements("warn".parse().unwrap(), Duration::ZERO);
    let mut connection = PgConnection::connect_with(&slow).await.unwrap();
    sqlx::raw_sql("SELECT 'as any other'").execute(&mut connection).await.unwrap();
    assert!(log.text().contains("as any other"), "a slow statement is logged: {}", log.text());
    connection.close().await.unwrap();
    bootstrap::bootstrap(&slow, "another", Server::Exclusive).await.unwrap();
    assert!(!log.text().contains("SCRAM-SHA-256$"), "{}", log.text());
}
