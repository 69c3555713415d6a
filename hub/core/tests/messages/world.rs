//! A tenant with agents, on whichever ports it is given. Shared with the suite that runs on PostgreSQL.

use std::{sync::Arc, time::Duration};

use acb_hub_core::{
    directory::{
        agent::{Agent, AgentId, Role},
        limits::Limits,
        membership::Membership,
        snapshot::{Directory, Snapshot},
    },
    kit::supervisor::Supervisor,
    log::{
        bus::{Bus, Logged, TopicName},
        partition::partition_of,
    },
    messages::{
        config::MessagesConfig,
        cursor::CursorState,
        delivery::Delivery,
        letter_store::LetterStore,
        message::{Address, OutgoingMessage},
        parts::MessageStores,
        ports::{CursorStore, MailboxAddress, MailboxStore},
        request_id::RequestKey,
        service::Messages,
        session::{Session, SessionEvent, SessionOptions},
        trace::store::TraceStore,
        usage_store::UsageStore,
    },
    metrics::Metrics,
    timers::ports::TimerStore,
};
use time::OffsetDateTime;
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What one replica runs on.
#[derive(Clone)]
pub(crate) struct Ports {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) mailboxes: Arc<dyn MailboxStore>,
    pub(crate) cursors: Arc<dyn CursorStore>,
    pub(crate) letters: Arc<dyn LetterStore>,
    pub(crate) timers: Arc<dyn TimerStore>,
    pub(crate) traces: Arc<dyn TraceStore>,
    pub(crate) usage: Arc<dyn UsageStore>,
}

impl Ports {
    /// Of a store that has all of them.
    pub(crate) fn of<S: MailboxStore + CursorStore + LetterStore + TimerStore + TraceStore + UsageStore>(
        bus: Arc<dyn Bus>,
        store: &Arc<S>,
    ) -> Self {
        Self {
            bus,
            mailboxes: store.clone(),
            cursors: store.clone(),
            letters: store.clone(),
            timers: store.clone(),
            traces: store.clone(),
            usage: store.clone(),
        }
    }

    /// The log, and the rest.
    pub(crate) fn parts(self) -> (Arc<dyn Bus>, MessageStores) {
        let Self { bus, mailboxes, cursors, letters, traces, usage, .. } = self;
        (bus, MessageStores { mailboxes, cursors, letters, traces, usage })
    }
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) tenant: String,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) cursors: Arc<dyn CursorStore>,
    pub(crate) mailboxes: Arc<dyn MailboxStore>,
    pub(crate) letters: Arc<dyn LetterStore>,
    /// Every replica has ports of its own.
    pub(crate) connect: Arc<dyn Fn() -> Ports + Send + Sync>,
    pub(crate) directory: Directory,
    pub(crate) config: MessagesConfig,
    pub(crate) supervisor: Supervisor,
}

impl World {
    /// Agents `a` to `d`; `b` and `c` are in group `pair`, and `d` left it yesterday.
    pub(crate) fn new(tenant: &str, connect: impl Fn() -> Ports + Send + Sync + 'static) -> Self {
        let Ports { bus, cursors, mailboxes, letters, .. } = connect();
        let now = OffsetDateTime::now_utc();
        let born = now - time::Duration::days(2);
        let agents: Vec<Agent> = ["a", "b", "c", "d"].into_iter().map(|name| agent(name, born)).collect();
        let member =
            |index: usize, left_at| Membership { group: "pair".to_owned(), agent: agents[index].id, joined_at: born, left_at };
        let members = vec![member(1, None), member(2, None), member(3, Some(now - time::Duration::days(1)))];
        let directory = Directory::new(Snapshot::new(1, agents, members));
        let config = MessagesConfig {
            flush_every: Duration::from_millis(50),
            index_every: Duration::from_millis(10),
            sweep_every: Duration::from_millis(200),
            sum_every: Duration::from_millis(50),
            look_every: Duration::from_millis(100),
            cut_after: Duration::from_millis(500),
            ..MessagesConfig::new(tenant, "r", RequestKey::new([7; 32]))
        };
        Self {
            tenant: tenant.to_owned(),
            bus,
            cursors,
            mailboxes,
            letters,
            connect: Arc::new(connect),
            directory,
            config,
            supervisor: Supervisor::default(),
        }
    }

    pub(crate) async fn replica(&self, name: &str) -> Messages {
        let config = MessagesConfig { replica: name.to_owned(), ..self.config.clone() };
        let metrics = Arc::new(Metrics::new(&self.tenant));
        let (bus, stores) = (self.connect)().parts();
        let messages = Messages::start(bus, stores, self.directory.clone(), metrics, config, &self.supervisor).await.unwrap();
        let mut waits = messages.waiting_for();
        tokio::time::timeout(PATIENCE, waits.wait_for(Option::is_none)).await.expect("ready in time").unwrap();
        messages
    }

    pub(crate) fn agent(&self, name: &str) -> Arc<Agent> {
        self.directory.snapshot().agent_named(name).unwrap().clone()
    }

    /// Limits that every replica learns of now.
    pub(crate) fn limit(&self, agent: &str, messages_per_minute: Option<u64>) {
        self.limit_all(agent, Limits { messages_per_minute, ..Limits::default() });
    }

