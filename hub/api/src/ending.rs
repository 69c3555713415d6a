//! How an open call ends before its time: in all its directions, whether or not the peer takes or sends anything. What the call holds is let go of at
//! once; a peer that takes nothing keeps no more than the place of its call.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use acb_hub_core::door::{
    call::{Call, Outcome},
    open_calls::{self, Reason},
};
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

use crate::{answer_room::AnswerRoom, peer::Peer, status::to_status};

/// Ends one call.
#[derive(Debug)]
pub(crate) struct Ending {
    ended: AtomicBool,
    /// Set before it is ended for one.
    reason: OnceLock<Reason>,
    /// Who waits to hear of it: the handler, and after it what goes out; and what comes in.
    out: AtomicWaker,
    inward: AtomicWaker,
    /// The answer, once there is one and until it is over. HTTP/2 asks for none of it while the peer takes nothing, so the end must reach it without
    /// being asked.
    answer: Mutex<Option<Open>>,
    peer: Option<Peer>,
}

/// An answer that is not over.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) body: Body,
    /// Of the message that goes out.
    pub(crate) rest: Bytes,
    pub(crate) call: Call,
    /// Of what the answer holds.
    pub(crate) _room: Option<AnswerRoom>,
    /// Since when the peer could take what there is. HTTP/2 asks for the next frame when it has taken the one before. `None`: there is none yet.
    pub(crate) offered: Option<Instant>,
}

impl Open {
    /// Whether nothing more comes of it.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

impl Ending {
    /// That of a call of a proven caller.
    fn new(peer: Option<Peer>) -> Arc<Self> {
        if let Some(peer) = &peer {
            peer.admit();
        }
        Arc::new(Self {
            ended: AtomicBool::new(false),
            reason: OnceLock::new(),
            out: AtomicWaker::new(),
            inward: AtomicWaker::new(),
            answer: Mutex::default(),
            peer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the answer, if there is one.
    fn let_go(&self) {
        // Dropped outside the lock: a handler may do any amount of work at its end.
        let answer = self.lock().take();
        if let Some(mut open) = answer {
            open.call.settle(Outcome::Ended(self.reason()));
        }
    }

    /// Why. Before it has ended, that its caller lost the right to it.
    fn reason(&self) -> Reason {
        self.reason.get().copied().unwrap_or(Reason::AccessEnded)
    }

    /// Whether it is ended; the waker hears of it if not.
    fn poll(&self, waker: &AtomicWaker, cx: &Context<'_>) -> bool {
        if self.ended() {
            return true;
        }
        waker.register(cx.waker());
        self.ended()
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl open_calls::Ending for Ending {
    fn end(&self, reason: Reason) {
        let _earlier = self.reason.set(reason);
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(peer) = &self.peer {
            if reason == Reason::AccessEnded {
                peer.doubt();
            }
            peer.done();
        }
        self.let_go();
        self.out.wake();
        self.inward.wake();
    }

    fn stalled(&self) -> Option<Duration> {
        Some(self.lock().as_ref()?.offered?.elapsed())
    }
}

/// An open call of a proven caller, as long as this lives.
#[derive(Debug)]
pub(crate) struct Admitted(Arc<Ending>);

impl Admitted {
    /// From here on the call ends with its caller's rights.
    pub(crate) fn new(call: &mut Call, peer: Option<Peer>) -> Self {
        let ending = Ending::new(peer);
        let known: Arc<dyn open_calls::Ending> = ending.clone();
        call.ends_with_rights(Arc::downgrade(&known));
        Self(ending)
    }

    /// Why it must end.
    pub(crate) fn reason(&self) -> Reason {
        self.0.reason()
    }

    /// Resolves when it must end. To be awaited before the answer is there.
    pub(crate) async fn ended(&self) {
        std::future::poll_fn(|cx| if self.0.poll(&self.0.out, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The answer is there.
    pub(crate) fn answer(&self, open: Open) {
        *self.0.lock() = Some(open);
        // The end may have come a moment before it.
        if self.0.ended() {
            self.0.let_go();
        }
    }

    /// Asks the answer for its next frame, and whether that was the last one. `None` where the call must end instead.
    pub(crate) fn poll_answer<T>(
        &self,
        cx: &mut Context<'_>,
        next: impl FnOnce(&mut Open, &mut Context<'_>) -> Poll<(T, bool)>,
    ) -> Option<Poll<(T, bool)>> {
        let mut answer = self.0.lock();
        if self.0.poll(&self.0.out, cx) {
            return None;
        }
        let open = answer.as_mut()?;
        open.offered = None;
        let next = next(open, cx);
        if next.is_ready() {
            open.offered = Some(Instant::now());
        }
        let over = answer.take_if(|_| matches!(next, Poll::Ready((_, true))));
        // Let go of outside the lock.
        drop(answer);
        drop(over);
        Some(next)
    }

    /// Whether nothing more comes of the answer.
    pub(crate) fn is_end_stream(&self) -> bool {
        !self.0.ended() && self.0.lock().as_ref().is_none_or(Open::is_end_stream)
    }

    /// What comes in, until it must end.
    pub(crate) fn guard(&self, body: Body) -> Body {
        Body::new(Inward { body, ending: self.0.clone(), told: false })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.0.ended.swap(true, Ordering::AcqRel)
            && let Some(peer) = &self.0.peer
        {
            peer.done();
        }
        let answer = self.0.lock().take();
        drop(answer);
        self.0.inward.wake();
    }
}

/// A request's body that ends with the call.
struct Inward {
    body: Body,
    ending: Arc<Ending>,
    told: bool,
}

impl HttpBody for Inward {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ending.poll(&this.ending.inward, cx) {
            let told = std::mem::replace(&mut this.told, true);
            return Poll::Ready((!told).then(|| Err(to_status(this.ending.reason().fault()))));
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.told || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
