//! A PostgreSQL whose clock is off by minutes or by an hour, or is set while it runs. Nothing is refused, lost, delivered twice, expired early or kept
//! for that. The log is on it, too: its times are those of the server.

use std::{collections::BTreeMap, time::Duration};

use acb_hub_core::{
    directory::{
        agent::{Agent, AgentId},
        presence::{PresenceStore as _, Status},
        snapshot::DirectoryStore as _,
    },
    door::{
        ports::CredentialStore as _,
        refresh_token::{NewFamily, REFRESH_TOKEN_LIFE, Rotation},
    },
    kit::clock::truncated,
    log::{bus::TopicName, partition::partition_of},
    messages::{
        envelope::Envelope,
        letter::LetterFilter,
        letters::Selection,
        message::{Address, Message, MessageType, OutgoingMessage},
        ports::{Advance, ClaimOutcome, CursorStore as _, IndexEntry, MailboxAddress, MailboxStore as _, Opened, Opening},
        record,
        service::Messages,
    },
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, ServerClock, TestTenant, clock::SEEN_WITHIN};
use sqlx::{Connection as _, Executor as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    scheduled::Replica,
    world::{World, deliveries, eventually, keyed, silent, text, to},
    world_of,
};

const HOUR: i64 = 3600;
/// Ahead and behind; the last ones by little more than a message may be on its way into the log.
const OFF_BY: [i64; 4] = [HOUR, -HOUR, 310, -310];

/// A server with a tenant.
struct Off {
    clock: ServerClock,
    postgres: Postgres,
    tenant: TestTenant,
}

impl Off {
    async fn by(seconds: i64) -> Self {
        let clock = ServerClock::off_by(seconds);
        let postgres = Postgres::with_clock(&clock).await;
        let tenant = postgres.tenant("acme").await;
        let off = Self { clock, postgres, tenant };
        off.is_off_by(seconds).await;
        off
    }

    /// Without which the test would show nothing.
    async fn is_off_by(&self, seconds: i64) {
        let there = self.postgres.number("SELECT extract(epoch FROM clock_timestamp())::bigint").await;
        let off = there - OffsetDateTime::now_utc().unix_timestamp();
        assert!((off - seconds).abs() < 30, "the clock is off by {off} s");
    }

    async fn set(&self, seconds: i64) {
        self.clock.set(seconds);
        tokio::time::sleep(SEEN_WITHIN).await;
        self.is_off_by(seconds).await;
    }

    fn store(&self) -> PgStore {
        PgStore::new(self.tenant.connect_options())
    }
}

