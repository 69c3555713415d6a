//! What agents prove themselves with, as the hub knows it.

use acb_proto::v1::{Credential, ListCredentialsRequest};

use crate::{Client, Error, client::Retry};

const PAGE: u32 = 500;

impl Client {
    /// The credentials of the agent: which there are, since when, until when, and when a token was last issued for each. Never a secret. With the role
    /// admin those of another agent, by its name, or of all where it is empty.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// for credential in client.credentials("").await? {
    ///     println!("{} {}: used {:?}", credential.agent, credential.name, credential.last_used_at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn credentials(&self, agent: &str) -> Result<Vec<Credential>, Error> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = self
                .call("list credentials", Retry::Always, Self::ATTEMPT, |line| {
                    let request =
                        ListCredentialsRequest { agent: agent.to_owned(), page_size: PAGE, page_token: page_token.clone() };
                    async move { line.credentials().list_credentials(request).await }
                })
                .await?;
            all.extend(page.credentials);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }
}
