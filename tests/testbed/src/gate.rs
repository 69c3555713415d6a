//! A door before a replica: passes bytes on, until a test narrows it, or slams it with every connection in it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// As many bytes as are passed on at once.
const BUFFER: usize = 64 << 10;

/// An open door. Closes with this value.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    behind: Mutex<SocketAddr>,
    /// What may still pass, in bytes of both ways and all connections together.
    allowance: AtomicU64,
    changed: Notify,
    slammed: Notify,
}

impl Gate {
    /// Before the replica at `https://127.0.0.1:PORT`, wide open.
    pub async fn open(endpoint: &str) -> Self {
        let behind = Mutex::new(address_of(endpoint));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state =
            Arc::new(State { behind, allowance: AtomicU64::new(u64::MAX), changed: Notify::new(), slammed: Notify::new() });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        // A broken connection is what it is there for.
                        _ = pass(outside, &state) => {}
                        () = state.slammed.notified() => {}
                    }
                });
            }
        });
        Self { address, state, task }
    }

    /// Where clients connect.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The port on loopback where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// New connections lead to `https://127.0.0.1:PORT` from now on.
    pub fn lead_to(&self, endpoint: &str) {
        *self.state.behind.lock().unwrap_or_else(PoisonError::into_inner) = address_of(endpoint);
    }

    /// From now on only so many bytes pass, both ways together; then what is open stays open, and silent.
    pub fn narrow(&self, bytes: u64) {
        self.state.allowance.store(bytes, Ordering::SeqCst);
        self.state.changed.notify_waiters();
    }

    /// Resolves once nothing more passes.
    pub async fn stuck(&self) {
        loop {
            let changed = self.state.changed.notified();
            if self.state.allowance.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Ends every connection. New ones come in, as widely as the gate is open.
    pub fn slam(&self) {
        self.state.slammed.notify_waiters();
    }

    /// Ends every connection, and lets everything in again.
    pub fn reopen(&self) {
        self.narrow(u64::MAX);
        self.slam();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
        self.slam();
    }
}

fn address_of(endpoint: &str) -> SocketAddr {
    endpoint.trim_start_matches("https://").parse().expect("an endpoint with an address")
}

async fn pass(outside: TcpStream, state: &State) -> io::Result<()> {
    let behind = *state.behind.lock().unwrap_or_else(PoisonError::into_inner);
    let inside = TcpStream::connect(behind).await?;
    inside.set_nodelay(true)?;
    outside.set_nodelay(true)?;
    let ((from_outside, to_outside), (from_inside, to_inside)) = (outside.into_split(), inside.into_split());
    // Either end closes both, as a broken connection does.
    tokio::select! {
        ended = copy(from_outside, to_inside, state) => ended,
        ended = copy(from_inside, to_outside, state) => ended,
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, state: &State) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        take(state, read as u64).await;
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits until so many bytes may pass. What is left and too little for them is closed, so that the gate is stuck for good.
async fn take(state: &State, bytes: u64) {
    loop {
        let changed = state.changed.notified();
        let taken = state.allowance.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            u64::MAX => Some(u64::MAX),
            left => Some(left.saturating_sub(bytes)),
        });
        let left = taken.unwrap_or_else(|left| left);
        if (1..=bytes).contains(&left) {
            // It just closed.
            state.changed.notify_waiters();
        }
        if left >= bytes {
            return;
        }
        if left == 0 {
            changed.await;
        }
    }
}
