//! The report: derived from the recorded events, and from nothing else.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::event::{Entry, Event};

/// `target/demo/report.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Messages that a hub acknowledged.
    pub(crate) messages_sent: u64,
    /// Pairs of a message and a recipient that got it.
    pub(crate) messages_delivered: u64,
    /// Deliveries beyond the first of a pair.
    pub(crate) duplicates_delivered: u64,
    /// Payload bytes of the stream.
    pub(crate) stream_bytes: u64,
    /// Whether what was read back is what was streamed.
    pub(crate) stream_sha256_ok: bool,
    /// Where the stream went on after its replica was killed.
    pub(crate) resumed_from_chunk: Option<u32>,
    /// Attacks of one tenant on the other that had something to be tried on.
    pub(crate) cross_tenant_attempts: u64,
    /// Attacks that were refused.
    pub(crate) cross_tenant_refused: u64,
    /// From the sender's call to the recipient's receipt, over connected sessions on two replicas.
    pub(crate) latency_ms: Latency,
    /// Payload bytes in and out, over the time of both, with the kill in between.
    pub(crate) stream_mb_per_s: f64,
    /// The whole demo.
    pub(crate) seconds: f64,
}

/// Percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Report {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut report = Self::default();
        let mut delivered: HashMap<(&str, &str), u64> = HashMap::new();
        let mut latencies = Vec::new();
        let (mut sent_sha256, mut read_sha256) = (None, None);
        let (mut stream_seconds, mut streamed_bytes) = (0.0, 0);
        for entry in entries {
            match &entry.event {
                Event::Sent { .. } => report.messages_sent += 1,
                Event::Delivered { id, to, latency_us, .. } => {
                    *delivered.entry((id, to)).or_default() += 1;
                    latencies.extend(*latency_us);
                }
                Event::StreamStarted { bytes, sha256 } => {
                    report.stream_bytes = *bytes;
                    sent_sha256 = Some(sha256);
                }
                Event::StreamResumed { from_chunk, .. } => report.resumed_from_chunk = Some(*from_chunk),
                Event::StreamFinished { bytes, seconds, .. } => {
                    stream_seconds += seconds;
                    streamed_bytes += bytes;
                }
                Event::StreamRead { bytes, sha256, seconds } => {
                    read_sha256 = Some(sha256);
                    stream_seconds += seconds;
                    streamed_bytes += bytes;
                }
                Event::Attacked { row } if row.outcome.is_nothing() => {}
                Event::Attacked { row } => {
                    report.cross_tenant_attempts += 1;
                    report.cross_tenant_refused += u64::from(row.outcome.is_refused());
                }
                Event::Finished { seconds } => report.seconds = tenths(*seconds, 10.0),
                Event::TenantReady { .. }
                | Event::Connected { .. }
                | Event::Answered { .. }
                | Event::StreamStored { .. }
                | Event::ReplicaKilled { .. } => {}
            }
        }
        report.messages_delivered = delivered.len() as u64;
        report.duplicates_delivered = delivered.values().map(|count| count - 1).sum();
        report.stream_sha256_ok = sent_sha256.is_some() && sent_sha256 == read_sha256;
        report.latency_ms = Latency::of(latencies);
        if stream_seconds > 0.0 {
            report.stream_mb_per_s = tenths(streamed_bytes as f64 / 1e6 / stream_seconds, 10.0);
        }
        report
    }
}

impl Latency {
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let rank = (share * micros.len() as f64).ceil() as usize;
            micros.get(rank.saturating_sub(1)).map_or(0.0, |micros| tenths(*micros as f64 / 1e3, 100.0))
        };
        Self { p50: at(0.50), p95: at(0.95), p99: at(0.99) }
    }
}

