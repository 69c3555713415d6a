//! The messages of a gRPC body, one by one.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

/// A compression flag and the message's length.
const HEADER: usize = 5;

/// What a gRPC body has next.
pub(super) enum Next {
    Message(Bytes),
    /// How the call ended.
    Trailers(HeaderMap),
    /// It ended without a word.
    End,
}

/// A gRPC body that is read message by message.
pub(super) struct GrpcMessages {
    body: Body,
    ahead: BytesMut,
}

impl GrpcMessages {
    pub(super) fn new(body: Body) -> Self {
        Self { body, ahead: BytesMut::new() }
    }

    /// What comes next. Nothing is lost where this is dropped before it is ready.
    pub(super) async fn next(&mut self) -> Result<Next, Status> {
        loop {
            if let Some(message) = self.whole() {
                return Ok(Next::Message(message));
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(Next::End) };
            match frame.into_data() {
                Ok(data) => self.ahead.extend_from_slice(&data),
                Err(frame) => return Ok(Next::Trailers(frame.into_trailers().unwrap_or_default())),
            }
        }
    }

    fn whole(&mut self) -> Option<Bytes> {
        let length = self.ahead.get(1..HEADER)?.try_into().map(u32::from_be_bytes).ok()?;
        let length = usize::try_from(length).ok()?;
        if self.ahead.len() - HEADER < length {
            return None;
        }
        self.ahead.advance(HEADER);
        let message = self.ahead.split_to(length).freeze();
        if self.ahead.is_empty() {
            // What is empty keeps no memory of what was there.
            self.ahead = BytesMut::new();
        }
        Some(message)
    }
}
