//! The answer of a call whose messages are JSON: one text, or a stream of events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
//! The gRPC trailers that say how the call ended come last, for who sends the answer on.

use std::time::Duration;

use acb_hub_core::{door::meter::Metered, kit::budget::Room};
use bytes::Bytes;
use futures::{Stream, stream};
use http::HeaderMap;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};

use super::{
    call::JsonCall,
    cursor::Cursor,
    grpc_messages::{GrpcMessages, Next},
};
use crate::status::to_status;

/// How often a stream without events says that it is alive. Proxies end what is silent for a minute.
const ALIVE: Duration = Duration::from_secs(20);

/// The answer in JSON. What its text takes is counted as the answer's messages are.
pub(crate) fn translate(body: Body, call: JsonCall, metered: Metered) -> Body {
    let answer = Answer { messages: GrpcMessages::new(body), call, metered, room: None };
    if answer.call.answers_many() {
        let cursor = answer.call.cursor();
        Body::new(StreamBody::new(answer.events(cursor)))
    } else {
        Body::new(StreamBody::new(answer.text()))
    }
}

struct Answer {
    messages: GrpcMessages,
    call: JsonCall,
    metered: Metered,
    /// Of the text that was handed out last.
    room: Option<Room>,
}

type Frames = Result<Frame<Bytes>, Status>;

impl Answer {
    fn say(&mut self, text: Vec<u8>) -> Frame<Bytes> {
        self.room = self.metered.reformed(text.len());
        Frame::data(text.into())
    }

    /// One text, once it is known that the call did not fail.
    fn text(self) -> impl Stream<Item = Frames> {
        /// What is still to come.
        enum Left {
            All(Answer),
            Trailers(HeaderMap, Answer),
            Nothing,
        }
        stream::unfold(Left::All(self), |left| async {
            match left {
                Left::All(mut answer) => match answer.whole().await {
                    Ok((Some(text), trailers)) => Some((Ok(text), Left::Trailers(trailers, answer))),
                    Ok((None, trailers)) => Some((Ok(Frame::trailers(trailers)), Left::Nothing)),
                    Err(status) => Some((Err(status), Left::Nothing)),
                },
                Left::Trailers(trailers, answer) => {
                    drop(answer);
                    Some((Ok(Frame::trailers(trailers)), Left::Nothing))
                }
                Left::Nothing => None,
            }
        })
    }

    /// The text of the one message, and how the call ended.
    async fn whole(&mut self) -> Result<(Option<Frame<Bytes>>, HeaderMap), Status> {
        let mut message = None;
        let trailers = loop {
            match self.messages.next().await? {
                Next::Message(next) => message = Some(next),
                Next::Trailers(trailers) => break trailers,
                Next::End => break HeaderMap::new(),
            }
        };
        let failed = Status::from_header_map(&trailers).is_some_and(|status| status.code() != Code::Ok);
        let text = match message.filter(|_| !failed) {
            None => None,
            Some(message) => {
                let text = self.call.answer(message).map_err(to_status)?;
                Some(self.say(text))
            }
        };
        Ok((text, trailers))
    }

    /// An event for each message.
    fn events(self, cursor: Cursor) -> impl Stream<Item = Frames> {
        stream::unfold(Some((self, cursor)), |state| async {
            let (mut answer, mut cursor) = state?;
            // Who asks for the next event has taken the one before.
            answer.room = None;
            let next = match timeout(ALIVE, answer.messages.next()).await {
                // A comment, which readers pass over.
                Err(_) => return Some((Ok(Frame::data(Bytes::from_static(b":\n\n"))), Some((answer, cursor)))),
                Ok(next) => next,
            };
            match next {
                Ok(Next::Message(message)) => {
                    let id = cursor.pass(&answer.call.answers(), &message);
                    match answer.call.answer(message) {
                        Ok(text) => {
                            let event = answer.say(event(id.as_deref(), &text));
                            Some((Ok(event), Some((answer, cursor))))
                        }
                        Err(fault) => Some((Err(to_status(fault)), None)),
                    }
                }
                Ok(Next::Trailers(trailers)) => Some((Ok(Frame::trailers(trailers)), None)),
                Ok(Next::End) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

/// JSON has no line breaks outside of its texts, and escapes those inside.
fn event(id: Option<&str>, text: &[u8]) -> Vec<u8> {
    let mut event = Vec::with_capacity(text.len() + 64);
    if let Some(id) = id {
        event.extend_from_slice(b"id: ");
        event.extend_from_slice(id.as_bytes());
        event.push(b'\n');
    }
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(text);
    event.extend_from_slice(b"\n\n");
    event
}
