//! A model of a hub: replicas that share one state, and break where a test wants it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use acb_proto::v1::{
    auth_service_server::AuthServiceServer, context_service_server::ContextServiceServer,
    message_service_server::MessageServiceServer, stream_service_server::StreamServiceServer, *,
};
use acb_sdk::{Builder, Client};
use tokio::{net::TcpListener, sync::mpsc, time::Instant};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::gate::Gate;

pub const KEY: &str = "acb_model_secret";
pub const CHUNK: u32 = 64 << 10;

/// Where the replica in use breaks; each happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Break {
    /// A message is in the log and not answered for.
    Logged(usize),
    /// An acknowledgement came, and was lost.
    Acked,
    /// A chunk is stored and not answered for.
    Stored(u32),
    /// `Finish` was done and not answered for.
    Finished,
    /// A chunk was handed out, and nothing follows. The test slams the door when it has seen the chunk.
    Stuck(u32),
    /// A chunk is damaged on its way.
    Damaged(u32),
    /// An event was handed out.
    Told(u64),
}

#[derive(Default)]
pub struct State {
    pub breaks: HashSet<Break>,
    pub log: Vec<OutgoingMessage>,
    pub mailbox: Vec<Message>,
    /// What comes into the mailbox behind the answer to a message of the topic `again`.
    pub late: Vec<Message>,
    pub acked: HashSet<String>,
    /// Whether each session was to take over.
    pub sessions: Vec<bool>,
    /// Why sessions are refused, and how many were.
    pub turns_away: Option<(tonic::Code, &'static str)>,
    pub turned_away: usize,
    pub started: Vec<String>,
    pub in_progress: Vec<String>,
    pub upload: BTreeMap<u32, Vec<u8>>,
    pub upload_size: u64,
    pub context: Option<Context>,
    pub valid: HashSet<String>,
    pub exchanges: usize,
    /// Logins that are refused because there are too many.
    pub crowd: usize,
    /// Messages that are refused because a limit is reached, and when it has room again: one after another.
    pub limited: Vec<Option<Duration>>,
    pub refreshes: usize,
    /// Tokens of other issuers that were exchanged.
    pub subject_tokens: Vec<String>,
    /// Replicas of an older hub, which exchanges none.
    pub older: HashSet<String>,
    pub subscriptions: Vec<subscribe_request::From>,
}

#[derive(Clone)]
pub struct Replica {
    name: String,
    state: Arc<Mutex<State>>,
    gate: Arc<Mutex<Option<Arc<Gate>>>>,
}

pub struct Hub {
    pub state: Arc<Mutex<State>>,
    pub gates: Vec<Arc<Gate>>,
    ca_pem: String,
}

impl Hub {
    pub async fn start(replicas: usize) -> Self {
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let state = Arc::new(Mutex::new(State::default()));
        let mut gates = Vec::new();
        for index in 0..replicas {
            let replica = Replica { name: format!("hub-{index}"), state: state.clone(), gate: Arc::default() };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let behind = listener.local_addr().unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(AuthServiceServer::new(replica.clone()))
                .add_service(MessageServiceServer::new(replica.clone()))
                .add_service(ContextServiceServer::new(replica.clone()))
                .add_service(StreamServiceServer::new(replica.clone()))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(server);
            let gate = Gate::open(acceptor.clone(), behind).await;
            *replica.gate.lock().unwrap() = Some(gate.clone());
            gates.push(gate);
        }
        Self { state, gates, ca_pem: pair.cert.pem() }
    }