/// Sends `b` a message until it is taken. A try is in vain where it was judged by the clock of before, or was late indeed.
async fn taken(replica: &Messages, from: &Agent, text: &str) {
    eventually(async || match replica.send(from, keyed("b", text, text)).await {
        Ok(_) => true,
        Err(fault) => {
            assert_eq!(fault.reason, "MESSAGE_STALE");
            false
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_taken_delivered_and_known_again() {
    for seconds in OFF_BY {
        let off = Off::by(seconds).await;
        let world = world_of(&off.tenant);
        let replica = world.replica("before").await;
        let a = world.agent("a");
        let first = replica.send(&a, keyed("b", "1", "k")).await.unwrap();
        replica.send(&a, to("b", "2")).await.unwrap();
        let mut inbox = world.receive(&replica, "b").await;
        let got = deliveries(&mut inbox, 2).await;
        assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["1", "2"], "{seconds} s");
        inbox.input.ack(got.iter().map(|delivery| delivery.id).collect()).await.unwrap();
        world.acknowledged("b", &got).await;
        drop((inbox, replica));

        // The window of keys is read again from the log.
        let replica = world.replica("after").await;
        let again = replica.send(&a, keyed("b", "1", "k")).await.unwrap();
        assert!(again.deduplicated && again.id == first.id, "{seconds} s: {again:?} after {first:?}");
        let mut inbox = world.receive(&replica, "b").await;
        replica.send(&a, to("b", "3")).await.unwrap();
        assert_eq!(deliveries(&mut inbox, 1).await.iter().map(text).collect::<Vec<_>>(), ["3"], "{seconds} s");
    }
}

/// What a hub reads when it starts shows how far the log's clock is ahead at least: an hour, where the last record is half an hour old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_after_a_quiet_time_is_taken() {
    let off = Off::by(HOUR / 2).await;
    let world = world_of(&off.tenant);
    let a = world.agent("a");
    let replica = world.replica("before").await;
    replica.send(&a, to("b", "1")).await.unwrap();
    drop(replica);
    // As if it had been an hour ahead, half an hour ago.
    off.set(HOUR).await;
    let replica = world.replica("after").await;
    let mut inbox = world.receive(&replica, "b").await;
    assert_eq!(text(&deliveries(&mut inbox, 1).await[0]), "1");
    replica.send(&a, to("b", "2")).await.unwrap();
    assert_eq!(text(&deliveries(&mut inbox, 1).await[0]), "2");
}

/// A message that was on its way into the log for longer than one may be is dropped, whatever the time is over there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_late_is_dropped() {
    for seconds in [HOUR, -HOUR] {
        let off = Off::by(seconds).await;
        let mut world = world_of(&off.tenant);
        world.config.max_append_delay = Duration::from_secs(1);
        let replica = world.replica("r").await;
        let (a, mut inbox) = (world.agent("a"), world.receive(&replica, "b").await);
        taken(&replica, &a, "1").await;
        let mut superuser = off.postgres.superuser().await;
        let mut held = superuser.begin().await.unwrap();
        held.execute("SELECT FROM acb.bus_partition FOR UPDATE").await.unwrap();
        let free = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            held.rollback().await.unwrap();
        };
        let (late, ()) = tokio::join!(replica.send(&a, to("b", "2")), free);
        let late = late.unwrap_err();
        assert_eq!(late.reason, "MESSAGE_STALE", "{seconds} s: {late:?}");
        taken(&replica, &a, "3").await;
        assert_eq!(deliveries(&mut inbox, 2).await.iter().map(text).collect::<Vec<_>>(), ["1", "3"], "{seconds} s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_expires_when_its_sender_said() {
    for seconds in [HOUR, -HOUR] {
        let off = Off::by(seconds).await;
        let world = world_of(&off.tenant);
        let replica = world.replica("r").await;
        let (a, b) = (world.agent("a"), world.agent("b"));
        let within =
            |text: &str, time: Duration| OutgoingMessage { expires_at: Some(OffsetDateTime::now_utc() + time), ..to("b", text) };
        replica.send(&a, within("soon", Duration::from_secs(2))).await.unwrap();
        replica.send(&a, within("later", Duration::from_secs(60))).await.unwrap();
        eventually(async || world.dead_letters().await.len() == 1).await;
        let mut inbox = world.receive(&replica, "b").await;
        assert_eq!(deliveries(&mut inbox, 1).await.iter().map(text).collect::<Vec<_>>(), ["later"], "{seconds} s");
        assert!(silent(&mut inbox).await);

        // Whoever drops all that there are now has this one among them.
        let all = || Selection::Matching { filter: LetterFilter::default(), page_size: 10, page_token: String::new() };
        eventually(async || !replica.dead_letters().list(&b, LetterFilter::default(), 10, "").await.unwrap().letters.is_empty())
            .await;
        assert_eq!(replica.dead_letters().discard(&b, all()).await.unwrap().outcomes.len(), 1, "{seconds} s");
    }
}

/// What another replica takes, whose clock is the server's.
async fn taken_elsewhere(world: &World, off_by: i64, text: &str, life: Duration) {
    let (a, b) = (world.agent("a"), world.agent("b"));
    let now = truncated(OffsetDateTime::now_utc() + time::Duration::seconds(off_by));
    let message = Message {
        id: Uuid::now_v7(),
        from_id: a.id,
        from: a.name.clone(),
        to: Address::Agent(b.name.clone()),
        to_ids: vec![b.id],
        topic: "t".to_owned(),
        kind: MessageType::default(),
        content_type: String::new(),
        payload: text.to_owned().into(),
        context_id: String::new(),
        idempotency_key: String::new(),
        correlation_id: String::new(),
        reply_to: None,
        metadata: BTreeMap::new(),
        accepted_at: now,
        sent_at: now,
        expires_at: now + life,
        traceparent: String::new(),
        tracestate: String::new(),
        replayed_from: None,
    };
    let envelope = Envelope { message, digest: [0; 32], method: "send".to_owned(), account: None, original: None };
    let topic = TopicName::system(&world.tenant, "messages");
    let partition = partition_of(a.id.0, world.bus.topic(&topic).await.unwrap().partitions);
    world.bus.append(&topic, partition, record::encode(&[envelope])).await.unwrap().await.unwrap();
}

/// A server that is off is, for this replica, a world that agrees and a clock of its own that is off the other way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_own_clock_is_off_ends_no_message_before_its_time() {
    const SOON: Duration = Duration::from_secs(2);
    for seconds in [-HOUR, HOUR] {
        let off = Off::by(seconds).await;
        let world = world_of(&off.tenant);
        // As the directory says it when it was read.
        let mut snapshot = (*world.directory.snapshot()).clone();
        snapshot.ahead = time::Duration::seconds(seconds);
        world.directory.replace(snapshot);
        let replica = world.replica("r").await;
        taken_elsewhere(&world, seconds, "soon", SOON).await;
        taken_elsewhere(&world, seconds, "later", Duration::from_secs(1800)).await;
        let text = |payload: &[u8]| String::from_utf8(payload.to_vec()).unwrap();
        if seconds < 0 {
            // Its own clock is ahead, and what is over is over all the same.
            eventually(async || !world.dead_letters().await.is_empty()).await;
        } else {
            // Behind: it may keep what is over for as long as it is behind, and its rows for no longer.
            eventually(async || world.rows("b").await == 2).await;
            let late = "SELECT count(*) FROM acb.mailbox WHERE expires_at > now() + interval '1 hour 31 minutes'";
            assert_eq!(off.postgres.number(late).await, 0);
        }
        tokio::time::sleep(world.config.sweep_every * 5).await;
        let dead = world.dead_letters().await;
        let dead: Vec<String> = dead
            .iter()
            .map(|letter| text(&Envelope::decode(letter.record.value.as_ref().unwrap()).unwrap().message.payload))
            .collect();
        assert_eq!(dead, if seconds < 0 { vec!["soon"] } else { vec![] }, "{seconds} s");
        // A session of it gives up nothing either, and shows it as unread.
        let (b, none) = (world.agent("b"), ("", ""));
        let unread = replica.unread().list(&b, none, 10, "").await.unwrap().messages;
        assert!(unread.iter().any(|message| text(&message.payload) == "later"), "{seconds} s: {unread:?}");
        let mut inbox = world.receive(&replica, "b").await;
        while text(&deliveries(&mut inbox, 1).await[0].message.payload) != "later" {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_is_online_and_who_is_silent_is_not() {
    for seconds in [HOUR, -HOUR] {
        let off = Off::by(seconds).await;
        let (store, agent) = (off.store(), off.tenant.agent("alice").await);
        let agent = AgentId(agent.id);
        let status = async || store.presence(&[agent]).await.unwrap()[&agent].status(OffsetDateTime::now_utc());
        store.note(agent, true).await.unwrap();
        assert_eq!(status().await, Status::Online, "{seconds} s");
        // Its replica died half an hour ago.
        off.postgres.execute("UPDATE acb.presence SET last_seen_at = last_seen_at - interval '30 minutes'").await;
        assert_eq!(status().await, Status::Unknown, "{seconds} s");
    }
}

/// Both keys hold for as long as the operator said, at the door and where one is exchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_key_lives_for_its_overlap() {
    for seconds in [HOUR, -HOUR] {
        let off = Off::by(seconds).await;
        let row = off.tenant.agent_row("alice");
        let old = off.tenant.project_key(&row, 1, 0).await;
        off.tenant.project_key(&row, 2, 600).await;
        let prefix = old.api_key.split('_').nth(1).unwrap();
        let snapshot = off.store().load().await.unwrap();
        let lives = |minutes: u64| {
            snapshot.key_lives(AgentId(old.id), prefix, OffsetDateTime::now_utc() + Duration::from_secs(minutes * 60))
        };
        assert!(lives(5) && !lives(15), "{seconds} s");
        // What is exchanged is compared with this machine's clock, too.
        let stored = off.store().api_key(prefix).await.unwrap().unwrap();
        let left = stored.expires_at.unwrap() - OffsetDateTime::now_utc();
        assert!((left.whole_seconds() - 600).abs() < 60, "{seconds} s: {left}");
    }
}

/// One clock writes when it ends and says whether it has; who holds it counts by this machine's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_lives_as_long_as_it_says() {
    for seconds in [8 * 24 * HOUR, -8 * 24 * HOUR] {
        let off = Off::by(seconds).await;
        let (store, agent) = (off.store(), off.tenant.agent("alice").await);
        let key = agent.api_key.split('_').nth(1).unwrap().to_owned();
        let family = NewFamily { id: Uuid::new_v4(), agent: AgentId(agent.id), key, life: REFRESH_TOKEN_LIFE };
        store.insert_refresh([1; 32], &family).await.unwrap();
        let left =
            off.postgres.number("SELECT extract(epoch FROM expires_at - clock_timestamp())::bigint FROM acb.refresh_token");
        assert!((left.await - REFRESH_TOKEN_LIFE.whole_seconds()).abs() < 60, "{seconds} s");
        // As lost answers are asked for again, too.
        for _ in 0..2 {
            let Rotation::Successor { expires_at, .. } = store.rotate_refresh([1; 32], [2; 32]).await.unwrap() else {
                panic!("{seconds} s: it was refused")
            };
            let left = expires_at - OffsetDateTime::now_utc();
            assert!((left - REFRESH_TOKEN_LIFE).abs() < time::Duration::MINUTE, "{seconds} s: {left}");
        }
        off.postgres.execute("UPDATE acb.refresh_token SET expires_at = clock_timestamp() - interval '1 second'").await;
        assert_eq!(store.rotate_refresh([2; 32], [3; 32]).await.unwrap(), Rotation::Refused, "{seconds} s");
    }
}

fn opening(receiver: &str, lease: u128) -> Opening {
    Opening { replica: receiver.to_owned(), lease: Uuid::from_u128(lease), receiver: receiver.to_owned(), take_over: false }
}

/// What was promised for seconds does not last an hour because the clock was set back, nor is anything held for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_makes_no_lease_or_claim_longer() {
    let off = Off::by(HOUR).await;
    let (store, agent) = (off.store(), AgentId(Uuid::new_v4()));
    store.checkpoints(7, 1).await.unwrap();
    let opened = async |receiver: &str, lease| store.open(7, agent, &opening(receiver, lease)).await.unwrap();
    assert!(matches!(opened("one", 1).await, Opened::Begun(_)));
    assert!(matches!(opened("two", 2).await, Opened::Held { .. }), "the first one lives");

    let address = MailboxAddress::Agent(agent);
    let row = IndexEntry {
        address: address.clone(),
        partition: 0,
        position: 0,
        log_time: OffsetDateTime::UNIX_EPOCH,
        // Also once the server's clock was set back.
        expires_at: OffsetDateTime::now_utc() - Duration::from_secs(HOUR.unsigned_abs() + 60),
        sender: None,
    };
    let advance = Advance { partition: 0, from: 0, to: 1, rows: vec![row] };
    store.index(7, vec![advance]).await.unwrap();
    let lease = Duration::from_secs(60);
    let claim = async || store.claim(7, &address, 0, 0, lease).await.unwrap();
    assert_eq!((claim().await, claim().await), (ClaimOutcome::Claimed, ClaimOutcome::Held));

    off.set(0).await;
    // The replica of the first one died with the old time: nobody renews its lease.
    assert!(matches!(opened("two", 2).await, Opened::Begun(_)));
    assert!(matches!(opened("three", 3).await, Opened::Held { .. }), "and now the second one lives");
    let expired = async || store.claim_expired(7, lease, 10).await.unwrap().claimed.len();
    assert_eq!((expired().await, expired().await), (1, 0));
}

/// Hubs go on while the clock is set, to and fro.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_while_a_hub_runs_loses_nothing() {
    let off = Off::by(0).await;
    let world = world_of(&off.tenant);
    let replica = world.replica("r").await;
    let (a, c) = (world.agent("a"), world.agent("c"));
    let mut inbox = world.receive(&replica, "b").await;
    for (number, seconds) in [HOUR, 0, -HOUR, 310, 0].into_iter().enumerate() {
        off.set(seconds).await;
        for (from, text) in [(&a, format!("a{number}")), (&c, format!("c{number}"))] {
            replica.send(from, keyed("b", &text, &text)).await.unwrap();
        }
        let mut got: Vec<String> = deliveries(&mut inbox, 2).await.iter().map(text).collect();
        got.sort();
        assert_eq!(got, [format!("a{number}"), format!("c{number}")]);
    }
}

