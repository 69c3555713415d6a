//! What the hub is compared with: the same proto over TLS 1.3, each message appended to Kafka and forwarded on the acknowledgement.
//! No identity, no permissions, no order across replicas, no deduplication, no mailbox.

use std::{
    io::BufRead as _,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use acb_proto::v1::{
    Message, OutgoingMessage, RequestRequest, RequestResponse, SendMessageRequest, SendMessageResponse, SessionRequest,
    SessionResponse,
    message_service_server::{MessageService, MessageServiceServer},
    session_request,
    session_response::{self, Delivery, Frame, Opened, Sent, sent::Outcome},
};
use futures::Stream;
use prost::Message as _;
use rdkafka::producer::FutureProducer;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::Connected},
};
use uuid::Uuid;

use crate::{
    Failure, SENDER,
    broker::{self, Broker},
    client::Target,
    tell,
};

const TOPIC: &str = "bench-bare";

/// What the server is given.
#[derive(Serialize, Deserialize)]
struct Settings {
    broker: Broker,
    identity: Identity,
}

/// The certificate and the key of a server on loopback, as PEM.
#[derive(Serialize, Deserialize)]
pub(crate) struct Identity {
    certificate: String,
    key: String,
}

/// One, and the certificate of its authority.
pub(crate) fn identity() -> Result<(Vec<u8>, Identity), Failure> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&authority_key)?.pem().into_bytes();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?.pem();
    Ok((ca_pem, Identity { certificate, key: key.serialize_pem() }))
}

/// Runs this program as a server, which is given its settings on standard input, and says its port on standard output. It ends when that
/// input closes.
pub(crate) async fn spawn(subcommand: &str, settings: &impl Serialize) -> Result<(Child, u16), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(subcommand).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn()?;
    let (Some(input), Some(output)) = (&mut process.stdin, process.stdout.take()) else {
        return Err(Failure("the bare server has no pipes".to_owned()));
    };
    input.write_all((serde_json::to_string(settings)? + "\n").as_bytes()).await?;
    let mut port = String::new();
    BufReader::new(output).read_line(&mut port).await?;
    let port = port.trim().parse().map_err(|_| Failure("the bare server did not start".to_owned()))?;
    Ok((process, port))
}

/// What [`spawn`] gave.
pub(crate) fn settings<T: DeserializeOwned>() -> Result<T, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Until standard input closes.
pub(crate) async fn closed() {
    let _ = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())).await;
}

/// The server as a process of its own. It ends with this value: its standard input closes.
pub(crate) struct Bare {
    pub(crate) target: Target,
    _process: Child,
}

impl Bare {
    pub(crate) async fn start(broker: &Broker) -> Result<Self, Failure> {
        broker.topic(TOPIC).await?;
        let (ca_pem, identity) = identity()?;
        let (process, port) = spawn("bare", &Settings { broker: broker.clone(), identity }).await?;
        let target = Target { endpoint: format!("https://127.0.0.1:{port}"), ca_pem, tokens: None, senders: Vec::new() };
        Ok(Self { target, _process: process })
    }
}

/// Serves until standard input closes.
pub(crate) async fn serve() -> Result<(), Failure> {
    let settings: Settings = settings()?;
    let service = Service { producer: settings.broker.producer()?, recipient: Arc::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let incoming = accept(listener, acceptor(&settings.identity)?);
    tell(port);
    tokio::select! {
        served = Server::builder().add_service(MessageServiceServer::new(service)).serve_with_incoming(incoming) => Ok(served?),
        () = closed() => Ok(()),
    }
}

pub(crate) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, Failure> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> ReceiverStream<std::io::Result<Connection>> {
    let (ready, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                if socket.set_nodelay(true).is_ok()
                    && let Ok(stream) = acceptor.accept(socket).await
                {
                    let _ = ready.send(Ok(Connection(stream))).await;
                }
            });
        }
    });
    ReceiverStream::new(incoming)
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

type Outgoing = mpsc::Sender<Result<SessionResponse, Status>>;

#[derive(Clone)]
struct Service {
    producer: FutureProducer,
    /// The newest session that receives.
    recipient: Arc<Mutex<Option<Outgoing>>>,
}

#[tonic::async_trait]
impl MessageService for Service {
    async fn send_message(&self, _: Request<SendMessageRequest>) -> Result<Response<SendMessageResponse>, Status> {
        Err(Status::unimplemented("only sessions are measured"))
    }

    async fn request(&self, _: Request<RequestRequest>) -> Result<Response<RequestResponse>, Status> {
        Err(Status::unimplemented("only sessions are measured"))
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        let (out, stream) = mpsc::channel(16);
        let (service, frames) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(failure) = service.take(frames, &out).await {
                let _ = out.send(Err(Status::internal(failure.to_string()))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Service {
    async fn take(&self, mut frames: Streaming<SessionRequest>, out: &Outgoing) -> Result<(), Failure> {
        while let Some(request) = frames.message().await? {
            match request.frame {
                Some(session_request::Frame::Open(open)) => {
                    if open.receive {
                        *self.recipient.lock().unwrap_or_else(PoisonError::into_inner) = Some(out.clone());
                    }
                    give(out, Frame::Opened(Opened::default())).await;
                }
                Some(session_request::Frame::Send(session_request::Send { sequence, message })) => {
                    let message = accepted(message.unwrap_or_default());
                    let message_id = message.id.clone();
                    broker::append(&self.producer, TOPIC, &message.encode_to_vec()).await?;
                    let recipient = self.recipient.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some(recipient) = recipient {
                        let delivery =
                            Delivery { delivery_id: message_id.clone(), message: Some(message), redelivered: false, attempt: 1 };
                        give(&recipient, Frame::Delivery(delivery)).await;
                    }
                    let outcome = Outcome::Accepted(SendMessageResponse { message_id, deduplicated: false });
                    give(out, Frame::Sent(Sent { sequence, outcome: Some(outcome) })).await;
                }
                Some(
                    session_request::Frame::Ack(_) | session_request::Frame::Started(_) | session_request::Frame::InProgress(_),
                )
                | None => {}
            }
        }
        Ok(())
    }
}

/// A session that has ended gets nothing more.
async fn give(out: &Outgoing, frame: session_response::Frame) {
    let _ = out.send(Ok(SessionResponse { frame: Some(frame) })).await;
}

fn accepted(message: OutgoingMessage) -> Message {
    Message {
        id: Uuid::now_v7().to_string(),
        from: SENDER.to_owned(),
        to: message.to,
        topic: message.topic,
        r#type: message.r#type,
        content_type: message.content_type,
        payload: message.payload,
        idempotency_key: message.idempotency_key,
        ..Message::default()
    }
}
