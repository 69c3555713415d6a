//! Dead letters: messages that nobody took.

use std::time::SystemTime;

use acb_proto::v1::{
    Address, DeadLetter, DeadLetterFilter, DeadLetterOutcome, DeadLetterReason, DeadLetterSelection, DropDeadLettersRequest,
    GetDeadLetterRequest, GetDeadLetterResponse, ListDeadLettersRequest, ReplayDeadLettersRequest, address,
};
use futures::Stream;
use tonic::Code;

use crate::{Client, Error, client::Retry, message::Received, page, wire};

/// The most that one call names.
const MOST_NAMED: usize = 100;

/// Which dead letters; what is not said is not asked for.
///
/// ```
/// use acb_sdk::{DeadLetterReason, Letters};
///
/// let failed = Letters::all().reason(DeadLetterReason::Attempts).from("planner").to_agent("worker-1");
/// # let _ = failed;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a filter finds nothing by itself"]
pub struct Letters {
    filter: DeadLetterFilter,
}

impl Letters {
    /// All open ones that the caller may see: those of its own mailbox, or with the role `admin` everybody's.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only those that became letters for this reason.
    pub fn reason(mut self, reason: DeadLetterReason) -> Self {
        self.filter.reason = reason.into();
        self
    }

    /// Only what this agent sent.
    pub fn from(mut self, agent: impl Into<String>) -> Self {
        self.filter.sender = agent.into();
        self
    }

    fn to(mut self, to: address::To) -> Self {
        self.filter.recipient = Some(Address { to: Some(to) });
        self
    }

    /// Only what was in this agent's mailbox.
    pub fn to_agent(self, name: impl Into<String>) -> Self {
        self.to(address::To::Agent(name.into()))
    }

    /// Only what no member of this group took.
    pub fn to_group(self, name: impl Into<String>) -> Self {
        self.to(address::To::Group(name.into()))
    }

    /// Only what was for all, and nobody took.
    pub fn to_all(self) -> Self {
        self.to(address::To::All(true))
    }

    /// Only those that became letters at this time or later.
    pub fn since(mut self, at: SystemTime) -> Self {
        self.filter.since = Some(wire::timestamp(at));
        self
    }

    /// Only those that became letters before this time.
    pub fn until(mut self, at: SystemTime) -> Self {
        self.filter.until = Some(wire::timestamp(at));
        self
    }

    /// Also those that were replayed or dropped.
    pub fn include_settled(mut self) -> Self {
        self.filter.include_settled = true;
        self
    }
}

/// What something is done with: dead letters by their ids, or all open ones that match.
#[derive(Clone, Debug)]
pub enum WhichLetters {
    /// These.
    Named(Vec<String>),
    /// All open ones that match.
    Matching(Letters),
}

impl From<Letters> for WhichLetters {
    fn from(letters: Letters) -> Self {
        Self::Matching(letters)
    }
}

impl From<&str> for WhichLetters {
    fn from(id: &str) -> Self {
        Self::Named(vec![id.to_owned()])
    }
}

/// The pages of a selection: named letters are so many to a call, and their number is the token.
fn selection(which: &WhichLetters, token: &str) -> (DeadLetterSelection, Option<String>) {
    match which {
        WhichLetters::Matching(letters) => {
            let filter = Some(letters.filter.clone());
            (DeadLetterSelection { filter, page_token: token.to_owned(), ..DeadLetterSelection::default() }, None)
        }
        WhichLetters::Named(ids) => {
            let from: usize = token.parse().unwrap_or(0);
            let until = ids.len().min(from + MOST_NAMED);
            let next = if until < ids.len() { until.to_string() } else { String::new() };
            let ids = ids.get(from..until).unwrap_or_default().to_vec();
            (DeadLetterSelection { ids, ..DeadLetterSelection::default() }, Some(next))
        }
    }
}

