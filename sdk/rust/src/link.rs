//! What drives a session: one connection after another, and what has to outlive each of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use acb_proto::v1::{
    OutgoingMessage, SessionRequest, SessionResponse,
    session_request::{Ack, Frame as Out, InProgress, Open, Send, Started},
    session_response::{Delivery, Frame as In, Sent, sent::Outcome},
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{
    Client, Error, SendMessageResponse,
    backoff::{Limited, Patience, RESEND_FOR, STEADY},
    client::{Line, Next},
    error::broke,
    inbox::Inbox,
    message::Received,
};

const MOST_PENDING: usize = 256;
const MOST_PENDING_BYTES: usize = 16 << 20;

/// A session that was open, and finds another program in its place, tries again for so long: a hub knows a session for 10 s after its replica was
/// killed, and so also that of a program which took over and is gone.
const PRESENT_FOR: Duration = Duration::from_secs(15);
/// The reason of such a refusal.
const RECEIVER_PRESENT: &str = "RECEIVER_PRESENT";

/// Why the session ended, once it did.
pub(crate) type End = Arc<Mutex<Option<Error>>>;

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) message: OutgoingMessage,
    pub(crate) outcome: oneshot::Sender<Result<SendMessageResponse, Error>>,
}

struct Pending {
    sequence: u64,
    bytes: usize,
    command: Command,
    limited: Limited,
    /// On whichever connection. `None`: it is certainly not in the log.
    first_written: Option<Instant>,
    /// Whether it was written on an earlier connection, and not answered there.
    in_doubt: bool,
}

/// How one connection ended.
enum Ended {
    /// Nobody wants the session any more.
    Unwanted,
    /// It can go on with another connection.
    Broken(Error),
    /// It can't.
    Over(Error),
}

/// What happens on a connection.
enum Event {
    Frame(Result<Option<SessionResponse>, tonic::Status>),
    Deliverable,
    Writable,
    /// The hub reads no more.
    Deaf,
    Command(Command),
    Unwanted,
}

type Queues = (mpsc::Receiver<Command>, mpsc::Sender<Received>, watch::Sender<String>, End);

pub(crate) struct Driver {
    client: Client,
    inbox: Arc<Inbox>,
    /// How each connection begins: that the receiver is the same is how the hub knows the session again.
    open: Open,
    reconnect_for: Duration,
    commands: mpsc::Receiver<Command>,
    deliveries: mpsc::Sender<Received>,
    replica: watch::Sender<String>,
    end: End,
    /// Sent or to be sent, and not acknowledged; oldest first. Outlives connections.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// How many of `pending` were sent on the current connection.
    written: usize,
    /// The number of a message that the hub refused on the current connection. It fails what was written behind that, until it has seen
    /// the number again.
    refused: Option<u64>,
    /// A limit has no room before that: nothing more is sent on this session until then, so that its order stays.
    limited_until: Option<Instant>,
    next_sequence: u64,
    /// Whether the session was ever open.
    was_open: bool,
    /// Since when each try has found another program in its place.
    present_since: Option<Instant>,
    /// Whether the present connection has brought anything yet: a message, or the outcome of one.
    progressed: bool,
    renewed: bool,
}

/// The two directions of an open connection.
struct Stream {
    line: Line,
    out: mpsc::Sender<SessionRequest>,
    inbound: Streaming<SessionResponse>,
}

impl Driver {
    pub(crate) fn new(
        client: Client,
        inbox: Arc<Inbox>,
        open: Open,
        reconnect_for: Duration,
        (commands, deliveries, replica, end): Queues,
    ) -> Self {
        Self {
            client,
            inbox,
            open,
            reconnect_for,
            commands,
            deliveries,
            replica,
            end,
            pending: VecDeque::new(),
            pending_bytes: 0,
            written: 0,
            refused: None,
            limited_until: None,
            next_sequence: 1,
            was_open: false,
            present_since: None,
            renewed: false,
            progressed: false,
        }
    }

