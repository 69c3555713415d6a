//! The log goes away and comes back.

use std::collections::BTreeMap;

use acb_hub_core::log::bus::{AppendError, Appended};
use futures::StreamExt;
use tokio::time::{Instant, timeout};

use crate::{DEADLINE, Provider, append, record, texts};

/// Connections are cut under load, twice. What was acknowledged is there once and in order; a tail, begun anew where it ended, sees
/// everything once; whoever is not answered is told so.
pub async fn a_cut_connection_loses_nothing(provider: &dyn Provider) {
    let (topic, bus, reader) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    append(&*bus, &topic, 0, "start").await;

    let writer = {
        let (bus, topic) = (bus.clone(), topic.clone());
        tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            for number in 0..600_u32 {
                let answer = match bus.append(&topic, 0, record(format!("{number:04}"))).await {
                    Ok(pending) => timeout(DEADLINE * 2, pending).await.expect("an answer in time"),
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(Appended::At { offset, .. }) => {
                        acknowledged.insert(format!("{number:04}"), Some(offset));
                    }
                    Ok(Appended::Unknown) => {
                        acknowledged.insert(format!("{number:04}"), None);
                    }
                    Err(AppendError::Refused(_) | AppendError::Unknown(_)) => {}
                    Err(error @ AppendError::TooLarge { .. }) => panic!("{error}"),
                }
            }
            acknowledged
        })
    };
    provider.interrupt().await;
    append_again(provider, &topic).await;
    provider.interrupt().await;
    let acknowledged = writer.await.unwrap();
    assert!(!acknowledged.is_empty(), "appends go on after a cut");

    let end = reader_end(&*reader, &topic).await;
    let (mut position, mut records) = (0, Vec::new());
    let deadline = Instant::now() + DEADLINE;
    while position < end {
        assert!(Instant::now() < deadline, "the tail reached {position} of {end}");
        let Ok(mut tail) = reader.tail(&topic, &[position]).await else { continue };
        while position < end {
            match timeout(DEADLINE, tail.next()).await.expect("a batch in time") {
                Some(Ok(batch)) => {
                    position = batch.next;
                    records.extend(batch.records);
                }
                Some(Err(_)) | None => break,
            }
        }
    }
    let values = texts(&records);
    let offsets: BTreeMap<_, _> = values.iter().cloned().zip(records.iter().map(|record| record.offset)).collect();
    assert_eq!(offsets.len(), values.len(), "nothing twice");
    let numbered: Vec<_> = values.iter().filter(|value| value.parse::<u32>().is_ok()).collect();
    assert!(numbered.is_sorted(), "in order");
    for (value, offset) in acknowledged {
        let logged = offsets.get(&value).unwrap_or_else(|| panic!("{value} was acknowledged and is not there"));
        assert!(offset.is_none_or(|offset| offset == *logged), "{value} is not where it was said to be");
    }
}

/// An append while the log stands still is logged when it goes on.
pub async fn appends_wait_for_the_log(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "before").await;
    let stall = provider.stall(&topic).await;
    let mut waiting = bus.append(&topic, 0, record("meanwhile")).await.unwrap();
    assert!(timeout(std::time::Duration::from_millis(300), &mut waiting).await.is_err(), "not acknowledged before it is durable");
    stall.release().await;
    timeout(DEADLINE, waiting).await.expect("an answer in time").expect("logged");
    assert_eq!(append(&*bus, &topic, 0, "after").await, 2);
}

async fn append_again(provider: &dyn Provider, topic: &acb_hub_core::log::bus::TopicName) {
    let bus = provider.bus().await;
    let deadline = Instant::now() + DEADLINE * 2;
    loop {
        assert!(Instant::now() < deadline, "no append succeeds after a cut");
        if let Ok(pending) = bus.append(topic, 0, record("again")).await
            && pending.await.is_ok()
        {
            return;
        }
    }
}

async fn reader_end(reader: &dyn acb_hub_core::log::bus::Bus, topic: &acb_hub_core::log::bus::TopicName) -> u64 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match reader.bounds(topic).await {
            Ok(bounds) => return bounds[0].next,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
