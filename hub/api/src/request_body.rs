//! Request bodies. A message is read only where there is room for all of it: for its caller, and for all callers together. One that stops coming
//! is given up. The services get whole messages, and so hold no memory for what was announced and never sent.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use acb_hub_core::{
    door::{meter::Metered, rules::Rule},
    fault::{Code, Fault},
    kit::budget::Room,
};
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body as _, Frame};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body};

use crate::{
    json::call::JsonCall,
    status::{MAX_PUBLIC_REQUEST_BYTES, MAX_REQUEST_BYTES, to_status},
};

/// How long nothing may come of a message that has begun.
const STALL: Duration = Duration::from_secs(20);
/// How long a message may take: enough for the largest one over a slow line.
const WHOLE: Duration = Duration::from_secs(300);
/// The same for one of a stranger.
const WHOLE_PUBLIC: Duration = Duration::from_secs(10);

/// A compression flag and the message's length.
const HEADER: usize = 5;

/// The room of the message that a handler has. It comes with the request; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Option<Room>>>);

impl Held {
    fn hold(&self, room: Room) {
        *self.lock() = Some(room);
    }

    /// The handler is done with the message, or has handed it on to who counts it.
    pub(crate) fn release(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Room>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one call may read. Where the method takes one message, its room is held until this is dropped.
#[derive(Debug)]
pub(crate) struct RequestBody {
    metered: Metered,
    many: bool,
    held: Held,
}

impl RequestBody {
    /// That of a call of this operation.
    pub(crate) fn new(rule: &Rule, metered: Metered) -> Self {
        Self { metered, many: rule.asks_many, held: Held::default() }
    }

    /// The body, as the services may read it.
    pub(crate) fn guard(&self, body: Body) -> Body {
        let reader = self.reader(body);
        Body::new(StreamBody::new(stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(reader))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })))
    }

    fn reader(&self, body: Body) -> Reader {
        let strangers = self.metered.is_strangers();
        Reader {
            body,
            ahead: Bytes::new(),
            metered: self.metered.clone(),
            largest: if strangers { MAX_PUBLIC_REQUEST_BYTES } else { MAX_REQUEST_BYTES },
            within: if strangers { WHOLE_PUBLIC } else { WHOLE },
            many: self.many,
            begun: Instant::now(),
            messages: 0,
            held: self.held.clone(),
        }
    }

    /// The body of a call whose messages are JSON, as the services may read it: one message, made of the whole text. There is room for the text
    /// and for the message before any of it is read.
    pub(crate) fn guard_json(&self, body: Body, call: JsonCall) -> Body {
        let mut reader = self.reader(body);
        let text = async move {
            let (message, room) = reader.json(&call).await?;
            reader.held.hold(room);
            Ok::<_, Status>(Frame::data(message))
        };
        Body::new(StreamBody::new(stream::once(text)))
    }

    /// What the handler holds.
    pub(crate) fn held(&self) -> Held {
        self.held.clone()
    }
}

struct Reader {
    body: Body,
    /// What came with the message before.
    ahead: Bytes,
    metered: Metered,
    largest: usize,
    within: Duration,
    many: bool,
    /// When the message began; that of a method with one message begins with the call.
    begun: Instant,
    messages: usize,
    held: Held,
}

