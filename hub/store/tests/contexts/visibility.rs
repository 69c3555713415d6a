//! The condition as a query and as a decision: over random contexts and agents they say the same.

use std::collections::{BTreeMap, BTreeSet};

use acb_hub_core::{
    contexts::{
        audience::{Access, Scope},
        context::{Context, ContextId, Payload},
        ports::{ContextStore as _, Created, ListFilter},
        visibility::Viewer,
    },
    directory::agent::{Agent, AgentId, Role},
};
use acb_hub_store::{PgStore, contexts::context::PgContexts};
use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::world::World;

/// Repeatable by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }

    fn some(&mut self, of: &[&str]) -> Vec<String> {
        of.iter().filter(|_| self.roll(2) == 0).map(|name| (*name).to_owned()).collect()
    }
}

// What would end a text or a list in SQL is among them.
const TYPES: [&str; 4] = ["notes", "plans", "it's", "{a,\"b\"}"];
const GROUPS: [&str; 4] = ["red", "blue", "Red", "NULL"];
const NAMES: [&str; 4] = ["alice", "bob", "alice'", "%"];

fn agent(dice: &mut Dice, ids: &[AgentId]) -> Agent {
    Agent {
        id: dice.one(ids),
        name: dice.one(&NAMES).to_owned(),
        kind: String::new(),
        capabilities: Vec::new(),
        groups: dice.some(&GROUPS),
        location: String::new(),
        metadata: BTreeMap::new(),
        role: dice.one(&[Role::Admin, Role::Producer, Role::Consumer, Role::Full, Role::Full, Role::Observer, Role::Auditor]),
        publishes: dice.some(&TYPES),
        subscribes: dice.some(&TYPES),
        limits: Default::default(),
        suspended: false,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}

fn context(dice: &mut Dice, ids: &[AgentId]) -> Context {
    let now = OffsetDateTime::now_utc();
    Context {
        id: ContextId(Uuid::now_v7()),
        kind: dice.one(&TYPES).to_owned(),
        creator: dice.one(ids),
        creator_name: "whoever".to_owned(),
        account: None,
        // Also audiences that their scope does not use: rows of another version.
        access: Access { scope: dice.one(&Scope::ALL), groups: dice.some(&GROUPS), agents: dice.some(&NAMES) },
        metadata: BTreeMap::new(),
        version: 1,
        content_type: String::new(),
        schema: None,
        payload: Payload::Inline(Bytes::from_static(b"x")),
        size: 1,
        sha256: [0; 32],
        created_at: now,
        updated_at: now,
        expires_at: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_shows_what_the_decision_allows() {
    let world = World::new().await;
    let store = PgContexts::new(&PgStore::new(world.tenant.connect_options()));
    let seed = u64::from(std::process::id());
    let mut dice = Dice(seed);
    let ids: Vec<_> = (1..6).map(|number| AgentId(Uuid::from_u128(number))).collect();
    let mut contexts = Vec::new();
    for _ in 0..250 {
        let context = context(&mut dice, &ids);
        assert_eq!(store.create(&context, None, Bytes::from_static(b"x")).await.unwrap(), Created::New);
        contexts.push(context);
    }
    let mut shown = 0;
    for _ in 0..150 {
        let agent = agent(&mut dice, &ids);
        let viewer = Viewer::of(&agent);
        let kind = [None, Some(dice.one(&TYPES))][dice.roll(2)];
        let filter = ListFilter { kind, after: None };
        let listed = store.list(&viewer, filter, 1000).await.unwrap();
        assert_eq!(listed.until, None, "there are fewer than one look reaches");
        let listed: BTreeSet<_> = listed.contexts.iter().map(|context| context.id).collect();
        let of_kind = contexts.iter().filter(|context| kind.is_none_or(|kind| kind == context.kind));
        let allowed: BTreeSet<_> = of_kind.filter(|context| context.seen_by(&viewer)).map(|context| context.id).collect();
        assert_eq!(listed, allowed, "seed {seed}: {agent:?} {kind:?}");
        shown += allowed.len();
    }
    assert!(shown > 1000, "{shown}");
}
