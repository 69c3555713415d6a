//! Shared contexts: typed, versioned payloads with a scope.

use std::time::Duration;

use acb_proto::v1::{
    Access, Context, CreateContextRequest, DeleteContextRequest, GetContextRequest, ListContextsRequest, SetContextAccessRequest,
    UpdateContextRequest,
};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;

use crate::{
    Client, Error,
    client::Retry,
    message::JSON,
    page,
    sharing::{Scope, Sharing},
};

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

/// Gathers what a new version of a context is; see [`Client::update`].
#[derive(Debug)]
#[must_use = "nothing is updated until it is sent"]
pub struct Update {
    client: Client,
    request: UpdateContextRequest,
}

impl Update {
    /// Sets one entry of the metadata.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.metadata.insert(key.into(), value.into());
        self
    }

    /// Removes one entry of the metadata.
    pub fn without_metadata(mut self, key: &str) -> Self {
        self.request.metadata.remove(key);
        self
    }

    /// What the payload is.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.request.content_type = content_type.into();
        self
    }

    /// Deleted after this time from now on.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl = crate::wire::duration(ttl);
        self
    }

    /// Updates it. Fails with [`Code::Aborted`](crate::Code::Aborted) where what was read is no longer the current version: read it again
    /// first. Not tried again once sent, as its first try may have been the change.
    pub async fn send(self) -> Result<Context, Error> {
        let Self { client, request } = self;
        client
            .call("update context", Retry::BeforeSent, Client::ATTEMPT, |line| {
                let request = request.clone();
                async move { line.contexts().update_context(request).await }
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

    /// Begins a new version of a context that was read, with this payload. Metadata, content type and expiry stay unless something else is
    /// said.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client, id: &str) -> Result<(), acb_sdk::Error> {
    /// let read = client.context(id).await?;
    /// let updated = client.update(&read, "# Plan, second version").metadata("state", "final").send().await?;
    /// assert_eq!(updated.version, read.version + 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(&self, read: &Context, payload: impl Into<Bytes>) -> Update {
        let request = UpdateContextRequest {
            id: read.id.clone(),
            version: read.version,
            payload: payload.into(),
            metadata: read.metadata.clone(),
            content_type: read.content_type.clone(),
            ttl: None,
        };
        Update { client: self.clone(), request }
    }

    /// Replaces who may read a context of one's own; its payload stays. Whoever loses sight of it hears so, and reads no more of it.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client, id: &str) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Scope;
    /// client.set_access(id, Scope::Agents(vec!["worker-a".to_owned(), "worker-b".to_owned()])).await?;
    /// client.set_access(id, Scope::Private).await?; // Both have lost it again.
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_access(&self, id: &str, scope: Scope) -> Result<Context, Error> {
        let access = Some(Access::from(scope));
        // Said twice it is what it was after the first time.
        self.call("set context access", Retry::Always, Client::ATTEMPT, |line| {
            let request = SetContextAccessRequest { id: id.to_owned(), version: 0, access: access.clone() };
            async move { line.contexts().set_context_access(request).await }
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
        self.contexts_matching(context_type, "")
    }

    /// Of these those that match a filter: a CEL expression over `context`, such as `context.creator == "writer"`. Everything that may be
    /// read is looked at for it, over as many calls as that takes.
    pub fn contexts_matching(
        &self,
        context_type: &str,
        filter: &str,
    ) -> impl Stream<Item = Result<Context, Error>> + Send + use<> {
        let (client, context_type, filter) = (self.clone(), context_type.to_owned(), filter.to_owned());
        page::all(move |page_token| {
            let (client, r#type, filter) = (client.clone(), context_type.clone(), filter.clone());
            async move {
                let request = ListContextsRequest { r#type, page_size: 0, page_token, filter };
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
