//! A standby that is behind takes over.

use acb_hub_core::messages::position::offset_of;
use acb_testbed::{Gate, Postgres, Standby, Version};
use sqlx::{ConnectOptions as _, Row as _};

use crate::{
    lives,
    world::{PATIENCE, deliveries, eventually, text, to},
    world_on,
};

/// A server with a standby, and the address that clients know.
struct Pair {
    primary: Postgres,
    standby: Standby,
    address: Gate,
}

impl Pair {
    async fn start() -> Self {
        let primary = Postgres::start(Version::Installed).await;
        primary.tenant("acme").await;
        let standby = Standby::of(&primary).await;
        let address = Gate::open(&format!("https://127.0.0.1:{}", primary.server().port())).await;
        Self { primary, standby, address }
    }

    /// The standby takes over, with what it has.
    async fn fail_over(&self) {
        self.standby.promote().await;
        self.address.lead_to(&format!("https://127.0.0.1:{}", self.standby.port()));
        self.address.slam();
    }
}

/// The log is on a server of its own, as it is with Kafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_behind_the_log_loses_nothing() {
    let pair = Pair::start().await;
    let log = Postgres::shared().await.tenant("acme").await;
    let tenant = pair.primary.tenant("acme").await;
    let store = tenant.connect_options().port(pair.address.port());
    let world = world_on(&tenant, store.clone(), log.connect_options());
    // It has the right to look at its own rows only.
    let count = "SELECT coalesce(sum(next_position), 0)::bigint FROM acb.mailbox_checkpoint";
    let looking = tokio::sync::Mutex::new(store.connect().await.unwrap());
    let indexed = async || match sqlx::query(count).fetch_one(&mut *looking.lock().await).await {
        Ok(row) => offset_of(row.get::<i64, _>(0).cast_unsigned()),
        Err(_) => 0,
    };
    let behind = async || pair.standby.fall_behind().await;
    let fails_over = async |()| pair.fail_over().await;
    lives::a_store_that_goes_back_loses_nothing(&world, behind, fails_over, indexed).await;
}

/// The log is on the same server. What the standby did not have is lost, and nothing that comes after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_a_standby_took_over_is_delivered() {
    let pair = Pair::start().await;
    let tenant = pair.primary.tenant("acme").await;
    let options = tenant.connect_options().port(pair.address.port());
    let world = world_on(&tenant, options.clone(), options);
    let (replica, a) = (world.replica("before").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || world.rows("b").await == 1).await;
    pair.standby.fall_behind().await;
    replica.send(&a, to("b", "2")).await.unwrap();
    eventually(async || world.rows("b").await == 2).await;
    pair.fail_over().await;
    tokio::time::timeout(PATIENCE, replica.stopped()).await.expect("it ends in time");
    let replica = world.replica("after").await;
    replica.send(&a, to("b", "3")).await.unwrap();
    let mut inbox = world.receive(&replica, "b").await;
    let got: Vec<String> = deliveries(&mut inbox, 2).await.iter().map(text).collect();
    assert_eq!(got, ["1", "3"]);
}
