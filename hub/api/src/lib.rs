//! The hub's face: gRPC, and HTTP with JSON, over TLS 1.3 behind one door, and the operations endpoints. It translates and calls core; it never
//! decides.

mod answer;
mod answer_room;
mod correlation;
pub mod door;
mod ending;
pub mod grpc;
mod http;
mod json;
pub mod operations;
pub mod peer;
mod request_body;
pub mod routes;
pub mod server;
pub mod status;
pub mod tls;