    pub fn client(&self) -> Builder {
        let endpoints = self.gates.iter().map(|gate| format!("https://{}", gate.address));
        Client::builder().endpoints(endpoints).ca_pem(self.ca_pem.as_bytes()).api_key(KEY.parse().unwrap())
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn break_at(&self, at: Break) {
        self.state().breaks.insert(at);
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(&self.state()) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Replica {
    /// Slams the door if it is to break here.
    async fn at(&self, here: Break) {
        let breaks = self.state.lock().unwrap().breaks.remove(&here);
        if breaks {
            self.gate.lock().unwrap().as_ref().unwrap().slam();
            // Nothing is answered on what was slammed.
            std::future::pending::<()>().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        match self.state().valid.contains(token.trim_start_matches("Bearer ")) {
            true => Ok(()),
            false => Err(Status::unauthenticated("the token is not valid")),
        }
    }

    fn tokens(&self) -> Response<TokenResponse> {
        let access_token = uuid::Uuid::new_v4().to_string();
        self.state().valid.insert(access_token.clone());
        Response::new(TokenResponse {
            access_token,
            access_token_expires_at: Some((SystemTime::now() + Duration::from_secs(3600)).into()),
            refresh_token: "refresh".into(),
            refresh_token_expires_at: None,
            tenant: "acme".into(),
            agent: "planner".into(),
            agent_id: "1".into(),
        })
    }

    fn progress(&self) -> StreamProgress {
        let state = self.state();
        let next_chunk = state.upload.len() as u32;
        StreamProgress {
            upload_id: "u".into(),
            next_chunk,
            chunk_count: state.upload_size.div_ceil(CHUNK.into()) as u32,
            chunk_size: CHUNK,
            bytes_stored: state.upload.values().map(|chunk| chunk.len() as u64).sum(),
            size: state.upload_size,
            context_id: state.context.as_ref().map(|context| context.id.clone()).unwrap_or_default(),
            replica: self.name.clone(),
        }
    }
}

#[tonic::async_trait]
impl auth_service_server::AuthService for Replica {
    async fn exchange_token(&self, request: Request<ExchangeTokenRequest>) -> Result<Response<TokenResponse>, Status> {
        match request.into_inner().credential {
            Some(exchange_token_request::Credential::ApiKey(key)) if key == KEY => {
                let mut state = self.state();
                state.exchanges += 1;
                if state.crowd > 0 {
                    state.crowd -= 1;
                    return Err(Status::resource_exhausted("too many logins"));
                }
                drop(state);
                Ok(self.tokens())
            }
            _ => Err(Status::unauthenticated("the key is not known")),
        }
    }

    async fn exchange_subject_token(
        &self,
        request: Request<ExchangeSubjectTokenRequest>,
    ) -> Result<Response<TokenResponse>, Status> {
        let ExchangeSubjectTokenRequest { subject_token, subject_token_type } = request.into_inner();
        if self.state().older.contains(&self.name) {
            return Err(Status::unimplemented(""));
        }
        if subject_token_type != "urn:ietf:params:oauth:token-type:jwt" {
            return Err(Status::invalid_argument(subject_token_type));
        }
        self.state().subject_tokens.push(subject_token);
        let mut tokens = self.tokens();
        tokens.get_mut().refresh_token.clear();
        Ok(tokens)
    }

    async fn refresh_token(&self, _: Request<RefreshTokenRequest>) -> Result<Response<TokenResponse>, Status> {
        self.state().refreshes += 1;
        Ok(self.tokens())
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Replica {
    async fn log(&self, message: OutgoingMessage) -> SendMessageResponse {
        let (index, deduplicated) = {
            let mut state = self.state();
            match state.log.iter().position(|logged| logged.idempotency_key == message.idempotency_key) {
                Some(index) => (index, true),
                None => {
                    state.log.push(message);
                    (state.log.len() - 1, false)
                }
            }
        };
        self.at(Break::Logged(index)).await;
        SendMessageResponse { message_id: format!("m{index}"), deduplicated }
    }

    /// Delivers what is not acknowledged.
    async fn deliver(&self, attempt: u32, out: &mpsc::Sender<Result<SessionResponse, Status>>) {
        let mail = self.state().mailbox.clone();
        for message in mail.into_iter().filter(|message| !self.state().acked.contains(&message.id)) {
            let delivery_id = format!("{}/{}", self.name, message.id);
            let delivery = session_response::Delivery { delivery_id, message: Some(message), redelivered: attempt > 1, attempt };
            let frame = Some(session_response::Frame::Delivery(delivery));
            let _ = out.send(Ok(SessionResponse { frame })).await;
        }
    }

    fn late_mail(&self) {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        state.mailbox.extend(late);
    }

    /// Whether a limit is reached, and until when.
    fn limited(&self) -> Option<Option<Duration>> {
        let mut state = self.state();
        (!state.limited.is_empty()).then(|| state.limited.remove(0))
    }

    /// The same of a call of its own.
    fn may_send(&self) -> Result<(), Status> {
        let Some(after) = self.limited() else { return Ok(()) };
        let mut details = ErrorDetails::with_error_info("RATE_LIMIT_EXCEEDED", "acb.dev", std::collections::HashMap::new());
        if after.is_some() {
            details.set_retry_info(after);
        }
        Err(Status::with_error_details(tonic::Code::ResourceExhausted, "no", details))
    }

    async fn converse(self, mut inbound: Streaming<SessionRequest>, out: mpsc::Sender<Result<SessionResponse, Status>>) {
        use session_response::{Frame, Opened, Sent, sent::Outcome};
        let say = async |frame| drop(out.send(Ok(SessionResponse { frame: Some(frame) })).await);
        let failure = |code: tonic::Code, reason: &str| {
            let (reason, message) = (reason.to_owned(), "no".to_owned());
            Outcome::Failed(session_response::Failure { code: code.into(), reason, message, retry_after: None })
        };
        // What follows a failed message fails, until its number comes again.
        let mut failed = None;
        while let Ok(Some(SessionRequest { frame: Some(frame) })) = inbound.message().await {
            match frame {
                session_request::Frame::Open(open) => {
                    let turns_away = self.state().turns_away;
                    if let Some((code, reason)) = turns_away {
                        self.state().turned_away += 1;
                        let details = ErrorDetails::with_error_info(reason, "acb.dev", std::collections::HashMap::new());
                        return drop(out.send(Err(Status::with_error_details(code, "no", details))).await);
                    }
                    self.state().sessions.push(open.take_over);
                    say(Frame::Opened(Opened { session_id: "s".into(), replica: self.name.clone() })).await;
                    self.deliver(1, &out).await;
                }
                session_request::Frame::Send(send) => {
                    let has_topic = |topic| send.message.as_ref().is_some_and(|message| message.topic == topic);
                    let (refused, again) = (has_topic("refused"), has_topic("again"));
                    let outcome = if failed.is_some_and(|at| send.sequence > at) {
                        failure(tonic::Code::Aborted, "EARLIER_MESSAGE_FAILED")
                    } else if let Some(after) = self.limited() {
                        failed = Some(send.sequence);
                        Outcome::Failed(session_response::Failure {
                            code: tonic::Code::ResourceExhausted.into(),
                            reason: "RATE_LIMIT_EXCEEDED".into(),
                            message: "no".into(),
                            retry_after: after.map(|after| after.try_into().unwrap()),
                        })
                    } else if has_topic("stale") {
                        failed = Some(send.sequence);
                        failure(tonic::Code::Unavailable, "MESSAGE_STALE")
                    } else if refused {
                        failed = Some(send.sequence);
                        failure(tonic::Code::NotFound, "RECIPIENT_NOT_FOUND")
                    } else {
                        failed = None;
                        Outcome::Accepted(self.log(send.message.unwrap()).await)
                    };
                    say(Frame::Sent(Sent { sequence: send.sequence, outcome: Some(outcome) })).await;
                    if again {
                        self.late_mail();
                        self.deliver(2, &out).await;
                    }
                }
                session_request::Frame::Ack(ack) => {
                    self.at(Break::Acked).await;
                    for id in ack.delivery_ids {
                        let (replica, message) = id.split_once('/').unwrap();
                        assert_eq!(replica, self.name, "a delivery id of another connection");
                        self.state().acked.insert(message.to_owned());
                    }
                }
                session_request::Frame::Started(started) => self.state().started.extend(started.delivery_ids),
                session_request::Frame::InProgress(in_progress) => self.state().in_progress.extend(in_progress.delivery_ids),
            }
        }
    }
}

#[tonic::async_trait]
impl message_service_server::MessageService for Replica {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn send_message(&self, request: Request<SendMessageRequest>) -> Result<Response<SendMessageResponse>, Status> {
        self.check(&request)?;
        self.may_send()?;
        Ok(Response::new(self.log(request.into_inner().message.unwrap()).await))
    }

    async fn request(&self, _: Request<RequestRequest>) -> Result<Response<RequestResponse>, Status> {
        self.may_send()?;
        Err(Status::unimplemented(""))
    }

    async fn session(&self, request: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        self.check(&request)?;
        let (out, responses) = mpsc::channel(16);
        tokio::spawn(self.clone().converse(request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl context_service_server::ContextService for Replica {
    type SubscribeStream = ReceiverStream<Result<ContextEvent, Status>>;

    async fn create_context(&self, _: Request<CreateContextRequest>) -> Result<Response<Context>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_context(&self, request: Request<GetContextRequest>) -> Result<Response<Context>, Status> {
        self.check(&request)?;
        self.state().context.clone().map(Response::new).ok_or_else(|| Status::not_found("no such context"))
    }

    async fn update_context(&self, _: Request<UpdateContextRequest>) -> Result<Response<Context>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn set_context_access(&self, _: Request<SetContextAccessRequest>) -> Result<Response<Context>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_context(&self, _: Request<DeleteContextRequest>) -> Result<Response<DeleteContextResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_contexts(&self, _: Request<ListContextsRequest>) -> Result<Response<ListContextsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    /// Ten events, at offsets 0 to 9 of one partition.
    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        use context_event::Kind;
        self.check(&request)?;
        let from = request.into_inner().from.unwrap();
        let start = match &from {
            subscribe_request::From::After(after) => after.positions[0].offset + 1,
            _ => 0,
        };
        self.state().subscriptions.push(from);
        let (out, events) = mpsc::channel(1);
        let replica = self.clone();
        tokio::spawn(async move {
            let first = ContextEvent { kind: Kind::Subscribed.into(), ..ContextEvent::default() };
            let _ = out.send(Ok(first)).await;
            for offset in start..10 {
                // What only says where the subscription stands is not for whoever uses it.
                if let Some(last) = offset.checked_sub(1) {
                    let positions = vec![Position { epoch: 1, partition: 0, offset: last }];
                    let bookmark = ContextEvent { kind: Kind::Bookmark.into(), positions, ..ContextEvent::default() };
                    let _ = out.send(Ok(bookmark)).await;
                }
                let position = Some(Position { epoch: 1, partition: 0, offset });
                let event = ContextEvent { kind: Kind::Created.into(), position, ..ContextEvent::default() };
                let _ = out.send(Ok(event)).await;
                replica.at(Break::Told(offset)).await;
            }
            out.closed().await;
        });
        Ok(Response::new(ReceiverStream::new(events)))
    }
}

impl Replica {
    async fn store(self, mut inbound: Streaming<StreamContextRequest>, out: mpsc::Sender<Result<StreamContextResponse, Status>>) {
        use stream_context_request::Frame as In;
        use stream_context_response::Frame as Out;
        let say = async |frame| drop(out.send(Ok(StreamContextResponse { frame: Some(frame) })).await);
        while let Ok(Some(StreamContextRequest { frame: Some(frame) })) = inbound.message().await {
            match frame {
                In::Start(start) => {
                    self.state().upload_size = start.size;
                    say(Out::Progress(self.progress())).await;
                }
                In::Resume(_) => say(Out::Progress(self.progress())).await,
                In::Chunk(chunk) => {
                    assert_eq!(chunk.index as usize, self.state().upload.len());
                    self.state().upload.insert(chunk.index, chunk.data.to_vec());
                    self.at(Break::Stored(chunk.index)).await;
                    say(Out::Progress(self.progress())).await;
                }
                In::Finish(finish) => {
                    let finished = self.state().context.clone();
                    if finished.is_some_and(|context| context.checksum != finish.sha256) {
                        drop(out.send(Err(Status::data_loss("the SHA-256 is not what is stored"))).await);
                        return;
                    }
                    let context = {
                        let mut state = self.state();
                        let (size, chunk_count) = (state.upload_size, state.upload.len() as u32);
                        let payload_ref =
                            PayloadRef { backend: "chunks".into(), key: "u".into(), size, chunk_count, chunk_size: CHUNK };
                        let context = Context {
                            id: "c".into(),
                            checksum: finish.sha256,
                            payload_ref: Some(payload_ref),
                            size,
                            ..Context::default()
                        };
                        state.context.insert(context).clone()
                    };
                    self.at(Break::Finished).await;
                    say(Out::Context(context)).await;
                    return;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl stream_service_server::StreamService for Replica {
    type StreamContextStream = ReceiverStream<Result<StreamContextResponse, Status>>;
    type ReceiveContextStream = ReceiverStream<Result<ReceiveContextResponse, Status>>;

    async fn stream_context(
        &self,
        request: Request<Streaming<StreamContextRequest>>,
    ) -> Result<Response<Self::StreamContextStream>, Status> {
        self.check(&request)?;
        let (out, responses) = mpsc::channel(16);
        tokio::spawn(self.clone().store(request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn receive_context(
        &self,
        request: Request<ReceiveContextRequest>,
    ) -> Result<Response<Self::ReceiveContextStream>, Status> {
        use receive_context_response::Frame;
        use sha2::Digest as _;
        self.check(&request)?;
        let from = request.into_inner().from_chunk;
        let (out, responses) = mpsc::channel(1);
        let replica = self.clone();
        tokio::spawn(async move {
            let say = async |frame| drop(out.send(Ok(ReceiveContextResponse { frame: Some(frame) })).await);
            let (context, chunks) = {
                let state = replica.state();
                (state.context.clone().unwrap(), state.upload.clone())
            };
            say(Frame::Context(context)).await;
            for (index, mut data) in chunks.into_iter().filter(|(index, _)| *index >= from) {
                let sha256 = sha2::Sha256::digest(&data).to_vec().into();
                if replica.state().breaks.remove(&Break::Damaged(index)) {
                    data[0] ^= 1;
                }
                say(Frame::Chunk(Chunk { index, data: data.into(), sha256 })).await;
                if replica.state().breaks.remove(&Break::Stuck(index)) {
                    out.closed().await;
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn get_stream_progress(&self, _: Request<GetStreamProgressRequest>) -> Result<Response<StreamProgress>, Status> {
        Ok(Response::new(self.progress()))
    }
}
