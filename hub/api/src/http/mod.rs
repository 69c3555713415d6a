//! The API over HTTP and JSON: each method at the path of its `google.api.http` option. What comes is translated and sent to the services behind
//! the door, as any gRPC call; nothing is decided here.

mod binding;
pub(crate) mod face;
#[cfg(test)]
mod openapi;
mod refusal;
mod template;
mod url;
