//! How long a message takes from one agent to another that is connected to the other replica.

use std::time::{Duration, Instant};

use acb_sdk::Message;
use tokio::time::timeout;

use crate::{
    Failure,
    documents::{record_delivered, record_sent},
    event::Recorder,
    stage::Tenant,
    tell,
};

const SAMPLES: usize = 500;
const WARM_UP: usize = 20;
const PAYLOAD: usize = 512;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(acme: &Tenant, recorder: &Recorder) -> Result<(), Failure> {
    tell(format!("{SAMPLES} messages of {PAYLOAD} bytes, one by one, from worker-a to worker-b on the other replica"));
    let (first, second) = acme.two_endpoints()?;
    let sender = acme.client("worker-a", &[first]).await?.session().receive(false).open().await?;
    let mut receiver = acme.client("worker-b", &[second]).await?.session().open().await?;
    for sample in 0..WARM_UP + SAMPLES {
        let start = Instant::now();
        let message = Message::to_agent("worker-b").topic("ping").bytes("application/octet-stream", vec![0; PAYLOAD]);
        let (sent, received) = tokio::join!(sender.send(message), timeout(PATIENCE, receiver.next()));
        let received = received.map_err(|_| Failure(format!("sample {sample} did not arrive")))??;
        record_sent(recorder, &sent?.message_id, "worker-a", &["worker-b"], "ping")?;
        let latency = (sample >= WARM_UP).then(|| u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        record_delivered(recorder, received.message(), "worker-b", received.redelivered(), latency)?;
        received.ack();
    }
    sender.close().await;
    receiver.close().await;
    Ok(())
}
