//! Streams a large context into the hub, and goes on where a connection broke.

use std::{path::Path, time::Duration};

use acb_proto::v1::{
    Chunk, Context, GetStreamProgressRequest, StreamContextRequest, StreamContextResponse, StreamProgress,
    stream_context_request::{Finish, Frame as Out, Resume, Start},
    stream_context_response::Frame as In,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncSeek, AsyncSeekExt as _},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    Client, Error, Resumption,
    client::{Line, Next, Retry},
    correlation::of_call,
    sharing::{Description, Sharing},
    transfer::{Progress, Watcher, Whole, note_resumption},
};

/// Chunks sent and not yet durable.
const WINDOW: u32 = 8;
/// A hub that stores nothing for so long is as good as gone.
const STALLED: Duration = Duration::from_secs(30);
const MOST: u64 = 100 << 20;
const LARGEST_CHUNK: u32 = 2 << 20;

/// Gathers how a large payload is shared; see [`Client::upload`].
pub type Upload<R> = Sharing<Streamed<R>>;

/// A payload that is read and sent in chunks.
#[derive(Debug)]
pub struct Streamed<R> {
    reader: R,
    size: u64,
    upload_id: String,
    watcher: Watcher,
}

/// A finished upload.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The context that it became.
    pub context: Context,
    /// Where it went on after a broken connection, in order.
    pub resumptions: Vec<Resumption>,
    /// The replicas that took part, in order.
    pub replicas: Vec<String>,
    /// Bytes of the payload.
    pub bytes: u64,
    /// SHA-256 of the payload.
    pub sha256: [u8; 32],
}

impl Uploaded {
    /// The chunk that the upload last went on from, if it ever broke.
    #[must_use]
    pub fn resumed_from_chunk(&self) -> Option<u32> {
        self.resumptions.last().map(|resumption| resumption.from_chunk)
    }
}

impl<R: AsyncRead + AsyncSeek + Unpin + Send> Upload<R> {
    /// Goes on with an upload that an earlier process left unfinished.
    pub fn upload_id(mut self, id: impl Into<String>) -> Self {
        self.source.upload_id = id.into();
        self
    }

    /// Called whenever more of it is durable. Must not block.
    pub fn progress(mut self, watch: impl FnMut(Progress) + Send + 'static) -> Self {
        self.source.watcher = Watcher::new(watch);
        self
    }

    /// The id to go on with in another process.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.source.upload_id
    }

    /// Uploads it. Resolves when the whole is durable and verified. A broken connection is mended with any replica; the time for that
    /// starts anew with each chunk that became durable.
    pub async fn send(self) -> Result<Uploaded, Error> {
        let Self { client, description, source: Streamed { reader, size, upload_id, watcher } } = self;
        if !(1..=MOST).contains(&size) {
            return Err(Error::Usage(format!("a payload of {size} bytes can't be streamed: 1 to {MOST} bytes can")));
        }
        let mut run = Run {
            client,
            description,
            source: reader,
            size,
            upload_id,
            watcher,
            whole: Whole::default(),
            stored: None,
            resumptions: Vec::new(),
            replicas: Vec::new(),
        };
        let (outcome, correlation_id) = of_call(run.run()).await;
        let context = outcome.map_err(|error| error.of_call(&correlation_id).during(run.whereabouts()))?;
        let sha256 = run.whole.finish();
        Ok(Uploaded { context, resumptions: run.resumptions, replicas: run.replicas, bytes: run.size, sha256 })
    }
}

impl Client {
    /// Streams `size` bytes of `source` into a context of this type: 1 byte to 100 MiB.
    pub fn upload<R>(&self, context_type: impl Into<String>, source: R, size: u64) -> Upload<R>
    where
        R: AsyncRead + AsyncSeek + Unpin + Send,
    {
        let upload_id = uuid::Uuid::new_v4().to_string();
        Sharing::new(self, context_type, Streamed { reader: source, size, upload_id, watcher: Watcher::default() })
    }

    /// Streams a file into a context of this type.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let uploaded = client
    ///     .upload_file("models", "weights.bin")
    ///     .await?
    ///     .progress(|progress| println!("{} of {}", progress.bytes, progress.total))
    ///     .send()
    ///     .await?;
    /// println!("{} resumed from {:?}", uploaded.context.id, uploaded.resumed_from_chunk());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn upload_file(
        &self,
        context_type: impl Into<String>,
        path: impl AsRef<Path>,
    ) -> Result<Upload<tokio::fs::File>, Error> {
        let path = path.as_ref();
        let local = |error: std::io::Error| Error::Io(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(local)?;
        let facts = file.metadata().await.map_err(local)?;
        if !facts.is_file() {
            return Err(Error::Usage(format!("{} is not a file", path.display())));
        }
        Ok(self.upload(context_type, file, facts.len()))
    }

    /// How far an upload of this agent is.
    pub async fn upload_progress(&self, upload_id: &str) -> Result<StreamProgress, Error> {
        self.call("get stream progress", Retry::Always, Client::ATTEMPT, |line| {
            let request = GetStreamProgressRequest { upload_id: upload_id.to_owned() };
            async move { line.streams().get_stream_progress(request).await }
        })
        .await
    }
}

