//! What the agent may use, and what it has used of that.

use std::time::SystemTime;

use acb_proto::v1::{GetUsageRequest, ListUsageRequest, ListUsageResponse, Usage, UsageGap, UsagePeriod, UsageSum};
use futures::Stream;

use crate::{Client, Error, client::Retry, page, wire};

/// Sums to a call.
const PAGE: u32 = 1000;

/// Which sums of usage; what is not said is not asked for.
///
/// ```
/// use acb_sdk::UsageQuery;
///
/// let bill = UsageQuery::by_month().agent("planner");
/// # let _ = bill;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query finds nothing by itself"]
pub struct UsageQuery(ListUsageRequest);

impl UsageQuery {
    fn by(period: UsagePeriod) -> Self {
        Self(ListUsageRequest { by: period.into(), page_size: PAGE, ..ListUsageRequest::default() })
    }

    /// Summed by hour.
    pub fn by_hour() -> Self {
        Self::by(UsagePeriod::Hour)
    }

    /// Summed by day, UTC.
    pub fn by_day() -> Self {
        Self::by(UsagePeriod::Day)
    }

    /// Summed by calendar month, UTC.
    pub fn by_month() -> Self {
        Self::by(UsagePeriod::Month)
    }

    /// Only that of this agent, which may be gone. Of another than oneself with the role admin or auditor.
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.0.agent = name.into();
        self
    }

    /// Only from the period on that this time is in.
    pub fn since(mut self, at: SystemTime) -> Self {
        self.0.from = Some(wire::timestamp(at));
        self
    }

    /// Only periods that begin before this time.
    pub fn until(mut self, at: SystemTime) -> Self {
        self.0.to = Some(wire::timestamp(at));
        self
    }
}

impl Client {
    /// The limits of the agent and of its tenant, with what was used of each in this minute or month. Of another agent, by its name, with the
    /// role admin.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// for usage in client.usage("").await? {
    ///     println!("{} {}: {} of {:?}", usage.subject, usage.limit, usage.used, usage.most);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn usage(&self, agent: &str) -> Result<Vec<Usage>, Error> {
        let answer = self
            .call("get usage", Retry::Always, Self::ATTEMPT, |line| {
                let request = GetUsageRequest { agent: agent.to_owned() };
                async move { line.usage().get_usage(request).await }
            })
            .await?;
        Ok(answer.usage)
    }

    /// What agents have sent, by period and then by agent; page after page as they are taken. The sums are some seconds behind.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::UsageQuery;
    /// use futures::{TryStreamExt as _, pin_mut};
    ///
    /// let sums = client.usage_sums(UsageQuery::by_day());
    /// pin_mut!(sums);
    /// while let Some(sum) = sums.try_next().await? {
    ///     println!("{} sent {} messages", sum.agent, sum.messages);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn usage_sums(&self, query: UsageQuery) -> impl Stream<Item = Result<UsageSum, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let (client, request) = (client.clone(), ListUsageRequest { page_token, ..query.0.clone() });
            async move {
                let page = client.list_usage(request).await?;
                Ok((page.sums, page.next_page_token))
            }
        })
    }

    /// Where the sums lack something, as far as that was found in the time that the query is about: the latest first.
    pub async fn usage_gaps(&self, query: UsageQuery) -> Result<Vec<UsageGap>, Error> {
        Ok(self.list_usage(ListUsageRequest { page_size: 1, ..query.0 }).await?.gaps)
    }

    async fn list_usage(&self, request: ListUsageRequest) -> Result<ListUsageResponse, Error> {
        self.call("list usage", Retry::Always, Self::ATTEMPT, |line| {
            let request = request.clone();
            async move { line.usage().list_usage(request).await }
        })
        .await
    }
}