impl Client {
    /// The dead letters that match, in the order in which their messages were accepted; page after page as they are taken.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Letters;
    /// use futures::TryStreamExt as _;
    ///
    /// let letters: Vec<_> = client.dead_letters(Letters::all().from("planner")).try_collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn dead_letters(&self, letters: Letters) -> impl Stream<Item = Result<DeadLetter, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let (client, filter) = (client.clone(), Some(letters.filter.clone()));
            async move {
                let request = ListDeadLettersRequest { filter, page_size: 0, page_token };
                let page = client
                    .call("list dead letters", Retry::Always, Self::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.dead_letters().list_dead_letters(request).await }
                    })
                    .await?;
                Ok((page.dead_letters, page.next_page_token))
            }
        })
    }

    /// A dead letter and its message.
    pub async fn dead_letter(&self, id: &str) -> Result<(DeadLetter, Received), Error> {
        let GetDeadLetterResponse { dead_letter, message } = self
            .call("get dead letter", Retry::Always, Self::ATTEMPT, |line| {
                let request = GetDeadLetterRequest { id: id.to_owned() };
                async move { line.dead_letters().get_dead_letter(request).await }
            })
            .await?;
        match (dead_letter, message) {
            (Some(letter), Some(message)) => Ok((letter, Received::detached(message, self.clone()))),
            _ => Err(Error::refused(Code::Internal, "", "get dead letter: the hub answered without one")),
        }
    }

    /// Sends dead letters again, as new messages from their first senders: to whom they were for, or to another agent (which takes the role
    /// `admin`). What becomes of each is an item, a failure too: the others go on. A letter that was sent again is not sent once more.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Letters;
    /// use futures::{TryStreamExt as _, pin_mut};
    ///
    /// let outcomes = client.replay_dead_letters(Letters::all().from("planner"), None);
    /// pin_mut!(outcomes);
    /// while let Some(outcome) = outcomes.try_next().await? {
    ///     println!("{} is now message {}", outcome.id, outcome.replayed_as);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn replay_dead_letters<W: Into<WhichLetters>>(
        &self,
        which: W,
        to: Option<Address>,
    ) -> impl Stream<Item = Result<DeadLetterOutcome, Error>> + Send + use<W> {
        let (client, which) = (self.clone(), which.into());
        page::all(move |page_token| {
            let (selection, next) = selection(&which, &page_token);
            let (client, to) = (client.clone(), to.clone());
            async move {
                let request = ReplayDeadLettersRequest { selection: Some(selection), to };
                let page = client
                    .call("replay dead letters", Retry::Always, Self::ATTEMPT * 2, |line| {
                        let request = request.clone();
                        async move { line.dead_letters().replay_dead_letters(request).await }
                    })
                    .await?;
                Ok((page.outcomes, next.unwrap_or(page.next_page_token)))
            }
        })
    }

    /// Drops dead letters. What becomes of each is an item, a failure too: the others go on.
    pub fn drop_dead_letters<W: Into<WhichLetters>>(
        &self,
        which: W,
    ) -> impl Stream<Item = Result<DeadLetterOutcome, Error>> + Send + use<W> {
        let (client, which) = (self.clone(), which.into());
        page::all(move |page_token| {
            let (selection, next) = selection(&which, &page_token);
            let client = client.clone();
            async move {
                let request = DropDeadLettersRequest { selection: Some(selection) };
                let page = client
                    .call("drop dead letters", Retry::Always, Self::ATTEMPT * 2, |line| {
                        let request = request.clone();
                        async move { line.dead_letters().drop_dead_letters(request).await }
                    })
                    .await?;
                Ok((page.outcomes, next.unwrap_or(page.next_page_token)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_named_letters_are_several_calls() {
        let which = WhichLetters::Named((0..250).map(|number| number.to_string()).collect());
        let (mut token, mut sizes) = (String::new(), Vec::new());
        loop {
            let (selection, next) = selection(&which, &token);
            sizes.push(selection.ids.len());
            token = next.unwrap();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(sizes, [100, 100, 50]);
        let (selection, next) = selection(&WhichLetters::from(Letters::all()), "t");
        assert_eq!((selection.page_token.as_str(), selection.filter.is_some(), next), ("t", true, None));
    }
}
