//! What a PostgreSQL does to the hubs that use it when it fails: it goes back to what it was, a standby that is behind takes over, answers are lost
//! after the commit, its clock is off. On the real server; the log is beside it, or on it. That it takes no writes, holds times that no date can say, or
//! vanishes, is shown on a whole hub (`hub/tests/it/postgres.rs` and `outage.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod breaking;
mod clock;
mod done_once;
mod going_back;
#[path = "../../../core/tests/messages/lives.rs"]
mod lives;
mod lost_answers;
// The same.
#[allow(dead_code)]
#[path = "../../../core/tests/messages/scheduled.rs"]
mod scheduled;
mod standby;
// The same.
#[allow(dead_code)]
#[path = "../../../core/tests/messages/sums.rs"]
mod sums;
// This suite needs less of it than those that it is shared with.
#[allow(dead_code)]
#[path = "../../../core/tests/messages/world.rs"]
mod world;

use std::sync::Arc;

use acb_hub_bus::PostgresBus;
use acb_hub_core::kit::supervisor::Supervisor;
use acb_hub_pool::{Limits, Pool};
use acb_hub_store::PgStore;
use acb_testbed::TestTenant;
use sqlx::postgres::PgConnectOptions;
use world::{Ports, World};

/// With everything on one server.
fn world_of(tenant: &TestTenant) -> World {
    world_on(tenant, tenant.connect_options(), tenant.connect_options())
}

/// With the store reached in one way, and the log in another.
fn world_on(tenant: &TestTenant, store: PgConnectOptions, log: PgConnectOptions) -> World {
    let id: [u8; 10] = tenant.id_bytes().try_into().unwrap();
    World::new(tenant.name(), move || {
        let store = PgStore::new(store.clone());
        let bus = PostgresBus::connect(id, Pool::new(log.clone(), Limits::default()), &Supervisor::default());
        Ports {
            bus: Arc::new(bus),
            mailboxes: Arc::new(store.clone()),
            cursors: Arc::new(store.clone()),
            letters: Arc::new(store.clone()),
            usage: Arc::new(store.clone()),
            timers: Arc::new(store.clone()),
            traces: Arc::new(store),
        }
    })
}
