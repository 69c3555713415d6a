//! The process that both belong to.

use std::{fs, net::IpAddr, path::Path};

use acb_operator::bootstrap::{self, Server};
use acb_testbed::{Kafka, KafkaListener};
use clap::ValueEnum as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
};

use super::{Backends, DONE, Order, path, postgres::Postgres, socket};
use crate::{
    error::{Error, Result, at, wrong},
    place::{Place, write_private},
};

struct Both {
    kafka: Kafka,
    postgres: Postgres,
}

/// Runs both until SIGTERM.
pub(crate) async fn serve(place: &Place, host: IpAddr) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).map_err(at("SIGTERM"))?;
    let mut postgres = Postgres::new(place, host)?;
    postgres.start().await?;
    let postgres_password = random()?;
    let warnings = bootstrap::bootstrap(postgres.running()?.superuser(), &postgres_password, Server::Exclusive).await;
    warnings.map_err(|error| Error::Wrong(error.to_string()))?;
    let kafka = Kafka::start_on(KafkaListener::Tls, host).await;
    let backends = Backends {
        host,
        postgres_port: postgres.running()?.port(),
        postgres_ca: postgres.ca.clone(),
        postgres_password,
        postgres_superuser_password: postgres.superuser_password()?,
        kafka_bootstrap: kafka.bootstrap_servers(),
        kafka_ca: kafka.ca_pem().unwrap_or_default().to_owned(),
        kafka_user: Kafka::ADMIN.to_owned(),
        kafka_password: kafka.admin_password().to_owned(),
        kafka_log: kafka.log(),
        postgres_log: postgres.log(),
    };
    let listener = listen(&socket())?;
    // Whole when it is there.
    let draft = place.run().join("backends.json.new");
    write_private(&draft, &serde_json::to_string_pretty(&backends)?)?;
    fs::rename(&draft, path(place)).map_err(at(path(place)))?;
    let mut both = Both { kafka, postgres };
    loop {
        tokio::select! {
            _ = end.recv() => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted.map_err(at(socket()))?;
                both.obey(stream).await;
            }
        }
    }
    let _ = fs::remove_file(socket());
    both.postgres.stop().await;
    Ok(())
}

fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let _ = fs::remove_file(path);
    UnixListener::bind(path).map_err(at(path))
}

impl Both {
    /// One order, and an answer to it.
    async fn obey(&mut self, mut stream: UnixStream) {
        let mut text = String::new();
        if stream.read_to_string(&mut text).await.is_err() {
            return;
        }
        let done = match Order::from_str(&text, false) {
            Ok(order) => self.carry_out(order).await,
            Err(error) => wrong(error),
        };
        let answer = done.map_or_else(|error| error.to_string(), |()| DONE.to_owned());
        // Who asked may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    async fn carry_out(&mut self, order: Order) -> Result<()> {
        match order {
            Order::StopKafka => self.kafka.kill(),
            Order::StartKafka => self.kafka.launch().await,
            Order::LoseKafka => self.kafka.lose().await,
            Order::StopPostgres => self.postgres.stop().await,
            Order::StartPostgres => self.postgres.start().await?,
            Order::LosePostgres => self.postgres.lose(None).await?,
            Order::LosePostgresTo17 => self.postgres.lose(Some("17")).await?,
        }
        Ok(())
    }
}

/// 192 random bits, as hex.
pub(crate) fn random() -> Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| Error::Wrong(format!("no random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}
