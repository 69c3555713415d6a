//! The answer of a call, until its end: it ends early where the caller is no longer admitted, and says at its end what became of the call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use acb_hub_core::{directory::refresher::Connected, fault::Fault, kit::budget::Room};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use crate::{
    open_calls::{Admitted, access_ended},
    peer::OpenCall,
    request_body::RequestBody,
    status::{code_name, explain_trailers, reason, to_status},
    trail::Record,
};

/// The body of an answer, with all that lasts as long as its call.
pub(crate) struct Answer {
    pub(crate) body: Body,
    pub(crate) admitted: Option<Admitted>,
    /// None once it is written: of a call with one answer, at its beginning.
    pub(crate) record: Option<Record>,
    pub(crate) ended: bool,
    pub(crate) _lasting: Lasting,
}

/// What a call holds until its end.
pub(crate) struct Lasting {
    pub(crate) _connected: Option<Connected>,
    pub(crate) _open: Option<OpenCall>,
    pub(crate) _body: RequestBody,
    pub(crate) _room: Option<AnswerRoom>,
}

/// The room of what an answer holds. It comes with the answer, and is given back when the peer has taken that.
#[derive(Clone, Debug)]
pub(crate) struct AnswerRoom(#[expect(dead_code, reason = "it is held")] Arc<Vec<Room>>);

impl AnswerRoom {
    pub(crate) fn new(rooms: Vec<Room>) -> Self {
        Self(Arc::new(rooms))
    }
}

/// Writes what became of a call.
pub(crate) fn settle(record: Record, status: Option<&Status>) {
    match status.filter(|status| status.code() != Code::Ok) {
        None => record.done(),
        Some(status) => record.failed(code_name(status.code() as i32), &reason(status)),
    }
}

impl Answer {
    fn settle(&mut self, status: Option<&Status>) {
        if let Some(record) = self.record.take() {
            settle(record, status);
        }
    }

    /// The last frame: a failure.
    fn end(&mut self, fault: Fault) -> Option<Frame<Bytes>> {
        self.ended = true;
        let status = to_status(fault);
        self.settle(Some(&status));
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).ok().map(|()| Frame::trailers(trailers))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.admitted.as_ref().is_some_and(|admitted| admitted.poll_ended(cx)) {
            return Poll::Ready(this.end(access_ended()).map(Ok));
        }
        let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) else { return Poll::Pending };
        let next = match next {
            None => {
                this.settle(None);
                None
            }
            Some(Err(status)) => {
                this.settle(Some(&status));
                Some(Err(status))
            }
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Err(data) => data,
                Ok(trailers) => {
                    let trailers = explain_trailers(trailers);
                    this.settle(Status::from_header_map(&trailers).as_ref());
                    Frame::trailers(trailers)
                }
            })),
        };
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
