//! A payload becomes a context, by whichever way fits its size.

use std::{
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

use super::{
    super::{
        Target,
        payload::{self, MOST as INLINE},
        refused,
    },
    description::Description,
    push,
    view::view,
};
use crate::output::{self, Exit, Failure, Output};

/// What can be streamed into one.
const MOST: u64 = 100 << 20;

/// Shares a file, or the standard input, as a context: inline up to 1 MiB, streamed up to 100 MiB.
#[derive(Debug, clap::Args)]
pub(super) struct Share {
    #[command(flatten)]
    target: Target,
    /// The file; `-` is the standard input.
    file: PathBuf,
    #[command(flatten)]
    description: Description,
}

/// What was read of it.
enum Content {
    Inline(Vec<u8>),
    /// In a file without a name: what comes from a pipe can't be read again where a connection breaks.
    Streamed(std::fs::File, u64),
}

impl Share {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let name = if self.file == Path::new("-") { "standard input".to_owned() } else { self.file.display().to_string() };
        let file = self.file.clone();
        // A pipe may take its time.
        let content = tokio::task::spawn_blocking(move || Content::read(&file)).await.map_err(Failure::failed)?;
        let content = content.map_err(|failure| failure.of(&name))?;
        let object = format!("{name} as {:?}", self.description.r#type);
        let client = self.target.connect().await?;
        match content {
            Content::Inline(bytes) => {
                let content_type = payload::content_type(&bytes);
                let share = client.share(&self.description.r#type, bytes);
                let context = self.description.describe(share, content_type).send().await;
                let context = context.map_err(|error| refused(&object, &error))?;
                match output {
                    Output::Document(syntax) => syntax.document(&view(&context)),
                    Output::Table { .. } => output::line(format_args!("Shared {} ({} bytes).", context.id, context.size)),
                }
            }
            Content::Streamed(file, size) => {
                let mut upload = client.upload(&self.description.r#type, tokio::fs::File::from_std(file), size);
                if let Some(filename) = push::filename(&self.file).filter(|filename| *filename != "-") {
                    upload = upload.metadata("filename", filename);
                }
                push::stream(self.description.describe(upload, "application/octet-stream"), &name, false, output).await
            }
        }
    }
}

/// Why it could not be read.
enum Unread {
    Io(std::io::Error),
    TooLarge,
}

impl From<std::io::Error> for Unread {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl Unread {
    fn of(self, name: &str) -> Failure {
        match self {
            Self::Io(error) => payload::local(name, &error),
            Self::TooLarge => {
                Failure::new(Exit::Usage, format_args!("{name}: more than {MOST} bytes (100 MiB) can't be shared: split it"))
            }
        }
    }
}

impl Content {
    fn read(path: &Path) -> Result<Self, Unread> {
        if path == Path::new("-") {
            return Self::of(std::io::stdin().lock());
        }
        let file = std::fs::File::open(path)?;
        let facts = file.metadata()?;
        match facts.len() {
            size if !facts.is_file() || size <= INLINE => Self::of(file),
            size if size > MOST => Err(Unread::TooLarge),
            size => Ok(Self::Streamed(file, size)),
        }
    }

    /// Of what may not be read twice.
    fn of(mut source: impl Read) -> Result<Self, Unread> {
        let mut bytes = Vec::new();
        source.by_ref().take(INLINE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= INLINE {
            return Ok(Self::Inline(bytes));
        }
        let mut file = tempfile::tempfile()?;
        file.write_all(&bytes)?;
        let rest = std::io::copy(&mut source.take(MOST + 1 - bytes.len() as u64), &mut file)?;
        let size = bytes.len() as u64 + rest;
        if size > MOST { Err(Unread::TooLarge) } else { Ok(Self::Streamed(file, size)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_decides_how_it_goes() {
        let read = |size: u64| Content::of(std::io::repeat(7).take(size));
        assert!(matches!(read(0), Ok(Content::Inline(bytes)) if bytes.is_empty()));
        assert!(matches!(read(INLINE), Ok(Content::Inline(bytes)) if bytes.len() as u64 == INLINE));
        assert!(matches!(read(INLINE + 1), Ok(Content::Streamed(_, size)) if size == INLINE + 1));
        assert!(matches!(read(MOST), Ok(Content::Streamed(_, MOST))));
        assert!(matches!(read(MOST + 1), Err(Unread::TooLarge)));
    }
}
