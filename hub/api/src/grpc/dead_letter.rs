//! `DeadLetterService`.

use acb_hub_core::{
    directory::trail::Trail,
    fault::Fault,
    messages::{
        letter::{DeadLetter, LetterFilter, LetterId, LetterReason, LetterRecipient, LetterState},
        letters::{DeadLetters, Selection, Settled, SettledPage},
        message,
        ports::MailboxAddress,
    },
};
use acb_proto::v1::{
    self, Address, DeadLetterFilter, DeadLetterOutcome, DeadLetterReason, DeadLetterSelection, DeadLetterState,
    DropDeadLettersRequest, DropDeadLettersResponse, GetDeadLetterRequest, GetDeadLetterResponse, ListDeadLettersRequest,
    ListDeadLettersResponse, ReplayDeadLettersRequest, ReplayDeadLettersResponse, address::To, dead_letter_outcome::Failure,
    dead_letter_service_server::DeadLetterService,
};
use tonic::{Request, Response, Status};

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        message::{address, instant, wire_kind, wire_message},
        timestamp::timestamp,
    },
    status::to_status,
};

/// Dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetterGate {
    letters: DeadLetters,
}

impl DeadLetterGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(letters: DeadLetters) -> Self {
        Self { letters }
    }
}

#[tonic::async_trait]
impl DeadLetterService for DeadLetterGate {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let (caller, answers) = (caller(&request)?, Answers::of(&request));
        let ListDeadLettersRequest { filter, page_size, page_token } = request.into_inner();
        let filter = filter_of(filter.unwrap_or_default()).map_err(to_status)?;
        let page = async {
            let page = self.letters.list(&caller.agent, filter, page_size, &page_token).await.map_err(to_status)?;
            Ok(ListDeadLettersResponse {
                dead_letters: page.letters.iter().map(wire).collect(),
                next_page_token: page.next_page_token,
            })
        };
        answers.page(page).await
    }

    async fn get_dead_letter(&self, request: Request<GetDeadLetterRequest>) -> Result<Response<GetDeadLetterResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let id: LetterId = request.into_inner().id.parse().map_err(to_status)?;
        trail.object("dead letter", id);
        let (letter, message) = self.letters.get(&caller.agent, id).await.map_err(to_status)?;
        Ok(Response::new(GetDeadLetterResponse { dead_letter: Some(wire(&letter)), message: Some(wire_message(&message)) }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let ReplayDeadLettersRequest { selection, to } = request.into_inner();
        let (selection, to) = (selection_of(selection).map_err(to_status)?, address(to).map_err(to_status)?);
        let page = self.letters.replay(&caller.agent, selection, to).await.map_err(to_status)?;
        told(&trail, &page);
        let (outcomes, next_page_token) = outcomes(page);
        Ok(Response::new(ReplayDeadLettersResponse { outcomes, next_page_token }))
    }

    async fn drop_dead_letters(
        &self,
        request: Request<DropDeadLettersRequest>,
    ) -> Result<Response<DropDeadLettersResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let selection = selection_of(request.into_inner().selection).map_err(to_status)?;
        let page = self.letters.discard(&caller.agent, selection).await.map_err(to_status)?;
        told(&trail, &page);
        let (outcomes, next_page_token) = outcomes(page);
        Ok(Response::new(DropDeadLettersResponse { outcomes, next_page_token }))
    }
}

/// What the audit record names: all of them.
fn told(trail: &Trail, page: &SettledPage) {
    let ids: Vec<String> = page.outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(id, _)| id.to_string()).collect();
    trail.object("dead letters", ids.join(","));
}

