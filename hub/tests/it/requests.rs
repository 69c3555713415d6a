//! What requests may hold before anybody has read them.

use std::time::Duration;

use acb_proto::v1::HeartbeatRequest;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::hub::{Hub, reason, with};

const MIB: usize = 1024 * 1024;
const CONNECTIONS: usize = 8;
const CALLS: usize = 64;

/// Calls of one agent, each of which announces 2 MiB and sends most of it: 1 GiB, where all of it is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_with_many_calls_holds_its_share_and_holds_up_nobody() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let (_, other) = hub.agent("bob", "agent-full").await;
    hub.agents().heartbeat(with(&other, HeartbeatRequest {})).await.unwrap();
    let before = hub.resident();
    let mut answers = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..CALLS {
            let (pieces, body) = mpsc::channel::<Bytes>(1);
            let body = StreamBody::new(ReceiverStream::new(body).map(|piece| Ok::<_, std::io::Error>(Frame::data(piece))));
            let request = Request::post("https://localhost/acb.v1.ContextService/CreateContext")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("authorization", format!("Bearer {token}"))
                .body(body)
                .unwrap();
            let mut sender = sender.clone();
            answers.push(tokio::spawn(async move { sender.send_request(request).await }));
            tokio::spawn(async move {
                let mut header = BytesMut::new();
                header.put_u8(0);
                header.put_u32(u32::try_from(2 * MIB).unwrap());
                let rest = Bytes::from(vec![7; 15 * 1024]);
                let rest = std::iter::repeat_n(rest, 2 * MIB / (15 * 1024) - 1);
                for piece in std::iter::once(header.freeze()).chain(rest) {
                    if pieces.send(piece).await.is_err() {
                        return;
                    }
                }
                // The last bytes never come.
                std::future::pending::<()>().await;
            });
        }
    }
    let mut reasons = Vec::new();
    let mut most = 0;
    for answer in answers {
        let mut answer = answer;
        let response = loop {
            most = most.max(hub.resident());
            match timeout(Duration::from_millis(100), &mut answer).await {
                Err(_) => {
                    let began = std::time::Instant::now();
                    hub.agents().heartbeat(with(&other, HeartbeatRequest {})).await.unwrap();
                    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
                }
                Ok(response) => break response.unwrap().unwrap(),
            }
        };
        reasons.push(reason(&tonic::Status::from_header_map(response.headers()).unwrap()));
    }
    let count = |wanted: &str| reasons.iter().filter(|reason| *reason == wanted).count();
    assert_eq!(count("TOO_MANY_REQUEST_BYTES") + count("REQUEST_STALLED"), CONNECTIONS * CALLS, "{reasons:?}");
    assert!((1..=7 * 16).contains(&count("REQUEST_STALLED")), "{}", count("REQUEST_STALLED"));
    // Its share, and what HTTP/2 holds of each connection.
    let grown = most.saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}
