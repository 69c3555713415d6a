//! What happened, as it happened: the only source of the report. One JSON object a line.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use acb_isolation::Row;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Event {
    /// A tenant's hubs are ready.
    TenantReady { tenant: String, endpoints: Vec<String> },
    /// An agent's session is open, on this replica.
    Connected { agent: String, replica: String },
    /// The hub has acknowledged a message. `recipients` is who must get it.
    Sent { id: String, from: String, recipients: Vec<String>, topic: String },
    /// An agent has got a message. `latency_us` is from the call that sent it, where that was measured.
    Delivered { id: String, to: String, topic: String, redelivered: bool, latency_us: Option<u64> },
    /// The supervisor has every answer.
    Answered { documents: usize, words: u64, words_expected: u64 },
    /// A payload is about to be streamed.
    StreamStarted { bytes: u64, sha256: String },
    /// This many bytes are stored.
    StreamStored { bytes: u64 },
    /// The replica that took the stream was killed.
    ReplicaKilled { replica: String, pid: i32, stored_bytes: u64 },
    /// The stream went on.
    StreamResumed { from_chunk: u32, replica: String, first_replica_back: bool },
    /// The hub has the whole.
    StreamFinished { context_id: String, bytes: u64, seconds: f64 },
    /// It was read back, and this is what came.
    StreamRead { bytes: u64, sha256: String, seconds: f64 },
    /// The other tenant tried something.
    Attacked { row: Row },
    /// The end.
    Finished { seconds: f64 },
}

/// One line of the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Microseconds since the start.
    pub(crate) at_us: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// Writes events down. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    start: Instant,
    path: PathBuf,
    file: Arc<Mutex<BufWriter<File>>>,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        Ok(Self { start: Instant::now(), path: path.to_owned(), file: Arc::new(Mutex::new(BufWriter::new(file))) })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn record(&self, event: Event) -> Result<(), Failure> {
        let entry = Entry { at_us: u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX), event };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::to_writer(&mut *file, &entry).map_err(|error| Failure(format!("{}: {error}", self.path.display())))?;
        file.write_all(b"\n").map_err(|error| Failure(format!("{}: {error}", self.path.display())))
    }

    pub(crate) fn flush(&self) -> Result<(), Failure> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().map_err(|error| Failure(format!("{}: {error}", self.path.display())))
    }
}

/// Reads a record from its file.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    let failed = |error: String| Failure(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    BufReader::new(file)
        .lines()
        .map(|line| {
            let line = line.map_err(|error| failed(error.to_string()))?;
            serde_json::from_str(&line).map_err(|error| failed(error.to_string()))
        })
        .collect()
}
