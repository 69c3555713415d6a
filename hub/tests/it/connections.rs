//! What an unproven peer may hold, and for how long.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_hub_api::tls::{Certificate, Connection, ConnectionLimits, accept};
use acb_hub_core::{kit::supervisor::Supervisor, metrics::Metrics};
use acb_proto::v1::{
    ExchangeTokenRequest, ListAgentsRequest, RefreshTokenRequest, RevokeTokenRequest, SessionRequest, SessionResponse,
    auth_service_client::AuthServiceClient,
    exchange_token_request::Credential,
    message_service_client::MessageServiceClient,
    session_request::{Frame, Open},
    session_response,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Mutex, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsConnector;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    hub::{Hub, reason, with},
    messages::to,
};

fn of_key(key: &str) -> ExchangeTokenRequest {
    ExchangeTokenRequest { credential: Some(Credential::ApiKey(key.to_owned())) }
}

/// An acceptor without a server behind it.
struct Door {
    address: SocketAddr,
    authority: CertificateDer<'static>,
    supervisor: Supervisor,
    metrics: Metrics,
    accepted: mpsc::Receiver<Connection>,
}

impl Door {
    async fn open(limits: ConnectionLimits) -> Self {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = Certificate::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let supervisor = Supervisor::default();
        let metrics = Metrics::new("acme");
        let incoming =
            accept(listener, &certificate, limits, metrics.connections(), supervisor.stop().clone(), &supervisor).unwrap();
        let (accepting, accepted) = mpsc::channel(64);
        tokio::spawn(async move {
            let mut incoming = std::pin::pin!(incoming);
            while let Some(Ok(connection)) = incoming.next().await {
                accepting.send(connection).await.unwrap();
            }
        });
        Self { address, authority: leaf.der().clone(), supervisor, metrics, accepted }
    }

    async fn tls(&self) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.tls_from([127, 0, 0, 1]).await
    }

    /// Waits until a scrape shows this line.
    async fn counts(&self, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.metrics.render().contains(&format!("\n{line}\n")) {
            assert!(Instant::now() < deadline, "{line} is not in {}", self.metrics.render());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn tls_from(&self, address: [u8; 4]) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((address, 0)))?;
        let stream = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(client(roots))).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

fn client(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

impl Drop for Door {
    fn drop(&mut self) {
        self.supervisor.stop().cancel();
    }
}

#[tokio::test]
async fn at_the_bound_of_connections_a_new_one_is_closed_and_an_ended_one_makes_room() {
    for limits in [
        ConnectionLimits { connections: 2, ..ConnectionLimits::default() },
        ConnectionLimits { unproven_per_source: 2, ..ConnectionLimits::default() },
    ] {
        let mut door = Door::open(limits).await;
        let _first = door.tls().await.unwrap();
        let _second = door.tls().await.unwrap();
        let (held, _also_held) = (door.accepted.recv().await.unwrap(), door.accepted.recv().await.unwrap());
        door.tls().await.unwrap_err();
        drop(held);
        door.tls().await.unwrap();
    }
}

#[tokio::test]
async fn open_connections_are_counted_beside_how_many_there_may_be() {
    let mut door = Door::open(ConnectionLimits { connections: 3, ..ConnectionLimits::default() }).await;
    let _client = door.tls().await.unwrap();
    // It says nothing, and takes a place all the same.
    let silent = TcpStream::connect(door.address).await.unwrap();
    let held = door.accepted.recv().await.unwrap();
    door.counts("acb_connections 2").await;
    door.counts("acb_connections_limit 3").await;
    drop((held, silent));
    door.counts("acb_connections 0").await;
}

/// One flood at a time: each takes most of the files that this process may have open.
static FLOOD: Mutex<()> = Mutex::const_new(());

/// Silent connections, each from the address that its number gives: so many, or fewer where the process may not have as many files.
async fn silent(door: &Door, count: u16, from: impl Fn(u16) -> [u8; 4]) -> Vec<TcpStream> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    // Both ends are in this process, and other tests are, too.
    let most = files.current.map_or(u16::MAX, |files| u16::try_from(files.saturating_sub(2000) / 2).unwrap_or(u16::MAX));
    let mut held = Vec::new();
    for number in 0..count.min(most) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from(number), 0))).unwrap();
        held.push(socket.connect(door.address).await.unwrap());
    }
    held
}

