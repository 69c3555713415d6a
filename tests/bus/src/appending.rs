//! Records on their way in.

use std::collections::BTreeSet;

use acb_hub_core::log::bus::{AppendError, Appended, BusError, Record, TopicName};
use bytes::Bytes;
use tokio::{task::JoinSet, time::timeout};

use crate::{DEADLINE, Provider, append, record, texts};

/// From 0, without a gap, in each partition.
pub async fn offsets_are_dense(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(3).await, provider.bus().await);
    let mut pending = Vec::new();
    for number in 0..300 {
        pending.push((number, bus.append(&topic, number % 3, record(number.to_string())).await.unwrap()));
    }
    for (number, pending) in pending {
        let Appended::At { offset, .. } = pending.await.unwrap() else { panic!("no offset") };
        assert_eq!(offset, u64::from(number / 3));
    }
}

/// Appends that returned in an order are logged in that order.
pub async fn appends_keep_their_order(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    let mut pending = Vec::new();
    for number in 0..1000 {
        pending.push(bus.append(&topic, 0, record(format!("{number:04}"))).await.unwrap());
    }
    for pending in pending {
        pending.await.unwrap();
    }
    let values = texts(&bus.read(&topic, 0, 0, 1000).await.unwrap());
    assert_eq!(values.len(), 1000);
    assert!(values.is_sorted());
}

/// Several replicas append to the same partitions: every offset is given once.
pub async fn many_writers_share_a_partition(provider: &dyn Provider) {
    let topic = provider.topic(2).await;
    let mut writers = JoinSet::new();
    for replica in 0..3 {
        let bus = provider.bus().await;
        for task in 0..4 {
            let (bus, topic) = (bus.clone(), topic.clone());
            writers.spawn(async move {
                let mut offsets = Vec::new();
                for number in 0..50 {
                    let partition = number % 2;
                    offsets.push((partition, append(&*bus, &topic, partition, format!("{replica}.{task}.{number:02}")).await));
                }
                offsets
            });
        }
    }
    let given: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    let distinct: BTreeSet<_> = given.iter().copied().collect();
    assert_eq!((given.len(), distinct.len()), (600, 600));
    let bounds = provider.bus().await.bounds(&topic).await.unwrap();
    assert!(bounds.iter().all(|bounds| (bounds.first, bounds.next) == (0, 300)), "{bounds:?}");
}

/// Key, headers, value, their absence and their emptiness.
pub async fn a_record_is_kept_whole(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    let headers = vec![
        ("traceparent".to_owned(), Bytes::from_static(b"00-aa-bb-01")),
        ("empty".to_owned(), Bytes::new()),
        ("bytes".to_owned(), Bytes::from_static(b"\x00\xff\"\\{},")),
    ];
    let full = Record { key: Some(Bytes::from_static(b"\x00key")), headers, value: Some(Bytes::from_static(b"\x00\x01value")) };
    let tombstone = Record { key: Some(Bytes::from_static(b"gone")), ..Record::default() };
    let empty = Record { key: Some(Bytes::new()), headers: Vec::new(), value: Some(Bytes::new()) };
    let sent = [full, tombstone, empty, Record::default()];
    for record in &sent {
        bus.append(&topic, 0, record.clone()).await.unwrap().await.unwrap();
    }
    let read = provider.bus().await.read(&topic, 0, 0, 10).await.unwrap();
    assert_eq!(read.into_iter().map(|logged| logged.record).collect::<Vec<_>>(), sent);
}

/// The record past the limit is refused; those before and after it are logged, and one just below it is.
pub async fn a_large_record_harms_no_other(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    let before = bus.append(&topic, 0, record("before")).await.unwrap();
    let large = match bus.append(&topic, 0, record(vec![7; 3 << 20])).await {
        Ok(pending) => pending.await.map(|_| ()),
        Err(error) => Err(error),
    };
    let Err(AppendError::TooLarge { size, limit, .. }) = large else { panic!("{large:?}") };
    assert!(size >= 3 << 20);
    let largest = bus.append(&topic, 0, record(noise(limit))).await.unwrap();
    let after = bus.append(&topic, 0, record("after")).await.unwrap();
    for pending in [before, largest, after] {
        pending.await.unwrap();
    }
    let mut read = Vec::new();
    while read.len() < 3 {
        let more = bus.read(&topic, 0, read.len() as u64, 10).await.unwrap();
        assert!(!more.is_empty());
        read.extend(more);
    }
    let sizes: Vec<_> = read.iter().map(|logged| logged.record.value.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [6, limit, 5]);
}

/// Naming a topic makes nothing.
pub async fn an_unknown_topic_is_an_error(provider: &dyn Provider) {
    let (known, bus) = (provider.topic(1).await, provider.bus().await);
    let topic = TopicName::context(known.as_str().split('.').nth(1).unwrap(), "nobody-made-this");
    let appended = match bus.append(&topic, 0, record("lost")).await {
        Ok(pending) => timeout(DEADLINE, pending).await.expect("an answer in time").map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(appended, Err(AppendError::Refused(_))), "{appended:?}");
    let none = BusError::NoSuchTopic(topic.clone());
    assert_eq!(bus.topic(&topic).await.unwrap_err(), none);
    assert_eq!(bus.read(&topic, 0, 0, 1).await.unwrap_err(), none);
    assert_eq!(bus.bounds(&topic).await.unwrap_err(), none);
    assert_eq!(bus.tail(&topic, &[0]).await.err().unwrap(), none);
    assert_eq!(bus.topic(&topic).await.unwrap_err(), none);
}

/// A partition that is not there takes nothing, and its neighbour everything.
pub async fn an_unknown_partition_is_an_error(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    let appended = match bus.append(&topic, 2, record("lost")).await {
        Ok(pending) => timeout(DEADLINE, pending).await.expect("an answer in time").map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(appended, Err(AppendError::Refused(_))), "{appended:?}");
    assert_eq!(append(&*bus, &topic, 1, "kept").await, 0);
}

/// What is acknowledged is there for every replica, at that offset and with that log time.
pub async fn acknowledged_is_readable(provider: &dyn Provider) {
    let (topic, bus, other) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    for number in 0..20 {
        let pending = bus.append(&topic, 0, record(number.to_string())).await.unwrap();
        let Appended::At { offset, log_time } = pending.await.unwrap() else { panic!("no offset") };
        let read = other.read(&topic, 0, offset, 1).await.unwrap();
        assert_eq!((texts(&read), read[0].log_time), (vec![number.to_string()], log_time));
    }
}

/// Where the log stands still, `append` waits at last, and everything it took is logged after.
pub async fn the_queue_is_bounded(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "first").await;
    let stall = provider.stall(&topic).await;
    let mut pending = Vec::new();
    // 128 MiB are more than any queue takes.
    for number in 0..128 {
        let append = bus.append(&topic, 0, record(noise(1 << 20)));
        match timeout(std::time::Duration::from_secs(2), append).await {
            Ok(taken) => pending.push(taken.unwrap()),
            Err(_) => break,
        }
        assert!(number < 100, "the queue took {number} MiB");
    }
    stall.release().await;
    for pending in pending {
        timeout(DEADLINE, pending).await.expect("an answer in time").expect("logged");
    }
}

/// Bytes that no compression makes smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}
