//! PostgreSQL and Kafka beside the cluster, as a platform team has them: TLS, SCRAM, prepared by `acb bootstrap`. They end with the process
//! that started them, so they have one of their own: `acb-e2e backends`. What happens to them there is ordered over its socket.

mod postgres;
mod server;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub(crate) use self::server::{random, serve};
use crate::{
    error::{Result, at, wrong},
    place::{Place, SOCKETS},
    process::Daemon,
    say,
    state::State,
};

/// A server starts, or is emptied, within this.
const ORDER_WITHIN: Duration = Duration::from_secs(120);
const DONE: &str = "done";

/// How they are reached. Without `Debug`: it holds passwords. In `target/e2e/run/backends.json`, for its owner alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Backends {
    pub(crate) host: IpAddr,
    pub(crate) postgres_port: u16,
    pub(crate) postgres_ca: String,
    /// Of `acb_operator`.
    pub(crate) postgres_password: String,
    /// Of `postgres`, the superuser.
    pub(crate) postgres_superuser_password: String,
    pub(crate) kafka_bootstrap: String,
    pub(crate) kafka_ca: String,
    pub(crate) kafka_user: String,
    pub(crate) kafka_password: String,
    kafka_log: PathBuf,
    postgres_log: PathBuf,
}

/// What may befall them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// The broker ends as by a crash.
    StopKafka,
    /// It is there again, with what it held.
    StartKafka,
    /// It is there again, at the same address, and holds nothing.
    LoseKafka,
    /// The server ends, and every session with it.
    StopPostgres,
    /// It is there again, with what it held.
    StartPostgres,
    /// Another is there at the same address, of the same version, and holds nothing.
    LosePostgres,
    /// The same, of version 17.
    LosePostgresTo17,
}

impl Order {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

fn path(place: &Place) -> PathBuf {
    place.run().join("backends.json")
}

impl Backends {
    /// Those that run.
    pub(crate) fn read(place: &Place) -> Result<Self> {
        let path = path(place);
        Ok(serde_json::from_slice(&fs::read(&path).map_err(at(&path))?)?)
    }
}

/// Starts both, in a process of their own, and waits until they take connections.
pub(crate) fn start(place: &Place, state: &mut State, host: IpAddr) -> Result<()> {
    let _ = fs::remove_file(path(place));
    let program = std::env::current_exe().map_err(at("acb-e2e"))?;
    let daemon: Daemon = state.start("backends", Command::new(program).args(["backends", "--host", &host.to_string()]))?;
    daemon.wait(120, || path(place).exists())
}

/// Keeps what both said beside the daemons' logs.
pub(crate) fn keep_logs(place: &Place) {
    let Ok(backends) = Backends::read(place) else { return };
    for (from, name) in [(backends.kafka_log, "kafka.log"), (backends.postgres_log, "postgres.log")] {
        if let Err(error) = fs::copy(&from, place.logs().join(name)) {
            say(&format!("{}: {error}", from.display()));
        }
    }
}

fn socket() -> PathBuf {
    PathBuf::from(SOCKETS).join("backends.sock")
}

/// Has it done, and waits until it is.
pub(crate) fn order(order: Order) -> Result<()> {
    let path = socket();
    let mut stream = UnixStream::connect(&path).map_err(at(&path))?;
    stream.set_read_timeout(Some(ORDER_WITHIN)).map_err(at(&path))?;
    stream.write_all(order.name().as_bytes()).map_err(at(&path))?;
    stream.shutdown(Shutdown::Write).map_err(at(&path))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(at(&path))?;
    if answer == DONE { Ok(()) } else { wrong(format!("{}: {answer}: its log is backends.log", order.name())) }
}