fn tenths(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// What is not as it must be, in words. Empty: all is well.
pub(crate) fn faults(entries: &[Entry], report: &Report) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };

    let mut owed: HashSet<(&str, &str)> = HashSet::new();
    let mut got: HashSet<(&str, &str)> = HashSet::new();
    let (mut killed, mut back, mut answered, mut finished) = (None, None, false, false);
    let mut connected: HashMap<&str, &str> = HashMap::new();
    for entry in entries {
        match &entry.event {
            Event::Sent { id, recipients, .. } => owed.extend(recipients.iter().map(|to| (id.as_str(), to.as_str()))),
            Event::Delivered { id, to, .. } => {
                got.insert((id, to));
            }
            Event::Connected { agent, replica } => {
                connected.insert(agent, replica);
            }
            Event::ReplicaKilled { replica, stored_bytes, .. } => killed = Some((replica, *stored_bytes)),
            Event::StreamResumed { replica, first_replica_back, .. } => back = Some((replica, *first_replica_back)),
            Event::Answered { words, words_expected, documents } => {
                answered = words == words_expected && *words > 0 && *documents > 0;
            }
            Event::Finished { .. } => finished = true,
            _ => {}
        }
    }
    must(finished, "the record has no end".to_owned());
    must(report.messages_sent > 0, "no message was sent".to_owned());
    let lost = owed.difference(&got).count();
    must(lost == 0, format!("{lost} deliveries are missing"));
    let strange = got.difference(&owed).count();
    must(strange == 0, format!("{strange} deliveries were to someone else, or never acknowledged to their sender"));
    must(report.duplicates_delivered == 0, format!("{} duplicates were delivered", report.duplicates_delivered));
    must(
        matches!((connected.get("worker-a"), connected.get("worker-b")), (Some(a), Some(b)) if a != b),
        "the workers are not on different replicas".to_owned(),
    );
    must(answered, "the supervisor's answer is wrong or missing".to_owned());
    must(report.stream_sha256_ok, "what was read back is not what was streamed".to_owned());
    must(
        killed.is_some_and(|(_, stored)| stored > 0 && stored < report.stream_bytes),
        "no replica was killed in the middle of the stream".to_owned(),
    );
    must(report.resumed_from_chunk.is_some_and(|chunk| chunk > 0), "the stream was not resumed".to_owned());
    must(
        matches!((killed, back), (Some((first, _)), Some((second, false))) if first != second),
        "the stream did not resume on the other replica before the first was back".to_owned(),
    );
    must(report.cross_tenant_attempts >= 40, format!("only {} attacks were tried", report.cross_tenant_attempts));
    must(
        report.cross_tenant_attempts == report.cross_tenant_refused,
        format!("{} attacks were not refused", report.cross_tenant_attempts - report.cross_tenant_refused),
    );
    must(report.latency_ms.p50 > 0.0 && report.latency_ms.p99 < 1000.0, "the latencies make no sense".to_owned());
    must(report.stream_mb_per_s > 0.0, "the stream's rate makes no sense".to_owned());
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Event) -> Entry {
        Entry { at_us: 0, event }
    }

    fn sent(id: &str, to: &[&str]) -> Entry {
        let recipients = to.iter().map(ToString::to_string).collect();
        entry(Event::Sent { id: id.into(), from: "a".into(), recipients, topic: "t".into() })
    }

    fn delivered(id: &str, to: &str, latency_us: Option<u64>) -> Entry {
        entry(Event::Delivered { id: id.into(), to: to.into(), topic: "t".into(), redelivered: false, latency_us })
    }

    #[test]
    fn a_pair_delivered_twice_is_one_delivery_and_one_duplicate() {
        let report = Report::of(&[
            sent("1", &["b", "c"]),
            delivered("1", "b", None),
            delivered("1", "b", None),
            delivered("1", "c", None),
        ]);
        assert_eq!((report.messages_sent, report.messages_delivered, report.duplicates_delivered), (1, 2, 1));
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latency = Latency::of((1..=100).map(|ms| ms * 1000).collect());
        assert_eq!(latency, Latency { p50: 50.0, p95: 95.0, p99: 99.0 });
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn a_missing_delivery_a_stranger_and_a_missing_end_are_faults() {
        let entries = [sent("1", &["b"]), delivered("2", "b", Some(1000))];
        let faults = faults(&entries, &Report::of(&entries));
        for expected in ["1 deliveries are missing", "1 deliveries were to someone else", "the record has no end"] {
            assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:?}");
        }
    }
}