    pub(crate) async fn run(mut self, opened: oneshot::Sender<Result<(), Error>>) {
        let mut opened = Some(opened);
        let mut patience = self.client.patience();
        let error = loop {
            self.give_up_old();
            let ended = match self.open().await {
                Ok(stream) => {
                    match opened.take() {
                        Some(opened) => {
                            patience = Patience::new(self.reconnect_for);
                            // Whoever wanted the session may have gone meanwhile; the select below sees that.
                            drop(opened.send(Ok(())));
                        }
                        None => {
                            tracing::info!(replica = %*self.replica.borrow(), resent = self.pending.len(), "session reconnected")
                        }
                    }
                    self.progressed = false;
                    let began = Instant::now();
                    let ended = self.converse(stream).await;
                    // A hub that opens sessions and then fails what they are for is not tried again and again at once.
                    if self.progressed || began.elapsed() >= STEADY {
                        patience.renew();
                    }
                    ended
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Unwanted => break Error::Unavailable("the session is closed".to_owned()),
                Ended::Over(error) => break error,
                Ended::Broken(error) => {
                    tracing::debug!(%error, "session broke");
                    if error.reason() != RECEIVER_PRESENT {
                        // Whoever was in its place may have gone since.
                        self.present_since = None;
                    }
                    if let Err(error) = patience.wait(error).await {
                        break error;
                    }
                }
            }
        };
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        if let Some(opened) = opened {
            // Nobody waits for it where this fails.
            let _ = opened.send(Err(error.clone().during("session")));
        }
        for pending in self.pending.drain(..) {
            // A caller that dropped its receipt does not want to know.
            let _ = pending.command.outcome.send(Err(error.clone()));
        }
    }

    /// Answers for what is not sent again: those are the oldest. Nothing of it was written on a connection that is open.
    fn give_up_old(&mut self) {
        let is_old = |pending: &mut Pending| pending.first_written.is_some_and(|at| at.elapsed() > RESEND_FOR);
        while let Some(pending) = self.pending.pop_front_if(is_old) {
            self.pending_bytes -= pending.bytes;
            let minutes = RESEND_FOR.as_secs() / 60;
            let error = Error::Timeout(format!(
                "it is not known whether the message arrived: no answer within {minutes} minutes, and sent once more it might arrive twice"
            ));
            // A caller that dropped its receipt does not want to know.
            let _ = pending.command.outcome.send(Err(error));
        }
    }

    async fn open(&mut self) -> Result<Stream, Ended> {
        let line = self
            .client
            .line()
            .await
            .map_err(|error| if error.is_retryable() { Ended::Broken(error) } else { Ended::Over(error) })?;
        let (out, requests) = mpsc::channel(16);
        if out.send(request(Out::Open(self.open.clone()))).await.is_err() {
            return Err(Ended::Broken(Error::Unavailable("the connection closed".to_owned())));
        }
        let mut messages = line.messages();
        let handshake = async {
            let mut inbound = messages.session(ReceiverStream::new(requests)).await?.into_inner();
            Ok::<_, tonic::Status>((inbound.message().await?, inbound))
        };
        let (first, inbound) = match timeout(Client::ATTEMPT, handshake).await {
            Ok(Ok(both)) => both,
            Ok(Err(status)) => return Err(self.ended(&line, status).await),
            Err(_) => {
                self.client.leave(&line).await;
                return Err(Ended::Broken(Error::Timeout("the hub did not open the session in time".to_owned())));
            }
        };
        let Some(SessionResponse { frame: Some(In::Opened(opened)) }) = first else {
            self.client.leave(&line).await;
            return Err(Ended::Broken(Error::Unavailable("the hub closed the session at once".to_owned())));
        };
        self.renewed = false;
        self.was_open = true;
        // Who takes over from now on does it after this session: connected again, it must not end that one.
        self.open.take_over = false;
        self.client.name_replica(&opened.replica);
        self.replica.send_replace(opened.replica);
        self.inbox.forget_deliveries();
        for pending in self.pending.iter_mut().take(self.written) {
            pending.in_doubt = true;
        }
        self.written = 0;
        self.refused = None;
        Ok(Stream { line, out, inbound })
    }

    async fn converse(&mut self, mut stream: Stream) -> Ended {
        // A delivery that the application has no room for yet. While there is one, nothing more is read.
        let mut held: Option<Received> = None;
        loop {
            let room = self.pending.len() < MOST_PENDING && self.pending_bytes < MOST_PENDING_BYTES;
            let to_write = self.has_frame();
            let event = tokio::select! {
                frame = stream.inbound.message(), if held.is_none() => Event::Frame(frame),
                permit = self.deliveries.reserve(), if held.is_some() => permit.map_or(Event::Unwanted, |_| Event::Deliverable),
                permit = stream.out.reserve(), if to_write => permit.map_or(Event::Deaf, |_| Event::Writable),
                // Every sender is gone, and with them the session, where there is none.
                command = self.commands.recv(), if room => command.map_or(Event::Unwanted, Event::Command),
                () = self.inbox.woken() => continue,
                () = reached(self.inbox.remind_at()) => {
                    self.inbox.remind();
                    continue;
                }
                () = reached(self.limited_until) => {
                    self.limited_until = None;
                    continue;
                }
                () = self.deliveries.closed() => Event::Unwanted,
            };
            let ended = match event {
                Event::Frame(Ok(Some(SessionResponse { frame }))) => match self.take(frame, &mut held) {
                    Ok(()) => continue,
                    Err(ended) => ended,
                },
                Event::Frame(Ok(None)) => Ended::Broken(Error::Unavailable("the hub closed the session".to_owned())),
                Event::Frame(Err(status)) => return self.ended(&stream.line, status).await,
                // This task alone fills both queues: what had room has it still.
                Event::Deliverable => match held.take().map(|received| self.deliveries.try_send(received)) {
                    Some(Err(_)) => return self.finish(stream).await,
                    _ => continue,
                },
                Event::Writable => match self.next_frame().map(|frame| stream.out.try_send(request(frame)).is_err()) {
                    Some(true) => Ended::Broken(Error::Unavailable("the connection closed".to_owned())),
                    _ => continue,
                },
                // A closed outbound half shows its reason on the inbound one.
                Event::Deaf => match timeout(Client::ATTEMPT, stream.inbound.message()).await {
                    Ok(Err(status)) => return self.ended(&stream.line, status).await,
                    _ => Ended::Broken(Error::Unavailable("the hub closed the session".to_owned())),
                },
                Event::Command(command) => {
                    self.accept(command);
                    continue;
                }
                Event::Unwanted => return self.finish(stream).await,
            };
            self.client.leave(&stream.line).await;
            return ended;
        }
    }

    /// Takes one frame of the hub.
    fn take(&mut self, frame: Option<In>, held: &mut Option<Received>) -> Result<(), Ended> {
        match frame {
            Some(In::Sent(sent)) => self.settle(sent).map_err(Ended::Broken)?,
            Some(In::Delivery(delivery)) => *held = self.admit(delivery),
            Some(In::HeldBack(held_back)) => tracing::warn!(
                partition = held_back.partition,
                unacknowledged = held_back.unacknowledged,
                "the hub holds messages back until older ones are acknowledged"
            ),
            Some(In::Draining(_)) => return Err(Ended::Broken(Error::Unavailable("the replica is stopping".to_owned()))),
            Some(In::Opened(_)) | None => {}
        }
        Ok(())
    }

    /// Hands over what is left to be said, closes this side, and listens until the hub has closed the other.
    async fn finish(&mut self, stream: Stream) -> Ended {
        let Stream { out, mut inbound, .. } = stream;
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.accept(command);
        }
        while self.has_frame() || !self.pending.is_empty() {
            let to_write = self.has_frame();
            tokio::select! {
                frame = inbound.message() => match frame {
                    Ok(Some(SessionResponse { frame: Some(In::Sent(sent)) })) => {
                        if self.settle(sent).is_err() {
                            return Ended::Unwanted;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ended::Unwanted,
                },
                permit = out.reserve(), if to_write => match permit.ok().zip(self.next_frame()) {
                    Some((permit, frame)) => permit.send(request(frame)),
                    None => return Ended::Unwanted,
                },
                () = reached(self.limited_until) => self.limited_until = None,
            }
        }
        drop(out);
        while let Ok(Some(_)) = inbound.message().await {}
        Ended::Unwanted
    }

    fn accept(&mut self, command: Command) {
        let bytes = command.message.encoded_len();
        self.pending_bytes += bytes;
        self.pending.push_back(Pending {
            sequence: self.next_sequence,
            bytes,
            command,
            limited: Limited::default(),
            first_written: None,
            in_doubt: false,
        });
        self.next_sequence += 1;
    }

    fn has_frame(&self) -> bool {
        self.inbox.has_news() || (self.may_send() && self.written < self.pending.len())
    }

    fn may_send(&self) -> bool {
        self.refused.is_none() && self.limited_until.is_none()
    }

    fn next_frame(&mut self) -> Option<Out> {
        let delivery_ids = self.inbox.take_acks();
        if !delivery_ids.is_empty() {
            return Some(Out::Ack(Ack { delivery_ids }));
        }
        let delivery_ids = self.inbox.take_started();
        if !delivery_ids.is_empty() {
            return Some(Out::Started(Started { delivery_ids }));
        }
        let delivery_ids = self.inbox.take_in_progress();
        if !delivery_ids.is_empty() {
            return Some(Out::InProgress(InProgress { delivery_ids }));
        }
        if !self.may_send() {
            return None;
        }
        let pending = self.pending.get_mut(self.written)?;
        pending.first_written.get_or_insert_with(Instant::now);
        self.written += 1;
        Some(Out::Send(Send { sequence: pending.sequence, message: Some(pending.command.message.clone()) }))
    }

    /// Settles what the hub answered for. An error means: connect again, and send everything that is left again.
    fn settle(&mut self, sent: Sent) -> Result<(), Error> {
        let Some(index) = self.pending.iter().position(|pending| pending.sequence == sent.sequence) else {
            return Ok(());
        };
        // The hub answers in order: nothing that is on its way comes after this.
        let last = index + 1 == self.written;
        let outcome = match sent.outcome {
            Some(Outcome::Accepted(accepted)) => {
                self.progressed = true;
                Ok(accepted)
            }
            Some(Outcome::Failed(failed)) if failed.code == Code::Unavailable as i32 => {
                return Err(Error::refused(Code::Unavailable, failed.reason, failed.message));
            }
            Some(Outcome::Failed(failed)) => {
                let after = failed.retry_after.and_then(|after| Duration::try_from(after).ok());
                Err(Error::refused(Code::from(failed.code), failed.reason, failed.message).until(after))
            }
            None => Err(Error::refused(Code::Internal, "", "the hub answered without an outcome")),
        };
        // Not in the log, and for no reason of its own: it is sent again below, and its caller has nothing to mend.
        let aborted = self.refused.is_some() && outcome.as_ref().is_err_and(|error| error.code() == Code::Aborted);
        let limited = match (&outcome, self.pending.get_mut(index)) {
            (Err(error), Some(pending)) => {
                pending.limited.again_at(error).inspect(|_| tracing::warn!(%error, "waiting for a limit"))
            }
            _ => None,
        };
        self.limited_until = self.limited_until.max(limited);
        // What the hub kept back is certainly not in its log, unless an earlier connection brought it there.
        if (aborted || limited.is_some())
            && let Some(pending) = self.pending.get_mut(index).filter(|pending| !pending.in_doubt)
        {
            pending.first_written = None;
        }
        if outcome.is_err() {
            self.refused.get_or_insert(sent.sequence);
        }
        if !aborted
            && limited.is_none()
            && let Some(pending) = self.pending.remove(index)
        {
            self.pending_bytes -= pending.bytes;
            self.written = self.written.saturating_sub(1);
            // A caller that dropped its receipt does not want to know.
            let _ = pending.command.outcome.send(outcome);
        }
        if last && let Some(refused) = self.refused.take() {
            self.written = 0;
            self.next_sequence = refused;
            for pending in &mut self.pending {
                pending.sequence = self.next_sequence;
                self.next_sequence += 1;
            }
        }
        Ok(())
    }

    fn admit(&mut self, delivery: Delivery) -> Option<Received> {
        self.progressed = true;
        let message_id = delivery.message.as_ref().map(|message| message.id.as_str()).unwrap_or_default();
        let acker = self.inbox.admit(message_id, &delivery.delivery_id, delivery.redelivered)?;
        Some(Received::new(delivery, acker, self.client.clone()))
    }

    async fn ended(&mut self, line: &Line, status: tonic::Status) -> Ended {
        // What passes by itself, at the same replica or at another.
        let passing =
            broke(&status) || matches!(status.code(), Code::ResourceExhausted | Code::Cancelled | Code::Internal | Code::Unknown);
        let mut renewed = self.renewed;
        let next = self.client.judge(line, status, &mut renewed).await;
        self.renewed = renewed;
        match next {
            Next::Again => Ended::Broken(Error::Unavailable("the access token was renewed".to_owned())),
            Next::Later(error) => Ended::Broken(error),
            Next::Never(error) if passing => {
                self.client.leave(line).await;
                Ended::Broken(error)
            }
            Next::Never(error) if self.may_be_left_over(&error) => Ended::Broken(error),
            Next::Never(error) => Ended::Over(error),
        }
    }

    /// Whether the program that receives in this one's place may be gone, and the hub not know it yet.
    fn may_be_left_over(&mut self, error: &Error) -> bool {
        self.was_open
            && error.reason() == RECEIVER_PRESENT
            && self.present_since.get_or_insert_with(Instant::now).elapsed() < PRESENT_FOR
    }
}

/// Resolves at that time; never where there is none.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn request(frame: Out) -> SessionRequest {
    SessionRequest { frame: Some(frame) }
}
