//! Shared contexts: typed, versioned payloads with a scope.

use std::collections::HashMap;

use acb_proto::v1::{
    Context, CreateContextRequest, DeleteContextRequest, GetContextRequest, ListContextsRequest, UpdateContextRequest,
};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;

use crate::{Client, Error, client::Retry, message::JSON, page, sharing::Sharing};

/// Gathers how a small payload is shared; see [`Client::share`].
pub type Share = Sharing<Inline>;

/// A payload that goes with its description.
#[derive(Debug)]
pub struct Inline {
    payload: Result<Bytes, Error>,
    key: String,
}

impl Share {
    /// Shares it. Tried again under the same key where no answer comes, so that it is shared once.
    pub async fn send(self) -> Result<Context, Error> {
        let Self { client, description, source: Inline { payload, key } } = self;
        let request = CreateContextRequest {
            r#type: description.context_type,
            payload: payload?,
            metadata: description.metadata,
            content_type: description.content_type,
            ttl: description.ttl.and_then(crate::wire::duration),
            access: Some(description.scope.into()),
            idempotency_key: key,
        };
        client
            .call("share", Retry::Always, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.contexts().create_context(request).await }
            })
            .await
    }
}

impl Client {
    /// Shares a payload of at most 1 MiB as a context of this type. Larger ones are [uploaded](Self::upload).
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Scope;
    /// use std::time::Duration;
    ///
    /// let context = client
    ///     .share("documents", "# Plan")
    ///     .scope(Scope::Groups(vec!["reviewers".to_owned()]))
    ///     .ttl(Duration::from_secs(3600))
    ///     .metadata("priority", "high")
    ///     .send()
    ///     .await?;
    /// println!("{} v{}", context.id, context.version);
    /// # Ok(())
    /// # }
    /// ```
    pub fn share(&self, context_type: impl Into<String>, payload: impl Into<Bytes>) -> Share {
        Sharing::new(self, context_type, Inline { payload: Ok(payload.into()), key: uuid::Uuid::new_v4().to_string() })
    }

    /// Shares a value as JSON; see [`share`](Self::share).
    pub fn share_json<T: Serialize + ?Sized>(&self, context_type: impl Into<String>, value: &T) -> Share {
        let mut share = self.share(context_type, Bytes::new()).content_type(JSON);
        share.source.payload = serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(|error| Error::Payload(format!("the context can't be encoded as JSON: {error}")));
        share
    }

    /// A context by its id, with its payload where that is inline.
    pub async fn context(&self, id: &str) -> Result<Context, Error> {
        self.call("get context", Retry::Always, Client::ATTEMPT, |line| {
            let request = GetContextRequest { id: id.to_owned() };
            async move { line.contexts().get_context(request).await }
        })
        .await
    }

    /// Replaces payload and metadata. Fails with [`Code::Aborted`](crate::Code::Aborted) where `read` is no longer the current version: get it
    /// again first. Not tried again once sent, as its first try may have been the change.
    pub async fn update_context(
        &self,
        read: &Context,
        payload: impl Into<Bytes>,
        metadata: HashMap<String, String>,
    ) -> Result<Context, Error> {
        let request = UpdateContextRequest {
            id: read.id.clone(),
            version: read.version,
            payload: payload.into(),
            metadata,
            content_type: read.content_type.clone(),
            ttl: None,
        };
        self.call("update context", Retry::BeforeSent, Client::ATTEMPT, |line| {
            let request = request.clone();
            async move { line.contexts().update_context(request).await }
        })
        .await
    }

    /// Deletes a context of one's own.
    pub async fn delete_context(&self, id: &str) -> Result<(), Error> {
        self.call("delete context", Retry::BeforeSent, Client::ATTEMPT, |line| {
            let request = DeleteContextRequest { id: id.to_owned() };
            async move { line.contexts().delete_context(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Every context of a type (of any, where it is empty) that may be read, without payloads; page after page as it is taken.
    pub fn contexts(&self, context_type: &str) -> impl Stream<Item = Result<Context, Error>> + Send + use<> {
        let (client, context_type) = (self.clone(), context_type.to_owned());
        page::all(move |page_token| {
            let (client, r#type) = (client.clone(), context_type.clone());
            async move {
                let request = ListContextsRequest { r#type, page_size: 0, page_token };
                let page = client
                    .call("list contexts", Retry::Always, Client::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.contexts().list_contexts(request).await }
                    })
                    .await?;
                Ok((page.contexts, page.next_page_token))
            }
        })
    }
}