impl Reader {
    /// The next message, with its header; or what comes after the last one.
    async fn next(&mut self) -> Result<Option<Frame<Bytes>>, Status> {
        if self.many {
            // Who asks for the next message has handed on the one before.
            self.held.release();
        }
        let mut message = std::mem::take(&mut self.ahead);
        // Clients end a body with an empty frame.
        while message.is_empty() {
            match self.frame(!self.many).await? {
                None => return Ok(None),
                Some(frame) => match frame.into_data() {
                    Ok(data) => message = data,
                    Err(trailers) => return Ok(Some(trailers)),
                },
            }
        }
        if self.many {
            self.begun = Instant::now();
        }
        if !self.many && self.messages > 0 {
            return Err(to_status(Fault::invalid(
                "REQUEST_MALFORMED",
                "this method takes one request message: send no second one",
            )));
        }
        // A header in pieces is rare, and small.
        let mut whole = Vec::new();
        while whole.len() + message.len() < HEADER {
            whole.extend_from_slice(&message);
            message = match self.data().await? {
                Some(data) => data,
                None => return Ok(Some(Frame::data(whole.into()))),
            };
        }
        let mut header = whole.iter().chain(message.iter()).skip(1).copied();
        let length: [u8; 4] = std::array::from_fn(|_| header.next().unwrap_or_default());
        let length = u32::from_be_bytes(length);
        // Of a method with many messages each is a part of something, which says itself how large it may be.
        if !self.many {
            self.metered.check_size(u64::from(length)).map_err(to_status)?;
        }
        let size = HEADER.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
        if size > HEADER + self.largest {
            // The service refuses it by its header.
            whole.extend_from_slice(&message);
            return Ok(Some(Frame::data(whole.into())));
        }
        let room = self.metered.room(size).await.map_err(to_status)?;
        while whole.len() + message.len() < size {
            append(&mut whole, &message, size);
            message = match self.data().await? {
                Some(data) => data,
                // The service says what is wrong with it.
                None => return Ok(Some(Frame::data(whole.into()))),
            };
        }
        let last = message.split_to(size - whole.len());
        self.ahead = message;
        let message = if whole.is_empty() {
            last
        } else {
            append(&mut whole, &last, size);
            whole.into()
        };
        self.messages += 1;
        self.held.hold(room);
        Ok(Some(Frame::data(message)))
    }

    /// The message of a JSON text, as gRPC has it on the wire, and the room that it takes.
    async fn json(&mut self, call: &JsonCall) -> Result<(Bytes, Room), Status> {
        let announced = self.body.size_hint();
        // What is not announced may be as large as any.
        let most = announced.upper().map_or(self.largest, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let largest = self.largest;
        let too_large = || {
            let why = format!("this method's request takes at most {largest} bytes of JSON: stream larger payloads");
            to_status(Fault::new(Code::ResourceExhausted, "REQUEST_TOO_LARGE", why))
        };
        if most > self.largest {
            return Err(too_large());
        }
        self.metered.check_size(announced.lower()).map_err(to_status)?;
        let mut room = self.metered.room(HEADER + 2 * most).await.map_err(to_status)?;
        let mut text = Vec::new();
        while let Some(data) = self.data().await? {
            if text.len() + data.len() > most {
                return Err(too_large());
            }
            append(&mut text, &data, most);
        }
        self.metered.check_size(text.len() as u64).map_err(to_status)?;
        let message = call.request(&text).map_err(to_status)?;
        drop(text);
        let size = message.encoded_len();
        let length = u32::try_from(size).map_err(|_| too_large())?;
        let mut whole = Vec::with_capacity(HEADER + size);
        whole.push(0);
        whole.extend_from_slice(&length.to_be_bytes());
        message.encode(&mut whole).map_err(|_| too_large())?;
        room.shrink_to(whole.len());
        Ok((whole.into(), room))
    }

    /// More of a message. `None` where the body ends.
    async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        Ok(self.frame(true).await?.and_then(|frame| frame.into_data().ok()))
    }

    /// What comes next. In time, where it is due.
    async fn frame(&mut self, due: bool) -> Result<Option<Frame<Bytes>>, Status> {
        let frame = if due {
            let stalled = |_| {
                let why = "the request stopped coming, or came too slowly: send it again";
                to_status(Fault::new(Code::DeadlineExceeded, "REQUEST_STALLED", why))
            };
            let until = (Instant::now() + STALL).min(self.begun + self.within);
            timeout_at(until, self.body.frame()).await.map_err(stalled)?
        } else {
            self.body.frame().await
        };
        frame.transpose()
    }
}

