//! Looking into the log.

use acb_hub_core::log::bus::Bounds;
use time::Duration;

use crate::{Provider, append, texts};

/// First and next of every partition, also of an empty one; and the topic's shape.
pub async fn bounds_tell_what_is_held(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(3).await, provider.bus().await);
    for number in 0..5 {
        append(&*bus, &topic, 1, number.to_string()).await;
    }
    append(&*bus, &topic, 2, "one").await;
    let bounds = provider.bus().await.bounds(&topic).await.unwrap();
    assert_eq!(bounds, [Bounds { first: 0, next: 0 }, Bounds { first: 0, next: 5 }, Bounds { first: 0, next: 1 }]);
    let info = bus.topic(&topic).await.unwrap();
    assert_eq!(info.partitions, 3);
    assert_eq!(provider.bus().await.topic(&topic).await.unwrap(), info, "every replica knows the same epoch");
    let other = provider.topic(1).await;
    assert_ne!(bus.topic(&other).await.unwrap().epoch, info.epoch, "a log that is made anew has another epoch");
}

/// A record that is gone has bounds above it, or a later record is shown in its stead; one that is not there yet has neither.
pub async fn bounds_tell_what_is_forgotten(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    for number in 0..5 {
        for partition in 0..2 {
            append(&*bus, &topic, partition, number.to_string()).await;
        }
    }
    assert!(bus.read(&topic, 0, 5, 10).await.unwrap().is_empty());
    provider.forget(&topic, 0, 3).await;
    provider.forget(&topic, 1, 5).await;
    for bus in [bus, provider.bus().await] {
        assert_eq!(texts(&bus.read(&topic, 0, 1, 10).await.unwrap()), ["3", "4"]);
        assert!(bus.read(&topic, 1, 4, 10).await.unwrap().is_empty());
        assert_eq!(bus.bounds(&topic).await.unwrap(), [Bounds { first: 3, next: 5 }, Bounds { first: 5, next: 5 }]);
    }
}

/// The first offset at or after a time: of all, of some, of none.
pub async fn offsets_are_found_by_time(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    for number in 0..5 {
        append(&*bus, &topic, 0, number.to_string()).await;
        // Kafka's time has milliseconds: the next record gets another one.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let records = bus.read(&topic, 0, 0, 10).await.unwrap();
    let (second, last) = (records[1].log_time, records[4].log_time);
    assert_eq!(bus.offsets_at(&topic, records[0].log_time - Duration::hours(1)).await.unwrap(), [0, 0]);
    assert_eq!(bus.offsets_at(&topic, second).await.unwrap(), [1, 0]);
    assert_eq!(bus.offsets_at(&topic, second + Duration::milliseconds(1)).await.unwrap(), [2, 0]);
    assert_eq!(bus.offsets_at(&topic, last + Duration::milliseconds(1)).await.unwrap(), [5, 0]);
    assert_eq!(bus.offsets_at(&topic, last + Duration::hours(1)).await.unwrap(), [5, 0]);
}

/// At most as many as asked for, from where asked for, none at the end.
pub async fn reads_are_limited(provider: &dyn Provider) {
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    for number in 0..5 {
        append(&*bus, &topic, 0, number.to_string()).await;
    }
    assert_eq!(texts(&bus.read(&topic, 0, 1, 2).await.unwrap()), ["1", "2"]);
    assert_eq!(texts(&bus.read(&topic, 0, 4, 2).await.unwrap()), ["4"]);
    assert!(bus.read(&topic, 0, 5, 2).await.unwrap().is_empty());
    assert!(bus.read(&topic, 0, 0, 0).await.unwrap().is_empty());
    let mut from = 0;
    while from < 5 {
        let read = bus.read(&topic, 0, from, 100).await.unwrap();
        assert_eq!(read.first().unwrap().offset, from);
        from = read.last().unwrap().offset + 1;
    }
}

/// Log time is the log's own, and rises with the offset.
pub async fn log_time_never_falls(provider: &dyn Provider) {
    let (topic, one, two) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    let before = time::OffsetDateTime::now_utc() - Duration::seconds(1);
    for _ in 0..20 {
        append(&*one, &topic, 0, "one").await;
        append(&*two, &topic, 0, "two").await;
    }
    let times: Vec<_> = one.read(&topic, 0, 0, 100).await.unwrap().iter().map(|logged| logged.log_time).collect();
    assert!(times.is_sorted());
    assert!(times[0] > before && times[39] < time::OffsetDateTime::now_utc() + Duration::seconds(1));
}
