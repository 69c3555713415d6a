//! A large context, whose replica is killed halfway.

use std::{
    io::{Cursor, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest as _, Sha256};

use crate::{
    Failure,
    event::{Event, Recorder},
    stage::{Killed, Pods, Stage, Tenant},
    tell,
};

const SIZE: usize = 64 << 20;

/// What the attacks are about to try to get.
pub(crate) struct Streamed {
    pub(crate) context_id: String,
    pub(crate) upload_id: String,
}

pub(crate) async fn run(stage: &Stage, acme: &Tenant, recorder: &Recorder) -> Result<Streamed, Failure> {
    let payload = payload();
    let sha256 = hex::encode(Sha256::digest(&payload));
    recorder.record(Event::StreamStarted { bytes: SIZE as u64, sha256 })?;
    tell(format!("{} MiB are streamed; the replica that takes them is killed halfway", SIZE >> 20));

    let client = acme.client("supervisor", &acme.endpoints).await?;
    let bar = bar(SIZE as u64)?;
    let outage: Arc<Mutex<Outage>> = Arc::default();
    let upload = client.upload("documents", Cursor::new(payload), SIZE as u64).metadata("name", "random.bin").progress({
        let (bar, outage, client, pods, recorder) =
            (bar.clone(), outage.clone(), client.clone(), stage.pods("acme"), recorder.clone());
        move |progress| {
            bar.set_position(progress.bytes);
            outage.lock().unwrap_or_else(PoisonError::into_inner).watch(progress.bytes, client.replica(), &pods, &recorder);
        }
    });
    let upload_id = upload.id().to_owned();
    let start = Instant::now();
    let uploaded = upload.send().await?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let (killed, first_replica_back) = std::mem::take(&mut *outage.lock().unwrap_or_else(PoisonError::into_inner)).end()?;
    tell(format!("  killed {} (process {}) halfway", killed.replica, killed.pid));
    let resumption = uploaded.resumptions.first().ok_or_else(|| Failure("the stream was not resumed".to_owned()))?;
    recorder.record(Event::StreamResumed {
        from_chunk: resumption.from_chunk,
        replica: resumption.replica.clone(),
        first_replica_back,
    })?;
    tell(format!("  resumed from chunk {} on {}", resumption.from_chunk, resumption.replica));
    recorder.record(Event::StreamFinished { context_id: uploaded.context.id.clone(), bytes: uploaded.bytes, seconds })?;

    // Another agent reads it back: the checksum is of what it got, not of what anyone says that it got.
    let reader = acme.client("worker-b", &acme.endpoints).await?;
    let mut sink = Cursor::new(Vec::with_capacity(SIZE));
    let start = Instant::now();
    let read = reader.download(&uploaded.context.id).receive(&mut sink).await?;
    let seconds = start.elapsed().as_secs_f64();
    let sha256 = hex::encode(Sha256::digest(sink.get_ref()));
    tell(format!("  worker-b reads {} MiB back in {seconds:.1} s: SHA-256 {}…", read.bytes >> 20, &sha256[..16]));
    recorder.record(Event::StreamRead { bytes: read.bytes, sha256, seconds })?;
    Ok(Streamed { context_id: uploaded.context.id, upload_id })
}

/// The replica that takes the stream, killed halfway, as the stream's progress shows it.
#[derive(Default)]
enum Outage {
    #[default]
    Ahead,
    Down(Killed),
    /// The stream goes on elsewhere. Was the first replica back by then?
    Over(Killed, bool),
    Failed(Failure),
}

impl Outage {
    fn watch(&mut self, bytes: u64, replica: Option<String>, pods: &Pods, recorder: &Recorder) {
        *self = match (std::mem::take(self), replica) {
            (Self::Ahead, Some(replica)) if bytes >= SIZE as u64 / 2 => match pods.kill(&replica) {
                Ok(killed) => {
                    let event = Event::ReplicaKilled { replica, pid: killed.pid, stored_bytes: bytes };
                    recorder.record(event).map_or_else(Self::Failed, |()| Self::Down(killed))
                }
                Err(failure) => Self::Failed(failure),
            },
            (Self::Down(killed), Some(replica)) if replica != killed.replica => {
                let back = pods.is_back(&killed);
                Self::Over(killed, back)
            }
            (state, _) => state,
        }
    }

    fn end(self) -> Result<(Killed, bool), Failure> {
        match self {
            Self::Over(killed, back) => Ok((killed, back)),
            Self::Failed(failure) => Err(failure),
            Self::Ahead => Err(Failure("no replica was killed: the stream did not say which one takes it".to_owned())),
            Self::Down(killed) => Err(Failure(format!("the stream did not go on after {} was killed", killed.replica))),
        }
    }
}

/// Bytes that do not compress and that do not repeat from chunk to chunk: xorshift64*, seeded.
fn payload() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut payload = Vec::with_capacity(SIZE);
    while payload.len() < SIZE {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        payload.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    payload
}

fn bar(total: u64) -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("  {bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
        .map_err(|error| Failure(error.to_string()))?;
    let target = if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    Ok(ProgressBar::with_draw_target(Some(total), target).with_style(style))
}
