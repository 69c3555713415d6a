//! The client of the measurement: the generated one, the same for the hub and for the bare server.

use std::time::{Duration, Instant, SystemTime};

use acb_proto::v1::{
    Address, ExchangeTokenRequest, ListUnreadRequest, MessageType, OutgoingMessage, SessionRequest, SessionResponse, address::To,
    auth_service_client::AuthServiceClient, exchange_token_request, mailbox_service_client::MailboxServiceClient,
    message_service_client::MessageServiceClient, session_request, session_response, session_response::sent::Outcome,
};
use acb_testbed::standalone::TenantAccess;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use uuid::Uuid;

use crate::{Failure, RECEIVER, SENDER, samples::Samples};

const PAYLOAD: usize = 1024;
const WARM_UP: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(30);
/// Agents that send at once.
const SENDERS: u32 = 64;
const ACKNOWLEDGED_TOGETHER: usize = 50;
const LEFT_IN_FLIGHT: u32 = 256;

/// Where to connect, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) endpoint: String,
    pub(crate) ca_pem: Vec<u8>,
    /// The sender's and the recipient's, where they are asked for.
    pub(crate) tokens: Option<[String; 2]>,
    /// Of more agents that send.
    pub(crate) senders: Vec<String>,
}

/// Who sends at once.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Each of an agent of its own.
    pub(crate) sessions: u32,
    /// Messages of each that wait for their answer.
    pub(crate) in_flight: u32,
}

struct Session {
    requests: mpsc::Sender<SessionRequest>,
    responses: Streaming<SessionResponse>,
    /// Not yet acknowledged.
    received: Vec<String>,
    next_sequence: u64,
}

impl Target {
    /// A tenant's one replica.
    pub(crate) async fn hub(access: &TenantAccess) -> Result<Self, Failure> {
        let [endpoint] = access.endpoints.as_slice() else {
            return Err(Failure(format!("{} replicas answer: one is measured", access.endpoints.len())));
        };
        Self::replica(access, endpoint, SENDERS).await
    }

    /// One replica of a tenant that has so many more agents that send.
    pub(crate) async fn replica(access: &TenantAccess, endpoint: &str, agents: u32) -> Result<Self, Failure> {
        let channel = acb_sdk::channel(endpoint, &access.ca_pem).await?;
        let token = async |agent: &str| {
            let credential = Some(exchange_token_request::Credential::ApiKey(access.api_key(agent)?));
            let response = AuthServiceClient::new(channel.clone()).exchange_token(ExchangeTokenRequest { credential }).await?;
            Ok::<_, Failure>(response.into_inner().access_token)
        };
        let tokens = Some([token(SENDER).await?, token(RECEIVER).await?]);
        let mut senders = Vec::new();
        for number in 0..agents {
            senders.push(token(&format!("{SENDER}-{number}")).await?);
        }
        Ok(Self { endpoint: endpoint.to_owned(), ca_pem: access.ca_pem.clone(), tokens, senders })
    }

    /// How long it takes until the connected recipient has this many messages of all senders together, and each sender its answers.
    pub(crate) async fn load(&self, load: Load, samples: u32) -> Result<Duration, Failure> {
        let mut receiver = Session::open(self, self.tokens.as_ref().map(|[_, receiver]| receiver.as_str()), true).await?;
        let mut senders = Vec::new();
        for number in 0..load.sessions {
            let token = self.senders.get(number as usize).map(String::as_str);
            let mut sender = Session::open(self, token, false).await?;
            // The first message of a session finds the way.
            sender.send_all(1, 1, &Uuid::new_v4().to_string()).await?;
            senders.push(sender);
        }
        receiver.receive_all(load.sessions, None).await?;
        let run = Uuid::new_v4().to_string();
        let start = Instant::now();
        let each = samples.div_ceil(load.sessions);
        let sending = futures::future::try_join_all(
            senders.iter_mut().zip(0..).map(|(sender, number)| sender.send_all(each, load.in_flight, format!("{run}-{number}"))),
        );
        let (sent, received) = tokio::join!(sending, receiver.receive_all(each * load.sessions, Some(&run)));
        sent?;
        received?;
        Ok(start.elapsed())
    }

