//! What answers hold until their peer has taken them.

use std::sync::Arc;

use acb_hub_core::{door::meter::Metered, kit::budget::Room};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::status::to_status;

/// The most that a page of a list takes.
const PAGE: usize = 1024 * 1024;

/// The room of what an answer holds. It comes with the answer, and is given back when the peer has taken that.
#[derive(Clone, Debug)]
pub(crate) struct AnswerRoom(#[expect(dead_code, reason = "it is held")] Arc<Vec<Room>>);

impl AnswerRoom {
    pub(crate) fn new(rooms: Vec<Room>) -> Self {
        Self(Arc::new(rooms))
    }
}

/// What the answers to a request count to: nothing, where no door let it in.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Option<Metered>);

impl Answers {
    /// Those to this request.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        Self(request.extensions().get::<Metered>().cloned())
    }

    /// A page of a list, made once there is room for the largest.
    pub(crate) async fn page<T: Message>(&self, make: impl Future<Output = Result<T, Status>>) -> Result<Response<T>, Status> {
        let Some(metered) = &self.0 else { return make.await.map(Response::new) };
        let mut room = metered.answer(PAGE).await.map_err(to_status)?;
        let page = make.await?;
        room.shrink_to(page.encoded_len());
        Ok(held(page, room))
    }

    /// An answer that came from elsewhere.
    pub(crate) async fn one<T: Message>(&self, answer: T) -> Result<Response<T>, Status> {
        let Some(metered) = &self.0 else { return Ok(Response::new(answer)) };
        let room = metered.answer(answer.encoded_len()).await.map_err(to_status)?;
        Ok(held(answer, room))
    }

    /// The parts of a stream.
    pub(crate) fn parts(self) -> Parts {
        Parts { answers: self, untaken: None }
    }
}

fn held<T>(answer: T, room: Room) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(AnswerRoom::new(vec![room]));
    response
}

/// What a stream has handed out and the peer has not taken: one part at a time.
#[derive(Debug)]
pub(crate) struct Parts {
    answers: Answers,
    untaken: Option<Room>,
}

impl Parts {
    /// The next part is asked for: the one before is taken.
    pub(crate) fn taken(&mut self) {
        self.untaken = None;
    }

    /// Waits a while for room for one that is in memory already: it must not wait there for as long as its peer takes nothing else.
    pub(crate) async fn hold_made(&mut self, bytes: usize) -> Result<(), Status> {
        self.taken();
        if let Some(metered) = &self.answers.0 {
            self.untaken = Some(metered.answer(bytes).await.map_err(to_status)?);
        }
        Ok(())
    }

    /// Waits for room for the next one, which is made then.
    pub(crate) async fn hold(&mut self, bytes: usize) {
        self.taken();
        if let Some(metered) = &self.answers.0 {
            self.untaken = Some(metered.part(bytes).await);
        }
    }
}
