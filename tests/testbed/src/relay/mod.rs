//! Stands between a client and what it writes to, and counts what is asked. A request that a test waits for is held there, as a network or a
//! process that sleeps would hold it, and let go when the test says so.

mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
    time::timeout,
};

use self::wire::Stream;
pub use self::wire::{Protocol, Request};

const BUFFER: usize = 64 << 10;
/// What was sent by a process that is gone is answered by then, or never.
const LINGER: Duration = Duration::from_secs(5);
/// Enough of an answer to see what it says.
const ANSWER: usize = 16 << 10;

/// Whether a request is the one.
pub type Matches = Box<dyn Fn(&Request) -> bool + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next request that matches is held.
    Armed,
    /// One is held. Where its sender gives up, it was never sent, and the next one is waited for.
    Held,
    /// One is held, whatever becomes of its sender.
    Sealed,
    /// It goes on to where it was sent.
    Delivered,
    /// It is lost.
    Dropped,
}

/// A request that is waited for.
pub struct Hold {
    matches: Matches,
    state: Mutex<(Stage, Vec<u8>)>,
    changed: Notify,
}

impl Hold {
    fn state(&self) -> MutexGuard<'_, (Stage, Vec<u8>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, from: Stage, to: Stage) -> bool {
        let mut state = self.state();
        let turns = state.0 == from;
        if turns {
            state.0 = to;
            drop(state);
            self.changed.notify_waiters();
        }
        turns
    }

    /// Whether a request is held that its sender still waits for.
    pub fn is_held(&self) -> bool {
        self.state().0 == Stage::Held
    }

    /// Keeps what is held. False where nothing is.
    pub fn seal(&self) -> bool {
        self.turn(Stage::Held, Stage::Sealed)
    }

    /// Lets it arrive.
    pub fn deliver(&self) {
        self.turn(Stage::Sealed, Stage::Delivered);
    }

    /// Lets it be lost.
    pub fn lose(&self) {
        self.turn(Stage::Sealed, Stage::Dropped);
    }

    /// What came back since it was held.
    pub fn answer(&self) -> Vec<u8> {
        self.state().1.clone()
    }

    /// Waits until it is decided: whether it goes on.
    async fn decided(&self) -> bool {
        loop {
            let changed = self.changed.notified();
            match self.state().0 {
                Stage::Delivered => return true,
                Stage::Dropped => return false,
                _ => {}
            }
            // What is told between the look and here is told again below.
            let _ = timeout(Duration::from_millis(50), changed).await;
        }
    }
}

type Holds = Arc<Mutex<Vec<Arc<Hold>>>>;
/// By what was asked.
type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// A relay. Its task ends with the runtime.
#[derive(Clone)]
pub struct Relay {
    /// On loopback.
    pub port: u16,
    holds: Holds,
    counts: Counts,
}

impl Relay {
    /// Before what is at this address.
    pub async fn start(protocol: Protocol, behind: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Self { port: listener.local_addr()?.port(), holds: Holds::default(), counts: Counts::default() };
        let shared = relay.clone();
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                // A connection that breaks is one that the operator has to cope with.
                tokio::spawn(pass(outside, behind, protocol, shared.clone()));
            }
        });
        Ok(relay)
    }

    /// How often what was asked for so far.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, request: &Request) {
        if !request.what.is_empty() {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            *counts.entry(request.what.clone()).or_default() += 1;
        }
    }

    /// Holds the next request that matches.
    pub fn hold(&self, matches: Matches) -> Arc<Hold> {
        let hold = Arc::new(Hold { matches, state: Mutex::new((Stage::Armed, Vec::new())), changed: Notify::new() });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| !matches!(hold.state().0, Stage::Delivered | Stage::Dropped));
        holds.push(Arc::clone(&hold));
        hold
    }
}

fn claim(holds: &Holds, request: &Request) -> Option<Arc<Hold>> {
    let holds = holds.lock().unwrap_or_else(PoisonError::into_inner);
    holds.iter().find(|hold| (hold.matches)(request) && hold.turn(Stage::Armed, Stage::Held)).cloned()
}

/// The hold of a connection whose answer is looked at.
type Watched = Arc<Mutex<Option<Arc<Hold>>>>;