    /// Sends the recipient so many messages, which it does not take.
    pub(crate) async fn leave(&self, count: u32) -> Result<(), Failure> {
        let mut sender = Session::open(self, self.tokens.as_ref().map(|[sender, _]| sender.as_str()), false).await?;
        sender.send_all(count, LEFT_IN_FLIGHT, Uuid::new_v4().to_string()).await
    }

    /// Sends the recipient so many messages, so many a second where that is said, with the time at which they expire.
    pub(crate) async fn leave_expiring(
        &self,
        count: u32,
        expires_at: impl Fn() -> SystemTime,
        per_second: Option<u32>,
    ) -> Result<(), Failure> {
        let mut sender = Session::open(self, self.tokens.as_ref().map(|[sender, _]| sender.as_str()), false).await?;
        let run = Uuid::new_v4().to_string();
        let start = Instant::now();
        let mut sent = 0;
        while sent < count {
            if let Some(per_second) = per_second {
                let due = Duration::from_secs_f64(f64::from(sent) / f64::from(per_second));
                tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
            }
            let some = LEFT_IN_FLIGHT.min(count - sent);
            sender.send_until(some, expires_at(), &format!("{run}-{sent}")).await?;
            sent += some;
        }
        Ok(())
    }

    /// Looks at the first page of what the recipient has not read, so many times.
    pub(crate) async fn look(&self, samples: u32) -> Result<Samples, Failure> {
        let mut mailbox = MailboxServiceClient::new(acb_sdk::channel(&self.endpoint, &self.ca_pem).await?);
        let mut taken = Samples::with_capacity(samples);
        for _ in 0..samples {
            let mut request = Request::new(ListUnreadRequest::default());
            if let Some([_, receiver]) = &self.tokens {
                request.metadata_mut().insert("authorization", format!("Bearer {receiver}").parse()?);
            }
            let start = Instant::now();
            let page = mailbox.list_unread(request).await?.into_inner();
            taken.take(start.elapsed());
            if page.messages.is_empty() || page.next_page_token.is_empty() {
                return Err(Failure("the first page is the last one".to_owned()));
            }
        }
        Ok(taken)
    }

    /// One message after another, each from the send until the connected recipient has it.
    pub(crate) async fn run(&self, samples: u32) -> Result<Samples, Failure> {
        let [sender_token, receiver_token] = match &self.tokens {
            Some([sender, receiver]) => [Some(sender.as_str()), Some(receiver.as_str())],
            None => [None, None],
        };
        let mut receiver = Session::open(self, receiver_token, true).await?;
        let mut sender = Session::open(self, sender_token, false).await?;
        let warm_up = WARM_UP.min(samples);
        let mut taken = Samples::with_capacity(samples);
        for sample in 0..warm_up + samples {
            let key = Uuid::new_v4().to_string();
            let frame = session_request::Send { sequence: u64::from(sample) + 1, message: Some(message(&key)) };
            let start = Instant::now();
            sender.send(session_request::Frame::Send(frame)).await?;
            // What an earlier session left unacknowledged comes first.
            while !receiver.receive(&key).await? {}
            let elapsed = start.elapsed();
            receiver.acknowledge().await?;
            sender.sent(u64::from(sample) + 1).await?;
            if sample >= warm_up {
                taken.take(elapsed);
            }
        }
        Ok(taken)
    }
}

