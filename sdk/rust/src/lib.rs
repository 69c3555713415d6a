//! The Rust client of an ACB hub: messages, contexts, streams and agents of one tenant, over whichever replica answers.
//!
//! Start at [`Client::builder`]. Reconnecting, trying again and renewing tokens is done here; what callers see is one [`Error`].

mod agent;
mod audit;
mod auth;
mod backoff;
mod client;
mod context;
mod correlation;
mod credential;
mod credentials;
mod dead_letter;
mod download;
#[cfg(feature = "encryption")]
mod encryption;
mod error;
mod handler;
mod inbox;
mod link;
mod message;
mod page;
mod pull;
mod reopened;
mod replica;
mod schedule;
#[cfg(feature = "encryption")]
mod sealed;
mod seen;
mod session;
mod sharing;
#[cfg(feature = "opentelemetry")]
mod spans;
mod subscription;
mod trace;
mod trace_context;
mod trace_parent;
mod transfer;
mod unread;
mod upload;
mod usage;
mod wire;

/// The generated messages, clients and servers.
pub use acb_proto::v1;
pub use acb_proto::v1::{
    Address, Agent, AgentStatus, Context, ContextEvent, Credential, DeadLetter, DeadLetterOutcome, DeadLetterReason,
    DeadLetterState, MessageTrace, MessageType, PayloadRef, Position, RequestAddress, ScheduleMessageResponse, ScheduledMessage,
    SendMessageResponse, Usage, UsageGap, UsageSum, address, context_event, credential::Kind as CredentialKind, trace_event,
};
pub use agent::{Criteria, Heartbeats, Registered, Registration};
pub use audit::{AuditClaim, AuditFollower, AuditQuery, audit_record};
pub use client::{Builder, Client};
pub use context::{Inline, Share, Update};
pub use correlation::{correlated, correlation_id};
pub use credential::{ApiKey, Identity, Tokens};
pub use dead_letter::{Letters, WhichLetters};
pub use download::{Download, Downloaded};
#[cfg(feature = "encryption")]
pub use encryption::{Encryption, Opened};
pub use error::{Code, Error};
pub use handler::BoxError;
pub use message::{FAILURE, JSON, Message, Received};
pub use pull::{Pulled, Puller};
pub use replica::channel;
#[cfg(feature = "encryption")]
pub use sealed::{EncryptionKey, EncryptionKeyId, PublicEncryptionKey, SEALED};
pub use session::{Receipt, Sender, Session, SessionBuilder};
pub use sharing::{Scope, Sharing};
pub use subscription::{Since, Subscription};
pub use trace_context::traced;
pub use transfer::{Progress, Resumption};
pub use unread::{UnreadCount, UnreadMessages, WatchUnread};
pub use upload::{Streamed, Upload, Uploaded};
pub use usage::UsageQuery;
pub use wire::system_time;
