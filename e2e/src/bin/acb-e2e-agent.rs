//! `acb-e2e-agent`: an agent under load, in a pod of a scenario. It sends numbered messages and says which of them the hub acknowledged, or
//! says which arrived; one JSON object a line. SIGTERM ends it in order.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use acb_sdk::{Client, Error, Message};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

/// A hub may be away for less than this.
const PATIENCE: Duration = Duration::from_secs(240);
const TOPIC: &str = "load";

/// An agent under load.
#[derive(Debug, Parser)]
struct Cli {
    /// The hub, as `https://host:port`.
    #[arg(long)]
    server: String,
    /// The tenant's CA.
    #[arg(long)]
    ca: PathBuf,
    /// The agent's API key.
    #[arg(long)]
    api_key_file: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends a message every so often, without waiting for the one before.
    Send {
        to: String,
        #[arg(long)]
        every_ms: u64,
    },
    /// Takes messages, and acknowledges them.
    Receive,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "acb-e2e-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let key = std::fs::read_to_string(&cli.api_key_file)?.parse()?;
    let client = Client::builder().endpoints([cli.server]).ca_pem(std::fs::read(&cli.ca)?).api_key(key).retry_for(PATIENCE);
    let client = client.connect().await?;
    match cli.command {
        Command::Send { to, every_ms } => send(&client, &to, Duration::from_millis(every_ms), &mut stop).await,
        Command::Receive => receive(&client, &mut stop).await,
    }
}

fn say(line: &Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Milliseconds since 1970: what happened on one machine is compared.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// A number is sent once: one that was refused stays refused, and the next is tried.
async fn send(client: &Client, to: &str, every: Duration, stop: &mut Signal) -> Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut outcomes = JoinSet::new();
    let mut number = 0_u64;
    'session: loop {
        let session = client.session().receive(false).reconnect_for(PATIENCE).open().await?;
        say(&json!({"session": session.replica(), "at": now()}));
        loop {
            tokio::select! {
                _ = stop.recv() => {
                    outcomes.join_all().await;
                    say(&json!({"sent": number}));
                    session.close().await;
                    return Ok(());
                }
                Some(_) = outcomes.join_next() => continue,
                _ = ticks.tick() => {}
            }
            number += 1;
            let message = Message::to_agent(to).topic(TOPIC).json(&number);
            match session.sender().enqueue(message).await {
                Ok(receipt) => drop(outcomes.spawn(async move { report(number, receipt.await.map(|sent| sent.message_id)) })),
                Err(error) => {
                    report(number, Err(error));
                    sleep(Duration::from_secs(1)).await;
                    continue 'session;
                }
            }
        }
    }
}

fn report(number: u64, outcome: std::result::Result<String, Error>) {
    match outcome {
        Ok(id) => say(&json!({"acknowledged": number, "id": id, "at": now()})),
        Err(error) => say(&json!({"refused": number, "code": error.code().description(), "why": error.to_string(), "at": now()})),
    }
}

async fn receive(client: &Client, stop: &mut Signal) -> Result<()> {
    let mut session = client.session().reconnect_for(PATIENCE).open().await?;
    say(&json!({"session": session.replica(), "at": now()}));
    loop {
        let received = tokio::select! {
            _ = stop.recv() => {
                session.close().await;
                return Ok(());
            }
            received = session.next() => received?,
        };
        let number: u64 = received.json()?;
        say(&json!({"received": number, "id": received.message().id, "again": received.redelivered(), "at": now()}));
        received.ack();
    }
}
