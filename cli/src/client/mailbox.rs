//! The mailbox as a command reads it: message by message, until it is asked to stop. What a command does not want is left there.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use acb_proto::v1;
use acb_sdk::{Client, Error, Heartbeats, Received, Session};

use super::refused;
use crate::{
    output::{Exit, Failure},
    stop::Stop,
};

/// The most that the hub lets one session have unacknowledged.
const WINDOW: u32 = 1000;
/// What is unacknowledged comes again within 30 s. What did not, for so long, waits no more.
const FORGOTTEN: Duration = Duration::from_secs(90);

/// An open mailbox. As long as it is, its agent is online.
pub(super) struct Mailbox {
    client: Client,
    heartbeats: Heartbeats,
    session: Session,
    stop: Stop,
    left: Left,
}

impl Mailbox {
    /// Of the messages that match the filter, where there is one. A mailbox that another program receives from is left to that one, unless this
    /// one is to take it over.
    pub(super) async fn open(client: &Client, filter: Option<&str>, take_over: bool) -> Result<Self, Failure> {
        let stop = Stop::listen()?;
        let session =
            client.session().max_unacknowledged(WINDOW).take_over(take_over).filter(filter.unwrap_or_default()).open().await;
        let session = session.map_err(|error| match &error {
            Error::Refused { reason, .. } if reason == "RECEIVER_PRESENT" => {
                Failure::failed(format_args!("mailbox: {error}; `--take-over` ends that one"))
            }
            _ => refused("mailbox", &error),
        })?;
        // Messages come without it, too.
        if let Err(error) = client.announce().await {
            tracing::warn!("the agent is not shown as online: {error}");
        }
        Ok(Self { client: client.clone(), heartbeats: client.heartbeats(), session, stop, left: Left::default() })
    }

    /// The next message that is wanted; `None` once the command is asked to stop.
    pub(super) async fn next(&mut self, is_wanted: impl Fn(&v1::Message) -> bool) -> Result<Option<Received>, Failure> {
        loop {
            let received = tokio::select! {
                received = self.session.next() => received.map_err(|error| refused("mailbox", &error))?,
                () = self.stop.asked() => return Ok(None),
            };
            if is_wanted(received.message()) {
                return Ok(Some(received));
            }
            self.left.note(&received.message().id, Instant::now())?;
        }
    }

    /// What comes of it; `None` where the command is asked to stop before, and it is dropped.
    pub(super) async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stop.asked() => None,
        }
    }

    /// Hands the last acknowledgements over, and takes the agent offline.
    pub(super) async fn close(self) {
        let Self { client, heartbeats, session, .. } = self;
        session.close().await;
        drop(heartbeats);
        if let Err(error) = client.unregister("").await {
            tracing::warn!("the agent is still shown as online: {error}");
        }
    }
}

/// What was not wanted, and when it last came. Full of it, the hub would send nothing more.
#[derive(Default)]
struct Left(HashMap<String, Instant>);

impl Left {
    fn note(&mut self, message_id: &str, now: Instant) -> Result<(), Failure> {
        self.0.insert(message_id.to_owned(), now);
        if self.0.len() >= WINDOW as usize {
            self.0.retain(|_, came| now.duration_since(*came) < FORGOTTEN);
        }
        if self.0.len() < WINDOW as usize {
            return Ok(());
        }
        let message = format!(
            "mailbox: {WINDOW} messages in it are not wanted here, and the hub sends no more before they are acknowledged; \
             take them with `acb receive`"
        );
        Err(Failure::new(Exit::Failed, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_full_of_what_is_not_wanted_is_an_error_and_no_silence() {
        let (mut left, now) = (Left::default(), Instant::now());
        for number in 0..WINDOW - 1 {
            left.note(&number.to_string(), now).unwrap();
            left.note("0", now).unwrap();
        }
        assert!(left.note("last", now).unwrap_err().to_string().contains("acb receive"));
        let later = now + FORGOTTEN;
        left.note("long after", later).unwrap();
        assert_eq!(left.0.len(), 1, "what came no more waits no more");
    }
}
