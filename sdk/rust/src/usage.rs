//! What the agent may use, and what it has used of that.

use acb_proto::v1::{GetUsageRequest, Usage};

use crate::{Client, Error, client::Retry};

impl Client {
    /// The limits of the agent and of its tenant, with what was used of each in this minute. Of another agent, by its name, with the role admin.
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
}
