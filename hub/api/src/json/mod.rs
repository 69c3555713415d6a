//! Calls whose messages are JSON: ProtoJSON (https://protobuf.dev/programming-guides/json/) of the messages of `acb.v1`. It translates what a call
//! brings and what it answers, and decides nothing: the call passes the door as any other.

pub(crate) mod answer;
pub(crate) mod call;
pub(crate) mod cursor;
mod doubled;
pub(crate) mod error;
mod fields;
mod grpc_messages;
