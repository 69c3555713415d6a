//! The message service over PostgreSQL, as the tenant's own login: two replicas, each with its own pool and its own bus connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../core/tests/messages/campaign.rs"]
mod campaign;
mod epochs;
#[path = "../../../core/tests/messages/filters.rs"]
mod filters;
#[path = "../../../core/tests/messages/letters.rs"]
mod letters;
mod mailboxes;
mod opening;
#[path = "../../../core/tests/messages/pulling.rs"]
mod pulling;
#[path = "../../../core/tests/messages/receivers.rs"]
mod receivers;
#[path = "../../../core/tests/messages/records.rs"]
mod records;
#[path = "../../../core/tests/messages/requests.rs"]
mod requests;
#[path = "../../../core/tests/messages/scenarios.rs"]
mod scenarios;
#[path = "../../../core/tests/messages/scheduled.rs"]
mod scheduled;
#[path = "../../../core/tests/messages/several.rs"]
mod several;
#[path = "../../../core/tests/messages/traces.rs"]
mod traces;
// It has cases of faults, too.
#[allow(dead_code)]
#[path = "../../../core/tests/messages/sums.rs"]
mod sums;
#[path = "../../../core/tests/messages/unread.rs"]
mod unread;
mod usage;
#[path = "../../../core/tests/messages/world.rs"]
mod world;

use std::sync::Arc;

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    directory::agent::AgentId,
    kit::supervisor::Supervisor,
    log::bus::Epoch,
    messages::{
        ports::{CursorStore as _, Opened, OpenedMailbox, Opening},
        position::MessagePlace,
        trace::store::{TracePart, TraceStore as _},
    },
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant};
use uuid::Uuid;
use world::{Ports, World};

async fn world() -> World {
    world_of(&Postgres::shared().await.fresh_tenant("acme").await)
}

fn world_of(tenant: &TestTenant) -> World {
    let options = tenant.connect_options();
    let id: [u8; 10] = tenant.id_bytes().try_into().unwrap();
    World::new(tenant.name(), move || {
        let store = PgStore::new(options.clone());
        let bus = PostgresBus::connect(id, store.pool().clone(), &Supervisor::default());
        Ports::of(Arc::new(bus), &Arc::new(store))
    })
}

