//! The message service on the model of its ports: two replicas over one log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod campaign;
mod faults;
mod filters;
mod leaderless;
mod letters;
mod limits;
mod lives;
mod model;
mod model_timers;
mod model_traces;
mod model_usage;
mod pulling;
mod receivers;
mod records;
mod requests;
mod rights;
mod scenarios;
mod scheduled;
mod several;
mod sums;
mod traces;
mod unread;
mod world;

use std::{sync::Arc, time::Duration};

use acb_hub_core::{
    directory::membership::TOLERANCE,
    log::{
        bus::{Bus as _, Logged, Record, TopicName},
        partition::partition_of,
    },
    messages::{
        config::MessagesConfig,
        envelope::Envelope,
        message::{Address, MAX_ENVELOPE_BYTES, OutgoingMessage},
        position::offset_of,
        trace::event::Happening,
    },
};
use model::{ModelBus, ModelStore};
use world::{Ports, World, deliveries, delivery, eventually, keyed, text, to};

fn world() -> World {
    world_on(Arc::new(ModelBus::new("acme", 4)))
}

fn world_on(bus: Arc<ModelBus>) -> World {
    let store = Arc::new(ModelStore::default());
    World::new("acme", move || Ports::of(bus.clone(), &store))
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_message_that_found_no_room_is_there_for_the_next_session() {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 4)), Arc::new(ModelStore::default()));
    let rows = store.clone();
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    // One message that is not read fills the session's queue.
    let config = MessagesConfig { session_bytes: 1, ..world.config.clone() };
    let world = World { config, ..world };
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let inbox = world.receive(&left, "d").await;
    let mut member = world.receive(&right, "b").await;
    let joined_at = time::OffsetDateTime::now_utc();
    right.send(&a, OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "missed")).await.unwrap();
    let unread = right.send(&a, to("d", "unread")).await.unwrap().id;
    let missed = delivery(&mut member).await;
    // The cursor has passed it, and the other one has taken the room: otherwise it would be this one that is given to the session.
    world.acknowledged("d", std::slice::from_ref(&missed)).await;
    eventually(async || {
        let trace = left.traces().trace(&a, unread).await.unwrap();
        trace.events.iter().any(|event| event.what == Happening::Delivered)
    })
    .await;
    world.join("d", "pair", joined_at);
    eventually(async || rows.attempts(world.agent("d").id, missed.id) == Some(0)).await;
    drop(inbox);
    left.drain().await;

    let mut inbox = world.receive(&right, "d").await;
    let mut got: Vec<(String, bool)> =
        deliveries(&mut inbox, 2).await.iter().map(|delivery| (text(delivery), delivery.redelivered)).collect();
    got.sort();
    assert_eq!(got, [("missed".to_owned(), true), ("unread".to_owned(), true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_gets_more_partitions_keeps_those_of_its_senders() {
    let (world, bus, _) = world_and_ports();
    let before = world.replica("before").await;
    let mut sent = Vec::new();
    for name in ["a", "b", "c", "d"] {
        sent.push((name, before.send(&world.agent(name), keyed("b", "x", "k")).await.unwrap().id));
    }
    bus.grow("acme", 13);
    let after = world.replica("after").await;
    for (name, id) in sent {
        for replica in [&after, &before] {
            let again = replica.send(&world.agent(name), keyed("b", "x", "k")).await.unwrap();
            assert_eq!((again.id, again.deduplicated), (id, true), "{name}");
        }
    }
    let mut inbox = world.receive(&after, "b").await;
    after.send(&world.agent("a"), to("b", "behind")).await.unwrap();
    while text(&delivery(&mut inbox).await) != "behind" {}
}

/// A window of 20 s, and a replica that starts when it begins with what repeats a message from before. What passes is the time of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_knows_which_message_is_repeated() {
    let (world, bus, _) = world_and_ports();
    let config = MessagesConfig { dedup_window: Duration::from_secs(20), ..world.config.clone() };
    let world = World { config, ..world };
    bus.set_clock(time::Duration::seconds(-25));
    let before = world.replica("before").await;
    let a = world.agent("a");
    let first = before.send(&a, keyed("b", "1", "k")).await.unwrap().id;
    let used = before.send(&a, keyed("b", "2", "used")).await.unwrap().id;
    bus.set_clock(time::Duration::seconds(-12));
    // From this one the replica learns what the log's clock shows.
    before.send(&a, to("d", "x")).await.unwrap();
    assert_eq!(before.send(&a, keyed("b", "1", "k")).await.unwrap().id, first);
    let refused = before.send(&a, keyed("b", "other", "used")).await.unwrap_err();
    assert_eq!(refused.reason, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(records(&world, "a").await.len(), 5, "the log has the repetitions");
    // Another message, 20 s before which the first ones are no more.
    bus.set_clock(time::Duration::ZERO);
    before.send(&a, to("b", "3")).await.unwrap();
    eventually(async || world.rows("b").await == 3).await;
    before.stop();

    let after = world.replica("after").await;
    let again = after.send(&a, keyed("b", "1", "k")).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (first, true));
    // What was refused was never delivered: it is still no repetition.
    let refused = after.send(&a, keyed("b", "other", "used")).await.unwrap_err();
    assert_eq!(refused.reason, "IDEMPOTENCY_KEY_REUSED");
    assert!(refused.message.contains(&used.to_string()), "{}", refused.message);
    let mut inbox = world.receive(&after, "b").await;
    assert_eq!(deliveries(&mut inbox, 3).await.iter().map(text).collect::<Vec<_>>(), ["1", "2", "3"]);
}

/// What the log has from an agent.
async fn records(world: &World, agent: &str) -> Vec<Logged> {
    let topic = TopicName::system(&world.tenant, "messages");
    let partition = partition_of(world.agent(agent).id.0, 4);
    world.bus.read(&topic, partition, 0, 100).await.unwrap()
}

/// The hub adds to a repetition what it knows of the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_small_enough_may_be_repeated() {
    let (world, bus, _) = world_and_ports();
    let config = MessagesConfig { dedup_window: Duration::from_secs(20), ..world.config.clone() };
    let world = World { config, ..world };
    bus.set_clock(time::Duration::seconds(-12));
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let large = |bytes: usize, key: &str| OutgoingMessage { payload: vec![7; bytes].into(), ..keyed("b", "", key) };
    let size = |logged: &Logged| logged.record.value.as_ref().unwrap().len();
    let smaller = MAX_ENVELOPE_BYTES - 4096;
    replica.send(&a, large(smaller, "1")).await.unwrap();
    let largest = MAX_ENVELOPE_BYTES - (size(&records(&world, "a").await[0]) - smaller);
    assert_eq!(replica.send(&a, large(largest + 1, "2")).await.unwrap_err().reason, "MESSAGE_TOO_LARGE");
    let first = replica.send(&a, large(largest, "2")).await.unwrap();
    assert_eq!(size(&records(&world, "a").await[1]), MAX_ENVELOPE_BYTES);

    bus.set_clock(time::Duration::ZERO);
    // From this one the replica learns what the log's clock shows: half of the window has passed.
    replica.send(&a, to("d", "x")).await.unwrap();
    let again = replica.send(&a, large(largest, "2")).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (first.id, true));
    assert_eq!(records(&world, "a").await.len(), 4, "the log has the repetition");
}