fn filter_of(filter: DeadLetterFilter) -> Result<LetterFilter, Fault> {
    let reason = match DeadLetterReason::try_from(filter.reason) {
        Ok(DeadLetterReason::Unspecified) => None,
        Ok(DeadLetterReason::Expired) => Some(LetterReason::Expired),
        Ok(DeadLetterReason::Attempts) => Some(LetterReason::Attempts),
        Ok(DeadLetterReason::SenderRefused) => Some(LetterReason::SenderRefused),
        Ok(DeadLetterReason::RecipientGone) => Some(LetterReason::RecipientGone),
        Err(_) => return Err(invalid(format!("{} is no reason", filter.reason))),
    };
    let recipient = match address(filter.recipient)? {
        None => None,
        Some(message::Address::Agent(name)) => Some(LetterRecipient::Agent(name)),
        Some(message::Address::Group(name)) => Some(LetterRecipient::Group(name)),
        Some(message::Address::All) => Some(LetterRecipient::All),
        Some(message::Address::Agents(_)) => {
            return Err(invalid("a dead letter is of one recipient: name one agent, a group or all"));
        }
        Some(message::Address::Request { .. }) => return Err(invalid("what goes to a waiting caller is no dead letter")),
    };
    let named = [
        &filter.sender,
        match &recipient {
            Some(LetterRecipient::Agent(name) | LetterRecipient::Group(name)) => name,
            _ => &filter.sender,
        },
    ];
    if named.iter().any(|name| name.contains('\0')) {
        return Err(invalid("a name has no NUL"));
    }
    Ok(LetterFilter {
        own: None,
        reason,
        recipient,
        sender: Some(filter.sender).filter(|sender| !sender.is_empty()),
        since: filter.since.map(|at| instant(at).map_err(|_| invalid("since is out of range"))).transpose()?,
        until: filter.until.map(|at| instant(at).map_err(|_| invalid("until is out of range"))).transpose()?,
        settled: filter.include_settled,
    })
}

fn invalid(why: impl Into<String>) -> Fault {
    Fault::invalid("FILTER_INVALID", why)
}

fn selection_of(selection: Option<DeadLetterSelection>) -> Result<Selection, Fault> {
    let DeadLetterSelection { ids, filter, page_size, page_token } = selection.unwrap_or_default();
    match filter {
        Some(filter) if ids.is_empty() => Ok(Selection::Matching { filter: filter_of(filter)?, page_size, page_token }),
        _ => Ok(Selection::Named(ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?)),
    }
}

fn wire(letter: &DeadLetter) -> v1::DeadLetter {
    let (state, replayed_as) = wire_state(letter.state);
    let name = letter.recipient_name.clone();
    let to = match &letter.recipient {
        MailboxAddress::Agent(_) => To::Agent(name),
        MailboxAddress::Group(_) => To::Group(name),
        MailboxAddress::All => To::All(true),
    };
    let reason = match letter.reason {
        LetterReason::Expired => DeadLetterReason::Expired,
        LetterReason::Attempts => DeadLetterReason::Attempts,
        LetterReason::SenderRefused => DeadLetterReason::SenderRefused,
        LetterReason::RecipientGone => DeadLetterReason::RecipientGone,
    };
    v1::DeadLetter {
        id: letter.id.to_string(),
        message_id: letter.message_id.to_string(),
        reason: reason.into(),
        attempts: letter.attempts,
        sender: letter.sender_name.clone(),
        recipient: Some(Address { to: Some(to) }),
        topic: letter.topic.clone(),
        r#type: wire_kind(letter.kind).into(),
        size: letter.size,
        sent_at: Some(timestamp(letter.sent_at)),
        expires_at: Some(timestamp(letter.expires_at)),
        dead_at: Some(timestamp(letter.dead_at)),
        state: state.into(),
        replayed_as,
        settled_at: letter.settled_at.map(timestamp),
    }
}

fn wire_state(state: LetterState) -> (DeadLetterState, String) {
    match state {
        LetterState::Open => (DeadLetterState::Open, String::new()),
        LetterState::Replayed(message) => (DeadLetterState::Replayed, message.to_string()),
        LetterState::Dropped => (DeadLetterState::Dropped, String::new()),
    }
}

fn outcomes(page: SettledPage) -> (Vec<DeadLetterOutcome>, String) {
    let outcome = |(id, outcome): (LetterId, Result<Settled, Fault>)| match outcome {
        Ok(Settled { state, before }) => {
            let (state, replayed_as) = wire_state(state);
            DeadLetterOutcome { id: id.to_string(), state: state.into(), replayed_as, before, failure: None }
        }
        Err(fault) => {
            let failure = Failure { code: fault.code as i32, reason: fault.reason.to_owned(), message: fault.message };
            DeadLetterOutcome { id: id.to_string(), failure: Some(failure), ..DeadLetterOutcome::default() }
        }
    };
    (page.outcomes.into_iter().map(outcome).collect(), page.next_page_token)
}