/// A receiving session that takes over whatever there is.
async fn opened(store: &PgStore, epoch: Epoch, agent: AgentId) -> OpenedMailbox {
    let opening = Opening { replica: "r".to_owned(), lease: Uuid::new_v4(), receiver: String::new(), take_over: true };
    match store.open(epoch, agent, &opening).await.unwrap() {
        Opened::Begun(opened) => opened,
        Opened::Held { .. } => panic!("it takes over"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_timed_out_is_not_carried_out_later() {
    requests::a_request_that_timed_out_is_not_carried_out_later(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_does_not_go_into_the_log_each_time() {
    requests::a_request_that_is_repeated_does_not_go_into_the_log_each_time(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crashes_drains_and_reconnects_lose_nothing_and_repeat_nothing_unflagged() {
    for seed in 1..=6 {
        campaign::run(world().await, seed).await;
    }
}

macro_rules! on_postgres {
    ($room:ident: $($scenario:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            $room::$scenario(&world().await).await;
        })*
    };
}

on_postgres!(
    filters:
    what_a_session_does_not_want_stays_unread,
    what_is_not_wanted_holds_a_partition_back_at_the_bound_only,
    what_is_not_wanted_expires,
    what_is_no_filter_opens_no_session,
);

on_postgres!(
    records:
    what_waits_goes_into_the_log_together,
    a_used_key_fails_its_message_alone,
    messages_of_one_record_expire_by_themselves,
);

on_postgres!(
    several:
    a_message_to_several_is_one_record_and_each_takes_it,
    a_repeated_message_to_several_is_one_message,
    a_message_to_several_is_sent_to_all_of_them_or_to_none,
    who_of_several_never_took_it_has_a_dead_letter,
    each_of_several_that_are_away_has_a_dead_letter,
    messages_to_several_keep_their_order_among_others,
    every_row_of_many_lists_is_written,
);

on_postgres!(
    scheduled:
    what_is_scheduled_is_sent_once_when_it_is_due,
    what_is_due_is_sent_in_time,
    what_is_scheduled_is_sent_once_through_kills,
    what_is_cancelled_is_not_sent,
    what_can_not_be_scheduled_says_why,
    what_can_not_be_sent_when_it_is_due_is_a_dead_letter,
    what_a_replica_that_died_had_sent_is_not_sent_again,
    what_may_be_in_the_log_is_looked_up_before_it_is_sent,
    what_was_attempted_is_not_cancelled,
    what_the_log_refused_is_cancelled,
    a_trace_says_when_a_message_is_sent,
    what_a_suspended_tenant_scheduled_is_left_alone,
    a_timer_is_carried_out_by_one_replica_at_a_time,
    what_the_limits_have_no_room_for_waits,
    timers_are_bounded_known_again_and_forgotten,
);

on_postgres!(
    sums:
    what_is_sent_is_in_one_sum,
    closed_hours_are_told,
    open_hours_are_not_told,
    sums_are_one_s_own_and_an_administrator_s,
    what_an_agent_sent_that_is_unregistered_since_is_its_registrar_s,
    a_month_holds_over_replicas_that_come_and_go,
);

on_postgres!(
    scenarios:
    a_pipelined_session_keeps_its_order_on_another_replica,
    a_repeated_message_is_one_message_on_any_replica,
    an_offline_agent_finds_its_messages_and_its_groups,
    a_killed_replica_loses_nothing_and_flags_what_it_may_have_delivered,
    what_a_crashed_session_delivered_is_flagged_however_late_it_comes_again,
    a_newer_session_ends_the_older_on_another_replica,
    a_reply_finds_its_caller_on_another_replica,
    a_repeated_request_gets_the_same_reply_on_any_replica,
    what_nobody_acknowledges_goes_to_the_dead_letters,
    what_an_agent_is_still_at_work_on_is_no_dead_letter,
    what_expires_is_dead_lettered_once,
    what_is_acknowledged_has_no_row_a_moment_later,
    one_rule_says_who_took_a_group_message,
    a_failed_message_aborts_what_was_pipelined_behind_it,
    a_drained_session_leaves_a_clean_mailbox,
    a_slow_agent_slows_nobody_and_misses_nothing,
    bad_messages_are_refused_with_a_reason,
    a_message_that_is_there_is_sent_again_beyond_any_limit,
    a_restarted_replica_still_knows_what_was_sent,
    a_full_cursor_holds_its_partition_back_until_it_is_released,
    a_partition_is_free_again_when_its_oldest_message_is_given_up,
    who_comes_and_goes_loses_nothing,
    what_is_begun_again_and_again_goes_to_the_dead_letters,
    an_acknowledgement_of_another_life_of_the_log_means_nothing,
    who_joins_a_group_gets_what_was_logged_before_the_hub_knew,
    an_acknowledged_late_message_does_not_come_again,
    large_messages_are_caught_up_in_order,
);

macro_rules! letters_on_postgres {
    ($($scenario:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            letters::$scenario(&world().await).await;
        })*
    };
}

letters_on_postgres!(
    a_dead_letter_is_replayed_once,
    dead_letters_are_found_by_filter_and_shown_to_whom_they_were_for,
    dead_letters_are_replayed_and_dropped_by_filter,
    a_dead_letter_without_a_row_is_found_and_a_double_is_one,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unread_is_seen_and_not_taken() {
    unread::what_is_unread_is_seen_and_not_taken(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_with_the_next_message_or_in_time() {
    unread::a_wait_ends_with_the_next_message_or_in_time(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_receiver_is_refused_unless_it_takes_over() {
    receivers::a_second_receiver_is_refused_unless_it_takes_over(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_received_on_a_killed_replica_is_in_nobodys_way_for_long() {
    receivers::what_received_on_a_killed_replica_is_in_nobodys_way_for_long(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pulled_comes_in_order_and_once() {
    pulling::what_is_pulled_comes_in_order_and_once(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pulls_has_the_mailbox_until_another_takes_over() {
    pulling::who_pulls_has_the_mailbox_until_another_takes_over(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pulled_and_not_acknowledged_comes_again_and_then_to_the_dead_letters() {
    pulling::what_is_pulled_and_not_acknowledged_comes_again_and_then_to_the_dead_letters(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_to_a_message_is_seen_by_those_whom_it_concerns() {
    traces::what_happened_to_a_message_is_seen_by_those_whom_it_concerns(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_group_is_one_for_each_of_its_members() {
    traces::a_message_for_a_group_is_one_for_each_of_its_members(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_and_the_end_of_a_message_that_nobody_takes_are_noted() {
    traces::attempts_and_the_end_of_a_message_that_nobody_takes_are_noted(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_sees_what_became_of_the_reply() {
    traces::who_asked_sees_what_became_of_the_reply(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_told_of_messages_whose_senders_collect_them() {
    traces::spans_are_told_of_messages_whose_senders_collect_them(&world().await).await;
}

/// What is old is forgotten, and the oldest of what is too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_slow_is_found() {
    traces::a_message_that_was_slow_is_found(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_after_a_reconnect_is_noted() {
    traces::an_acknowledgement_after_a_reconnect_is_noted(&world().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_are_kept_for_so_long_and_in_so_many_bytes() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    // The place of a message in each section, which stands in its events.
    let place = |section: u64| MessagePlace { partition: 0, position: section << 12 };
    let part = |section: u64| {
        let events = place(section).position.to_be_bytes().repeat(125);
        TracePart { partition: 0, section, events: events.into() }
    };
    for section in 0..30 {
        store.note(1, "r", &[part(section)]).await.unwrap();
    }
    let left = async || {
        let mut left = Vec::new();
        for section in 0..30 {
            let found = store.noted(1, place(section), 10).await.unwrap();
            left.extend(found.iter().map(|_| section));
        }
        left
    };
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(store.forget_traces(hour, 1_000_000).await.unwrap(), 0);
    assert_eq!(store.forget_traces(hour, 20_000).await.unwrap(), 4, "a tenth, and one");
    assert_eq!(left().await, (4..30).collect::<Vec<_>>(), "the oldest went");
    let another = MessagePlace { partition: 0, position: place(5).position + 1 };
    assert!(store.noted(1, another, 10).await.unwrap().is_empty(), "nothing of another message");
    assert_eq!(store.forget_traces(std::time::Duration::ZERO, 1_000_000).await.unwrap(), 26);
    assert_eq!(left().await, [0_u64; 0]);
}
