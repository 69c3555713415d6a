use super::*;
use crate::{directory::agent::Role, door::access_token::tests::agent};

const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

fn at(seconds: i64) -> OffsetDateTime {
    NOON + time::Duration::seconds(seconds)
}

fn limited(number: u128, messages: Option<u64>, bytes: Option<u64>) -> Agent {
    let limits = Limits { messages_per_minute: messages, bytes_per_minute: bytes, ..Limits::default() };
    Agent { id: AgentId(Uuid::from_u128(number)), name: format!("a{number}"), limits, ..agent(Role::Full) }
}

const FREE: (&str, Limits) = (
    "acme",
    Limits {
        messages_per_minute: None,
        bytes_per_minute: None,
        messages_per_month: None,
        requests_per_minute: None,
        request_bytes: None,
        concurrent_streams: None,
        connections: None,
        storage_bytes: None,
        contexts: None,
        max_agents: None,
    },
);

#[test]
fn an_agent_sends_as_many_as_it_may_in_each_minute() {
    let (usage, alice) = (Usage::default(), limited(1, Some(3), None));
    let send = |id: u128, second| {
        let id = Uuid::from_u128(id);
        usage.reserve(id, &alice, FREE, 10, at(second))?;
        usage.logged(id, alice.id, 10, at(second), true);
        Ok::<_, Fault>(())
    };
    for id in 1..=3 {
        send(id, 30).unwrap();
    }
    let fault = send(4, 45).unwrap_err();
    let exhausted = fault.exhausted.clone().unwrap();
    assert_eq!((fault.code, fault.reason), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
    assert_eq!((exhausted.subject.as_str(), exhausted.limit, exhausted.most), ("agent a1", "messagesPerMinute", 3));
    assert_eq!(exhausted.retry_after, Some(Duration::from_secs(15)));
    send(5, 60).unwrap();
    assert_eq!(usage.sent(alice.id, at(60)).0.minute, Sent { messages: 1, bytes: 10 });
    // Others have limits of their own.
    assert_eq!(usage.reserve(Uuid::from_u128(9), &limited(2, Some(1), None), FREE, 1, at(45)), Ok(()));
}

#[test]
fn what_is_on_its_way_counts_until_it_is_seen_or_given_back() {
    let (usage, alice) = (Usage::default(), limited(1, Some(2), None));
    let reserve = |id: u128| usage.reserve(Uuid::from_u128(id), &alice, FREE, 1, at(0)).map_err(|fault| fault.reason);
    assert_eq!((reserve(1), reserve(2), reserve(3)), (Ok(()), Ok(()), Err("RATE_LIMIT_EXCEEDED")));
    // A repetition of another message counts no more.
    usage.logged(Uuid::from_u128(1), alice.id, 1, at(0), false);
    assert_eq!((reserve(4), reserve(5)), (Ok(()), Err("RATE_LIMIT_EXCEEDED")));
    usage.logged(Uuid::from_u128(2), alice.id, 1, at(0), true);
    usage.give_back(&[Uuid::from_u128(2), Uuid::from_u128(4)]);
    assert_eq!((reserve(6), reserve(7)), (Ok(()), Err("RATE_LIMIT_EXCEEDED")));
    assert_eq!(usage.lock().reserved.len(), 1);
}

#[test]
fn little_of_a_limit_is_on_its_way_at_one_time() {
    let (usage, alice) = (Usage::default(), limited(1, Some(1000), None));
    let may = || usage.may_begin(alice.id, alice.limits, Limits::default());
    for id in 1..=5 {
        assert!(may(), "{id}");
        usage.reserve(Uuid::from_u128(id), &alice, FREE, 1, at(0)).unwrap();
    }
    assert!(!may());
    usage.logged(Uuid::from_u128(1), alice.id, 1, at(0), true);
    assert!(may());
    // One message always may, however small the limit and large the message.
    let bob = limited(2, Some(1), Some(1));
    assert!(usage.may_begin(bob.id, bob.limits, Limits::default()));
}

#[test]
fn what_other_replicas_log_counts_too() {
    let (usage, alice) = (Usage::default(), limited(1, Some(2), None));
    usage.logged(Uuid::from_u128(1), alice.id, 1, at(1), true);
    usage.logged(Uuid::from_u128(2), alice.id, 1, at(2), true);
    assert!(usage.reserve(Uuid::from_u128(3), &alice, FREE, 1, at(3)).is_err());
}

#[test]
fn bytes_and_the_tenant_are_limited_in_the_same_way() {
    let (usage, alice) = (Usage::default(), limited(1, None, Some(100)));
    usage.reserve(Uuid::from_u128(1), &alice, FREE, 60, at(0)).unwrap();
    let over = usage.reserve(Uuid::from_u128(2), &alice, FREE, 60, at(0)).unwrap_err().exhausted.unwrap();
    assert_eq!((over.limit, over.retry_after), ("bytesPerMinute", Some(Duration::from_secs(60))));
    let never = usage.reserve(Uuid::from_u128(3), &alice, FREE, 101, at(0)).unwrap_err().exhausted.unwrap();
    assert_eq!(never.retry_after, None);
    let of_tenant = ("acme", Limits { messages_per_minute: Some(1), ..Limits::default() });
    let other = limited(2, None, None);
    let all = usage.reserve(Uuid::from_u128(4), &other, of_tenant, 1, at(0)).unwrap_err().exhausted.unwrap();
    assert_eq!(all.subject, "tenant acme");
}

#[test]
fn clocks_of_partitions_may_differ_and_old_minutes_are_forgotten() {
    let usage = Usage::default();
    let (alice, bob) = (limited(1, Some(1), None), limited(2, Some(1), None));
    usage.logged(Uuid::from_u128(1), alice.id, 1, at(61), true);
    // Another machine's clock is a little behind.
    usage.logged(Uuid::from_u128(2), bob.id, 1, at(59), true);
    let minutes = |agent, second| {
        let (own, all) = usage.sent(agent, at(second));
        (own.minute, all.minute)
    };
    assert_eq!(minutes(bob.id, 59), (Sent::one(1), Sent::one(1)));
    assert_eq!(minutes(alice.id, 61), (Sent::one(1), Sent::one(1)));
    // One that was read late counts for no minute that is still asked for.
    usage.logged(Uuid::from_u128(3), bob.id, 1, at(-300), true);
    assert_eq!(minutes(bob.id, 59).0, Sent::one(1));
    for minute in 2..100 {
        usage.logged(Uuid::from_u128(4), limited(minute, None, None).id, 1, at(60 * i64::try_from(minute).unwrap()), true);
    }
    assert!(usage.lock().agents.len() <= 3);
}

#[test]
fn limits_of_zero_and_of_all_there_is() {
    let usage = Usage::default();
    assert!(usage.reserve(Uuid::from_u128(1), &limited(1, Some(0), None), FREE, 0, at(0)).is_err());
    let most = limited(2, Some(u64::MAX), Some(u64::MAX));
    usage.logged(Uuid::from_u128(2), most.id, u64::MAX, at(0), true);
    usage.logged(Uuid::from_u128(3), most.id, u64::MAX, at(0), true);
    assert_eq!(usage.reserve(Uuid::from_u128(4), &most, FREE, u64::MAX, at(0)), Ok(()));
}

fn monthly(number: u128, most: u64) -> Agent {
    let limits = Limits { messages_per_month: Some(most), ..Limits::default() };
    Agent { limits, ..limited(number, None, None) }
}

#[test]
fn a_month_ends_in_the_middle_of_a_burst() {
    let (usage, alice) = (Usage::default(), monthly(1, 3));
    let end = time::macros::datetime!(2026-12-31 23:59:58 UTC);
    let mut outcomes = Vec::new();
    for number in 0..12 {
        let (id, now) = (Uuid::from_u128(number), end + time::Duration::milliseconds(500 * i64::try_from(number).unwrap()));
        let outcome = usage.reserve(id, &alice, FREE, 1, now);
        if outcome.is_ok() {
            usage.logged(id, alice.id, 1, now, true);
            usage.logged_in_month((0, u64::try_from(number).unwrap()), alice.id, 1, now);
        }
        outcomes.push(outcome.map_err(|fault| (fault.reason, fault.exhausted.unwrap())));
    }
    let of = |outcomes: &[Result<(), (_, Box<Exhausted>)>]| outcomes.iter().map(Result::is_ok).collect::<Vec<_>>();
    assert_eq!(of(&outcomes[..4]), [true, true, true, false], "three of December");
    assert_eq!(of(&outcomes[4..]), [true, true, true, false, false, false, false, false], "three of January");
    let told = usage.reserve(Uuid::from_u128(100), &alice, FREE, 1, end).unwrap_err().message;
    assert!(told.contains("3 messages a month") && told.ends_with("the next month begins 2027-01-01 (UTC)"), "{told}");
    let (reason, exhausted) = outcomes[3].clone().unwrap_err();
    assert_eq!((reason, exhausted.limit, exhausted.most), ("MONTHLY_LIMIT_EXCEEDED", "messagesPerMonth", 3));
    assert_eq!(exhausted.retry_after, Some(Duration::from_millis(500)));
    let month = Duration::from_secs(31 * 24 * 60 * 60);
    let (_, exhausted) = outcomes[7].clone().unwrap_err();
    assert!(exhausted.retry_after.unwrap() > month - Duration::from_secs(10), "{exhausted:?}");
}

#[test]
fn a_month_begins_with_what_was_summed_and_counts_nothing_twice() {
    let sum = |starts_at, messages| UsageSum {
        starts_at,
        agent: monthly(1, 0).id,
        name: String::new(),
        sent: Sent { messages, bytes: 1 },
    };
    let months = vec![sum(month_before_began(NOON), 7), sum(month_began(NOON), 2)];
    let (usage, alice) = (Usage::new(vec![100, 100], months), monthly(1, 4));
    let used = |now| usage.sent(alice.id, now).0.month;
    assert_eq!((used(NOON), used(NOON - time::Duration::days(1)), used(NOON + time::Duration::days(40))), (2, 7, 0));
    usage.logged_in_month((0, 99), alice.id, 1, NOON);
    assert_eq!(used(NOON), 2, "it was in the sum");
    usage.logged_in_month((1, 100), alice.id, 1, NOON);
    assert_eq!(used(NOON), 3);
    // What is on its way counts, too.
    usage.reserve(Uuid::from_u128(1), &alice, FREE, 1, NOON).unwrap();
    assert_eq!(usage.reserve(Uuid::from_u128(2), &alice, FREE, 1, NOON).unwrap_err().reason, "MONTHLY_LIMIT_EXCEEDED");
}

#[test]
fn a_clock_that_steps_back_gives_no_month_twice() {
    let (usage, alice) = (Usage::default(), monthly(1, 2));
    let (november, december) =
        (time::macros::datetime!(2026-11-30 23:59:59 UTC), time::macros::datetime!(2026-12-01 00:00:01 UTC));
    for (position, now) in [(1, november), (2, december), (3, november), (4, december)] {
        let id = Uuid::from_u128(u128::from(position));
        usage.reserve(id, &alice, FREE, 1, now).unwrap();
        usage.logged(id, alice.id, 1, now, true);
        usage.logged_in_month((0, position), alice.id, 1, now);
    }
    for now in [november, december] {
        assert_eq!(usage.sent(alice.id, now).0.month, 2);
        assert!(usage.reserve(Uuid::from_u128(9), &alice, FREE, 1, now).is_err());
    }
}

/// The log's clock was a year ahead for a while.
#[test]
fn a_clock_that_jumps_ahead_and_back_forgets_no_month() {
    let (usage, alice, bob) = (Usage::default(), monthly(1, 2), monthly(2, 2));
    let logged = |position, agent: &Agent, now| usage.logged_in_month((0, position), agent.id, 1, now);
    logged(1, &alice, NOON);
    logged(2, &bob, NOON);
    // Not month after month, as time goes by itself.
    for days in [70, 140, 400] {
        logged(3, &alice, NOON + time::Duration::days(days));
    }
    // So often it was set that the present month is the first to go; it is not, where nothing else was counted.
    assert_eq!(usage.sent(bob.id, NOON).0.month, 1);
    logged(4, &bob, NOON + time::Duration::days(400));
    logged(5, &bob, NOON);
    assert_eq!(usage.sent(bob.id, NOON).0.month, 2);
    assert!(usage.reserve(Uuid::from_u128(9), &bob, FREE, 1, NOON).is_err());
}

#[test]
fn months_of_zero_and_of_all_there_is() {
    let usage = Usage::default();
    let never = usage.reserve(Uuid::from_u128(1), &monthly(1, 0), FREE, 1, NOON).unwrap_err().exhausted.unwrap();
    assert_eq!((never.limit, never.retry_after), ("messagesPerMonth", None));
    let most = monthly(2, 1 << 63);
    let all = UsageSum {
        starts_at: month_began(NOON),
        agent: most.id,
        name: String::new(),
        sent: Sent { messages: u64::MAX, bytes: u64::MAX },
    };
    let usage = Usage::new(Vec::new(), vec![all.clone(), all]);
    usage.logged_in_month((0, 0), most.id, u64::MAX, NOON);
    assert!(usage.reserve(Uuid::from_u128(1), &most, FREE, 1, NOON).is_err());
    assert_eq!(Usage::default().reserve(Uuid::from_u128(1), &most, FREE, 1, NOON), Ok(()));
}

#[test]
fn months_end_where_the_calendar_says() {
    let rest = |now| rest_of_month(now).as_secs();
    let day = 24 * 60 * 60;
    assert_eq!(rest(time::macros::datetime!(2026-02-01 00:00 UTC)), 28 * day);
    assert_eq!(rest(time::macros::datetime!(2028-02-28 00:00 UTC)), 2 * day);
    assert_eq!(rest(time::macros::datetime!(2026-12-31 12:00 UTC)), day / 2);
    // Elsewhere it may be another month already.
    assert_eq!(month_of(time::macros::datetime!(2027-01-01 00:30 +1)), month_of(time::macros::datetime!(2026-12-01 00:00 UTC)));
    let before = month_before_began(time::macros::datetime!(2026-01-31 23:59 UTC));
    assert_eq!(before, time::macros::datetime!(2025-12-01 00:00 UTC));
}
