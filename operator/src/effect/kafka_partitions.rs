//! How many partitions topics have, by what the brokers know of them. No I/O.

use acb_kafka::kafka_protocol::messages::MetadataResponse;

use crate::plan::TopicSpec;

/// How many partitions a topic has whose error code `counts`; none where the brokers don't know it.
fn count(topic: &TopicSpec, known: &MetadataResponse, counts: impl Fn(i16) -> bool) -> usize {
    let found = known.topics.iter().find(|found| found.name.as_ref().is_some_and(|name| name.0.as_str() == topic.name));
    found.map_or(0, |found| found.partitions.iter().filter(|partition| counts(partition.error_code)).count())
}

/// Those that are there and have fewer partitions than they should. A partition without a leader is there all the same, and needs no
/// other in its place.
pub(super) fn too_small<'a>(topics: &[&'a TopicSpec], known: &MetadataResponse) -> Vec<&'a TopicSpec> {
    let is_too_small = |topic: &TopicSpec| (1..topic.partitions as usize).contains(&count(topic, known, |_| true));
    topics.iter().copied().filter(|topic| is_too_small(topic)).collect()
}

/// Whether all are there, with every partition that they should have, and each has a leader: who connects next may use it.
pub(super) fn are_usable(topics: &[&TopicSpec], known: &MetadataResponse) -> bool {
    topics.iter().all(|topic| count(topic, known, |code| code == 0) >= topic.partitions as usize)
}

#[cfg(test)]
mod tests {
    use acb_kafka::{
        ResponseError,
        kafka_protocol::{
            messages::{
                TopicName,
                metadata_response::{MetadataResponsePartition, MetadataResponseTopic},
            },
            protocol::StrBytes,
        },
    };

    use super::*;

    #[test]
    fn a_partition_without_a_leader_is_there_and_can_not_be_used() {
        let answer = |codes: &[i16]| {
            let partitions = codes.iter().map(|code| MetadataResponsePartition::default().with_error_code(*code)).collect();
            let name = Some(TopicName(StrBytes::from_static_str("acb.acme.notes")));
            let topic = MetadataResponseTopic::default().with_name(name).with_partitions(partitions);
            MetadataResponse::default().with_topics(vec![topic])
        };
        let notes = TopicSpec { name: "acb.acme.notes".to_owned(), partitions: 3, ..TopicSpec::default() };
        let other = TopicSpec { name: "acb.acme.other".to_owned(), ..notes.clone() };
        let leaderless = ResponseError::LeaderNotAvailable.code();
        for (codes, grows, serves) in
            [(&[0, 0, 0][..], false, true), (&[0, leaderless, 0], false, false), (&[0, 0], true, false), (&[], false, false)]
        {
            let known = answer(codes);
            assert_eq!(
                (too_small(&[&notes], &known).len(), are_usable(&[&notes], &known)),
                (usize::from(grows), serves),
                "{codes:?}"
            );
        }
        // What the brokers don't know yet is made, and not grown.
        let known = answer(&[0, 0, 0]);
        assert!(too_small(&[&other], &known).is_empty() && !are_usable(&[&notes, &other], &known));
    }
}
