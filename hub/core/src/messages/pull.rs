//! Receiving by single calls. Behind them is an ordinary session, so that what holds for sessions holds for them: the lease, the order, attempts,
//! redelivery. It delivers only what a call waits for: what nobody has asked for yet must not count as an attempt.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    delivery::{Delivery, DeliveryId},
    demand::Demand,
    parts::stopping,
    session::{Room, Session, SessionEvent, SessionEvents, SessionInput, over},
};
use crate::{
    directory::agent::AgentId,
    fault::{Code, Fault},
};

/// Messages of one answer where nothing is said, and at most.
const MESSAGES: (u32, u32) = (32, 1000);
/// Bytes of one answer, after which no further message is asked for.
const BYTES: usize = 2 * 1024 * 1024;
/// The longest wait for the first message.
pub const MAX_WAIT: Duration = Duration::from_secs(20);
/// The shortest wait for the first message: what is there has to be found.
const FIRST: Duration = Duration::from_millis(250);
/// How long the next message may take once there is one.
const NEXT: Duration = Duration::from_millis(20);
/// How long the mailbox stays an agent's that neither pulls nor acknowledges. Then what it was given is handed back.
const IDLE: Duration = Duration::from_secs(300);
/// Agents that pull from one replica.
const MAX_PULLING: usize = 10_000;

/// The reason where a program pulls twice at once.
pub(super) const PULL_IN_PROGRESS: &str = "PULL_IN_PROGRESS";

/// What a call was given.
#[derive(Debug)]
pub struct Pulled {
    /// In the order of the session, but for what was delivered before.
    pub deliveries: Vec<Delivery>,
    /// What they take in memory.
    pub room: Vec<Room>,
}

/// The session behind an agent's calls.
#[derive(Debug)]
pub(super) struct Puller {
    receiver: String,
    turn: Option<u64>,
    input: SessionInput,
    demand: Arc<Demand>,
    /// Held by the call that pulls.
    events: tokio::sync::Mutex<SessionEvents>,
    used: Mutex<Instant>,
}

impl Puller {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn idle_at(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) + IDLE
    }

    /// Takes what comes within `wait`, and a little of what follows it at once.
    pub(super) async fn pull(&self, max: u32, wait: Duration) -> Result<Pulled, Fault> {
        let Ok(mut events) = self.events.try_lock() else {
            let why = "another call of this program waits for messages: one at a time";
            return Err(Fault::new(Code::Aborted, PULL_IN_PROGRESS, why));
        };
        self.touch();
        let max = if max == 0 { MESSAGES.0 } else { max.min(MESSAGES.1) } as usize;
        let mut pulled = Pulled { deliveries: Vec::new(), room: Vec::new() };
        let (mut bytes, mut until) = (0, Instant::now() + wait.clamp(FIRST, MAX_WAIT));
        let asks = Asks(&self.demand);
        while pulled.deliveries.len() < max && bytes < BYTES {
            self.demand.one_more();
            let Ok(next) = timeout_at(until, events.take()).await else { break };
            match next {
                Some((SessionEvent::Delivery(delivery), room)) => {
                    bytes += delivery.message.cost();
                    pulled.deliveries.push(delivery);
                    pulled.room.extend(room);
                    until = Instant::now() + NEXT;
                }
                // What is acknowledged lets it go on.
                Some((SessionEvent::HeldBack { .. } | SessionEvent::Sent { .. }, _)) => {}
                Some((SessionEvent::Draining, _)) | None if !pulled.deliveries.is_empty() => break,
                Some((SessionEvent::Draining, _)) => return Err(stopping()),
                Some((SessionEvent::Failed(fault), _)) => return Err(fault),
                Some((SessionEvent::Replaced, _)) => {
                    let why = "another program receives for this agent now: it took over";
                    return Err(Fault::new(Code::Aborted, "SESSION_REPLACED", why));
                }
                None => return Err(over()),
            }
        }
        drop(asks);
        // One that was on its way when the time was over.
        while let Some((SessionEvent::Delivery(delivery), room)) = events.waiting() {
            pulled.deliveries.push(delivery);
            pulled.room.extend(room);
        }
        self.touch();
        // Who asks begins with what it is given. Of what was delivered before that counts at once: it may have ended its agent.
        let again =
            pulled.deliveries.iter().filter(|delivery| delivery.redelivered).map(|delivery| delivery.id).collect::<Vec<_>>();
        if !again.is_empty() {
            self.input.started(again).await?;
        }
        Ok(pulled)
    }

    /// Acknowledges deliveries, says of others that they are still worked at, and waits until that is written.
    pub(super) async fn acknowledge(&self, acknowledged: Vec<DeliveryId>, in_progress: Vec<DeliveryId>) -> Result<(), Fault> {
        self.touch();
        if !acknowledged.is_empty() {
            self.input.ack(acknowledged).await?;
        }
        if !in_progress.is_empty() {
            self.input.in_progress(in_progress).await?;
        }
        self.input.settled().await
    }

    /// The number of its session.
    pub(super) fn turn(&self) -> Option<u64> {
        self.turn
    }

    /// Whether its session has ended.
    fn is_over(&self) -> bool {
        self.input.is_over()
    }
}

/// Nothing is asked for any more once the call ends, however it does.
struct Asks<'a>(&'a Demand);

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        self.0.none();
    }
}

/// The agents that pull from this replica.
#[derive(Debug, Default)]
pub(super) struct Pullers {
    by_agent: Mutex<HashMap<AgentId, Arc<Puller>>>,
}

impl Pullers {
    /// The agent's, where this program has it and it lives.
    pub(super) fn find(&self, agent: AgentId, receiver: &str) -> Option<Arc<Puller>> {
        self.lock().get(&agent).filter(|puller| puller.receiver == receiver && !puller.is_over()).cloned()
    }

    pub(super) fn has_room(&self) -> bool {
        self.lock().len() < MAX_PULLING
    }

    /// Keeps a session that was opened for a program.
    pub(super) fn keep(self: &Arc<Self>, agent: AgentId, receiver: String, demand: Arc<Demand>, session: Session) -> Arc<Puller> {
        let puller = Arc::new(Puller {
            receiver,
            turn: session.turn,
            input: session.input,
            demand,
            events: tokio::sync::Mutex::new(session.events),
            used: Mutex::new(Instant::now()),
        });
        self.lock().insert(agent, puller.clone());
        tokio::spawn(let_go(Arc::downgrade(self), agent, Arc::downgrade(&puller)));
        puller
    }

    /// Lets a session go.
    pub(super) fn forget(&self, agent: AgentId, puller: &Arc<Puller>) {
        let mut by_agent = self.lock();
        if by_agent.get(&agent).is_some_and(|known| Arc::ptr_eq(known, puller)) {
            by_agent.remove(&agent);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Arc<Puller>>> {
        self.by_agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a session go that nobody has used for long, or that ended.
async fn let_go(pullers: Weak<Pullers>, agent: AgentId, puller: Weak<Puller>) {
    const LOOK: Duration = Duration::from_secs(5);
    loop {
        sleep(LOOK).await;
        let (Some(pullers), Some(puller)) = (pullers.upgrade(), puller.upgrade()) else { return };
        if puller.is_over() || Instant::now() >= puller.idle_at() {
            return pullers.forget(agent, &puller);
        }
    }
}
