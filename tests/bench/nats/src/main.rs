//! A message of 1 KiB through NATS JetStream, as `acb-bench` measures one through the hub: from the publication until the recipient has it; it
//! acknowledges, the publisher gets its answer, and the next one goes. Prints the percentiles in milliseconds, as JSON.
//! Usage: `acb-bench-nats URL SAMPLES WARM_UP`
#![deny(unsafe_code)]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    stream::{Config, StorageType},
};
use futures::StreamExt as _;
use tokio::time::timeout;

const PAYLOAD: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(30);
const SUBJECT: &str = "bench.receiver";

// The same number of threads as `acb-bench` has.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, samples, warm_up] = arguments.as_slice() else {
        return Err("usage: acb-bench-nats URL SAMPLES WARM_UP".into());
    };
    let (samples, warm_up): (usize, usize) = (samples.parse()?, warm_up.parse()?);
    // A connection for each, as the sender and the recipient of the hub have.
    let sender = jetstream::new(async_nats::connect(url).await?);
    let receiver = jetstream::new(async_nats::connect(url).await?);
    let stream = receiver
        .get_or_create_stream(Config {
            name: "bench".to_owned(),
            subjects: vec!["bench.>".to_owned()],
            storage: StorageType::File,
            ..Config::default()
        })
        .await?;
    stream.purge().await?;
    let consumer = stream
        .get_or_create_consumer(
            "receiver",
            pull::Config {
                durable_name: Some("receiver".to_owned()),
                ack_policy: AckPolicy::Explicit,
                ..pull::Config::default()
            },
        )
        .await?;
    let mut messages = consumer.messages().await?;
    let mut taken = Vec::with_capacity(samples);
    for sample in 0..warm_up + samples {
        let payload = vec![0x5A; PAYLOAD];
        let start = Instant::now();
        let answer = sender.publish(SUBJECT, payload.into()).await?;
        let message = timeout(PATIENCE, messages.next()).await?.ok_or("the consumer ended")??;
        let elapsed = start.elapsed();
        message.ack().await.map_err(|error| error.to_string())?;
        timeout(PATIENCE, answer).await??;
        if sample >= warm_up {
            taken.push(elapsed);
        }
    }
    taken.sort_unstable();
    // The nearest rank.
    let at = |percent: usize| {
        let rank = (taken.len() * percent).div_ceil(100).saturating_sub(1);
        taken.get(rank).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    };
    println!("{}", serde_json::json!({"p50": at(50), "p95": at(95), "p99": at(99)}));
    Ok(())
}
