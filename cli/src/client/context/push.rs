//! Files into contexts, as streams that go on where they broke.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use acb_sdk::Upload;
use serde_json::json;

use super::{
    super::{Target, payload, refused},
    description::Description,
    transfer::{bar, rate, show},
};
use crate::{
    output::{self, Exit, Failure, Output},
    stop::Stop,
};

/// Streams a file of at most 100 MiB into a context; goes on by itself where the connection breaks.
#[derive(Debug, clap::Args)]
pub(super) struct Push {
    #[command(flatten)]
    target: Target,
    /// The file. What has no end of its own, as a pipe has none before it is read, goes to `acb context share -`.
    file: PathBuf,
    #[command(flatten)]
    description: Description,
    /// Goes on with the upload of this id, which an earlier push of the same file, with the same options, named when it ended.
    #[arg(long, value_name = "UPLOAD_ID")]
    resume: Option<String>,
}

impl Push {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let name = self.file.display().to_string();
        // Before any connection: a wrong name should not wait for a hub. And before it is opened: that of a pipe without a writer waits for ever.
        let facts = std::fs::metadata(&self.file).map_err(|error| payload::local(&name, &error))?;
        if !facts.is_file() {
            return Err(Failure::new(Exit::Usage, format_args!("{name} is not a regular file: use `acb context share`")));
        }
        std::fs::File::open(&self.file).map_err(|error| payload::local(&name, &error))?;
        let client = self.target.connect().await?;
        let mut upload =
            client.upload_file(&self.description.r#type, &self.file).await.map_err(|error| refused(&name, &error))?;
        if let Some(filename) = filename(&self.file) {
            upload = upload.metadata("filename", filename);
        }
        if let Some(id) = self.resume {
            upload = upload.upload_id(id);
        }
        stream(self.description.describe(upload, "application/octet-stream"), &name, true, output).await
    }
}

/// The name that a file is fetched under later.
pub(super) fn filename(file: &Path) -> Option<&str> {
    file.file_name().and_then(|filename| filename.to_str())
}

/// Uploads, with a bar. What `can_resume` is told its id where it ends too early.
pub(super) async fn stream(upload: Upload<tokio::fs::File>, name: &str, can_resume: bool, output: Output) -> Result<(), Failure> {
    let (bar, started) = (bar(output), Instant::now());
    let shown = bar.clone();
    let upload = upload.progress(move |progress| show(&shown, progress));
    let advice = if can_resume { format!("; go on later with --resume {}", upload.id()) } else { String::new() };
    let mut stop = Stop::listen()?;
    let result = tokio::select! {
        result = upload.send() => Some(result),
        () = stop.asked() => None,
    };
    bar.finish_and_clear();
    let Some(result) = result else {
        return Err(Failure::failed(format_args!("{name}: stopped{advice}")));
    };
    let uploaded = result.map_err(|error| {
        let failure = refused(name, &error);
        if error.is_retryable() { Failure::new(Exit::Unavailable, format_args!("{failure}{advice}")) } else { failure }
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let resumed = uploaded.resumed_from_chunk();
    match output {
        Output::Document(syntax) => syntax.document(&json!({
            "id": uploaded.context.id, "bytes": uploaded.bytes, "sha256": hex::encode(uploaded.sha256),
            "resumedFromChunk": resumed, "resumptions": uploaded.resumptions, "replicas": uploaded.replicas, "seconds": seconds,
        })),
        Output::Table { .. } => {
            let resumed = resumed.map(|chunk| format!(", resumed from chunk {chunk}")).unwrap_or_default();
            let rate = rate(uploaded.bytes, seconds);
            output::line(format_args!("Pushed {name} as {} ({} bytes, {rate}{resumed}).", uploaded.context.id, uploaded.bytes))
        }
    }
}
