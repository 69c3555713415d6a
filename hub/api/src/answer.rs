//! The answer of a call, until its end: it ends early where the caller is no longer admitted, and says at its end what became of the call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use acb_hub_core::{
    door::call::{Call, Outcome, access_ended},
    kit::budget::Room,
};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use crate::{
    ending::{Admitted, Open},
    peer::OpenCall,
    status::{code_name, explain_trailers, reason, to_status},
};

/// The body of an answer, with all that lasts as long as its call.
pub(crate) struct Answer {
    of: Of,
    ended: bool,
    _lasting: Lasting,
}

/// Whose answer it is.
enum Of {
    /// Anybody's, until it is over: nobody has a right to lose.
    Anybody(Option<Open>),
    /// That of a proven caller.
    Caller(Admitted),
}

/// What is held until the peer has taken all of the answer.
pub(crate) struct Lasting {
    pub(crate) _open: Option<OpenCall>,
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
pub(crate) fn settle(call: &mut Call, status: Option<&Status>) {
    match status.filter(|status| status.code() != Code::Ok) {
        None => call.settle(Outcome::Done),
        Some(status) => call.settle(Outcome::Failed { code: code_name(status.code()), reason: &reason(status) }),
    }
}

impl Answer {
    pub(crate) fn new(body: Body, call: Call, admitted: Option<Admitted>, lasting: Lasting) -> Self {
        let open = Open { body, call };
        let of = match admitted {
            None => Of::Anybody(Some(open)),
            Some(admitted) => {
                admitted.answer(open);
                Of::Caller(admitted)
            }
        };
        Self { of, ended: false, _lasting: lasting }
    }
}

/// The next frame of an answer, if there is one, and whether it was the last.
fn next_frame(open: &mut Open, cx: &mut Context<'_>) -> Poll<(Option<Result<Frame<Bytes>, Status>>, bool)> {
    let Poll::Ready(next) = Pin::new(&mut open.body).poll_frame(cx) else { return Poll::Pending };
    Poll::Ready(match next {
        None => {
            settle(&mut open.call, None);
            (None, true)
        }
        Some(Err(status)) => {
            settle(&mut open.call, Some(&status));
            (Some(Err(status)), true)
        }
        Some(Ok(frame)) => match frame.into_trailers() {
            Err(data) => (Some(Ok(data)), false),
            Ok(trailers) => {
                let trailers = explain_trailers(trailers);
                settle(&mut open.call, Status::from_header_map(&trailers).as_ref());
                (Some(Ok(Frame::trailers(trailers))), true)
            }
        },
    })
}

/// The last frame of an answer whose caller lost the right to it.
fn last_frame() -> Option<Frame<Bytes>> {
    let mut trailers = HeaderMap::new();
    to_status(access_ended()).add_header(&mut trailers).ok().map(|()| Frame::trailers(trailers))
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match &mut self.of {
            Of::Anybody(None) => return Poll::Ready(None),
            Of::Anybody(Some(open)) => next_frame(open, cx),
            Of::Caller(admitted) => match admitted.poll_answer(cx, next_frame) {
                Some(next) => next,
                None => Poll::Ready((last_frame().map(Ok), true)),
            },
        };
        let Poll::Ready((next, over)) = next else { return Poll::Pending };
        if over {
            self.ended = true;
            if let Of::Anybody(open) = &mut self.of {
                *open = None;
            }
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
            || match &self.of {
                Of::Anybody(open) => open.as_ref().is_none_or(|open| open.body.is_end_stream()),
                Of::Caller(admitted) => admitted.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.of {
            Of::Anybody(Some(open)) => open.body.size_hint(),
            // It may be cut short.
            Of::Anybody(None) | Of::Caller(_) => SizeHint::default(),
        }
    }
}
