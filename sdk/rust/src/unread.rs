//! What is unread in the agent's mailbox, seen without taking it.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use acb_proto::v1::{self, CountUnreadRequest, ListUnreadRequest, WaitForUnreadRequest};
use futures::Stream;

use crate::{Client, Error, client::Retry, page, wire};

/// The longest wait of one call.
const MOST: Duration = Duration::from_secs(20);
/// How much longer than the hub the client waits.
const SLACK: Duration = Duration::from_secs(10);

/// How much is unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadCount {
    /// In all; at most 10,000 are counted.
    pub messages: u64,
    /// By the sender's name; empty for senders that are gone.
    pub by_sender: HashMap<String, u64>,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// What a wait came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnreadMessages {
    /// None where none came in time.
    pub messages: Vec<v1::Message>,
    /// Where to go on.
    pub position: String,
}

impl Client {
    /// The unread messages of the agent's mailbox, of all senders or (where `from` is not empty) of one; page after page as they are taken.
    /// Nothing is acknowledged, and no session ends.
    pub fn unread(&self, from: &str) -> impl Stream<Item = Result<v1::Message, Error>> + Send + use<> {
        self.unread_matching(from, "")
    }

    /// The same, of those that match a filter: a CEL expression over `message`, such as `message.topic == "orders"`.
    pub fn unread_matching(&self, from: &str, filter: &str) -> impl Stream<Item = Result<v1::Message, Error>> + Send + use<> {
        let (client, from, filter) = (self.clone(), from.to_owned(), filter.to_owned());
        page::all(move |page_token| {
            let (client, from, filter) = (client.clone(), from.clone(), filter.clone());
            async move {
                let request = ListUnreadRequest { from, page_size: 0, page_token, filter };
                let page = client
                    .call("list unread", Retry::Always, Self::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.mailbox().list_unread(request).await }
                    })
                    .await?;
                Ok((page.messages, page.next_page_token))
            }
        })
    }

    /// How much is unread, of all senders or of one.
    pub async fn count_unread(&self, from: &str) -> Result<UnreadCount, Error> {
        let count = self
            .call("count unread", Retry::Always, Self::ATTEMPT, |line| {
                let request = CountUnreadRequest { from: from.to_owned() };
                async move { line.mailbox().count_unread(request).await }
            })
            .await?;
        Ok(UnreadCount { messages: count.messages, by_sender: count.by_sender, more: count.more })
    }

    /// The unread messages after a position of an earlier answer (empty: from the oldest on), and where there are none those that come next:
    /// none within `within`, of which the hub waits 20 s at most.
    pub async fn wait_for_unread(&self, from: &str, after: &str, within: Duration) -> Result<UnreadMessages, Error> {
        self.wait_for_unread_matching(from, "", after, within).await
    }

    /// The same, of those that match a filter.
    pub async fn wait_for_unread_matching(
        &self,
        from: &str,
        filter: &str,
        after: &str,
        within: Duration,
    ) -> Result<UnreadMessages, Error> {
        let within = within.min(MOST);
        let found = self
            .call("wait for unread", Retry::Always, within + SLACK, |line| {
                let (from, after, filter) = (from.to_owned(), after.to_owned(), filter.to_owned());
                let request = WaitForUnreadRequest { from, after, timeout: wire::duration(within), filter };
                async move { line.mailbox().wait_for_unread(request).await }
            })
            .await?;
        Ok(UnreadMessages { messages: found.messages, position: found.position })
    }

    /// Follows what is unread, from the oldest on: each message once, as it comes, taken by nobody.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// let mut unread = client.watch_unread("");
    /// loop {
    ///     println!("{}", unread.next().await?.topic);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch_unread(&self, from: &str) -> WatchUnread {
        self.watch_unread_matching(from, "")
    }

    /// The same, of what matches a filter: a CEL expression over `message`.
    #[must_use]
    pub fn watch_unread_matching(&self, from: &str, filter: &str) -> WatchUnread {
        let (from, filter) = (from.to_owned(), filter.to_owned());
        WatchUnread { client: self.clone(), from, filter, position: String::new(), waiting: VecDeque::new() }
    }
}

/// Follows what is unread: see [`Client::watch_unread`].
#[derive(Debug)]
pub struct WatchUnread {
    client: Client,
    from: String,
    filter: String,
    position: String,
    waiting: VecDeque<v1::Message>,
}

impl WatchUnread {
    /// The next message. Where it is dropped before, none is lost.
    pub async fn next(&mut self) -> Result<v1::Message, Error> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            let found = self.client.wait_for_unread_matching(&self.from, &self.filter, &self.position, MOST).await?;
            self.position = found.position;
            self.waiting.extend(found.messages);
        }
    }
}