async fn pass(outside: TcpStream, behind: SocketAddr, protocol: Protocol, relay: Relay) -> std::io::Result<()> {
    let inside = TcpStream::connect(behind).await?;
    outside.set_nodelay(true)?;
    inside.set_nodelay(true)?;
    let ((from_outside, to_outside), (from_inside, mut to_inside)) = (outside.into_split(), inside.into_split());
    let watched = Watched::default();
    let answers = tokio::spawn(answers(from_inside, to_outside, Arc::clone(&watched)));
    let abort = answers.abort_handle();
    let way = Way { from: from_outside, stream: Stream::new(protocol), is_open: true };
    // The end of a connection may end what was asked on it: where its sender is gone, the answer comes first.
    if way.pass(&mut to_inside, &relay, &watched).await {
        let _ = timeout(LINGER, answers).await;
    }
    abort.abort();
    Ok(())
}

/// From the client, up to a held request.
struct Way {
    from: OwnedReadHalf,
    stream: Stream,
    is_open: bool,
}

impl Way {
    /// Passes requests on until the client hangs up. Answers with whether one that was held went on.
    async fn pass(mut self, to: &mut OwnedWriteHalf, relay: &Relay, watched: &Watched) -> bool {
        let mut released = false;
        loop {
            while let Some(request) = self.stream.next().unwrap_or_else(|error| panic!("the relay hangs up: {error}")) {
                relay.count(&request);
                if let Some(hold) = claim(&relay.holds, &request) {
                    *watched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&hold));
                    if !self.wait(&hold).await {
                        return false;
                    }
                    released = true;
                }
                if to.write_all(&request.bytes).await.is_err() {
                    return false;
                }
            }
            if self.is_open {
                self.read().await;
            }
            if !self.is_open {
                return released;
            }
        }
    }

    async fn read(&mut self) {
        let mut buffer = vec![0; BUFFER];
        match self.from.read(&mut buffer).await {
            Ok(read) if read > 0 => self.stream.unread.extend_from_slice(&buffer[..read]),
            _ => self.is_open = false,
        }
    }

    /// Waits with a held request. False where it is lost, or its sender gave it up before it was sealed.
    async fn wait(&mut self, hold: &Hold) -> bool {
        loop {
            tokio::select! {
                goes = hold.decided() => return goes,
                () = self.read(), if self.is_open => {
                    if !self.is_open && hold.turn(Stage::Held, Stage::Armed) {
                        return false;
                    }
                }
            }
        }
    }
}

/// The way back. What the client does not want any more is looked at all the same.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, watched: Watched) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        if let Some(hold) = &*watched.lock().unwrap_or_else(PoisonError::into_inner) {
            let mut state = hold.state();
            let room = ANSWER.saturating_sub(state.1.len());
            state.1.extend_from_slice(&buffer[..read.min(room)]);
        }
        let _ = to.write_all(&buffer[..read]).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const REQUEST: &[u8] = b"\x00\x00\x00\x02\x00\x13";

    /// A relay before a server that answers every six bytes with `ok`.
    async fn relay() -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 6];
                    while stream.read_exact(&mut request).await.is_ok() && stream.write_all(b"ok").await.is_ok() {}
                });
            }
        });
        Relay::start(Protocol::Kafka, address).await.unwrap()
    }

    async fn ask(relay: &Relay) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", relay.port)).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream
    }

    async fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_is_given_up_is_waited_for_again_and_what_is_sealed_arrives() {
        let relay = relay().await;
        let hold = relay.hold(Box::new(|request| request.what == "CreateTopics"));
        let first = ask(&relay).await;
        until(|| hold.is_held()).await;
        drop(first);
        until(|| !hold.is_held()).await;
        let second = ask(&relay).await;
        until(|| hold.is_held()).await;
        assert!(hold.seal());
        drop(second);
        // Others pass meanwhile.
        let mut third = ask(&relay).await;
        let mut answer = [0; 2];
        third.read_exact(&mut answer).await.unwrap();
        assert_eq!((&answer, hold.answer()), (b"ok", Vec::new()));
        hold.deliver();
        until(|| hold.answer() == b"ok").await;
    }

    #[tokio::test]
    async fn what_is_lost_ends_its_connection() {
        let relay = relay().await;
        let hold = relay.hold(Box::new(|_| true));
        let mut client = ask(&relay).await;
        until(|| hold.is_held()).await;
        assert!(hold.seal());
        hold.lose();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or_default(), 0);
        assert!(hold.answer().is_empty());
    }
}
