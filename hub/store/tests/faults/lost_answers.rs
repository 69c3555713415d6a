//! A connection that breaks in the middle of a statement, at every place of its traffic: before it arrives, while it is carried out, and after
//! the commit with the answer on its way. Whoever asks does not know which, and asks again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::Epoch,
    messages::{
        cursor::CursorState,
        ports::{
            Advance, Attempts, CursorFlush, CursorStore as _, IndexEntry, MailboxAddress, MailboxStore as _, Moved, Opened,
            OpenedMailbox, Opening,
        },
        position::Position,
    },
    timers::ports::{Added, Bounds, Cancelled, Due, NewTimer, Outcomes, TimerStore},
};
use acb_hub_store::PgStore;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::breaking::{Breaking, END, STEP};

const EPOCH: Epoch = 7;
const LEASE: Duration = Duration::from_millis(200);
/// A session of this program begins.
async fn open(store: &PgStore, agent: AgentId) -> Result<OpenedMailbox, Fault> {
    let opening =
        Opening { replica: "r".to_owned(), lease: Uuid::from_u128(1), receiver: "program".to_owned(), take_over: false };
    match store.open(EPOCH, agent, &opening).await? {
        Opened::Begun(opened) => Ok(opened),
        held @ Opened::Held { .. } => panic!("{held:?} by the same program"),
    }
}