/// A newer hub wrote it, and was taken back since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_newer_hub_keeps_nothing_else_from_the_dead_letters() {
    let (world, bus, _) = world_and_ports();
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
    for number in 0..5 {
        let expiring = OutgoingMessage { expires_at: Some(soon), ..to("c", &number.to_string()) };
        replica.send(&a, expiring).await.unwrap();
    }
    eventually(async || world.rows("c").await == 5).await;
    for offset in [0, 2] {
        let newer = Record { value: Some([8, 4].as_slice().into()), ..Record::default() };
        bus.rewrite("acme", partition_of(a.id.0, 4), offset, newer);
    }
    eventually(async || world.rows("c").await == 2).await;
    let letters = world.dead_letters().await;
    let payload = |logged: &Logged| {
        let envelope = Envelope::decode(logged.record.value.as_ref().unwrap()).unwrap();
        String::from_utf8(envelope.message.payload.to_vec()).unwrap()
    };
    let mut dead: Vec<String> = letters.iter().map(payload).collect();
    dead.sort();
    assert_eq!(dead, ["1", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_of_three_took_is_there_for_the_third_until_it_expires() {
    let (world, _, store) = world_and_ports();
    store.rows().ahead = time::Duration::HOUR;
    world.join("d", "pair", time::OffsetDateTime::now_utc() - time::Duration::MINUTE);
    let replica = world.replica("only").await;
    let later = time::OffsetDateTime::now_utc() + Duration::from_secs(1800);
    let group = OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "for three");
    replica.send(&world.agent("a"), OutgoingMessage { expires_at: Some(later), ..group }).await.unwrap();
    for member in ["b", "c"] {
        let mut inbox = world.receive(&replica, member).await;
        let got = [delivery(&mut inbox).await];
        inbox.input.ack(vec![got[0].id]).await.unwrap();
        world.acknowledged(member, &got).await;
    }
    // Whoever looks finds it claimed, or judges it: in the third look from now on at the latest it is judged, and the fourth begins after that.
    let looks = store.rows().looks;
    eventually(async || store.rows().looks >= looks + 4).await;
    let mut inbox = world.receive(&replica, "d").await;
    assert_eq!(text(&delivery(&mut inbox).await), "for three");
    assert!(world.dead_letters().await.is_empty());
}

fn world_and_ports() -> (World, Arc<ModelBus>, Arc<ModelStore>) {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 4)), Arc::new(ModelStore::default()));
    let (log, rows) = (bus.clone(), store.clone());
    (World::new("acme", move || Ports::of(log.clone(), &rows)), bus, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_back_loses_nothing() {
    let (world, _, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    let indexed = async || store.checkpoints_now().into_iter().map(offset_of).sum();
    lives::a_store_that_goes_back_loses_nothing(&world, copy, harm, indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_after_a_store_went_back_moves_no_checkpoint_over_a_hole() {
    let (world, _, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    let indexed = async || store.checkpoints_now().into_iter().map(offset_of).sum();
    lives::a_message_after_a_store_went_back_moves_no_checkpoint_over_a_hole(&world, copy, harm, indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_has_another_life() {
    let (world, bus, store) = world_and_ports();
    let indexed = async || store.checkpoints_now().into_iter().map(offset_of).sum();
    lives::a_log_that_lost_its_end_has_another_life(&world, async |left| bus.cut("acme", left as usize), indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_is_given_out_again_ends_the_replica() {
    let (world, bus, _) = world_and_ports();
    lives::an_offset_that_is_given_out_again_ends_the_replica(&world, async |left| bus.cut("acme", left as usize)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_of_a_store_that_went_back_go_on() {
    let (world, _, store) = world_and_ports();
    sums::sums_of_a_store_that_went_back_go_on(&world, async || store.copy(), async |copy| store.go_back(&copy)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_of_the_sums_is_told() {
    let (world, bus, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    sums::a_gap_of_the_sums_is_told(&world, copy, harm, async || bus.forget("acme")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_taken_back_from_the_topic() {
    let (world, bus, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    sums::sums_are_taken_back_from_the_topic(&world, copy, harm, async || bus.forget("acme")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_neither_is_a_gap() {
    let (world, bus, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    sums::what_is_in_neither_is_a_gap(&world, copy, harm, async || bus.forget("acme")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_life_told_is_not_taken() {
    let (world, bus, store) = world_and_ports();
    let (copy, harm) = (async || store.copy(), async |copy: ModelStore| store.go_back(&copy));
    let (cut, forget) = (async |left| bus.cut("acme", left as usize), async || bus.forget("acme"));
    sums::what_another_life_told_is_not_taken(&world, copy, harm, cut, forget).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_comes_while_a_replica_reads_is_told() {
    let (world, bus, _) = world_and_ports();
    sums::a_gap_that_comes_while_a_replica_reads_is_told(&world, async |partition| bus.lose("acme", partition, 7)).await;
}

/// The log's clock is an hour ahead, which nobody knows yet: the first message is late, and is appended again. What the tail showed of the first append
/// before that was acknowledged is no other record at its offset.
#[tokio::test]
async fn a_late_message_that_the_tail_shows_first_ends_no_replica() {
    let (world, bus, _) = world_and_ports();
    let replica = world.replica("only").await;
    // Every third append is acknowledged late.
    for _ in 0..3 {
        replica.send(&world.agent("c"), to("b", "x")).await.unwrap();
    }
    bus.set_clock(time::Duration::HOUR);
    replica.send(&world.agent("a"), to("b", "late")).await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_millis(300), replica.stopped()).await;
    assert!(ended.is_err(), "it ended: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_timed_out_is_not_carried_out_later() {
    requests::a_request_that_timed_out_is_not_carried_out_later(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_does_not_go_into_the_log_each_time() {
    requests::a_request_that_is_repeated_does_not_go_into_the_log_each_time(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crashes_drains_and_reconnects_lose_nothing_and_repeat_nothing_unflagged() {
    for seed in 1..=6 {
        campaign::run(world(), seed).await;
    }
}

/// The clocks of PostgreSQL, of the log and of this machine are minutes apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_just_joined_gets_what_is_sent_now_and_nothing_of_before_whatever_the_clocks_show() {
    let minutes = time::Duration::minutes;
    for (of_log, of_store) in [(0, 0), (4, 0), (-4, 0), (0, 4), (0, -4), (4, -4), (-4, 4)] {
        let (world, bus, _) = world_and_ports();
        bus.set_clock(minutes(of_log));
        let mut snapshot = (*world.directory.snapshot()).clone();
        snapshot.ahead = minutes(of_store);
        world.directory.replace(snapshot);
        let (left, right) = (world.replica("left").await, world.replica("right").await);
        let (a, off) = (world.agent("a"), format!("{of_log} and {of_store} minutes"));
        let pair = |text: &str| OutgoingMessage::new(Address::Group("pair".to_owned()), "t", text.to_owned());
        left.send(&a, pair("before")).await.unwrap();
        tokio::time::sleep(2 * TOLERANCE.unsigned_abs()).await;
        // Which replicas learn at once.
        world.join("d", "pair", time::OffsetDateTime::now_utc() + minutes(of_store));
        let mut live = world.receive(&right, "d").await;
        left.send(&a, pair("live")).await.unwrap();
        assert_eq!(text(&delivery(&mut live).await), "live", "{off}");
        assert!(world::silent(&mut live).await, "{off}");
        drop(live);
        // From the index.
        let mut later = world.receive(&left, "d").await;
        assert_eq!(text(&delivery(&mut later).await), "live", "{off}");
        assert!(world::silent(&mut later).await, "{off}");
    }
}

macro_rules! on_the_model {
    ($room:ident: $($scenario:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            $room::$scenario(&world()).await;
        })*
    };
}

on_the_model!(
    filters:
    what_a_session_does_not_want_stays_unread,
    what_is_not_wanted_holds_a_partition_back_at_the_bound_only,
    what_is_not_wanted_expires,
    what_is_no_filter_opens_no_session,
);

on_the_model!(
    records:
    what_waits_goes_into_the_log_together,
    a_used_key_fails_its_message_alone,
    messages_of_one_record_expire_by_themselves,
);

on_the_model!(
    several:
    a_message_to_several_is_one_record_and_each_takes_it,
    a_repeated_message_to_several_is_one_message,
    a_message_to_several_is_sent_to_all_of_them_or_to_none,
    who_of_several_never_took_it_has_a_dead_letter,
    each_of_several_that_are_away_has_a_dead_letter,
    messages_to_several_keep_their_order_among_others,
    every_row_of_many_lists_is_written,
);

on_the_model!(
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

on_the_model!(
    sums:
    what_is_sent_is_in_one_sum,
    closed_hours_are_told,
    open_hours_are_not_told,
    sums_are_one_s_own_and_an_administrator_s,
    what_an_agent_sent_that_is_unregistered_since_is_its_registrar_s,
    a_month_holds_over_replicas_that_come_and_go,
);

on_the_model!(
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

macro_rules! letters_on_the_model {
    ($($scenario:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $scenario() {
            letters::$scenario(&world()).await;
        })*
    };
}

letters_on_the_model!(
    a_dead_letter_is_replayed_once,
    dead_letters_are_found_by_filter_and_shown_to_whom_they_were_for,
    dead_letters_are_replayed_and_dropped_by_filter,
    a_dead_letter_without_a_row_is_found_and_a_double_is_one,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unread_is_seen_and_not_taken() {
    unread::what_is_unread_is_seen_and_not_taken(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_with_the_next_message_or_in_time() {
    unread::a_wait_ends_with_the_next_message_or_in_time(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_receiver_is_refused_unless_it_takes_over() {
    receivers::a_second_receiver_is_refused_unless_it_takes_over(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_received_on_a_killed_replica_is_in_nobodys_way_for_long() {
    receivers::what_received_on_a_killed_replica_is_in_nobodys_way_for_long(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pulled_comes_in_order_and_once() {
    pulling::what_is_pulled_comes_in_order_and_once(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pulls_has_the_mailbox_until_another_takes_over() {
    pulling::who_pulls_has_the_mailbox_until_another_takes_over(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pulled_and_not_acknowledged_comes_again_and_then_to_the_dead_letters() {
    pulling::what_is_pulled_and_not_acknowledged_comes_again_and_then_to_the_dead_letters(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_to_a_message_is_seen_by_those_whom_it_concerns() {
    traces::what_happened_to_a_message_is_seen_by_those_whom_it_concerns(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_group_is_one_for_each_of_its_members() {
    traces::a_message_for_a_group_is_one_for_each_of_its_members(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_and_the_end_of_a_message_that_nobody_takes_are_noted() {
    traces::attempts_and_the_end_of_a_message_that_nobody_takes_are_noted(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_sees_what_became_of_the_reply() {
    traces::who_asked_sees_what_became_of_the_reply(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_told_of_messages_whose_senders_collect_them() {
    traces::spans_are_told_of_messages_whose_senders_collect_them(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_was_slow_is_found() {
    traces::a_message_that_was_slow_is_found(&world()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_after_a_reconnect_is_noted() {
    traces::an_acknowledgement_after_a_reconnect_is_noted(&world()).await;
}
