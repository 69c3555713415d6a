//! What agents that take nothing cost a hub: bounded memory, and the others' patience for seconds.

use std::time::Duration;

use acb_proto::v1::{
    Address, OutgoingMessage, SendMessageRequest, SessionRequest, SessionResponse,
    address::To,
    message_service_client::MessageServiceClient,
    session_request::{Ack, Frame, Open},
    session_response,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::hub::{Hub, with};

const MIB: usize = 1024 * 1024;
/// Agents that take nothing. A message of 1 MB for each of them is more than the hub may hold.
const CROWD: usize = 600;
const LARGE: usize = 1_000_000;

struct Receiver {
    frames: mpsc::Sender<SessionRequest>,
    answers: Streaming<SessionResponse>,
}

impl Receiver {
    async fn open(channel: Channel, token: &str) -> Self {
        let (frames, stream) = mpsc::channel(16);
        let open = Open { receive: true, max_unacknowledged: 10, ..Open::default() };
        frames.send(SessionRequest { frame: Some(Frame::Open(open)) }).await.unwrap();
        let mut client = MessageServiceClient::new(channel).max_decoding_message_size(4 * MIB);
        let answers = client.session(with(token, ReceiverStream::new(stream))).await.unwrap().into_inner();
        let mut receiver = Self { frames, answers };
        assert!(matches!(receiver.next().await, session_response::Frame::Opened(_)));
        receiver
    }

    async fn next(&mut self) -> session_response::Frame {
        let next = timeout(Duration::from_secs(90), self.answers.message()).await.expect("in time");
        next.unwrap().unwrap().frame.unwrap()
    }

    /// Takes so many messages. The bytes of each.
    async fn take(&mut self, count: usize) -> Vec<usize> {
        let mut sizes = Vec::new();
        while sizes.len() < count {
            if let session_response::Frame::Delivery(delivery) = self.next().await {
                sizes.push(delivery.message.unwrap().payload.len());
                let ack = Ack { delivery_ids: vec![delivery.delivery_id] };
                self.frames.send(SessionRequest { frame: Some(Frame::Ack(ack)) }).await.unwrap();
            }
        }
        sizes
    }
}

fn message(to: To, size: usize) -> SendMessageRequest {
    let to = Some(Address { to: Some(to) });
    let message = OutgoingMessage { to, topic: "t".into(), payload: vec![7; size].into(), ..OutgoingMessage::default() };
    SendMessageRequest { message: Some(message) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_takes_nothing_is_held_within_the_bounds_and_lets_the_others_go_on() {
    let hub = Hub::start().await;
    let (_, sender) = hub.agent("sender", "agent-full").await;
    let (_, token) = hub.agent("quick", "agent-full").await;
    let mut quick = Receiver::open(hub.channel(), &token).await;
    let (mut crowd, mut tokens) = (Vec::new(), Vec::new());
    for number in 0..CROWD {
        let (_, token) = hub.agent(&format!("idle-{number}"), "agent-full").await;
        crowd.push(Receiver::open(hub.narrow_channel(), &token).await);
        tokens.push(token);
    }
    let before = hub.resident();
    let mut messages = MessageServiceClient::new(hub.channel());
    for _ in 0..3 {
        messages.send_message(with(&sender, message(To::All(true), LARGE))).await.unwrap();
    }
    messages.send_message(with(&sender, message(To::Agent("quick".to_owned()), 10))).await.unwrap();
    // While nobody of the crowd takes anything, and memory is short, those are ended that stall for the longest.
    let reading = tokio::spawn(async move { quick.take(4).await });
    let (began, mut most) = (Instant::now(), 0);
    while !reading.is_finished() || began.elapsed() < Duration::from_secs(15) {
        most = most.max(hub.resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut sizes = reading.await.unwrap_or_else(|error| panic!("{error}\n{}", hub.log()));
    sizes.sort_unstable();
    assert_eq!(sizes, [10, LARGE, LARGE, LARGE]);
    // 64 MiB of messages, as much again of first ones, and what connections and the allocator take of both.
    let grown = most.saturating_sub(before);
    assert!(grown < 320 * MIB, "{} MiB", grown / MIB);
    let ended = "a call is ended whose peer takes nothing";
    assert!(hub.log().contains(ended), "{}", hub.log());
    // Whoever lost its session comes back to what it did not take.
    drop(crowd);
    assert_eq!(Receiver::open(hub.channel(), &tokens[0]).await.take(3).await, [LARGE; 3]);
}
