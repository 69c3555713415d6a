//! Follows the contexts of one type, over broken connections.

use std::{collections::BTreeMap, time::SystemTime};

use acb_proto::v1::{
    ContextEvent, Position, SubscribeRequest, context_event,
    subscribe_request::{self, Positions},
};
use tokio::time::timeout;
use tonic::Streaming;

use crate::{
    Client, Error,
    backoff::Patience,
    client::{Line, Next},
};

/// Where a subscription starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Since {
    /// With the next change.
    #[default]
    Now,
    /// With the oldest that the log still holds.
    Start,
    /// After these positions, as [`Subscription::positions`] gave them.
    After(Vec<Position>),
    /// With the first that the log took at this time or later.
    Time(SystemTime),
}

/// Changes of the contexts of one type. Where the connection breaks it goes on after the last one, with any replica.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    context_type: String,
    filter: String,
    from: Since,
    positions: BTreeMap<u32, Position>,
    /// Whether the hub has said where this subscription stands. Without a position that is before the first record of the log.
    stands: bool,
    stream: Option<(Line, Streaming<ContextEvent>)>,
    patience: Patience,
    renewed: bool,
}

impl Client {
    /// Subscribes to the contexts of a type. Resolves once nothing more is missed.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let mut documents = client.subscribe("documents", acb_sdk::Since::Now).await?;
    /// loop {
    ///     let event = documents.next().await?;
    ///     println!("{:?} {:?}", event.kind(), event.context.map(|context| context.id));
    /// }
    /// # }
    /// ```
    pub async fn subscribe(&self, context_type: impl Into<String>, from: Since) -> Result<Subscription, Error> {
        self.subscribe_matching(context_type, "", from).await
    }

    /// Subscribes to those contexts of a type that match a filter: a CEL expression over `context`. An event of kind
    /// [`Left`](context_event::Kind::Left) tells of one that matched, and does not since an update.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let urgent = r#"context.metadata["priority"] == "high" && context.size < 64 * 1024"#;
    /// let mut documents = client.subscribe_matching("documents", urgent, acb_sdk::Since::Now).await?;
    /// let event = documents.next().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe_matching(
        &self,
        context_type: impl Into<String>,
        filter: impl Into<String>,
        from: Since,
    ) -> Result<Subscription, Error> {
        let positions = match &from {
            Since::After(positions) => positions.iter().map(|position| (position.partition, *position)).collect(),
            Since::Now | Since::Start | Since::Time(_) => BTreeMap::new(),
        };
        let mut subscription = Subscription {
            client: self.clone(),
            context_type: context_type.into(),
            filter: filter.into(),
            stands: matches!(from, Since::After(_)),
            from,
            positions,
            stream: None,
            patience: self.patience(),
            renewed: false,
        };
        subscription.ensure_open().await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next change. After an error the subscription is over.
    pub async fn next(&mut self) -> Result<ContextEvent, Error> {
        loop {
            self.ensure_open().await?;
            let Some((line, stream)) = &mut self.stream else { continue };
            match stream.message().await {
                Ok(Some(event)) => {
                    self.patience.renew();
                    self.note(&event);
                    // The two that only say where the subscription stands.
                    if !matches!(event.kind(), context_event::Kind::Subscribed | context_event::Kind::Bookmark) {
                        return Ok(event);
                    }
                }
                Ok(None) => {
                    let line = line.clone();
                    self.client.leave(&line).await;
                    self.pause(Error::Unavailable("the hub closed the subscription".to_owned())).await?;
                }
                Err(status) => {
                    let line = line.clone();
                    self.recover(&line, status).await?;
                }
            }
        }
    }

    /// Where the subscription stands, to go on later with [`Since::After`].
    #[must_use]
    pub fn positions(&self) -> Vec<Position> {
        self.positions.values().copied().collect()
    }

    fn note(&mut self, event: &ContextEvent) {
        self.stands = true;
        for position in event.positions.iter().chain(&event.position) {
            self.positions.insert(position.partition, *position);
        }
    }

    async fn ensure_open(&mut self) -> Result<(), Error> {
        while self.stream.is_none() {
            let line = match self.client.line().await {
                Ok(line) => line,
                Err(error) if error.is_retryable() => {
                    self.pause(error).await?;
                    continue;
                }
                Err(error) => return Err(error.during(self.name())),
            };
            let mut contexts = line.contexts();
            let request = self.request();
            let opening = async {
                let mut stream = contexts.subscribe(request).await?.into_inner();
                Ok::<_, tonic::Status>((stream.message().await?, stream))
            };
            match timeout(Client::ATTEMPT, opening).await {
                Ok(Ok((Some(first), stream))) if first.kind() == context_event::Kind::Subscribed => {
                    self.note(&first);
                    self.renewed = false;
                    self.stream = Some((line, stream));
                }
                Ok(Ok(_)) => {
                    self.client.leave(&line).await;
                    self.pause(Error::Unavailable("the hub did not open the subscription".to_owned())).await?;
                }
                Ok(Err(status)) => self.recover(&line, status).await?,
                Err(_) => {
                    self.client.leave(&line).await;
                    self.pause(Error::Timeout("the hub did not open the subscription in time".to_owned())).await?;
                }
            }
        }
        Ok(())
    }

    fn request(&self) -> SubscribeRequest {
        use subscribe_request::From as Wire;
        let from = match self.from {
            _ if self.stands => Wire::After(Positions { positions: self.positions() }),
            Since::Start => Wire::Start(true),
            Since::Time(time) => Wire::Time(time.into()),
            Since::Now | Since::After(_) => Wire::Now(true),
        };
        SubscribeRequest { r#type: self.context_type.clone(), filter: self.filter.clone(), from: Some(from) }
    }

    async fn recover(&mut self, line: &Line, status: tonic::Status) -> Result<(), Error> {
        let mut renewed = self.renewed;
        let next = self.client.judge(line, status, &mut renewed).await;
        self.renewed = renewed;
        self.stream = None;
        match next {
            Next::Again => Ok(()),
            Next::Later(error) => self.pause(error).await,
            Next::Never(error) => Err(error.during(self.name())),
        }
    }

    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.patience.wait(error).await.map_err(|error| error.during(self.name()))
    }

    fn name(&self) -> String {
        format!("subscribe to {:?}", self.context_type)
    }
}
