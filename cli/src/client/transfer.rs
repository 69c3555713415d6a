//! Files into contexts, and contexts into files.

use std::{
    fs::Permissions,
    io::IsTerminal as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use acb_sdk::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Target, description::Description, payload, refused};
use crate::{
    output::{self, Exit, Failure, Output},
    stop::Stop,
};

/// Streams a file of at most 100 MiB into a context; goes on by itself where the connection breaks.
#[derive(Debug, clap::Args)]
pub(crate) struct Push {
    #[command(flatten)]
    target: Target,
    /// The file.
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
        // Before any connection: a wrong name should not wait for a hub.
        std::fs::File::open(&self.file).map_err(|error| payload::local(&name, &error))?;
        let client = self.target.connect().await?;
        let mut upload =
            client.upload_file(&self.description.r#type, &self.file).await.map_err(|error| refused(&name, &error))?;
        if let Some(filename) = self.file.file_name().and_then(|filename| filename.to_str()) {
            upload = upload.metadata("filename", filename);
        }
        if let Some(id) = self.resume {
            upload = upload.upload_id(id);
        }
        let (bar, started) = (bar(output), Instant::now());
        let shown = bar.clone();
        let upload =
            self.description.describe(upload, "application/octet-stream").progress(move |progress| show(&shown, progress));
        let id = upload.id().to_owned();
        let mut stop = Stop::listen()?;
        let result = tokio::select! {
            result = upload.send() => Some(result),
            () = stop.asked() => None,
        };
        bar.finish_and_clear();
        let Some(result) = result else {
            return Err(Failure::failed(format_args!("{name}: stopped; go on later with --resume {id}")));
        };
        let uploaded = result.map_err(|error| {
            let failure = refused(&name, &error);
            if error.is_retryable() {
                Failure::new(Exit::Unavailable, format_args!("{failure}; go on later with --resume {id}"))
            } else {
                failure
            }
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let resumed = uploaded.resumed_from_chunk();
        match output {
            Output::Json => output::json(&json!({
                "contextId": uploaded.context.id, "bytes": uploaded.bytes, "sha256": hex::encode(uploaded.sha256),
                "resumedFromChunk": resumed, "resumptions": uploaded.resumptions, "replicas": uploaded.replicas, "seconds": seconds,
            })),
            Output::Table => {
                let resumed = resumed.map(|chunk| format!(", resumed from chunk {chunk}")).unwrap_or_default();
                let rate = rate(uploaded.bytes, seconds);
                output::line(format_args!(
                    "Pushed {name} as {} ({} bytes, {rate}{resumed}).",
                    uploaded.context.id, uploaded.bytes
                ))
            }
        }
    }
}

/// Streams the payload of a context into a file, and verifies it.
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    target: Target,
    /// The context.
    context_id: String,
    /// Where to; default: its `filename`, or its id, in the current folder.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replaces the file where there is one.
    #[arg(long)]
    force: bool,
}

impl Pull {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let object = format!("context {:?}", self.context_id);
        if let Some(file) = &self.file {
            self.guard(file)?;
        }
        let client = self.target.connect().await?;
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let context = client.context(&self.context_id).await.map_err(|error| refused(&object, &error))?;
                PathBuf::from(safe_name(context.metadata.get("filename"), &self.context_id))
            }
        };
        let replaced = self.guard(&file)?;
        let name = file.display().to_string();
        let part = Part::beside(&file);
        let mut writer = part.create(replaced).await.map_err(|error| payload::local(&part.0.display().to_string(), &error))?;
        let (bar, started) = (bar(output), Instant::now());
        let shown = bar.clone();
        let mut stop = Stop::listen()?;
        let result = tokio::select! {
            result = client.download(&self.context_id).progress(move |progress| show(&shown, progress)).receive(&mut writer) => result,
            // What there is of it goes with the value above.
            () = stop.asked() => {
                bar.finish_and_clear();
                return Err(Failure::failed(format_args!("{object}: stopped; nothing was kept")));
            }
        };
        bar.finish_and_clear();
        let downloaded = result.map_err(|error| refused(&object, &error))?;
        writer.sync_all().await.map_err(|error| payload::local(&name, &error))?;
        self.guard(&file)?;
        std::fs::rename(&part.0, &file).map_err(|error| payload::local(&name, &error))?;
        let seconds = started.elapsed().as_secs_f64();
        match output {
            Output::Json => output::json(&json!({
                "contextId": downloaded.context.id, "file": name, "bytes": downloaded.bytes,
                "sha256": hex::encode(downloaded.sha256), "resumptions": downloaded.resumptions, "seconds": seconds,
            })),
            Output::Table => {
                let rate = rate(downloaded.bytes, seconds);
                output::line(format_args!(
                    "Pulled {} to {name} ({} bytes, {rate}, verified).",
                    downloaded.context.id, downloaded.bytes
                ))
            }
        }
    }

    /// Whether something may be put there; gives the mode of the file that this would replace.
    fn guard(&self, file: &Path) -> Result<Option<u32>, Failure> {
        // Of what a link leads to: it would be the link that is replaced, and what is written was meant for its target.
        let there = file.metadata().ok();
        if there.as_ref().is_some_and(|facts| !facts.is_file()) {
            let message = format!("{} is not a regular file: give another name with --file", file.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        if !self.force && file.symlink_metadata().is_ok() {
            let message = format!("{} exists: give another name with --file, or --force to replace it", file.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(there.map(|facts| facts.permissions().mode() & 0o777))
    }
}

/// A file that is not whole yet. Removed where it never becomes so.
struct Part(PathBuf);

impl Part {
    fn beside(file: &Path) -> Self {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("acb");
        Self(file.with_file_name(format!(".{name}.{}.part", uuid::Uuid::new_v4().simple())))
    }

    /// With this mode; never open to more, not even for a moment.
    async fn create(&self, mode: Option<u32>) -> std::io::Result<tokio::fs::File> {
        let mut options = tokio::fs::File::options();
        options.write(true).create_new(true);
        let Some(mode) = mode else { return options.open(&self.0).await };
        let file = options.mode(mode).open(&self.0).await?;
        // The umask may have taken something away.
        file.set_permissions(Permissions::from_mode(mode)).await?;
        Ok(file)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a success it has been renamed, and there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The name that another agent gave, without anything that could lead out of the folder or hide the file.
fn safe_name(given: Option<&String>, id: &str) -> String {
    let last = given.and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    match last {
        Some(name) if !name.starts_with('.') && !name.contains(|c: char| c.is_control()) => name.to_owned(),
        _ => id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect(),
    }
}

fn bar(output: Output) -> ProgressBar {
    if output == Output::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.bytes);
}

fn rate(bytes: u64, seconds: f64) -> String {
    // Precise enough: a payload has at most 100 MiB.
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    format!("{:.1} MB/s", megabytes / seconds.max(0.001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_elsewhere_stays_in_the_folder() {
        let given = |name: &str| safe_name(Some(&name.to_owned()), "0198-ab/../x");
        assert_eq!(given("report.pdf"), "report.pdf");
        assert_eq!(given("../../etc/passwd"), "passwd");
        assert_eq!(given("/etc/cron.d/x"), "x");
        for name in ["..", ".bashrc", "", "a\x1b[2J"] {
            assert_eq!(given(name), "0198-abx", "{name:?}");
        }
    }
}
