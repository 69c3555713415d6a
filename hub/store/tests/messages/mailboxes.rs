//! The mailbox index in sets: what is read, removed and claimed by one statement.

use std::time::Duration;

use acb_hub_core::{
    directory::agent::AgentId,
    log::bus::{Epoch, Partition},
    messages::{
        cursor::CursorState,
        ports::{
            Acknowledged, Advance, ClaimOutcome, CursorFlush, CursorStore as _, IndexEntry, MailboxAddress, MailboxStore as _,
            Moved,
        },
        position::Position,
    },
};
use acb_hub_store::PgStore;
use acb_testbed::Postgres;
use time::OffsetDateTime;
use uuid::Uuid;

const EPOCH: Epoch = 7;
const LEASE: Duration = Duration::from_secs(60);

async fn store() -> PgStore {
    let store = PgStore::new(Postgres::shared().await.fresh_tenant("acme").await.connect_options());
    store.checkpoints(EPOCH, 2).await.unwrap();
    store
}

fn row(address: &MailboxAddress, partition: Partition, position: Position) -> IndexEntry {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    IndexEntry {
        address: address.clone(),
        partition,
        position,
        log_time: now,
        expires_at: now,
        sender: Some(AgentId(Uuid::nil())),
    }
}

async fn index(store: &PgStore, rows: &[IndexEntry]) {
    for partition in 0..2 {
        let rows: Vec<IndexEntry> = rows.iter().filter(|row| row.partition == partition).cloned().collect();
        let from = store.checkpoints(EPOCH, 2).await.unwrap()[partition as usize];
        let advance = Advance { partition, from, to: from + 100, rows };
        assert_eq!(store.index(EPOCH, vec![advance]).await.unwrap(), [Moved::Won]);
    }
}

async fn acknowledge(store: &PgStore, agent: AgentId, cursors: Vec<(Partition, CursorState)>) {
    let session_epoch = crate::opened(store, EPOCH, agent).await.session_epoch;
    let flush = CursorFlush { agent, session_epoch, cursors, attempts: vec![], closing: true, clean: true };
    assert!(store.flush(EPOCH, vec![flush]).await.unwrap().is_empty());
}

fn places(rows: &[IndexEntry]) -> Vec<(Partition, Position)> {
    rows.iter().map(|row| (row.partition, row.position)).collect()
}