impl Session {
    async fn open(target: &Target, token: Option<&str>, receive: bool) -> Result<Self, Failure> {
        let channel = acb_sdk::channel(&target.endpoint, &target.ca_pem).await?;
        let (requests, frames) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(frames));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let mut client = MessageServiceClient::new(channel);
        let responses = client.session(request).await?.into_inner();
        let mut session = Self { requests, responses, received: Vec::new(), next_sequence: 1 };
        let open = session_request::Open { receive, max_unacknowledged: 1000, take_over: true, ..Default::default() };
        session.send(session_request::Frame::Open(open)).await?;
        match session.next().await? {
            session_response::Frame::Opened(_) => Ok(session),
            frame => Err(Failure(format!("a session began with {frame:?}"))),
        }
    }

    /// Sends so many messages with at most so many in flight, whose keys begin with `run`, until each has its answer.
    async fn send_all(&mut self, count: u32, in_flight: u32, run: impl AsRef<str>) -> Result<(), Failure> {
        let run = run.as_ref();
        let (first, mut sent, mut answered) = (self.next_sequence, 0, 0);
        while answered < count {
            while sent < count && sent - answered < in_flight {
                let (sequence, message) = (first + u64::from(sent), Some(message(&format!("{run}-{sent}"))));
                self.send(session_request::Frame::Send(session_request::Send { sequence, message })).await?;
                sent += 1;
            }
            self.sent(first + u64::from(answered)).await?;
            answered += 1;
        }
        self.next_sequence += u64::from(count);
        Ok(())
    }

    /// Sends so many messages at once that expire then, and waits for their answers.
    async fn send_until(&mut self, count: u32, expires_at: SystemTime, run: &str) -> Result<(), Failure> {
        let first = self.next_sequence;
        let expires_at = Some(prost_types::Timestamp::from(expires_at));
        let (requests, sequences) = (self.requests.clone(), first..first + u64::from(count));
        let sending = async {
            for sequence in sequences.clone() {
                let message = Some(OutgoingMessage { expires_at, ..message(&format!("{run}-{sequence}")) });
                let frame = session_request::Frame::Send(session_request::Send { sequence, message });
                let sent = requests.send(SessionRequest { frame: Some(frame) }).await;
                sent.map_err(|_| Failure("the session ended".to_owned()))?;
            }
            Ok::<_, Failure>(())
        };
        let answers = async {
            for sequence in sequences.clone() {
                self.sent(sequence).await?;
            }
            Ok::<_, Failure>(())
        };
        tokio::try_join!(sending, answers)?;
        self.next_sequence = first + u64::from(count);
        Ok(())
    }

    /// Receives so many messages, of this run where it is said, and acknowledges them.
    async fn receive_all(&mut self, count: u32, run: Option<&str>) -> Result<(), Failure> {
        let mut received = 0;
        while received < count {
            let session_response::Frame::Delivery(delivery) = self.next().await? else {
                return Err(Failure("something else than a delivery came".to_owned()));
            };
            self.received.push(delivery.delivery_id);
            let key = delivery.message.map(|message| message.idempotency_key).unwrap_or_default();
            // What an earlier run left unacknowledged comes first.
            received += u32::from(run.is_none_or(|run| key.starts_with(run)));
            if self.received.len() >= ACKNOWLEDGED_TOGETHER || received == count {
                self.acknowledge().await?;
            }
        }
        Ok(())
    }

    async fn send(&self, frame: session_request::Frame) -> Result<(), Failure> {
        let request = SessionRequest { frame: Some(frame) };
        self.requests.send(request).await.map_err(|_| Failure("the session ended".to_owned()))
    }

    async fn next(&mut self) -> Result<session_response::Frame, Failure> {
        let response = timeout(PATIENCE, self.responses.message())
            .await
            .map_err(|_| Failure(format!("nothing came within {} s", PATIENCE.as_secs())))??;
        response.and_then(|response| response.frame).ok_or_else(|| Failure("the session ended".to_owned()))
    }

    /// Whether the next delivery is the message with this key.
    async fn receive(&mut self, key: &str) -> Result<bool, Failure> {
        match self.next().await? {
            session_response::Frame::Delivery(delivery) => {
                self.received.push(delivery.delivery_id);
                Ok(delivery.message.is_some_and(|message| message.idempotency_key == key))
            }
            frame => Err(Failure(format!("instead of a delivery came {frame:?}"))),
        }
    }

    async fn acknowledge(&mut self) -> Result<(), Failure> {
        let delivery_ids = std::mem::take(&mut self.received);
        self.send(session_request::Frame::Ack(session_request::Ack { delivery_ids })).await
    }

    async fn sent(&mut self, sequence: u64) -> Result<(), Failure> {
        match self.next().await? {
            session_response::Frame::Sent(sent) if sent.sequence == sequence => match sent.outcome {
                Some(Outcome::Accepted(_)) => Ok(()),
                outcome => Err(Failure(format!("a message was not accepted: {outcome:?}"))),
            },
            frame => Err(Failure(format!("instead of an answer came {frame:?}"))),
        }
    }
}

/// As the SDK sends one.
fn message(key: &str) -> OutgoingMessage {
    OutgoingMessage {
        to: Some(Address { to: Some(To::Agent(RECEIVER.to_owned())) }),
        topic: "bench".to_owned(),
        r#type: MessageType::Event as i32,
        content_type: "application/octet-stream".to_owned(),
        payload: vec![0x5A; PAYLOAD].into(),
        idempotency_key: key.to_owned(),
        ..OutgoingMessage::default()
    }
}
