//! How far a hub has read each topic of its tenant, from the metrics of its replicas.

use std::collections::BTreeMap;

use acb_operator::metrics_text::samples;

/// The most bytes of a replica's metrics that are read: they are a few hundred lines.
pub(super) const MOST: usize = 4 << 20;

/// By topic: how many records the replica that is furthest behind has not read yet.
pub(super) type Lags = BTreeMap<String, u64>;

/// Takes the lags of one more replica in, from its metrics.
pub(super) fn add(lags: &mut Lags, metrics: &str) {
    for sample in samples(metrics).filter(|sample| sample.name == "acb_kafka_lag") {
        let Some(topic) = sample.label("topic") else { continue };
        let most = lags.entry(topic.to_owned()).or_default();
        *most = (*most).max(sample.value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_that_is_furthest_behind_counts() {
        let mut lags = Lags::new();
        add(
            &mut lags,
            "# TYPE acb_kafka_lag gauge\nacb_kafka_lag{topic=\"acb.a.sys.messages\"} 3\nacb_kafka_lag{topic=\"acb.a.notes\"} 0\n",
        );
        add(
            &mut lags,
            "acb_kafka_lag{topic=\"acb.a.sys.messages\"} 2\nacb_kafka_lag{topic=\"acb.a.notes\"} 7\nacb_kafka_lag{topic\n",
        );
        assert_eq!(lags, Lags::from([("acb.a.sys.messages".to_owned(), 3), ("acb.a.notes".to_owned(), 7)]));
    }
}