/// A flood from one address, and one where each comes from another.
const FLOODS: [fn(u16) -> [u8; 4]; 2] = [
    |_| [127, 0, 0, 2],
    |number| {
        let [high, low] = number.to_be_bytes();
        [127, 1, high, low]
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_however_many_stop_no_login() {
    let _alone = FLOOD.lock().await;
    for from in FLOODS {
        let door = Door::open(ConnectionLimits::default()).await;
        let _held = silent(&door, 10_000, from).await;
        let began = Instant::now();
        for last in 1..=5 {
            // The second one is the address that the flood came from.
            door.tls_from([127, 0, 0, last]).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(3), "a client gives up: {:?}", began.elapsed());
    }
}

/// What a client sends first.
async fn hello() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(client(RootCertStore::empty())))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
    });
    let mut hello = vec![0; 4096];
    let (mut stream, _) = listener.accept().await.unwrap();
    let read = stream.read(&mut hello).await.unwrap();
    client.abort();
    hello.truncate(read);
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_handshakes_that_stop_in_the_middle() {
    let _alone = FLOOD.lock().await;
    let door = Door::open(ConnectionLimits::default()).await;
    let hello = hello().await;
    // More than one address may have.
    let mut held = silent(&door, 2000, FLOODS[0]).await;
    for stream in &mut held {
        // Those that had to make room are closed already.
        let _ = stream.write_all(&hello).await;
    }
    let began = Instant::now();
    for last in 1..=5 {
        door.tls_from([127, 0, 0, last]).await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(3), "a client gives up: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_connection_ends_in_its_time() {
    let limits = ConnectionLimits { greeting: Duration::from_secs(1), ..ConnectionLimits::default() };
    let door = Door::open(limits).await;
    let mut silent = TcpStream::connect(door.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut [0; 16])).await.expect("closed in time");
    assert_eq!(read.unwrap_or(0), 0);
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection, and what resolves at its end.
async fn connection(hub: &Hub) -> (Sender, JoinHandle<hyper::Result<()>>) {
    connection_with_window(hub, None).await
}

/// The same, where each call's answer may have so many bytes on their way.
async fn connection_with_window(hub: &Hub, window: Option<u32>) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// A call of a method with an empty request; tells whether it was done.
async fn call(sender: &mut Sender, method: &str, token: &str) -> bool {
    let request = Request::post(format!("https://localhost/acb.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .unwrap();
    let Ok(response) = sender.send_request(request).await else { return false };
    let refused = response.headers().contains_key("grpc-status");
    !refused && response.into_body().collect().await.is_ok()
}

#[tokio::test]
async fn a_connection_on_which_nobody_proves_who_calls_is_closed_and_a_proven_one_stays() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let (mut proven, open) = connection(&hub).await;
    assert!(call(&mut proven, "AgentRegistry/Heartbeat", &token).await);
    let (mut unproven, closed) = connection(&hub).await;
    let began = Instant::now();
    assert!(call(&mut unproven, "AuthService/GetJwks", "").await);
    assert!(!call(&mut unproven, "AgentRegistry/Heartbeat", "garbage").await);
    // Its end is an error or none: in either case it ends, and not before its time.
    let _ended = tokio::time::timeout(Duration::from_secs(30), closed).await.expect("closed in time");
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!open.is_finished());
    assert!(call(&mut proven, "AgentRegistry/Heartbeat", &token).await);
}

/// A crowd from one address has many connections, and on each as many calls open as one may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_many_connections_keeps_nobody_else_from_logging_in() {
    const LOGINS: usize = 6;
    let hub = Hub::start().await;
    let alice = hub.tenant.agent("alice").await;
    let mut refresh_token = hub.exchange(&alice.api_key).await.unwrap().refresh_token;
    let mut crowd = JoinSet::new();
    let stop = CancellationToken::new();
    for connection in 0..20 {
        let stranger = AuthServiceClient::new(hub.channel_from([127, 0, 0, 2]));
        for number in 0..32 {
            let (mut stranger, stop) = (stranger.clone(), stop.clone());
            crowd.spawn(async move {
                let mut reasons = BTreeSet::new();
                while !stop.is_cancelled() {
                    let refused = match connection % 2 {
                        0 => stranger.refresh_token(RefreshTokenRequest { refresh_token: format!("acbr_{number}") }).await,
                        _ => stranger.exchange_token(of_key(&format!("acb_invented{number}_key"))).await,
                    };
                    let refused = refused.unwrap_err();
                    if reason(&refused) == "TOO_MANY_LOGINS" {
                        assert!(
                            tonic_types::StatusExt::get_details_retry_info(&refused)
                                .is_some_and(|info| info.retry_delay.is_some()),
                            "{refused}"
                        );
                    }
                    reasons.insert(reason(&refused));
                }
                reasons
            });
        }
    }
    for number in 0..LOGINS {
        let renewed = hub.auth().refresh_token(RefreshTokenRequest { refresh_token }).await.unwrap().into_inner();
        refresh_token = renewed.refresh_token;
        // Its key was made a moment ago.
        let newcomer = hub.tenant.agent(&format!("newcomer-{number}")).await;
        hub.exchange(&newcomer.api_key).await.unwrap();
        hub.auth().revoke_token(RevokeTokenRequest { refresh_token: "acbr_unknown".to_owned() }).await.unwrap();
    }
    stop.cancel();
    let mut reasons = BTreeSet::new();
    while let Some(own) = crowd.join_next().await {
        reasons.extend(own.unwrap());
    }
    assert!(reasons.contains("TOO_MANY_LOGINS"), "there were fewer of them than may be: {reasons:?}");
}

