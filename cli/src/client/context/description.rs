//! What is said about a payload that becomes a context, inline or streamed.

use std::time::Duration;

use acb_sdk::{Scope, Sharing};

use super::super::payload;

/// The options of every command that makes a context.
#[derive(Debug, clap::Args)]
pub(super) struct Description {
    /// Its context type, as the Tenant lists it.
    #[arg(long)]
    pub(super) r#type: String,
    /// Who may read it: public, private, group:NAME[,NAME] or shared:AGENT[,AGENT].
    #[arg(long, default_value = "public", value_parser = payload::scope)]
    scope: Scope,
    /// Deleted after this time, such as 1h; default: kept.
    #[arg(long, value_parser = payload::duration)]
    ttl: Option<Duration>,
    /// Further facts, as key=value; may be repeated. What is streamed gets `filename` from its file where it is not given.
    #[arg(long, value_parser = payload::pair)]
    metadata: Vec<(String, String)>,
    /// What the payload is; default: text or bytes as is seen of what is inline, application/octet-stream of what is streamed.
    #[arg(long)]
    content_type: Option<String>,
}

impl Description {
    /// Says all of it of `sharing`.
    pub(super) fn describe<S>(self, mut sharing: Sharing<S>, default_content_type: &str) -> Sharing<S> {
        for (key, value) in self.metadata {
            sharing = sharing.metadata(key, value);
        }
        if let Some(ttl) = self.ttl {
            sharing = sharing.ttl(ttl);
        }
        let content_type = self.content_type.unwrap_or_else(|| default_content_type.to_owned());
        sharing.scope(self.scope).content_type(content_type)
    }
}