#[tokio::test]
async fn pages_of_several_partitions_and_addresses_come_at_once_and_in_order() {
    let store = store().await;
    let agent = MailboxAddress::Agent(AgentId(Uuid::new_v4()));
    let group = MailboxAddress::Group("pair".to_owned());
    let other = MailboxAddress::Agent(AgentId(Uuid::new_v4()));
    let rows: Vec<IndexEntry> = (0..2)
        .flat_map(|partition| (0..30).map(move |position| (partition, position)))
        .map(|(partition, position)| row([&agent, &group, &other][position as usize % 3], partition, position))
        .collect();
    index(&store, &rows).await;
    let found = store.entries(EPOCH, &[agent, group], &[(1, 4..8), (0, 5..100)], 4).await.unwrap();
    assert_eq!(places(&found), [(0, 6), (0, 7), (0, 9), (0, 10), (1, 4), (1, 6), (1, 7)]);
    assert_eq!(found[0], rows[6]);
    assert!(store.entries(EPOCH, &[other], &[], 4).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_acknowledged_is_removed_in_ranges_and_is_not_indexed_later() {
    let store = store().await;
    let (agent, other) = (AgentId(Uuid::new_v4()), AgentId(Uuid::new_v4()));
    let addresses = [MailboxAddress::Agent(agent), MailboxAddress::Agent(other)];
    let rows: Vec<IndexEntry> = (0..20).flat_map(|position| [row(&addresses[position as usize % 2], 0, position)]).collect();
    index(&store, &rows).await;
    let range = |range| Acknowledged { agent, partition: 0, range };
    // Partition by partition, and no more than that at once.
    assert_eq!(store.remove_acknowledged(EPOCH, &[range(0..10)], 3).await.unwrap(), 3);
    assert_eq!(store.remove_acknowledged(EPOCH, &[range(0..10), range(10..13)], 10).await.unwrap(), 4);
    let left = store.entries(EPOCH, &addresses, &[(0, 0..100)], 100).await.unwrap();
    assert_eq!(places(&left), [1, 3, 5, 7, 9, 11, 13, 14, 15, 16, 17, 18, 19].map(|position| (0, position)));

    acknowledge(&store, agent, vec![(0, CursorState { watermark: 105, exceptions: vec![107] })]).await;
    let group = MailboxAddress::Group("pair".to_owned());
    let rows = [
        row(&addresses[0], 0, 104),
        row(&addresses[0], 0, 105),
        row(&addresses[1], 0, 103),
        row(&group, 0, 102),
        row(&addresses[0], 1, 101),
    ];
    index(&store, &rows).await;
    let addresses = [addresses[0].clone(), addresses[1].clone(), group];
    let found = store.entries(EPOCH, &addresses, &[(0, 100..200), (1, 100..200)], 100).await.unwrap();
    assert_eq!(places(&found), [(0, 102), (0, 103), (0, 105), (1, 101)]);
}

#[tokio::test]
async fn a_life_of_the_log_has_as_many_partitions_as_it_began_with() {
    let store = store().await;
    assert_eq!(store.checkpoints(EPOCH, 5).await.unwrap(), [0, 0]);
    assert_eq!(store.checkpoints(EPOCH + 1, 5).await.unwrap(), [0; 5]);
}

#[tokio::test]
async fn a_sweep_removes_what_was_acknowledged_and_claims_the_rest() {
    let store = store().await;
    let agent = AgentId(Uuid::new_v4());
    let (address, group) = (MailboxAddress::Agent(agent), MailboxAddress::Group("a:pair".to_owned()));
    let mut rows: Vec<IndexEntry> = (0..6).map(|position| row(&address, 0, position)).collect();
    rows.push(row(&group, 0, 6));
    rows.push(IndexEntry { expires_at: OffsetDateTime::now_utc() + Duration::from_secs(3600), ..row(&address, 0, 7) });
    rows.push(row(&address, 1, 0));
    rows[2].expires_at -= Duration::from_secs(60);
    index(&store, &rows).await;
    acknowledge(&store, agent, vec![(0, CursorState { watermark: 2, exceptions: vec![3, 5] })]).await;

    let expired = store.claim_expired(EPOCH, LEASE, 100).await.unwrap();
    assert_eq!((expired.oldest, expired.removed), (Some(rows[2].expires_at), 4));
    assert_eq!(places(&expired.claimed), [(0, 2), (0, 4), (0, 6), (1, 0)]);
    assert_eq!(expired.claimed[2], rows[6]);
    let left = store.entries(EPOCH, &[address.clone(), group], &[(0, 0..100), (1, 0..100)], 100).await.unwrap();
    assert_eq!(places(&left), [(0, 2), (0, 4), (0, 6), (0, 7), (1, 0)]);
    // Nobody else gets them, until they are given back.
    assert_eq!(store.claim_expired(EPOCH, LEASE, 100).await.unwrap().oldest, None);
    store.release(EPOCH, &expired.claimed[..1], Duration::ZERO).await.unwrap();
    store.release(EPOCH, &expired.claimed[1..2], LEASE).await.unwrap();
    assert_eq!(store.claim(EPOCH, &address, 0, 4, LEASE).await.unwrap(), ClaimOutcome::Held);
    let again = store.claim_expired(EPOCH, LEASE, 100).await.unwrap();
    assert_eq!((places(&again.claimed), again.removed), (vec![(0, 2)], 0));
}
