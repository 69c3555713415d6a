//! Streams a large context out of the hub, verifies it, and goes on where a connection broke.

use std::time::Duration;

use acb_proto::v1::{Chunk, Context, PayloadRef, ReceiveContextRequest, receive_context_response::Frame};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    Client, Error, Resumption,
    client::{Line, Next},
    correlation::of_call,
    transfer::{Progress, Watcher, Whole, note_resumption},
};

/// A hub that sends nothing for so long is as good as gone.
const STALLED: Duration = Duration::from_secs(30);

/// Gathers how a context is downloaded; see [`Client::download`].
#[derive(Debug)]
#[must_use = "nothing is downloaded until it is received"]
pub struct Download {
    client: Client,
    context_id: String,
    watcher: Watcher,
}

/// A finished download: verified against the checksums of each chunk and of the whole.
#[derive(Clone, Debug)]
pub struct Downloaded {
    /// The context, without its payload.
    pub context: Context,
    /// Where it went on after a broken connection, in order.
    pub resumptions: Vec<Resumption>,
    /// Bytes that were written.
    pub bytes: u64,
    /// SHA-256 of what was written.
    pub sha256: [u8; 32],
}

impl Client {
    /// Downloads the payload of a context, streamed or inline.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let mut file = tokio::fs::File::create("weights.bin.part").await?;
    /// let downloaded = client.download("0198…").receive(&mut file).await?;
    /// println!("{} bytes", downloaded.bytes);
    /// # Ok(())
    /// # }
    /// ```
    pub fn download(&self, context_id: impl Into<String>) -> Download {
        Download { client: self.clone(), context_id: context_id.into(), watcher: Watcher::default() }
    }
}

impl Download {
    /// Called whenever more of it was verified and written. Must not block.
    pub fn progress(mut self, watch: impl FnMut(Progress) + Send + 'static) -> Self {
        self.watcher = Watcher::new(watch);
        self
    }

    /// Writes the payload. Each chunk is verified before it is written, the whole at the end: on an error what was written is no more than
    /// a part. The time to mend a broken connection starts anew with each chunk.
    pub async fn receive<W: AsyncWrite + Unpin + Send>(self, writer: &mut W) -> Result<Downloaded, Error> {
        let what = format!("download {}", self.context_id);
        let (outcome, correlation_id) = of_call(self.run(writer)).await;
        outcome.map_err(|error| error.of_call(&correlation_id).during(what))
    }

    async fn run<W: AsyncWrite + Unpin + Send>(mut self, writer: &mut W) -> Result<Downloaded, Error> {
        let mut context = self.client.context(&self.context_id).await?;
        let payload = std::mem::take(&mut context.payload);
        let mut run = Run { whole: Whole::default(), bytes: 0, resumptions: Vec::new() };
        match context.payload_ref.clone() {
            Some(payload_ref) => self.stream(&payload_ref, &mut run, writer).await?,
            None => {
                run.whole.take(&payload);
                writer.write_all(&payload).await?;
                run.bytes = payload.len() as u64;
                self.watcher.tell(run.bytes, run.bytes);
            }
        }
        writer.flush().await?;
        let sha256 = run.whole.finish();
        if context.checksum.as_ref() != sha256 {
            return Err(Error::Damaged("what was received does not have the checksum of the context".to_owned()));
        }
        Ok(Downloaded { context, resumptions: run.resumptions, bytes: run.bytes, sha256 })
    }

