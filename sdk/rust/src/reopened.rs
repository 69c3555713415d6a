//! A stream of answers that is opened again where it breaks.

use std::{fmt, future::Future};

use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Response, Status, Streaming};

use crate::{
    Client, Error,
    backoff::{Limited, Patience, STEADY},
    client::{Line, Next},
};

/// One stream of a call whose first answer comes at once. Whoever reads it keeps where it is, and opens it from there.
pub(crate) struct Reopened<T> {
    client: Client,
    /// What errors say that was done.
    doing: String,
    open: Option<(Line, Streaming<T>)>,
    opened: Instant,
    patience: Patience,
    limited: Limited,
    renewed: bool,
}

impl<T> fmt::Debug for Reopened<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("doing", &self.doing).field("open", &self.open.is_some()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Reopened<T> {
    /// Not open yet.
    pub(crate) fn new(client: &Client, doing: String) -> Self {
        Self {
            client: client.clone(),
            doing,
            open: None,
            opened: Instant::now(),
            patience: client.patience(),
            limited: Limited::default(),
            renewed: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens it, and gives its first answer. After an error it is over.
    pub(crate) async fn open<F, C>(&mut self, call: F) -> Result<T, Error>
    where
        F: Fn(Line) -> C + Send,
        C: Future<Output = Result<Response<Streaming<T>>, Status>> + Send,
    {
        loop {
            let line = match self.client.line().await {
                Ok(line) => line,
                Err(error) if error.is_retryable() => {
                    self.pause(error).await?;
                    continue;
                }
                Err(error) => return Err(error.during(&self.doing)),
            };
            let opening = async {
                let mut stream = call(line.clone()).await?.into_inner();
                Ok::<_, Status>((stream.message().await?, stream))
            };
            match timeout(Client::ATTEMPT, opening).await {
                Ok(Ok((Some(first), stream))) => {
                    (self.renewed, self.limited, self.opened) = (false, Limited::default(), Instant::now());
                    self.open = Some((line, stream));
                    return Ok(first);
                }
                Ok(Ok((None, _))) => self.leave(&line, Error::Unavailable("the hub closed the stream".to_owned())).await?,
                Ok(Err(status)) => self.recover(&line, status).await?,
                Err(_) => self.leave(&line, Error::Timeout("the hub did not open the stream in time".to_owned())).await?,
            }
        }
    }

    /// The next answer. `None`: it broke, and is to be opened again. After an error it is over.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        let Some((line, stream)) = &mut self.open else { return Ok(None) };
        match stream.message().await {
            Ok(Some(answer)) => {
                self.patience.renew();
                Ok(Some(answer))
            }
            Ok(None) => {
                let line = line.clone();
                self.leave(&line, Error::Unavailable("the hub closed the stream".to_owned())).await?;
                Ok(None)
            }
            Err(status) => {
                let line = line.clone();
                self.recover(&line, status).await?;
                Ok(None)
            }
        }
    }

    async fn recover(&mut self, line: &Line, status: Status) -> Result<(), Error> {
        self.close();
        let mut renewed = self.renewed;
        let next = self.client.judge(line, status, &mut renewed).await;
        self.renewed = renewed;
        match next {
            Next::Again => Ok(()),
            Next::Later(error) => self.pause(error).await,
            // Such as too many streams: those of a replica that died count for a while.
            Next::Never(error) => match self.limited.again_at(&error) {
                Some(again) => {
                    tracing::warn!(%error, "waiting for a limit");
                    sleep_until(again).await;
                    Ok(())
                }
                None => Err(error.during(&self.doing)),
            },
        }
    }

    async fn leave(&mut self, line: &Line, error: Error) -> Result<(), Error> {
        self.client.leave(line).await;
        self.pause(error).await
    }

    fn close(&mut self) {
        if self.open.take().is_some() && self.opened.elapsed() >= STEADY {
            self.patience.renew();
        }
    }

    async fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.close();
        self.patience.wait(error).await.map_err(|error| error.during(&self.doing))
    }
}
