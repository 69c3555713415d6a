//! `StreamService`.

use std::{pin::Pin, time::Duration};

use acb_hub_core::{
    contexts::{
        chunk::{self, CHUNK_BYTES},
        context::{self, ContextId, UploadId},
        upload::{Chunks, Progress, StartUpload, UploadSession, Uploads},
    },
    directory::{agent::Agent, trail::Trail},
    fault::{Code, Fault},
};
use acb_proto::v1::{
    Chunk, GetStreamProgressRequest, ReceiveContextRequest, ReceiveContextResponse, StreamContextRequest, StreamContextResponse,
    StreamProgress, receive_context_response, stream_context_request,
    stream_context_request::{Finish, Frame, Resume, Start},
    stream_context_response,
    stream_service_server::StreamService,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    answer_room::{Answers, Parts},
    grpc::{
        caller::{caller, trail},
        context::{CONTEXT, description, wire},
    },
    status::{explain_status, to_status},
};

/// Answers on their way to the peer.
const ANSWERS: usize = 16;

/// How long a stream may send nothing: enough for one chunk over a slow line.
const IDLE: Duration = Duration::from_secs(300);

/// How long it may take until its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// Large contexts, in and out.
#[derive(Clone)]
pub struct StreamGate {
    uploads: Uploads,
    replica: String,
}

type AnswerFrames = mpsc::Sender<Result<StreamContextResponse, Status>>;

impl StreamGate {
    /// Over this service of core, on this replica.
    #[must_use]
    pub fn new(uploads: Uploads, replica: &str) -> Self {
        Self { uploads, replica: replica.to_owned() }
    }

    /// From the first frame to the last. What the peer hears at the end is returned; progress goes to `answers`.
    async fn take(
        &self,
        agent: &Agent,
        frames: &mut Streaming<StreamContextRequest>,
        answers: &AnswerFrames,
        trail: &Trail,
    ) -> Result<Option<context::Context>, Status> {
        let Some(first) = frame(frames, Instant::now() + FIRST_FRAME).await? else { return Ok(None) };
        let mut session = match first {
            Frame::Start(start) => self.uploads.start(agent, start_upload(start).map_err(to_status)?).await,
            Frame::Resume(Resume { upload_id }) => {
                self.uploads.resume(agent, UploadId::parse(&upload_id).map_err(to_status)?).await
            }
            Frame::Chunk(_) | Frame::Finish(_) => {
                Err(Fault::invalid("FRAME_UNEXPECTED", "the first frame is `start` or `resume`"))
            }
        }
        .map_err(to_status)?;
        trail.object("upload", session.progress().upload);
        if !self.tell(answers, session.progress()).await {
            return Ok(None);
        }
        let finish = self.chunks(&mut session, frames, answers).await;
        // What is on its way still counts, also where the peer did something wrong after it.
        while let Some(stored) = session.stored().await {
            match (stored, &finish) {
                (Ok(progress), _) => drop(self.tell(answers, progress).await),
                (Err(fault), Ok(_)) => return Err(to_status(fault)),
                (Err(_), Err(_)) => {}
            }
        }
        let Progress { stored, layout, .. } = session.progress();
        trail.bytes(stored.bytes(layout));
        match finish? {
            Some(Finish { sha256 }) => {
                let sha256 = digest(&sha256).map_err(to_status)?;
                session.finish(sha256).await.map(Some).map_err(to_status)
            }
            None => Ok(None),
        }
    }

    /// Takes chunks until `Finish`, or until the peer ends the stream.
    async fn chunks(
        &self,
        session: &mut UploadSession,
        frames: &mut Streaming<StreamContextRequest>,
        answers: &AnswerFrames,
    ) -> Result<Option<Finish>, Status> {
        let mut deadline = Instant::now() + IDLE;
        loop {
            tokio::select! {
                Some(stored) = session.stored(), if session.busy() => {
                    if !self.tell(answers, stored.map_err(to_status)?).await {
                        return Ok(None);
                    }
                }
                next = frame(frames, deadline), if session.has_room() => match next? {
                    Some(Frame::Chunk(chunk)) => {
                        session.put(core_chunk(chunk).map_err(to_status)?).await.map_err(to_status)?;
                        deadline = Instant::now() + IDLE;
                    }
                    Some(Frame::Finish(finish)) => return Ok(Some(finish)),
                    Some(Frame::Start(_) | Frame::Resume(_)) => {
                        return Err(to_status(Fault::invalid("FRAME_UNEXPECTED", "an upload begins once: send `chunk` or `finish`")));
                    }
                    None => return Ok(None),
                },
            }
        }
    }

    /// False where the peer is gone.
    async fn tell(&self, answers: &AnswerFrames, progress: Progress) -> bool {
        let frame = stream_context_response::Frame::Progress(self.wire_progress(progress));
        answers.send(Ok(StreamContextResponse { frame: Some(frame) })).await.is_ok()
    }

    fn wire_progress(&self, progress: Progress) -> StreamProgress {
        StreamProgress {
            upload_id: progress.upload.to_string(),
            next_chunk: progress.stored.next(),
            chunk_count: progress.layout.count(),
            chunk_size: progress.layout.chunk_size,
            bytes_stored: progress.stored.bytes(progress.layout),
            size: progress.layout.size,
            context_id: progress.context.map(|id| id.to_string()).unwrap_or_default(),
            replica: self.replica.clone(),
        }
    }
}

