//! Follows the contexts of one type, over broken connections.

use std::{collections::BTreeMap, time::SystemTime};

use acb_proto::v1::{
    ContextEvent, Position, SubscribeRequest, context_event,
    subscribe_request::{self, Positions},
};

use crate::{Client, Error, client::Line, reopened::Reopened};

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
    context_type: String,
    filter: String,
    from: Since,
    positions: BTreeMap<u32, Position>,
    /// Whether the hub has said where this subscription stands. Without a position that is before the first record of the log.
    stands: bool,
    stream: Reopened<ContextEvent>,
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
        let context_type = context_type.into();
        let mut subscription = Subscription {
            stream: Reopened::new(self, format!("subscribe to {context_type:?}")),
            context_type,
            filter: filter.into(),
            stands: matches!(from, Since::After(_)),
            from,
            positions,
        };
        subscription.open().await?;
        Ok(subscription)
    }
}

impl Subscription {
    /// The next change. After an error the subscription is over.
    pub async fn next(&mut self) -> Result<ContextEvent, Error> {
        loop {
            if !self.stream.is_open() {
                self.open().await?;
            }
            let Some(event) = self.stream.next().await? else { continue };
            self.note(&event);
            // The two that only say where the subscription stands.
            if !matches!(event.kind(), context_event::Kind::Subscribed | context_event::Kind::Bookmark) {
                return Ok(event);
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

    /// The hub says first where the subscription stands.
    async fn open(&mut self) -> Result<(), Error> {
        let request = self.request();
        let subscribe = |line: Line| {
            let request = request.clone();
            async move { line.contexts().subscribe(request).await }
        };
        let first = self.stream.open(subscribe).await?;
        self.note(&first);
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
}
