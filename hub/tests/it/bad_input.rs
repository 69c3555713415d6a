//! What no honest client sends. The hub answers, or hangs up, and goes on.

use std::time::Duration;

use acb_proto::v1::{
    CreateContextRequest, GetAgentRequest, GetJwksRequest, HeartbeatRequest, RevokeTokenRequest, SubscribeRequest,
    UnregisterRequest, context_service_client::ContextServiceClient,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::hub::{Hub, reason, with};

/// Posts a raw gRPC frame, and hands back the answer.
pub async fn post(
    hub: &Hub,
    path: &str,
    token: &str,
    frame: &[u8],
    headers: usize,
) -> hyper::Result<Response<hyper::body::Incoming>> {
    let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(frame.len()).unwrap());
    body.put_slice(frame);
    let mut request = Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"));
    for header in 0..headers {
        request = request.header(format!("x-{header}"), "x".repeat(1000));
    }
    sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await
}

/// What a caller may write long, and what then comes back.
#[tokio::test]
async fn long_names_are_answered_with_what_is_wrong_with_them() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let long = "\u{202e}x".repeat(4000);
    let status = hub.agents().get_agent(with(&token, GetAgentRequest { name: long.clone() })).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "AGENT_NOT_FOUND"));
    assert!(status.message().len() < 300 && !status.message().contains('\u{202e}'), "{}", status.message());
    let status = hub.agents().unregister(with(&token, UnregisterRequest { name: long.clone() })).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "AGENT_NOT_FOUND"));
    let mut contexts = ContextServiceClient::new(hub.channel());
    let create = CreateContextRequest { r#type: long.clone(), ..CreateContextRequest::default() };
    let status = contexts.create_context(with(&token, create)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "CONTEXT_TYPE_UNKNOWN"));
    let subscribe = SubscribeRequest { r#type: long, ..SubscribeRequest::default() };
    let status = contexts.subscribe(with(&token, subscribe)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "CONTEXT_TYPE_NOT_SUBSCRIBED"));
    goes_on(&hub).await;
}

#[tokio::test]
async fn a_compressed_request_hears_that_it_is_compressed() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    for (encoding, code) in [("gzip", Code::Unimplemented), ("identity", Code::Ok)] {
        let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("https://localhost/acb.v1.AgentRegistry/Heartbeat")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let Some(status) = tonic::Status::from_header_map(response.headers()) else {
            assert_eq!(code, Code::Ok);
            continue;
        };
        assert_eq!((status.code(), reason(&status).as_str()), (code, "ENCODING_UNSUPPORTED"));
        assert!(status.message().contains("gzip"), "{}", status.message());
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity");
    }
    goes_on(&hub).await;
}

async fn goes_on(hub: &Hub) {
    hub.auth().get_jwks(GetJwksRequest {}).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_not_protobuf_get_a_stable_code() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let response = post(&hub, "/acb.v1.AgentRegistry/GetAgent", &token, &[0xff; 40], 0).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "REQUEST_MALFORMED"));
    let response = post(&hub, "/acb.v1.Nothing/AtAll", &token, &[], 0).await.unwrap();
    assert_eq!(tonic::Status::from_header_map(response.headers()).unwrap().code(), Code::Unimplemented);
    goes_on(&hub).await;
}

#[tokio::test]
async fn a_huge_header_is_answered() {
    let hub = Hub::start().await;
    let response = post(&hub, "/acb.v1.AgentRegistry/GetAgent", "x", &[], 20).await.unwrap();
    assert_eq!(response.status(), 431);
    drop(response.into_body().collect().await);
    // Far above the bound the connection ends, and no other one.
    post(&hub, "/acb.v1.AgentRegistry/GetAgent", "x", &[], 200).await.unwrap_err();
    goes_on(&hub).await;
}

#[tokio::test]
async fn an_oversize_request_is_not_read() {
    let hub = Hub::start().await;
    let request = RevokeTokenRequest { refresh_token: "x".repeat(3 * 1024 * 1024) };
    let status = hub.auth().revoke_token(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
    goes_on(&hub).await;
}

#[tokio::test]
async fn what_anybody_may_call_takes_little() {
    const TOO_MUCH: usize = 16 * 1024 - 1;
    let hub = Hub::start().await;
    // A message whose field 1 is a text of this length, up to 2^14.
    let message = |length: usize| {
        let length_bytes = [u8::try_from(length & 0x7f).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()];
        [&[0x0a][..], &length_bytes, &b"x".repeat(length)].concat()
    };
    let ask = async |path: &str, payload: usize| {
        let response = post(&hub, path, "", &message(payload), 0).await.unwrap();
        let told = tonic::Status::from_header_map(response.headers());
        let body = response.into_body().collect().await.unwrap();
        let ended = body.trailers().and_then(tonic::Status::from_header_map);
        (told.or(ended).unwrap(), body.to_bytes().len())
    };
    for (path, usual) in [
        ("/acb.v1.AuthService/ExchangeToken", Code::Unauthenticated),
        ("/acb.v1.AuthService/RefreshToken", Code::Unauthenticated),
        ("/acb.v1.AuthService/RevokeToken", Code::Ok),
        ("/grpc.health.v1.Health/Check", Code::NotFound),
    ] {
        let (status, _) = ask(path, TOO_MUCH).await;
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "REQUEST_TOO_LARGE"), "{path}");
        assert!(status.message().contains("16384 bytes"), "{}", status.message());
        assert_eq!(ask(path, 200).await.0.code(), usual, "{path}");
    }
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // Its own answer would be an error, too; a request that is too large gets none, and the stream ends.
        let (status, bytes) = ask(&path, TOO_MUCH).await;
        assert_eq!((status.code(), bytes), (Code::Ok, 0), "{path}");
        assert_ne!(ask(&path, 200).await.0.code(), Code::Ok);
    }
    goes_on(&hub).await;
}

#[tokio::test]
async fn tls_below_1_3_is_refused() {
    let hub = Hub::start().await;
    hub.tls(&[&rustls::version::TLS12]).await.unwrap_err();
    goes_on(&hub).await;
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let mut after_tls = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    let mut half_preface = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    half_preface.write_all(b"PRI * HTTP").await.unwrap();
    let wait = Duration::from_secs(20);
    for stream in [&mut after_tls, &mut half_preface] {
        let mut bytes = Vec::new();
        // Closed or reset: in either case it ends.
        let _ = tokio::time::timeout(wait, stream.read_to_end(&mut bytes)).await.expect("closed in time");
    }
    hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
}
