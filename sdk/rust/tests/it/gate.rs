//! The door of one replica: ends TLS, can be slammed with every connection in it, and can keep who comes waiting.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

pub struct Gate {
    pub address: SocketAddr,
    /// Whether who comes waits outside.
    pub held: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Gate {
    pub async fn open(acceptor: TlsAcceptor, behind: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, waits) = watch::channel(false);
        let task = tokio::spawn(async move {
            // Dropped with the task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, mut waits) = (acceptor.clone(), waits.clone());
                connections.spawn(async move {
                    waits.wait_for(|held| !held).await.unwrap();
                    let Ok(mut outside) = acceptor.accept(socket).await else { return };
                    let mut inside = TcpStream::connect(behind).await.unwrap();
                    inside.set_nodelay(true).unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Arc::new(Self { address, held, task: Mutex::new(Some(task)) })
    }

    pub fn slam(&self) {
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }
}
