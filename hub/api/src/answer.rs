//! The answer of a call, until its end: it ends early where the caller is no longer admitted, and says at its end what became of the call.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use acb_hub_core::{
    door::{
        call::{Call, Outcome},
        rules::Audited,
    },
    fault::Fault,
};
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body};

use crate::{
    answer_room::AnswerRoom,
    ending::{Admitted, Open},
    peer::OpenCall,
    status::{code_name, explain_trailers, reason, to_status},
};

/// The body of an answer, with all that lasts as long as its call.
pub(crate) struct Answer {
    of: Of,
    ended: bool,
    /// Its call is open until the peer has taken all of it, or is gone.
    _open: Option<OpenCall>,
}

/// Whose answer it is.
enum Of {
    /// Anybody's, until it is over: nobody has a right to lose.
    Anybody(Option<Box<Open>>),
    /// That of a proven caller.
    Caller(Admitted),
}

/// Writes what became of a call.
fn settle(call: &mut Call, status: Option<&Status>) {
    match status.filter(|status| status.code() != Code::Ok) {
        None => call.settle(Outcome::Done),
        Some(status) => call.settle(Outcome::Failed { code: code_name(status.code()), reason: &reason(status) }),
    }
}

/// Records what becomes of a call before anything of its answer goes out.
pub(crate) async fn begin(call: &mut Call, status: Option<&Status>) -> Result<(), Fault> {
    match status.filter(|status| status.code() != Code::Ok) {
        Some(status) => call.answer(Outcome::Failed { code: code_name(status.code()), reason: &reason(status) }).await,
        None if call.rule().answers_many && status.is_none() => call.begin().await,
        None => call.answer(Outcome::Done).await,
    }
}

impl Answer {
    pub(crate) fn new(
        body: Body,
        call: Call,
        admitted: Option<Admitted>,
        room: Option<AnswerRoom>,
        open_call: Option<OpenCall>,
    ) -> Self {
        let open = Open { body, rest: Bytes::new(), call, _room: room, offered: Some(Instant::now()) };
        let of = match admitted {
            None => Of::Anybody(Some(Box::new(open))),
            Some(admitted) => {
                admitted.answer(open);
                Of::Caller(admitted)
            }
        };
        Self { of, ended: false, _open: open_call }
    }
}

/// What HTTP/2 gets of an answer at a time. It takes the next piece once the peer has a window again, and so keeps little of an answer that is not
/// taken; the rest is here, where it is counted.
const PIECE: usize = 64 * 1024;

/// The next piece of a message: a copy, since one that is not taken must not keep all of the message in memory.
fn piece(rest: &mut Bytes) -> Bytes {
    let next = rest.split_to(rest.len().min(PIECE));
    if rest.is_empty() {
        // An empty rest keeps it, too.
        *rest = Bytes::new();
    }
    Bytes::copy_from_slice(&next)
}

/// A stream's end says how much was read.
fn read(call: &Call, data: &Bytes) {
    if call.rule().answers_many && call.rule().audited == Audited::Read {
        call.trail().bytes(data.len() as u64);
    }
}

/// The next frame of an answer, if there is one, and whether it was the last.
type Next = (Option<Result<Frame<Bytes>, Status>>, bool);

fn next_frame(open: &mut Open, cx: &mut Context<'_>) -> Poll<Next> {
    if !open.rest.is_empty() {
        return Poll::Ready((Some(Ok(Frame::data(piece(&mut open.rest)))), false));
    }
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
        Some(Ok(frame)) => match frame.into_data().inspect(|data| read(&open.call, data)) {
            Ok(data) if data.len() <= PIECE => (Some(Ok(Frame::data(data))), false),
            Ok(data) => {
                open.rest = data;
                (Some(Ok(Frame::data(piece(&mut open.rest)))), false)
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let trailers = explain_trailers(trailers);
                settle(&mut open.call, Status::from_header_map(&trailers).as_ref());
                (Some(Ok(Frame::trailers(trailers))), true)
            }
        },
    })
}

/// The last frame of an answer that ends before its time.
fn last_frame(fault: Fault) -> Option<Frame<Bytes>> {
    let mut trailers = HeaderMap::new();
    to_status(fault).add_header(&mut trailers).ok().map(|()| Frame::trailers(trailers))
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
                None => Poll::Ready((last_frame(admitted.reason().fault()).map(Ok), true)),
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
                Of::Anybody(open) => open.as_ref().is_none_or(|open| open.is_end_stream()),
                Of::Caller(admitted) => admitted.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.of {
            Of::Anybody(Some(open)) if open.rest.is_empty() => open.body.size_hint(),
            // It is in pieces, or may be cut short.
            Of::Anybody(_) | Of::Caller(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_answer_goes_out_in_pieces_and_none_keeps_the_others() {
        let mut rest = Bytes::from((0..2 * PIECE + 10).map(|byte| u8::try_from(byte % 251).unwrap()).collect::<Vec<_>>());
        let (all, mut pieces) = (rest.clone(), Vec::new());
        while !rest.is_empty() {
            pieces.push(piece(&mut rest));
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, PIECE, 10]);
        assert_eq!(pieces.concat(), all);
        let kept = all.as_ptr_range();
        assert!(pieces.iter().all(|piece| !kept.contains(&piece.as_ptr())), "they are copies");
        assert!(rest.as_ptr() != all.as_ptr() && all.is_unique(), "nobody else keeps it");
    }
}
