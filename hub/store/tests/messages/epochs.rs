//! Two lives of one log whose epochs are large numbers, as every other random one is, have nothing in common.

use std::time::Duration;

use acb_hub_core::{
    directory::agent::AgentId,
    log::bus::{Epoch, TopicName},
    messages::{
        cursor::CursorState,
        ports::{
            Advance, Attempts, ClaimOutcome, CursorFlush, CursorStore as _, IndexEntry, LogLives as _, MailboxAddress,
            MailboxStore as _, Moved, index_went_back,
        },
        position::Position,
    },
};
use acb_hub_store::PgStore;
use acb_testbed::Postgres;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    world::{eventually, to},
    world_of,
};

const BEFORE: Epoch = u64::MAX - 7;
const AFTER: Epoch = (1 << 63) + 7;
const LEASE: Duration = Duration::from_secs(60);

fn expired(agent: AgentId, position: Position) -> IndexEntry {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    IndexEntry { address: MailboxAddress::Agent(agent), partition: 0, position, log_time: now, expires_at: now, sender: None }
}

#[tokio::test]
async fn a_log_that_was_made_again_inherits_nothing() {
    let store = PgStore::new(Postgres::shared().await.fresh_tenant("acme").await.connect_options());
    let agent = AgentId(Uuid::new_v4());
    let row = expired(agent, 3);
    let addresses = [row.address.clone()];
    let advance = Advance { partition: 0, from: 0, to: 9, rows: vec![row.clone()] };
    assert_eq!(store.checkpoints(BEFORE, 1).await.unwrap(), [0]);
    assert_eq!(store.index(BEFORE, vec![advance.clone()]).await.unwrap(), [Moved::Won]);
    assert_eq!(store.index(BEFORE, vec![advance.clone()]).await.unwrap(), [Moved::Lost(9)]);
    assert_eq!(store.index(AFTER, vec![advance]).await.unwrap(), [Moved::Gone]);
    let session = crate::opened(&store, BEFORE, agent).await;
    let acknowledged = CursorState { watermark: 3, exceptions: vec![5] };
    let attempts = Attempts { partition: 0, position: 3, attempts: Some(2) };
    let flush = CursorFlush {
        agent,
        session_epoch: session.session_epoch,
        cursors: vec![(0, acknowledged.clone())],
        attempts: vec![attempts],
        closing: true,
        clean: true,
    };
    assert!(store.flush(BEFORE, vec![flush]).await.unwrap().is_empty());

    assert_eq!(store.checkpoints(AFTER, 1).await.unwrap(), [0]);
    let session = crate::opened(&store, AFTER, agent).await;
    assert!(session.cursors.is_empty() && session.attempts.is_empty(), "{session:?}");
    assert!(store.cursors(AFTER, &[agent], &[0]).await.unwrap().is_empty());
    assert!(store.entries(AFTER, &addresses, &[(0, 0..0)], 10).await.unwrap().is_empty());
    assert_eq!(store.entries(AFTER, &addresses, &[(0, 0..9)], 10).await.unwrap_err(), index_went_back());
    assert!(store.claim_expired(AFTER, LEASE, 10).await.unwrap().claimed.is_empty());
    assert_eq!(store.claim(AFTER, &row.address, 0, 3, LEASE).await.unwrap(), ClaimOutcome::Gone);
    store.remove(AFTER, std::slice::from_ref(&row)).await.unwrap();

    // And what was there is there still.
    assert_eq!(store.checkpoints(BEFORE, 1).await.unwrap(), [9]);
    let session = crate::opened(&store, BEFORE, agent).await;
    assert_eq!((session.cursors, session.attempts), (vec![(0, acknowledged)], vec![attempts]));
    assert_eq!(store.entries(BEFORE, &addresses, &[(0, 0..9)], 10).await.unwrap(), [row]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_removes_what_is_kept_of_an_earlier_life_of_its_log() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (world, store) = (world_of(&tenant), PgStore::new(tenant.connect_options()));
    let agent = world.agent("b").id;
    // Not expired: nothing but its epoch is against it.
    let rows: Vec<IndexEntry> = (0..30)
        .map(|position| IndexEntry {
            expires_at: OffsetDateTime::now_utc() + Duration::from_secs(3600),
            ..expired(agent, position)
        })
        .collect();
    store.checkpoints(BEFORE, 1).await.unwrap();
    store.index(BEFORE, vec![Advance { partition: 0, from: 0, to: 30, rows }]).await.unwrap();
    let session = crate::opened(&store, BEFORE, agent).await;
    let attempts = (0..30).map(|position| Attempts { partition: 0, position, attempts: Some(1) }).collect();
    let cursors = vec![(0, CursorState { watermark: 3, exceptions: vec![5] })];
    let flush = CursorFlush { agent, session_epoch: session.session_epoch, cursors, attempts, closing: true, clean: true };
    store.flush(BEFORE, vec![flush]).await.unwrap();

    // In sets, and nothing of its own.
    let own = world.bus.topic(&TopicName::system(tenant.name(), "messages")).await.unwrap().epoch;
    assert_eq!(store.remove_other_epochs(BEFORE, 1).await.unwrap(), 0);
    assert_eq!(store.remove_other_epochs(own, 10).await.unwrap(), 21, "ten rows, ten attempts, a cursor");

    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "kept")).await.unwrap();
    let kinds = "SELECT count(*) FROM (SELECT epoch FROM acb.mailbox UNION ALL SELECT epoch FROM acb.cursor UNION ALL
                 SELECT epoch FROM acb.delivery UNION ALL SELECT epoch FROM acb.mailbox_checkpoint) AS kept WHERE epoch = $1";
    let kept = async |epoch: Epoch| {
        let count: i64 = sqlx::query_scalar(kinds).bind(epoch.cast_signed()).fetch_one(store.pool()).await.unwrap();
        count
    };
    eventually(async || kept(BEFORE).await == 0).await;
    eventually(async || kept(own).await == 9).await;
}