fn row(agent: AgentId, position: Position, expires_at: OffsetDateTime) -> IndexEntry {
    let log_time = OffsetDateTime::UNIX_EPOCH;
    IndexEntry { address: MailboxAddress::Agent(agent), partition: 0, position, log_time, expires_at, sender: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_checkpoint_move_together_and_once() {
    let world = Breaking::start(EPOCH).await;
    let (agent, later) = (AgentId(Uuid::new_v4()), OffsetDateTime::now_utc() + Duration::from_secs(3600));
    let next = AtomicU64::new(0);
    let prepare = async || {
        let from = next.fetch_add(10, Ordering::Relaxed);
        let rows = (from..from + 10).map(|position| row(agent, position, later)).collect();
        Advance { partition: 0, from, to: from + 10, rows }
    };
    let index = async |advance: &Advance| {
        let moved = world.store.index(EPOCH, vec![advance.clone()]).await?;
        assert!(moved == [Moved::Won] || moved == [Moved::Lost(advance.to)], "{moved:?}");
        Ok(())
    };
    let times = async |advance: &Advance| {
        let reached = world.straight.checkpoints(EPOCH, 1).await.unwrap()[0];
        let entries = world.straight.entries(EPOCH, &[MailboxAddress::Agent(agent)], &[(0, 0..reached)], 10_000).await.unwrap();
        assert_eq!(entries.iter().map(|row| row.position).collect::<Vec<_>>(), (0..reached).collect::<Vec<_>>());
        let is_done = reached == advance.to;
        assert!(is_done || reached == advance.from);
        vec![i64::from(is_done)]
    };
    world.at_each_place("index", prepare, index, times).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_acknowledged_is_written_and_the_session_goes_on() {
    let world = Breaking::start(EPOCH).await;
    let agent = AgentId(Uuid::new_v4());
    let opened = open(&world.store, agent).await.unwrap();
    for (watermark, bytes) in (1..).zip((0..END).step_by(STEP)) {
        let flush = CursorFlush {
            agent,
            session_epoch: opened.session_epoch,
            cursors: vec![(0, CursorState { watermark, exceptions: vec![watermark + 2] })],
            attempts: vec![Attempts { partition: 0, position: watermark, attempts: Some(3) }],
            closing: false,
            clean: true,
        };
        let ended = match world.ask(bytes, world.store.flush(EPOCH, vec![flush.clone()])).await {
            Some(ended) => ended,
            None => Breaking::ask_again(async || world.store.flush(EPOCH, vec![flush.clone()]).await).await,
        };
        assert_eq!(ended, [], "no newer session took over");
        let cursors = Breaking::ask_again(async || world.store.cursors(EPOCH, &[agent], &[0]).await).await;
        assert_eq!(cursors, [(agent, 0, CursorState { watermark, exceptions: vec![watermark + 2] })]);
    }
    let after = Breaking::ask_again(async || open(&world.store, agent).await).await;
    assert!(after.attempts.iter().all(|row| row.attempts == Some(3)) && !after.attempts.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_opened_twice_ends_the_first_one() {
    let world = Breaking::start(EPOCH).await;
    let agent = AgentId(Uuid::new_v4());
    let mut before = open(&world.store, agent).await.unwrap().session_epoch;
    for bytes in (0..END).step_by(STEP) {
        let opened = match world.ask(bytes, open(&world.store, agent)).await {
            Some(opened) => opened,
            None => Breaking::ask_again(async || open(&world.store, agent).await).await,
        };
        assert!(opened.session_epoch > before);
        let flush = |session_epoch| CursorFlush {
            agent,
            session_epoch,
            cursors: Vec::new(),
            attempts: Vec::new(),
            closing: false,
            clean: true,
        };
        let flushes = [flush(before), flush(opened.session_epoch)];
        let ended = Breaking::ask_again(async || world.store.flush(EPOCH, flushes.to_vec()).await).await;
        assert_eq!(ended, [(agent, before)]);
        before = opened.session_epoch;
    }
}

fn timer(key: &str, after: Duration) -> NewTimer {
    let (id, subject) = (Uuid::new_v4(), Uuid::from_u128(7));
    NewTimer { id, kind: "test", subject, after, key: key.to_owned(), digest: [1; 32], content: bytes::Bytes::from_static(b"x") }
}

const BOUNDS: Bounds = Bounds { each: 1000, all: 1000 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_is_made_once() {
    let world = Breaking::start(EPOCH).await;
    let mut unanswered = 0;
    for (number, bytes) in (1..).zip((0..END).step_by(STEP)) {
        let timer = timer(&number.to_string(), Duration::from_secs(3600));
        if world.ask(bytes, world.store.add(&timer, BOUNDS)).await.is_none() {
            unanswered += 1;
            match Breaking::ask_again(async || world.store.add(&timer, BOUNDS).await).await {
                Added::Made { .. } => {}
                Added::Known { id, .. } => assert_eq!(id, timer.id),
                other => panic!("{other:?}"),
            }
        }
        let timers = Breaking::ask_again(async || world.store.list("test", None, None, 1000).await).await;
        assert_eq!(timers.len(), number);
    }
    assert!(unanswered > 3, "{unanswered}");
}

/// Until it is settled it is due, for whoever asks next; also where its replica died with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timer_is_settled_or_due_again() {
    let world = Breaking::start(EPOCH).await;
    let mut unanswered = 0;
    for bytes in (0..END).step_by(STEP) {
        let timer = timer("", Duration::from_millis(1));
        Breaking::ask_again(async || world.store.add(&timer, BOUNDS).await).await;
        let due = claimed(&world.store).await;
        assert_eq!(due.timers()[0].id, timer.id);
        if world.ask(bytes, due.settle(&Outcomes { done: vec![timer.id], ..Outcomes::default() })).await.is_none() {
            unanswered += 1;
            match Breaking::ask_again(async || world.store.cancel("test", None, timer.id).await).await {
                // It was carried out, and its replica was not told.
                Cancelled::TooLate => continue,
                Cancelled::Now => {}
                other => panic!("{other:?}"),
            }
        }
        let again = Breaking::ask_again(async || world.store.cancel("test", None, timer.id).await).await;
        assert!(matches!(again, Cancelled::TooLate | Cancelled::Before), "{again:?}");
    }
    assert!(unanswered > 3, "{unanswered}");
    // A replica that is gone without a word has none of them any more.
    let timer = timer("", Duration::from_millis(1));
    world.store.add(&timer, BOUNDS).await.unwrap();
    let lost = claimed(&world.store).await;
    world.gate.slam();
    world.gate.reopen();
    assert_eq!(claimed(&world.store).await.timers()[0].id, timer.id);
    drop(lost);
}

/// What is due, as soon as something is.
async fn claimed(store: &PgStore) -> Box<dyn Due> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(Some(due)) = TimerStore::claim(store, &["test"], &[]).await {
            return due;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is due");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_whose_claim_nobody_heard_of_are_claimed_again() {
    let world = Breaking::start(EPOCH).await;
    let agent = AgentId(Uuid::new_v4());
    let past = OffsetDateTime::now_utc() - Duration::from_secs(60);
    let rows: Vec<_> = (0..10).map(|position| row(agent, position, past)).collect();
    world.store.index(EPOCH, vec![Advance { partition: 0, from: 0, to: 10, rows: rows.clone() }]).await.unwrap();
    for bytes in (0..END).step_by(STEP) {
        let heard = world.ask(bytes, world.store.claim_expired(EPOCH, LEASE, 100)).await;
        let mut claimed = heard.map(|expired| expired.claimed).unwrap_or_default();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while claimed.len() < 10 {
            assert!(tokio::time::Instant::now() < deadline, "only {claimed:?} are claimed");
            tokio::time::sleep(LEASE / 4).await;
            let again = Breaking::ask_again(async || world.store.claim_expired(EPOCH, LEASE, 100).await).await;
            claimed.extend(again.claimed);
        }
        assert_eq!(claimed.len(), 10, "no row is two callers' at once");
        Breaking::ask_again(async || world.store.release(EPOCH, &rows, Duration::ZERO).await).await;
    }
}