#[tonic::async_trait]
impl StreamService for StreamGate {
    type StreamContextStream = Pin<Box<dyn Stream<Item = Result<StreamContextResponse, Status>> + Send>>;

    async fn stream_context(
        &self,
        request: Request<Streaming<StreamContextRequest>>,
    ) -> Result<Response<Self::StreamContextStream>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let (gate, mut frames) = (self.clone(), request.into_inner());
        let (answers, stream) = mpsc::channel(ANSWERS);
        // The answer's headers go out before the first frame comes: many clients wait for them before they send it.
        tokio::spawn(async move {
            let end = tokio::select! {
                end = gate.take(&caller.agent, &mut frames, &answers, &trail) => end,
                () = answers.closed() => return,
            };
            let last = match end {
                Ok(None) => return,
                Ok(Some(context)) => {
                    trail.object(CONTEXT, context.id);
                    trail.version(context.version);
                    Ok(StreamContextResponse { frame: Some(stream_context_response::Frame::Context(wire(context))) })
                }
                Err(status) => Err(status),
            };
            drop(answers.send(last).await);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    type ReceiveContextStream = Pin<Box<dyn Stream<Item = Result<ReceiveContextResponse, Status>> + Send>>;

    async fn receive_context(
        &self,
        request: Request<ReceiveContextRequest>,
    ) -> Result<Response<Self::ReceiveContextStream>, Status> {
        let (caller, trail, parts) = (caller(&request)?, trail(&request), Answers::of(&request).parts());
        let ReceiveContextRequest { context_id, from_chunk } = request.into_inner();
        let id = ContextId::parse(&context_id).map_err(to_status)?;
        trail.object(CONTEXT, id);
        let (context, chunks) = self.uploads.receive(&caller.agent, id, from_chunk).await.map_err(to_status)?;
        trail.version(context.version);
        let mut head = wire(context);
        // It comes as a chunk.
        head.payload = Bytes::new();
        let head = Ok(ReceiveContextResponse { frame: Some(receive_context_response::Frame::Context(head)) });
        Ok(Response::new(Box::pin(stream::iter([head]).chain(chunk_frames(chunks, parts)))))
    }

    async fn get_stream_progress(&self, request: Request<GetStreamProgressRequest>) -> Result<Response<StreamProgress>, Status> {
        let caller = caller(&request)?;
        let id = UploadId::parse(&request.into_inner().upload_id).map_err(to_status)?;
        let progress = self.uploads.progress(&caller.agent, id).await.map_err(to_status)?;
        Ok(Response::new(self.wire_progress(progress)))
    }
}

fn chunk_frames(chunks: Chunks, parts: Parts) -> impl Stream<Item = Result<ReceiveContextResponse, Status>> + Send {
    stream::unfold(Some((chunks, parts)), |state| async {
        let (mut chunks, mut parts) = state?;
        // Before it is read: who takes nothing must not have chunks read.
        parts.hold(CHUNK_BYTES as usize).await;
        let chunk = match chunks.next().await? {
            Ok(chunk) => chunk,
            Err(fault) => return Some((Err(to_status(fault)), None)),
        };
        let frame = Chunk { index: chunk.index, sha256: Bytes::copy_from_slice(&chunk.sha256), data: chunk.data };
        let frame = ReceiveContextResponse { frame: Some(receive_context_response::Frame::Chunk(frame)) };
        Some((Ok(frame), Some((chunks, parts))))
    })
}

async fn frame(
    frames: &mut Streaming<StreamContextRequest>,
    deadline: Instant,
) -> Result<Option<stream_context_request::Frame>, Status> {
    let message = tokio::select! {
        message = frames.message() => message.map_err(explain_status)?,
        () = sleep_until(deadline) => {
            return Err(to_status(Fault::new(Code::DeadlineExceeded, "UPLOAD_IDLE", "the stream sent nothing for too long: resume the upload")));
        }
    };
    match message {
        None => Ok(None),
        Some(StreamContextRequest { frame: Some(frame) }) => Ok(Some(frame)),
        Some(StreamContextRequest { frame: None }) => {
            Err(to_status(Fault::invalid("FRAME_UNEXPECTED", "a frame is `start`, `resume`, `chunk` or `finish`")))
        }
    }
}

fn start_upload(start: Start) -> Result<StartUpload, Fault> {
    Ok(StartUpload {
        id: UploadId::parse(&start.upload_id)?,
        size: start.size,
        description: description(start.r#type, start.metadata, start.content_type, start.ttl, start.access)?,
    })
}

fn core_chunk(chunk: Chunk) -> Result<chunk::Chunk, Fault> {
    Ok(chunk::Chunk { index: chunk.index, sha256: digest(&chunk.sha256)?, data: chunk.data })
}

fn digest(sha256: &[u8]) -> Result<[u8; 32], Fault> {
    sha256
        .try_into()
        .map_err(|_| Fault::invalid("SHA256_INVALID", format!("a SHA-256 has 32 bytes, and this one {}", sha256.len())))
}
