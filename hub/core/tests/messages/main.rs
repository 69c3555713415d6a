//! The message service on the model of its ports: two replicas over one log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod campaign;
mod faults;
mod model;
mod scenarios;
mod world;

use std::sync::Arc;

use acb_hub_core::bus::{Bus as _, Record, TopicName};
use model::{ModelBus, ModelStore};
use world::{Ports, World, delivery, text, to};

fn world() -> World {
    world_on(Arc::new(ModelBus::new("acme", 4)))
}

fn world_on(bus: Arc<ModelBus>) -> World {
    let store = Arc::new(ModelStore::default());
    World::new("acme", move || Ports { bus: bus.clone(), mailboxes: store.clone(), cursors: store.clone() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_open_where_the_log_forgot_what_was_never_indexed() {
    let bus = Arc::new(ModelBus::new("acme", 4));
    for partition in 0..4 {
        bus.append(&TopicName::system("acme", "messages"), partition, Record::default()).await.unwrap().await.unwrap();
    }
    bus.forget("acme");
    let world = world_on(bus);
    let replica = world.replica("only").await;
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&world.agent("a"), to("b", "here")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "here");
}

macro_rules! on_the_model {
    ($($scenario:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            scenarios::$scenario(&world()).await;
        })*
    };
}

on_the_model!(
    a_pipelined_session_keeps_its_order_on_another_replica,
    a_repeated_message_is_one_message_on_any_replica,
    an_offline_agent_finds_its_messages_and_its_groups,
    a_killed_replica_loses_nothing_and_flags_what_it_may_have_delivered,
    a_newer_session_ends_the_older_on_another_replica,
    a_reply_finds_its_caller_on_another_replica,
    a_repeated_request_gets_the_same_reply_on_any_replica,
    what_nobody_acknowledges_goes_to_the_dead_letters,
    what_expires_is_buried_once,
    a_failed_message_aborts_what_was_pipelined_behind_it,
    a_drained_session_leaves_a_clean_mailbox,
    a_slow_agent_slows_nobody_and_misses_nothing,
    bad_messages_are_refused_with_a_reason,
    a_restarted_replica_still_knows_what_was_sent,
    a_full_cursor_holds_its_partition_back_until_it_is_released,
    who_joins_a_group_gets_what_was_logged_before_the_hub_knew,
    large_messages_are_caught_up_in_order,
);