/// Its clock alone says when a timer is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scheduled_messages_are_sent_by_the_clock_of_the_server() {
    const SOON: Duration = Duration::from_millis(500);
    for seconds in [HOUR, -HOUR] {
        let off = Off::by(seconds).await;
        let world = world_of(&off.tenant);
        let (left, right) = (Replica::start(&world, "left").await, Replica::start(&world, "right").await);
        let a = world.agent("a");
        let mut inbox = world.receive(&right.messages, "b").await;
        let began = tokio::time::Instant::now();
        let soon = left.scheduled.schedule(&a, to("b", "soon"), SOON).await.unwrap();
        let ahead = (soon.due_at - OffsetDateTime::now_utc()).whole_seconds();
        assert!((ahead - seconds).abs() < 30, "{seconds} s: it is due in {ahead} s by this clock");
        assert_eq!(deliveries(&mut inbox, 1).await.iter().map(text).collect::<Vec<_>>(), ["soon"]);
        assert!(began.elapsed() >= SOON, "{seconds} s");
        // It is set by two hours: what was an hour away is due. Set back, what is due is far away again, and what was sent is not sent again.
        left.scheduled.schedule(&a, to("b", "later"), Duration::from_secs(3600)).await.unwrap();
        off.set(seconds + 2 * HOUR).await;
        assert_eq!(deliveries(&mut inbox, 1).await.iter().map(text).collect::<Vec<_>>(), ["later"]);
        left.scheduled.schedule(&a, to("b", "far"), Duration::from_secs(60)).await.unwrap();
        off.set(seconds).await;
        assert!(silent(&mut inbox).await, "{seconds} s");
    }
}