    /// The same of every limit that there is.
    pub(crate) fn limit_all(&self, agent: &str, limits: Limits) {
        let snapshot = self.directory.snapshot();
        let agents = snapshot.agents().map(|known| {
            let limits = if known.name == agent { limits } else { known.limits };
            Agent { limits, ..(**known).clone() }
        });
        let members = ["pair"].into_iter().flat_map(|group| snapshot.memberships(group).to_vec()).collect();
        self.directory.replace(Snapshot::new(snapshot.generation + 1, agents.collect(), members));
    }

    /// A membership that every replica learns of now.
    pub(crate) fn join(&self, agent: &str, group: &str, joined_at: OffsetDateTime) {
        let snapshot = self.directory.snapshot();
        let joined = Membership { group: group.to_owned(), agent: self.agent(agent).id, joined_at, left_at: None };
        let members = snapshot.memberships(group).iter().cloned().chain([joined]).collect();
        let agents = snapshot.agents().map(|agent| (**agent).clone()).collect();
        let mut joined = Snapshot::new(snapshot.generation + 1, agents, members);
        joined.ahead = snapshot.ahead;
        self.directory.replace(joined);
    }

    pub(crate) async fn receive(&self, replica: &Messages, agent: &str) -> Session {
        self.receive_at_most(replica, agent, 1000).await
    }

    pub(crate) async fn receive_at_most(&self, replica: &Messages, agent: &str, max_unacknowledged: u32) -> Session {
        replica
            .open_session(
                self.agent(agent),
                SessionOptions { receive: true, max_unacknowledged, take_over: true, ..SessionOptions::default() },
            )
            .await
            .unwrap()
    }

    /// Waits for what acknowledgements need to be written.
    pub(crate) async fn acknowledged(&self, agent: &str, deliveries: &[Delivery]) {
        let epoch = self.bus.topic(&TopicName::system(&self.tenant, "messages")).await.unwrap().epoch;
        let agent = self.agent(agent).id;
        eventually(async || {
            for delivery in deliveries {
                let cursors = self.cursors.cursors(epoch, &[agent], &[delivery.id.place.partition]).await.unwrap();
                if !cursors.iter().any(|(_, _, cursor)| cursor.acknowledged(delivery.id.place.position)) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Rows of the index for one agent alone.
    pub(crate) async fn rows(&self, agent: &str) -> usize {
        self.all_rows(&[MailboxAddress::Agent(self.agent(agent).id)]).await
    }

    /// Rows of the index, as far as it goes.
    pub(crate) async fn all_rows(&self, addresses: &[MailboxAddress]) -> usize {
        let info = self.bus.topic(&TopicName::system(&self.tenant, "messages")).await.unwrap();
        let ends = self.mailboxes.checkpoints(info.epoch, info.partitions).await.unwrap();
        let ranges: Vec<_> = (0..).zip(ends).map(|(partition, end)| (partition, 0..end)).collect();
        self.mailboxes.entries(info.epoch, addresses, &ranges, 10_000).await.unwrap().len()
    }

    /// What an agent has acknowledged of the messages from `a`.
    pub(crate) async fn cursor(&self, agent: &str) -> Option<CursorState> {
        let info = self.bus.topic(&TopicName::system(&self.tenant, "messages")).await.unwrap();
        let partition = partition_of(self.agent("a").id.0, info.partitions);
        let cursors = self.cursors.cursors(info.epoch, &[self.agent(agent).id], &[partition]).await.unwrap();
        cursors.into_iter().next().map(|(_, _, cursor)| cursor)
    }

    pub(crate) async fn dead_letters(&self) -> Vec<Logged> {
        self.bus.read(&TopicName::system(&self.tenant, "dlq"), 0, 0, 100).await.unwrap()
    }
}

pub(crate) fn agent(name: &str, created_at: OffsetDateTime) -> Agent {
    Agent {
        id: AgentId(Uuid::new_v4()),
        name: name.to_owned(),
        kind: String::new(),
        capabilities: vec![],
        groups: vec![],
        location: String::new(),
        metadata: std::collections::BTreeMap::new(),
        role: Role::Full,
        publishes: vec![],
        subscribes: vec![],
        limits: Default::default(),
        suspended: false,
        created_at,
    }
}

pub(crate) fn to(agent: &str, text: &str) -> OutgoingMessage {
    OutgoingMessage::new(Address::Agent(agent.to_owned()), "t", text.to_owned())
}

pub(crate) fn keyed(agent: &str, text: &str, key: &str) -> OutgoingMessage {
    OutgoingMessage { idempotency_key: key.to_owned(), ..to(agent, text) }
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.to_vec()).unwrap()
}

/// The next event.
pub(crate) async fn event(session: &mut Session) -> SessionEvent {
    tokio::time::timeout(PATIENCE, session.events.next()).await.expect("an event in time").expect("the session lives")
}

/// The next delivery; receipts are passed over.
pub(crate) async fn delivery(session: &mut Session) -> Delivery {
    loop {
        match event(session).await {
            SessionEvent::Delivery(delivery) => return delivery,
            SessionEvent::Sent { outcome: Ok(_), .. } => {}
            other => panic!("a delivery was expected, and this came: {other:?}"),
        }
    }
}

pub(crate) async fn deliveries(session: &mut Session, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(delivery(session).await);
    }
    all
}

/// Whether nothing more comes, for a little while.
pub(crate) async fn silent(session: &mut Session) -> bool {
    tokio::time::timeout(Duration::from_millis(200), session.events.next()).await.is_err()
}

pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("the condition holds in time");
}
