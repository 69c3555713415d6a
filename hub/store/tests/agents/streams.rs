//! Streams, connections and requests of an agent at several replicas.

use std::{collections::HashMap, sync::Arc, time::Duration};

use acb_hub_core::{
    directory::{
        agent::Agent,
        caller::Caller,
        limits::Limits,
        snapshot::{Directory, DirectoryStore as _, Snapshot},
    },
    door::{
        count_exchange,
        meter::{Meter, Metered},
        origin::Origin,
        request_counts::RequestLimits,
        rules::Operation,
    },
};
use acb_hub_store::PgStore;
use acb_testbed::Postgres;
use time::OffsetDateTime;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

const EVERY: Duration = Duration::from_millis(50);

struct Replica {
    meter: Meter,
    caller: Caller,
    exchange: JoinHandle<()>,
}

impl Replica {
    fn new(store: &PgStore, agent: &Agent) -> Self {
        let meter = Meter::default();
        let directory = Directory::new(Snapshot::new(1, vec![agent.clone()], Vec::new()));
        let exchange = tokio::spawn(count_exchange::run(meter.clone(), Arc::new(store.clone()), directory, EVERY));
        let caller = Caller { agent: Arc::new(agent.clone()), expires_at: OffsetDateTime::now_utc(), epoch: 0, source: None };
        Self { meter, caller, exchange }
    }

    fn open(&self) -> Result<Metered, &'static str> {
        let call = self.meter.enter(Some(&self.caller), &Origin::default()).unwrap();
        call.open_stream(&self.caller.agent, ("acme", Limits::default())).map(|()| call).map_err(|fault| fault.reason)
    }

    fn ask(&self) -> Result<(), &'static str> {
        let limits = RequestLimits { tenant: ("acme", Limits::default()), operations: &HashMap::new() };
        self.meter.request(&self.caller.agent, Operation::GetContext, limits).map_err(|fault| fault.reason)
    }

    fn call(&self, connection: usize) -> Result<Metered, &'static str> {
        let origin = Origin { connection, ..Origin::default() };
        let call = self.meter.enter(Some(&self.caller), &origin).unwrap();
        call.open_connection(&self.caller.agent, ("acme", Limits::default())).map(|()| call).map_err(|fault| fault.reason)
    }

    async fn until(&self, streams: u64) {
        self.until_used("concurrentStreams", streams).await;
    }

    async fn until_connections(&self, connections: u64) {
        self.until_used("connections", connections).await;
    }

    /// Waits until the agent has used so much of its own limit of this name.
    async fn until_used(&self, limit: &str, used: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let limits = RequestLimits { tenant: ("acme", Limits::default()), operations: &HashMap::new() };
        let is = || self.meter.usage(&self.caller.agent, limits).into_iter().find(|usage| usage.limit == limit).unwrap().used;
        while is() != used {
            assert!(Instant::now() < deadline, "waiting for {used}");
            sleep(EVERY / 5).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_streams_is_for_all_replicas_together() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let alice = tenant.agent("alice").await.id;
    let store = PgStore::new(tenant.connect_options());
    let known = store.load().await.unwrap().agents().find(|agent| agent.id.0 == alice).unwrap().clone();
    let limits = Limits { concurrent_streams: Some(3), ..Limits::default() };
    let alice = Agent { limits, ..(*known).clone() };
    let (one, two) = (Replica::new(&store, &alice), Replica::new(&store, &alice));
    let held = vec![one.open().unwrap(), one.open().unwrap()];
    // It has none itself that would have it ask.
    let own = vec![two.open().unwrap()];
    let more = two.open().unwrap();
    two.until(4).await;
    assert_eq!(two.open().unwrap_err(), "TOO_MANY_STREAMS");
    one.until(4).await;
    assert_eq!(one.open().unwrap_err(), "TOO_MANY_STREAMS");
    drop(more);
    drop(own);
    one.until(2).await;
    let third = one.open().unwrap();
    assert_eq!(one.open().unwrap_err(), "TOO_MANY_STREAMS");
    // What a replica had that died is not counted for long. One that has nothing asks for nothing.
    two.until(0).await;
    let back = [two.open().unwrap(), two.open().unwrap()];
    two.until(5).await;
    one.exchange.abort();
    two.until(2).await;
    drop((held, third, back));
    two.exchange.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_connections_is_for_all_replicas_together() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let alice = tenant.agent("alice").await.id;
    let store = PgStore::new(tenant.connect_options());
    let known = store.load().await.unwrap().agents().find(|agent| agent.id.0 == alice).unwrap().clone();
    let limits = Limits { connections: Some(3), ..Limits::default() };
    let alice = Agent { limits, ..(*known).clone() };
    let (one, two) = (Replica::new(&store, &alice), Replica::new(&store, &alice));
    let held = [one.call(1).unwrap(), one.call(2).unwrap()];
    // It has several itself, and so asks.
    let own = [two.call(1).unwrap(), two.call(2).unwrap()];
    two.until_connections(4).await;
    assert_eq!(two.call(3).unwrap_err(), "TOO_MANY_CONNECTIONS");
    one.until_connections(4).await;
    assert_eq!(one.call(3).unwrap_err(), "TOO_MANY_CONNECTIONS");
    let further = two.call(1).unwrap();
    drop((own, further));
    one.until_connections(2).await;
    let third = one.call(3).unwrap();
    assert_eq!(one.call(4).unwrap_err(), "TOO_MANY_CONNECTIONS");
    drop((held, third));
    [one, two].iter().for_each(|replica| replica.exchange.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_requests_is_for_all_replicas_together() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let alice = tenant.agent("alice").await.id;
    let store = PgStore::new(tenant.connect_options());
    let known = store.load().await.unwrap().agents().find(|agent| agent.id.0 == alice).unwrap().clone();
    let limits = Limits { requests_per_minute: Some(8), ..Limits::default() };
    let alice = Agent { limits, ..(*known).clone() };
    let replicas = [Replica::new(&store, &alice), Replica::new(&store, &alice)];
    // Between exchanges each lets in what it may by itself: that is what the limit is overshot by.
    let deadline = Instant::now() + Duration::from_secs(150);
    let minute = || OffsetDateTime::now_utc().unix_timestamp() / 60;
    'minutes: loop {
        assert!(Instant::now() < deadline, "the replicas do not hear of each other");
        let (began, mut admitted) = (minute(), 0);
        while minute() == began {
            let before = admitted;
            for replica in &replicas {
                match replica.ask() {
                    Ok(()) => admitted += 1,
                    Err(reason) => assert_eq!(reason, "RATE_LIMIT_EXCEEDED"),
                }
                sleep(EVERY * 6).await;
            }
            if admitted == before && minute() == began {
                // One that is not told of yet, for each of the two.
                assert!((8..=10).contains(&admitted), "{admitted}");
                break 'minutes;
            }
        }
    }
    replicas.iter().for_each(|replica| replica.exchange.abort());
}