/// An agent that reads nothing must not go on after its suspension, either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_agent_that_does_not_read_loses_its_session() {
    let hub = Hub::start().await;
    let (_, alice) = hub.agent("alice", "agent-full").await;
    let mut row = hub.tenant.agent_row("bob");
    let agent = hub.tenant.project(&row).await;
    let bob = hub.exchange(&agent.api_key).await.unwrap().access_token;
    let (frames, requests) = mpsc::channel(4);
    frames
        .send(SessionRequest { frame: Some(Frame::Open(Open { receive: true, max_unacknowledged: 0, ..Open::default() })) })
        .await
        .unwrap();
    let mut session =
        MessageServiceClient::new(hub.channel()).session(with(&bob, ReceiverStream::new(requests))).await.unwrap().into_inner();
    let opened = session.message().await.unwrap();
    assert!(matches!(opened, Some(SessionResponse { frame: Some(session_response::Frame::Opened(_)) })));
    // Far more than HTTP/2 takes of what nobody reads.
    let mut client = MessageServiceClient::new(hub.channel());
    for _ in 0..8 {
        let mut message = to("bob", b"");
        message.message.as_mut().unwrap().payload = vec![7; 900_000].into();
        client.send_message(with(&alice, message)).await.unwrap();
    }
    let active = |count: u32| format!(r#"acb_active_agents{{tenant_id="{}"}} {count}"#, hub.tenant.name());
    hub.until("/metrics", |_, metrics| metrics.contains(&active(1))).await;
    row.suspended = true;
    hub.tenant.project(&row).await;
    hub.until("/metrics", |_, metrics| metrics.contains(&active(0))).await;
    let log = hub.log();
    let ended = log.lines().find(|line| line.contains("ACCESS_ENDED")).unwrap_or_else(|| panic!("no record of it: {log}"));
    assert!(ended.contains(r#""agent":"bob""#) && ended.contains(r#""method":"Session""#), "{ended}");
    drop((frames, session));
}

/// HTTP/2 asks for nothing of an answer that its peer has no window for, so that the end of the right must reach it in another way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_agent_without_a_window_loses_its_subscription() {
    let hub = Hub::start().await;
    hub.tenant.context_type("notes", 1).await;
    let mut row = hub.tenant.agent_row("bob");
    row.subscribes = vec!["notes".to_owned()];
    let agent = hub.tenant.project(&row).await;
    let token = hub.exchange(&agent.api_key).await.unwrap().access_token;
    let (mut sender, _open) = connection_with_window(&hub, Some(0)).await;
    // A `SubscribeRequest` of type `notes`, behind its header.
    let body = Bytes::from_static(b"\0\0\0\0\x07\x0a\x05notes");
    let request = Request::post("https://localhost/acb.v1.ContextService/Subscribe")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(body))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    row.suspended = true;
    hub.tenant.project(&row).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        let log = hub.log();
        match log.lines().find(|line| line.contains("ACCESS_ENDED")) {
            Some(line) => break line.to_owned(),
            None => assert!(Instant::now() < deadline, "{log}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // Only the call itself knows what it was about: so it has come to its end.
    assert!(ended.contains(r#""agent":"bob""#) && ended.contains(r#""object":"type notes""#), "{ended}");
    drop(response);
}

/// Pages of a list are made as they are asked for; who never takes them holds its share, and no more of them are made for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_answers_holds_its_share_and_holds_up_nobody() {
    let hub = Hub::start().await;
    for number in 0..2 {
        let mut row = hub.tenant.agent_row(&format!("large-{number}"));
        row.metadata = serde_json::json!({"note": "x".repeat(450_000)});
        hub.tenant.project(&row).await;
    }
    let (_, other) = hub.agent("alice", "agent-full").await;
    let (_, token) = hub.agent("bob", "agent-full").await;
    let (sender, _open) = connection_with_window(&hub, Some(0)).await;
    let asked = (0..16).map(|_| {
        let request = Request::post("https://localhost/acb.v1.AgentRegistry/ListAgents")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(request).await.unwrap() })
    });
    let mut answers = Vec::new();
    for asked in asked.collect::<Vec<_>>() {
        answers.push(asked.await.unwrap());
    }
    let reasons: Vec<String> =
        answers.iter().filter_map(|answer| Status::from_header_map(answer.headers())).map(|status| reason(&status)).collect();
    assert!((6..=9).contains(&reasons.len()) && reasons.iter().all(|reason| reason == "TOO_MANY_ANSWER_BYTES"), "{reasons:?}");
    let listed = hub.agents().list_agents(with(&other, ListAgentsRequest::default())).await.unwrap().into_inner();
    assert_eq!(listed.agents.len(), 4);
    // Who lets go of them may ask again.
    drop(answers);
    hub.agents().list_agents(with(&token, ListAgentsRequest::default())).await.unwrap();
}
