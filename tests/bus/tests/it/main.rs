//! The conformance suite on each bus, and what only one of them can go wrong in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kafka;
mod postgres;

use acb_hub_core::log::bus::{Bus, TopicName};
use futures::StreamExt;
use std::time::{Duration, Instant};

/// Appends 1 KiB a thousand times, and tells the times to the acknowledgement and to a tail here and at another replica.
#[allow(clippy::print_stdout)]
async fn measure(here: &dyn Bus, there: &dyn Bus, topic: &TopicName) {
    let zeros = [0; 8];
    let (mut own, mut other) = (here.tail(topic, &zeros).await.unwrap(), there.tail(topic, &zeros).await.unwrap());
    let mut times: [Vec<Duration>; 3] = Default::default();
    for number in 0..1100_u32 {
        let at = Instant::now();
        let pending = here.append(topic, number % 8, acb_bus_conformance::record(vec![7; 1024])).await.unwrap();
        let seen = async |tail: &mut acb_hub_core::log::bus::Tail| {
            while tail.next().await.unwrap().unwrap().records.is_empty() {}
            at.elapsed()
        };
        let (acknowledged, own, other) =
            tokio::join!(async { pending.await.map(|_| at.elapsed()).unwrap() }, seen(&mut own), seen(&mut other));
        if number >= 100 {
            for (times, time) in times.iter_mut().zip([acknowledged, own, other]) {
                times.push(time);
            }
        }
    }
    for (what, times) in ["acknowledged", "own tail", "other replica's tail"].iter().zip(&mut times) {
        times.sort();
        println!("{what}: p50 {:?}, p95 {:?}, p99 {:?}", times[500], times[950], times[990]);
    }
}
