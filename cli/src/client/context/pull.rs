//! Contexts into files.

use std::{
    fs::Permissions,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use acb_sdk::{Client, Downloaded};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{
    super::{Target, payload, refused},
    transfer::{bar, rate, show},
};
use crate::{
    output::{self, Exit, Failure, Output},
    stop::Stop,
};

/// Fetches the payload of a context into a file, and verifies it.
#[derive(Debug, clap::Args)]
pub(super) struct Pull {
    #[command(flatten)]
    target: Target,
    /// The context.
    id: String,
    /// Where to; `-` is the standard output [default: its `filename`, or its id, in the current folder].
    #[arg(value_name = "DEST")]
    file: Option<PathBuf>,
    /// Replaces the file where there is one.
    #[arg(long)]
    force: bool,
    /// Was how the file was named.
    #[arg(short = 'f', long = "file", hide = true, value_name = "FILE")]
    before: Option<PathBuf>,
}

impl Pull {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        if let Some(file) = &self.before {
            let hint = format!("`--file {0}` is now the second argument: `acb context pull {1} {0}`", file.display(), self.id);
            return Err(Failure::new(Exit::Usage, hint));
        }
        let object = format!("context {:?}", self.id);
        if self.file.as_deref() == Some(Path::new("-")) {
            return self.to_stdout(&object, output).await;
        }
        if let Some(file) = &self.file {
            self.guard(file)?;
        }
        let client = self.target.connect().await?;
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let context = client.context(&self.id).await.map_err(|error| refused(&object, &error))?;
                PathBuf::from(safe_name(context.metadata.get("filename"), &self.id))
            }
        };
        let replaced = self.guard(&file)?;
        let name = file.display().to_string();
        let part = Part::beside(&file);
        let mut writer = part.create(replaced).await.map_err(|error| payload::local(&part.0.display().to_string(), &error))?;
        let started = Instant::now();
        // What there is of a download that is stopped goes with `part`.
        let downloaded = self.fetch(&client, &object, &mut writer, output).await?;
        writer.sync_all().await.map_err(|error| payload::local(&name, &error))?;
        self.guard(&file)?;
        std::fs::rename(&part.0, &file).map_err(|error| payload::local(&name, &error))?;
        let seconds = started.elapsed().as_secs_f64();
        match output {
            Output::Document(syntax) => syntax.document(&json!({
                "id": downloaded.context.id, "file": name, "bytes": downloaded.bytes,
                "sha256": hex::encode(downloaded.sha256), "resumptions": downloaded.resumptions, "seconds": seconds,
            })),
            Output::Table { .. } => {
                let rate = rate(downloaded.bytes, seconds);
                let id = downloaded.context.id;
                output::line(format_args!("Pulled {id} to {name} ({} bytes, {rate}, verified).", downloaded.bytes))
            }
        }
    }

    /// The payload and nothing else. What was written before its checksum was known to be right can't be taken back: the exit code says it.
    async fn to_stdout(&self, object: &str, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let mut writer = tokio::fs::File::from_std(stdout.map_err(Failure::failed)?.into());
        let downloaded = self.fetch(&client, object, &mut writer, output).await?;
        writer.flush().await.map_err(Failure::failed)?;
        output::note(output, &format!("Pulled {} ({} bytes, verified).", downloaded.context.id, downloaded.bytes));
        Ok(())
    }

    async fn fetch(
        &self,
        client: &Client,
        object: &str,
        writer: &mut (impl AsyncWrite + Unpin + Send),
        output: Output,
    ) -> Result<Downloaded, Failure> {
        let bar = bar(output);
        let shown = bar.clone();
        let mut stop = Stop::listen()?;
        let result = tokio::select! {
            result = client.download(&self.id).progress(move |progress| show(&shown, progress)).receive(writer) => result,
            () = stop.asked() => {
                bar.finish_and_clear();
                return Err(Failure::failed(format_args!("{object}: stopped; nothing was kept")));
            }
        };
        bar.finish_and_clear();
        result.map_err(|error| refused(object, &error))
    }

    /// Whether something may be put there; gives the mode of the file that this would replace.
    fn guard(&self, file: &Path) -> Result<Option<u32>, Failure> {
        // Of what a link leads to: it would be the link that is replaced, and what is written was meant for its target.
        let there = file.metadata().ok();
        if there.as_ref().is_some_and(|facts| !facts.is_file()) {
            let message = format!("{} is not a regular file: give another name", file.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        if !self.force && file.symlink_metadata().is_ok() {
            let message = format!("{} exists: give another name, or --force to replace it", file.display());
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
