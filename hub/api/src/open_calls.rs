//! Calls of proven callers that are open. Each is looked at every second, and ended in all its directions once its caller would not be let in
//! any more: whether or not anything comes or goes on it.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use acb_hub_core::{
    directory::caller::Caller,
    door::{admission::Door, rules::Rule},
    fault::{Code, Fault},
};
use bytes::Bytes;
use futures::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use time::OffsetDateTime;
use tonic::{Status, body::Body};

use crate::{peer::Peer, status::to_status};

/// How soon a call ends after its caller lost the right to it.
const RECHECK: Duration = Duration::from_secs(1);

/// The calls of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenCalls {
    calls: Arc<Mutex<HashMap<u64, Call>>>,
    next: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Call {
    rule: &'static Rule,
    caller: Caller,
    ending: Arc<Ending>,
}

/// Ends one call.
#[derive(Debug)]
struct Ending {
    ended: AtomicBool,
    /// Who waits to hear of it: the handler, and after it what goes out; and what comes in.
    out: AtomicWaker,
    inward: AtomicWaker,
    peer: Option<Peer>,
}

impl OpenCalls {
    /// An open call, until what is returned is dropped.
    pub(crate) fn enter(&self, rule: &'static Rule, caller: &Caller, peer: Option<Peer>) -> Admitted {
        if let Some(peer) = &peer {
            peer.admit();
        }
        let ending =
            Arc::new(Ending { ended: AtomicBool::new(false), out: AtomicWaker::new(), inward: AtomicWaker::new(), peer });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Call { rule, caller: caller.clone(), ending: ending.clone() });
        Admitted { number, calls: self.clone(), ending }
    }

    /// Looks at them for as long as it is polled.
    pub(crate) async fn watch(&self, door: &Door) {
        loop {
            tokio::time::sleep(RECHECK).await;
            let now = OffsetDateTime::now_utc();
            let lost: Vec<Call> = {
                let calls = self.lock();
                let lost = calls.values().filter(|call| !call.ending.ended() && !door.still_admits(call.rule, &call.caller, now));
                lost.cloned().collect()
            };
            for Call { rule, caller, ending } in lost {
                let (tenant, agent, method) = (door.tenant(), &caller.agent.name, rule.method());
                tracing::info!(target: "acb::audit", tenant, agent, method, outcome = "ended", reason = "ACCESS_ENDED");
                ending.end();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    fn end(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(peer) = &self.peer {
            peer.doubt();
            peer.done();
        }
        self.out.wake();
        self.inward.wake();
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

/// One open call.
#[derive(Debug)]
pub(crate) struct Admitted {
    number: u64,
    calls: OpenCalls,
    ending: Arc<Ending>,
}

impl Admitted {
    /// Resolves when it must end. To be awaited before the answer is there.
    pub(crate) async fn ended(&self) {
        std::future::poll_fn(|cx| if self.ending.poll(&self.ending.out, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The same, of the answer's body.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> bool {
        self.ending.poll(&self.ending.out, cx)
    }

    /// What comes in, until it must end.
    pub(crate) fn guard(&self, body: Body) -> Body {
        Body::new(Inward { body, ending: self.ending.clone(), told: false })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.number);
        if !self.ending.ended.swap(true, Ordering::AcqRel)
            && let Some(peer) = &self.ending.peer
        {
            peer.done();
        }
        self.ending.inward.wake();
    }
}

/// What a caller hears at the end of its rights.
pub(crate) fn access_ended() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "ACCESS_ENDED",
        "the access token has expired, or the agent's rights have changed: get a new token and call again",
    )
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
            return Poll::Ready((!told).then(|| Err(to_status(access_ended()))));
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
