//! Tails.

use std::time::Duration;

use acb_hub_core::log::bus::BusError;
use futures::StreamExt;
use tokio::time::timeout;

use crate::{DEADLINE, Provider, append, record, take, texts};

/// From 0, from the middle, from the end, each partition at its own place.
pub async fn a_tail_starts_anywhere(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(3).await, provider.bus().await);
    for number in 0..30 {
        append(&*bus, &topic, number % 3, format!("{}.{:02}", number % 3, number / 3)).await;
    }
    let mut tail = bus.tail(&topic, &[0, 7, 10]).await.unwrap();
    append(&*bus, &topic, 2, "2.10").await;
    let mut values = texts(&take(&mut tail, 14).await);
    values.sort();
    let mut expected: Vec<_> = (0..10).map(|number| format!("0.{number:02}")).collect();
    expected.extend(["1.07", "1.08", "1.09", "2.10"].map(String::from));
    assert_eq!(values, expected);
}

/// A new tail goes on where the last one was, with nothing twice and nothing lost.
pub async fn a_tail_resumes(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    for number in 0..40 {
        append(&*bus, &topic, number % 2, number.to_string()).await;
    }
    let mut positions = [0, 0];
    let mut seen = Vec::new();
    while seen.len() < 40 {
        let mut tail = provider.bus().await.tail(&topic, &positions).await.unwrap();
        // One batch of each, then a new one.
        let batch = timeout(DEADLINE, tail.next()).await.expect("a batch in time").unwrap().unwrap();
        positions[batch.partition as usize] = batch.next;
        seen.extend(batch.records.iter().map(|record| (record.partition, record.offset)));
    }
    seen.sort_unstable();
    let expected: Vec<_> = (0..2).flat_map(|partition| (0..20).map(move |offset| (partition, offset))).collect();
    assert_eq!(seen, expected);
}

/// Whoever follows sees the same records at the same places, while several replicas append.
pub async fn two_tails_see_the_same(provider: &dyn Provider) {
    let topic = provider.topic(4).await;
    let (one, two) = (provider.bus().await, provider.bus().await);
    let mut tails = [one.tail(&topic, &[0; 4]).await.unwrap(), two.tail(&topic, &[0; 4]).await.unwrap()];
    let mut writers = tokio::task::JoinSet::new();
    for (writer, bus) in [one.clone(), two.clone()].into_iter().enumerate() {
        let topic = topic.clone();
        writers.spawn(async move {
            let mut pending = Vec::new();
            for number in 0..200 {
                pending.push(bus.append(&topic, number % 4, record(format!("{writer}.{number}"))).await.unwrap());
            }
            for pending in pending {
                pending.await.unwrap();
            }
        });
    }
    let mut seen = Vec::new();
    for tail in &mut tails {
        let mut records = take(tail, 400).await;
        // Each partition in order, the partitions in any.
        for partition in 0..4 {
            let offsets: Vec<_> =
                records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect();
            assert_eq!(offsets, (0..100).collect::<Vec<_>>());
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        seen.push(records);
    }
    writers.join_all().await;
    assert_eq!(seen[0], seen[1]);
}

/// What another replica appends arrives soon.
pub async fn a_tail_follows_other_replicas(provider: &dyn Provider) {
    let (topic, here, there) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    let mut tail = here.tail(&topic, &[0]).await.unwrap();
    for number in 0..20 {
        append(&*there, &topic, 0, number.to_string()).await;
        let seen = timeout(Duration::from_secs(2), take(&mut tail, 1)).await.expect("within the poll's time, amply");
        assert_eq!(texts(&seen), [number.to_string()]);
    }
}

/// A writer that is held up before its commit is waited for: a reader never passes it by.
pub async fn a_late_commit_is_not_skipped(provider: &dyn Provider) {
    let (topic, slow, quick) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    append(&*slow, &topic, 0, "first").await;
    append(&*quick, &topic, 0, "second").await;
    let mut tail = quick.tail(&topic, &[2]).await.unwrap();
    let stall = provider.stall(&topic).await;
    let late = slow.append(&topic, 0, record("late")).await.unwrap();
    let later = quick.append(&topic, 0, record("later")).await.unwrap();
    assert!(timeout(Duration::from_millis(600), tail.next()).await.is_err(), "nothing is seen before it is durable");
    stall.release().await;
    for pending in [late, later] {
        timeout(DEADLINE, pending).await.expect("an answer in time").expect("logged");
    }
    let records = take(&mut tail, 2).await;
    let mut values = texts(&records);
    values.sort();
    assert_eq!(values, ["late", "later"]);
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 3]);
}

/// At the end a tail waits: it neither ends nor turns in place.
pub async fn a_tail_waits_at_the_end(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    append(&*bus, &topic, 0, "old").await;
    let mut tail = bus.tail(&topic, &[1, 0]).await.unwrap();
    let mut batches = 0;
    let waited = timeout(Duration::from_millis(700), async {
        loop {
            let batch = tail.next().await.expect("the tail goes on").expect("the tail goes on");
            assert!(batch.records.is_empty());
            batches += 1;
        }
    });
    assert!(waited.await.is_err());
    assert!(batches <= 4, "{batches} empty batches");
    append(&*bus, &topic, 1, "new").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["new"]);
}

/// From below what is retained a tail starts at the oldest, and says so; of a partition that holds nothing any more, too.
pub async fn a_tail_passes_over_what_is_forgotten(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(3).await, provider.bus().await);
    for number in 0..15 {
        append(&*bus, &topic, number % 3, number.to_string()).await;
    }
    provider.forget(&topic, 0, 3).await;
    provider.forget(&topic, 1, 5).await;
    let mut tail = bus.tail(&topic, &[1, 0, 4]).await.unwrap();
    let (mut next, mut values) = ([0; 3], Vec::new());
    while next != [5, 5, 5] {
        let batch = timeout(DEADLINE, tail.next()).await.expect("in time").unwrap().unwrap();
        next[batch.partition as usize] = batch.next;
        values.extend(texts(&batch.records));
    }
    values.sort();
    assert_eq!(values, ["12", "14", "9"]);
    append(&*bus, &topic, 1, "next").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["next"]);
}

/// What a reader has seen and the log has not is lost: nothing is followed as if it were not.
pub async fn a_tail_does_not_start_past_the_end(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    append(&*bus, &topic, 0, "only").await;
    let error = match bus.tail(&topic, &[1, 7]).await {
        Ok(mut tail) => timeout(DEADLINE, tail.next()).await.expect("in time").unwrap().expect_err("past the end"),
        Err(error) => error,
    };
    assert!(matches!(&error, BusError::Unavailable(reason) if reason.contains("has lost records")), "{error}");
}