struct Run<R> {
    client: Client,
    description: Description,
    source: R,
    size: u64,
    upload_id: String,
    watcher: Watcher,
    whole: Whole,
    /// The hub's last word on it. `None` until it has answered once.
    stored: Option<StreamProgress>,
    resumptions: Vec<Resumption>,
    replicas: Vec<String>,
}

/// How one attempt failed.
enum Broke {
    Status(Line, tonic::Status),
    Connection(Line, String),
    /// Trying again would not help.
    Local(Error),
}

impl From<Error> for Broke {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

impl<R: AsyncRead + AsyncSeek + Unpin + Send> Run<R> {
    async fn run(&mut self) -> Result<Context, Error> {
        let mut patience = self.client.patience();
        let mut renewed = false;
        loop {
            let before = self.next_chunk();
            let error = match self.client.line().await {
                Ok(line) => match self.attempt(line).await {
                    Ok(context) => return Ok(context),
                    Err(Broke::Local(error)) => return Err(error),
                    Err(Broke::Connection(line, message)) => {
                        self.client.leave(&line).await;
                        Error::Unavailable(message)
                    }
                    Err(Broke::Status(line, status)) => match self.client.judge(&line, status, &mut renewed).await {
                        Next::Again => continue,
                        Next::Later(error) => error,
                        Next::Never(error) => return Err(error),
                    },
                },
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            if self.next_chunk() > before {
                patience.renew();
                renewed = false;
            }
            tracing::info!(upload = %self.upload_id, stored = self.next_chunk(), %error, "the upload broke, and goes on");
            patience.wait(error).await?;
        }
    }

    async fn attempt(&mut self, line: Line) -> Result<Context, Broke> {
        let (out, requests) = mpsc::channel(2);
        let first = self.first_frame();
        let mut streams = line.streams();
        // The queue has room for the first frame.
        let _ = out.send(frame(first)).await;
        let opening = async {
            let mut inbound = streams.stream_context(ReceiverStream::new(requests)).await?.into_inner();
            Ok::<_, tonic::Status>((inbound.message().await?, inbound))
        };
        let (answer, mut inbound) = match timeout(Client::ATTEMPT, opening).await {
            Ok(Ok(both)) => both,
            Ok(Err(status)) => return Err(Broke::Status(line, status)),
            Err(_) => return Err(Broke::Connection(line, "the hub did not answer the stream in time".to_owned())),
        };
        let mut progress = match answer.and_then(|answer| answer.frame) {
            Some(In::Progress(progress)) => progress,
            Some(In::Context(context)) => return Ok(context),
            None => return Err(Broke::Connection(line, "the hub closed the stream at once".to_owned())),
        };
        self.begin(&progress)?;
        if !progress.context_id.is_empty() {
            // It was finished, and only the answer was lost. The hub says again what became of it, if that is what is here.
            progress.next_chunk = progress.chunk_count;
        }
        self.hash_up_to(progress.next_chunk, &progress).await?;
        self.send_chunks(line, &out, &mut inbound, progress).await
    }

    async fn send_chunks(
        &mut self,
        line: Line,
        out: &mpsc::Sender<StreamContextRequest>,
        inbound: &mut Streaming<StreamContextResponse>,
        shape: StreamProgress,
    ) -> Result<Context, Broke> {
        self.seek(shape.next_chunk, &shape).await?;
        let mut next = shape.next_chunk;
        let mut finished = false;
        loop {
            let more = next < shape.chunk_count && next - self.next_chunk().min(next) < WINDOW;
            let finish = !finished && next == shape.chunk_count;
            tokio::select! {
                answer = timeout(STALLED, inbound.message()) => match answer {
                    Ok(Ok(Some(StreamContextResponse { frame: Some(In::Progress(progress)) }))) => self.note(progress),
                    Ok(Ok(Some(StreamContextResponse { frame: Some(In::Context(context)) }))) => return Ok(context),
                    Ok(Ok(Some(StreamContextResponse { frame: None }))) => {}
                    Ok(Ok(None)) => return Err(Broke::Connection(line, "the hub closed the stream".to_owned())),
                    Ok(Err(status)) => return Err(Broke::Status(line, status)),
                    Err(_) => return Err(Broke::Connection(line, format!("nothing was stored for {} s", STALLED.as_secs()))),
                },
                permit = out.reserve(), if more || finish => {
                    let Ok(permit) = permit else {
                        // A closed outbound half shows its reason on the inbound one.
                        return Err(match timeout(Client::ATTEMPT, inbound.message()).await {
                            Ok(Err(status)) => Broke::Status(line, status),
                            _ => Broke::Connection(line, "the hub closed the stream".to_owned()),
                        });
                    };
                    if more {
                        let data = self.read(next, &shape).await?;
                        let (data, sha256) = self.hash(next, data).await?;
                        permit.send(frame(Out::Chunk(Chunk { index: next, data, sha256 })));
                        next += 1;
                    } else {
                        permit.send(frame(Out::Finish(Finish { sha256: Bytes::copy_from_slice(&self.whole.finish()) })));
                        finished = true;
                    }
                }
            }
        }
    }

    fn first_frame(&self) -> Out {
        if self.stored.is_some() {
            return Out::Resume(Resume { upload_id: self.upload_id.clone() });
        }
        let Description { context_type, content_type, metadata, ttl, scope } = self.description.clone();
        Out::Start(Start {
            r#type: context_type,
            size: self.size,
            metadata,
            content_type,
            ttl: ttl.and_then(crate::wire::duration),
            access: Some(scope.into()),
            upload_id: self.upload_id.clone(),
        })
    }

    /// Takes the hub's answer to the first frame.
    fn begin(&mut self, progress: &StreamProgress) -> Result<(), Error> {
        let (size, count) = (progress.chunk_size, progress.chunk_count);
        let fits = (1..=LARGEST_CHUNK).contains(&size)
            && u64::from(count) == self.size.div_ceil(u64::from(size))
            && progress.next_chunk <= count
            && self.stored.as_ref().is_none_or(|stored| stored.chunk_size == size);
        if !fits {
            let message = format!("the hub wants {count} chunks of {size} bytes for {} bytes", self.size);
            return Err(Error::refused(crate::Code::Internal, "", message));
        }
        if self.stored.is_some() || progress.next_chunk > 0 {
            note_resumption(&mut self.resumptions, progress.next_chunk, &progress.replica);
        }
        if self.replicas.last() != Some(&progress.replica) {
            self.replicas.push(progress.replica.clone());
        }
        self.client.name_replica(&progress.replica);
        self.note(progress.clone());
        Ok(())
    }

    fn note(&mut self, progress: StreamProgress) {
        self.watcher.tell(progress.bytes_stored, self.size);
        self.stored = Some(progress);
    }

    fn next_chunk(&self) -> u32 {
        self.stored.as_ref().map_or(0, |stored| stored.next_chunk)
    }

    /// Chunks that another process stored are hashed here too: the whole is verified by what this one reads.
    async fn hash_up_to(&mut self, chunk: u32, shape: &StreamProgress) -> Result<(), Error> {
        if self.whole.chunks() < chunk {
            self.seek(self.whole.chunks(), shape).await?;
        }
        while self.whole.chunks() < chunk {
            let index = self.whole.chunks();
            let data = self.read(index, shape).await?;
            self.hash(index, data).await?;
        }
        Ok(())
    }

    async fn seek(&mut self, chunk: u32, shape: &StreamProgress) -> Result<(), Error> {
        let offset = u64::from(chunk) * u64::from(shape.chunk_size);
        self.source.seek(std::io::SeekFrom::Start(offset)).await?;
        Ok(())
    }

    async fn read(&mut self, chunk: u32, shape: &StreamProgress) -> Result<Vec<u8>, Error> {
        let size = u64::from(shape.chunk_size);
        let length = size.min(self.size - u64::from(chunk) * size);
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        self.source.read_exact(&mut data).await.map_err(|error| {
            Error::Io(format!("reading chunk {chunk} of the source: {error}; was it changed while it was uploaded?"))
        })?;
        Ok(data)
    }

    /// Hashes off the async threads; a chunk that is sent again does not count for the whole a second time.
    async fn hash(&mut self, chunk: u32, data: Vec<u8>) -> Result<(Bytes, Bytes), Error> {
        let mut whole = std::mem::take(&mut self.whole);
        let hashed = tokio::task::spawn_blocking(move || {
            if whole.chunks() == chunk {
                whole.take(&data);
            }
            let digest = Bytes::copy_from_slice(&Sha256::digest(&data));
            (whole, data, digest)
        });
        let (whole, data, digest) = hashed.await.map_err(|error| Error::Io(format!("hashing: {error}")))?;
        self.whole = whole;
        Ok((data.into(), digest))
    }

    fn whereabouts(&self) -> String {
        let id = &self.upload_id;
        match &self.stored {
            Some(stored) => format!("upload {id} ({} of {} chunks are stored)", stored.next_chunk, stored.chunk_count),
            None => format!("upload {id}"),
        }
    }
}

fn frame(frame: Out) -> StreamContextRequest {
    StreamContextRequest { frame: Some(frame) }
}