    async fn stream<W: AsyncWrite + Unpin + Send>(
        &mut self,
        wanted: &PayloadRef,
        run: &mut Run,
        writer: &mut W,
    ) -> Result<(), Error> {
        let mut patience = self.client.patience();
        let mut renewed = false;
        let mut broke_before = false;
        while run.whole.chunks() < wanted.chunk_count {
            let before = run.whole.chunks();
            let error = match self.client.line().await {
                Ok(line) => match self.attempt(&line, wanted, run, writer, broke_before).await {
                    Ok(()) => continue,
                    Err(Broke::Local(error)) => return Err(error),
                    Err(Broke::Connection(error)) => {
                        self.client.leave(&line).await;
                        error
                    }
                    Err(Broke::Status(status)) => match self.client.judge(&line, status, &mut renewed).await {
                        Next::Again => continue,
                        Next::Later(error) => error,
                        Next::Never(error) => return Err(error),
                    },
                },
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            broke_before = true;
            if run.whole.chunks() > before {
                patience.renew();
                renewed = false;
            }
            let (received, count) = (run.whole.chunks(), wanted.chunk_count);
            tracing::info!(context = %self.context_id, received, %error, "the download broke, and goes on");
            patience
                .wait(error)
                .await
                .map_err(|error| error.during(format_args!("{received} of {count} chunks were received")))?;
        }
        Ok(())
    }

    async fn attempt<W: AsyncWrite + Unpin + Send>(
        &mut self,
        line: &Line,
        wanted: &PayloadRef,
        run: &mut Run,
        writer: &mut W,
        resumed: bool,
    ) -> Result<(), Broke> {
        let mut streams = line.streams();
        let request = ReceiveContextRequest { context_id: self.context_id.clone(), from_chunk: run.whole.chunks() };
        let opening = timeout(Client::ATTEMPT, streams.receive_context(request));
        let mut inbound = opening.await.map_err(|_| Broke::connection("no answer in time"))??.into_inner();
        if resumed {
            note_resumption(&mut run.resumptions, run.whole.chunks(), "");
        }
        while run.whole.chunks() < wanted.chunk_count {
            let answer =
                timeout(STALLED, inbound.message()).await.map_err(|_| Broke::connection("nothing came for a while"))??;
            let Some(answer) = answer else { return Err(Broke::connection("the hub closed the stream")) };
            if let Some(Frame::Chunk(chunk)) = answer.frame {
                let data = run.verify(chunk, wanted).await?;
                writer.write_all(&data).await.map_err(Error::from)?;
                run.bytes += data.len() as u64;
                self.watcher.tell(run.bytes, wanted.size);
            }
        }
        Ok(())
    }
}

struct Run {
    whole: Whole,
    bytes: u64,
    resumptions: Vec<Resumption>,
}

impl Run {
    /// Gives the chunk's data if it is the next one and undamaged. Until then nothing of it counts.
    async fn verify(&mut self, chunk: Chunk, wanted: &PayloadRef) -> Result<Bytes, Broke> {
        let next = self.whole.chunks();
        let size = u64::from(wanted.chunk_size);
        let length = size.min(wanted.size.saturating_sub(u64::from(next) * size));
        if chunk.index != next || chunk.data.len() as u64 != length {
            let (index, got) = (chunk.index, chunk.data.len());
            return Err(Broke::damaged(format!("chunk {next} of {length} bytes was due, and chunk {index} of {got} bytes came")));
        }
        let mut whole = self.whole.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            let digest: [u8; 32] = Sha256::digest(&chunk.data).into();
            let intact = chunk.sha256.as_ref() == digest;
            if intact {
                whole.take(&chunk.data);
            }
            (whole, chunk.data, intact)
        });
        let (whole, data, intact) = hashed.await.map_err(|error| Error::Io(format!("hashing: {error}")))?;
        if !intact {
            return Err(Broke::damaged(format!("chunk {next} does not have its checksum")));
        }
        self.whole = whole;
        Ok(data)
    }
}

/// How one attempt failed.
enum Broke {
    Status(tonic::Status),
    Connection(Error),
    /// Trying again would not help.
    Local(Error),
}

impl Broke {
    fn connection(message: &str) -> Self {
        Self::Connection(Error::Unavailable(message.to_owned()))
    }

    /// Damage on the way is mended by fetching the chunk again.
    fn damaged(message: String) -> Self {
        Self::Connection(Error::Damaged(message))
    }
}

impl From<Error> for Broke {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

impl From<tonic::Status> for Broke {
    fn from(status: tonic::Status) -> Self {
        Self::Status(status)
    }
}
