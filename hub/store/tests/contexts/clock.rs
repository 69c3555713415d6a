//! A PostgreSQL whose clock is an hour off: contexts live for as long as their creators said.

use std::time::Duration;

use acb_hub_core::contexts::{audience::Access, catalog::ContextUpdate, parts::ContextConfig};
use acb_testbed::{Postgres, ServerClock};

use crate::{
    sharing::update,
    world::{DEADLINE, World, new, reason},
};

#[tokio::test(flavor = "multi_thread")]
async fn contexts_live_for_as_long_as_was_said() {
    for seconds in [3600, -3600] {
        let clock = ServerClock::off_by(seconds);
        let postgres = Postgres::with_clock(&clock).await;
        let tenant = postgres.tenant("acme").await;
        tenant.context_type("notes", 2).await;
        let world = World::of(tenant);
        let alice = world.agent("alice", &[]).await;
        let config = ContextConfig { expiry_poll: Duration::from_millis(100), ..ContextConfig::default() };
        let replica = world.replica_with(config, true).await;
        let alice = replica.agent(alice);
        let living = |ttl| {
            let mut living = new("text", Access::public());
            living.description.ttl = Some(ttl);
            living
        };
        let short = replica.contexts.create(&alice, living(Duration::from_millis(500))).await.unwrap();
        let long = replica.contexts.create(&alice, living(Duration::from_secs(1800))).await.unwrap();
        let mut connection = world.tenant.connect().await;
        let left = async {
            loop {
                let left: Vec<uuid::Uuid> =
                    sqlx::query_scalar("SELECT context_id FROM acb.context").fetch_all(&mut connection).await.unwrap();
                if !left.contains(&short.id.0) {
                    return left;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let left = tokio::time::timeout(DEADLINE, left).await.expect("it is deleted when its time is over");
        assert_eq!(left, [long.id.0], "{seconds} s");
        assert_eq!(reason(replica.contexts.get(&alice, long.id).await), "fine", "{seconds} s");

        // However often it is updated, it expires when it did before.
        let column = async || {
            let column = format!(
                "SELECT (extract(epoch FROM expires_at) * 1000000)::bigint FROM acb.context WHERE context_id = '{}'",
                long.id.0
            );
            postgres.number(&column).await
        };
        let (before, mut updated) = (column().await, long.clone());
        for number in 0..20 {
            updated = replica.contexts.update(&alice, update(&updated, &number.to_string())).await.unwrap();
        }
        assert_eq!(column().await, before, "{seconds} s");
        let prolonged = ContextUpdate { ttl: Some(Duration::from_secs(2000)), ..update(&updated, "longer") };
        replica.contexts.update(&alice, prolonged).await.unwrap();
        let longer = Duration::from_micros(column().await.abs_diff(before));
        assert!((190..230).contains(&longer.as_secs()), "{seconds} s: longer by {longer:?}");

        // To this replica the same server is one that agrees with all others, and its own clock is off: what they made lives for as long as they said.
        let of = |time: &str| {
            format!(
                "UPDATE acb.context SET expires_at = clock_timestamp() + interval '{time}' WHERE context_id = '{}'",
                long.id.0
            )
        };
        postgres.execute(&of("1800 s")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let found = replica.contexts.get(&alice, long.id).await.map(|(context, _)| context);
        let left =
            found.unwrap_or_else(|fault| panic!("{seconds} s: {fault}")).expires_at.unwrap() - time::OffsetDateTime::now_utc();
        assert!((left.whole_seconds() - 1800).abs() < 30, "{seconds} s: {left}");
        postgres.execute(&of("0 s")).await;
        let gone = async {
            while postgres.number("SELECT count(*) FROM acb.context").await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.expect("it is deleted when its time is over");
    }
}