/// Grows by what has come, and never beyond what was announced.
fn append(whole: &mut Vec<u8>, more: &[u8], size: usize) {
    let needed = whole.len() + more.len();
    if needed > whole.capacity() {
        let capacity = needed.max(whole.capacity() * 2).min(size);
        whole.reserve_exact(capacity - whole.len());
    }
    whole.extend_from_slice(more);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use acb_hub_core::{
        directory::{
            agent::{Agent, AgentId, Role},
            caller::Caller,
            limits::Limits,
        },
        door::{
            meter::{Meter, STRANGER, WAIT},
            origin::Origin,
            rules::Operation,
        },
        kit::budget::Budget,
        metrics::Metrics,
    };
    use futures::StreamExt as _;
    use http_body_util::Full;
    use time::OffsetDateTime;
    use tokio::{sync::mpsc, time::timeout};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::status::reason;

    const MIB: usize = 1024 * 1024;
    const UNARY: Operation = Operation::RefreshToken;
    const STREAM: Operation = Operation::StreamContext;

    fn agent() -> Agent {
        Agent {
            id: AgentId(uuid::Uuid::from_u128(1)),
            name: "alice".to_owned(),
            role: Role::Full,
            kind: String::new(),
            capabilities: Vec::new(),
            groups: Vec::new(),
            publishes: Vec::new(),
            subscribes: Vec::new(),
            location: String::new(),
            metadata: BTreeMap::new(),
            limits: Limits::default(),
            suspended: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// A meter, and what it counts on.
    struct Bodies {
        meter: Meter,
        all: Budget,
    }

    impl Default for Bodies {
        fn default() -> Self {
            let all = Budget::new(64 * MIB);
            Self { meter: Meter::new(all.clone(), all.clone()), all }
        }
    }

    impl Bodies {
        fn open(&self, operation: Operation, public: bool) -> RequestBody {
            let caller = Caller { agent: agent().into(), expires_at: OffsetDateTime::UNIX_EPOCH, epoch: 0, source: None };
            let metered = self.meter.enter(Some(&caller).filter(|_| !public), &Origin::default()).unwrap();
            RequestBody::new(operation.rule(), metered)
        }
    }

    fn message(size: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(size).unwrap().to_be_bytes());
        bytes.resize(HEADER + size, 7);
        bytes
    }

    async fn read(body: &mut Body) -> Result<Option<Bytes>, Status> {
        body.frame().await.transpose().map(|frame| frame.and_then(|frame| frame.into_data().ok()))
    }

    /// A body to which the test adds what it likes, when it likes.
    fn slow() -> (mpsc::Sender<Vec<u8>>, Body) {
        let (pieces, body) = mpsc::channel::<Vec<u8>>(16);
        let frames = ReceiverStream::new(body).map(|piece| Ok::<_, Status>(Frame::data(Bytes::from(piece))));
        (pieces, Body::new(StreamBody::new(frames)))
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_were_cut() {
        let bodies = Bodies::default();
        let all: Vec<u8> = [0, 1, 4000, 70_000].into_iter().flat_map(message).collect();
        for cut in [1, 4, 5, 6, 1000, all.len()] {
            let frames =
                all.chunks(cut).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece)))).collect::<Vec<_>>();
            let call = bodies.open(STREAM, false);
            let mut body = call.guard(Body::new(StreamBody::new(stream::iter(frames))));
            for size in [0, 1, 4000, 70_000] {
                assert_eq!(read(&mut body).await.unwrap().unwrap(), message(size), "in pieces of {cut}");
                assert_eq!(bodies.all.used(), HEADER + size);
            }
            assert!(read(&mut body).await.unwrap().is_none());
            assert_eq!(bodies.all.used(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_and_never_comes_ends_in_time() {
        let bodies = Bodies::default();
        for (path, piece, public, within) in [
            (UNARY, Vec::new(), false, STALL),
            (UNARY, message(MIB / 2)[..HEADER].to_vec(), false, STALL),
            (UNARY, message(1000)[..HEADER].to_vec(), true, WHOLE_PUBLIC),
            // All of it came, and the end did not.
            (UNARY, message(9), false, STALL),
            (STREAM, message(MIB / 2)[..100].to_vec(), false, STALL),
        ] {
            let (pieces, body) = slow();
            pieces.send(piece.clone()).await.unwrap();
            let call = bodies.open(path, public);
            let mut body = call.guard(body);
            let began = Instant::now();
            let ended = loop {
                match read(&mut body).await {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(ended.unwrap_err().code(), tonic::Code::DeadlineExceeded, "{path:?} {}", piece.len());
            assert!(began.elapsed() <= within + Duration::from_millis(10), "{:?}", began.elapsed());
            drop((call, body));
            assert_eq!(bodies.all.used(), 0);
        }
        // By drops it comes to an end, too.
        let (pieces, body) = slow();
        let mut body = bodies.open(UNARY, false).guard(body);
        let drops = tokio::spawn(async move {
            for piece in message(MIB / 2) {
                tokio::time::sleep(STALL / 2).await;
                if pieces.send(vec![piece]).await.is_err() {
                    return;
                }
            }
        });
        let began = Instant::now();
        assert_eq!(read(&mut body).await.unwrap_err().code(), tonic::Code::DeadlineExceeded);
        assert!(began.elapsed() <= WHOLE + Duration::from_millis(10));
        drop(body);
        drops.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn between_its_messages_a_stream_may_be_silent() {
        let (pieces, body) = slow();
        let mut body = Bodies::default().open(STREAM, false).guard(body);
        for _ in 0..3 {
            pieces.send(message(10)).await.unwrap();
            assert!(read(&mut body).await.unwrap().is_some());
            assert!(timeout(10 * WHOLE, read(&mut body)).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_holds_its_share_and_no_more() {
        let bodies = Bodies::default();
        let size = MAX_PUBLIC_REQUEST_BYTES;
        let call = || {
            let call = bodies.open(UNARY, true);
            let body = call.guard(Body::new(Full::new(Bytes::from(message(size)))));
            (call, body)
        };
        let mut held = Vec::new();
        let refused = loop {
            let (call, mut body) = call();
            match read(&mut body).await {
                Ok(_) => held.push((call, body)),
                Err(status) => break status,
            }
        };
        assert_eq!((refused.code(), held.len()), (tonic::Code::ResourceExhausted, STRANGER / (HEADER + size)));
        assert!(refused.message().contains("try again"));
        assert!(bodies.all.used() <= STRANGER);
        // The body is read, and the handler works with the message still.
        held.iter_mut().for_each(|(_, body)| *body = Body::empty());
        let (next, mut waits) = call();
        let next_one = tokio::spawn(async move { (read(&mut waits).await, next) });
        tokio::time::sleep(WAIT / 2).await;
        held[0].0.held().release();
        next_one.await.unwrap().0.unwrap();
    }

    #[tokio::test]
    async fn one_beyond_its_caller_s_limit_is_refused_by_its_header_and_parts_of_a_stream_are_not() {
        let bodies = Bodies::default();
        let (limited, metrics) = (Limits { request_bytes: Some(100), ..Limits::default() }, Arc::new(Metrics::new("acme")));
        for (operation, size, fits) in [(UNARY, 100, true), (UNARY, 101, false), (STREAM, 101, true)] {
            let call = bodies.open(operation, false);
            call.metered.limit_size(&agent(), ("acme", limited), &metrics);
            // Nothing comes after the header of one that is too large.
            let whole = message(size);
            let come = if fits { &whole[..] } else { &whole[..HEADER] };
            let mut body = call.guard(Body::new(Full::new(Bytes::copy_from_slice(come))));
            match read(&mut body).await {
                Ok(read) => assert_eq!((read.unwrap().len(), fits), (HEADER + size, true)),
                Err(status) => {
                    assert_eq!((status.code(), fits), (tonic::Code::ResourceExhausted, false));
                    assert_eq!(reason(&status), "REQUEST_SIZE_LIMIT_EXCEEDED");
                }
            }
        }
        assert!(metrics.render().contains(r#"acb_limited_total{limit="requestBytes",subject="tenant acme"} 1"#));
    }

    #[tokio::test]
    async fn a_method_with_one_message_takes_no_second_one() {
        let bodies = Bodies::default();
        let mut body = bodies.open(UNARY, false).guard(Body::new(Full::new(Bytes::from([message(3), message(3)].concat()))));
        assert_eq!(read(&mut body).await.unwrap().unwrap(), message(3));
        assert_eq!(read(&mut body).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