#[tokio::test]
async fn what_is_derived_moves_to_another_epoch_without_what_the_log_lost() {
    let store = PgStore::new(Postgres::shared().await.fresh_tenant("acme").await.connect_options());
    let agent = AgentId(Uuid::new_v4());
    let rows: Vec<IndexEntry> = (0..9).map(|position| expired(agent, position)).collect();
    let addresses = [rows[0].address.clone()];
    store.checkpoints(BEFORE, 2).await.unwrap();
    store.index(BEFORE, vec![Advance { partition: 0, from: 0, to: 9, rows: rows.clone() }]).await.unwrap();
    let session = crate::opened(&store, BEFORE, agent).await;
    let attempts = |position| Attempts { partition: 0, position, attempts: Some(2) };
    let flush = |cursors, attempts, closing| CursorFlush {
        agent,
        session_epoch: session.session_epoch,
        cursors,
        attempts,
        closing,
        clean: closing,
    };
    let cursors =
        vec![(0, CursorState { watermark: 3, exceptions: vec![5, 9] }), (1, CursorState { watermark: 7, exceptions: vec![] })];
    store.flush(BEFORE, vec![flush(cursors, vec![attempts(4), attempts(10)], false)]).await.unwrap();
    assert_eq!(store.epoch(BEFORE).await.unwrap(), BEFORE);
    assert_eq!(store.reached(BEFORE, 2).await.unwrap(), [11, 7]);

    // The end of the second partition is not known.
    assert!(store.cut(BEFORE, AFTER, &[(0, 6)]).await.unwrap());
    assert!(!store.cut(BEFORE, 5, &[(0, 0)]).await.unwrap(), "once");
    assert_eq!((store.epoch(BEFORE).await.unwrap(), store.epoch(AFTER).await.unwrap()), (AFTER, AFTER));
    assert_eq!(store.checkpoints(AFTER, 2).await.unwrap(), [6, 0]);
    assert_eq!(store.reached(AFTER, 2).await.unwrap(), [6, 7]);
    assert_eq!(store.entries(AFTER, &addresses, &[(0, 0..6)], 10).await.unwrap(), rows[..6]);

    // A replica that still lives in the earlier epoch does no harm.
    assert_eq!(store.index(BEFORE, vec![Advance { partition: 0, from: 9, to: 10, rows: vec![] }]).await.unwrap(), [Moved::Gone]);
    assert_eq!(store.entries(BEFORE, &addresses, &[(0, 0..6)], 10).await.unwrap_err(), index_went_back());
    assert!(store.checkpoints(BEFORE, 2).await.unwrap().is_empty());
    assert_eq!(store.remove_other_epochs(BEFORE, 100).await.unwrap(), 0);
    store
        .flush(BEFORE, vec![flush(vec![(0, CursorState { watermark: 9, exceptions: vec![] })], vec![attempts(4)], true)])
        .await
        .unwrap();
    assert!(store.cursors(BEFORE, &[agent], &[0]).await.unwrap().is_empty());
    let session = crate::opened(&store, AFTER, agent).await;
    let cursors = [(0, CursorState { watermark: 3, exceptions: vec![5] }), (1, CursorState { watermark: 7, exceptions: vec![] })];
    assert_eq!((session.cursors.as_slice(), session.attempts.as_slice()), (&cursors[..], &[attempts(4)][..]));

    // And again.
    assert!(store.cut(AFTER, 5, &[(0, 2), (1, 0)]).await.unwrap());
    assert_eq!((store.epoch(BEFORE).await.unwrap(), store.reached(5, 2).await.unwrap()), (5, vec![2, 0]));
}
