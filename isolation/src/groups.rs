//! Against Kafka's consumer groups and transactions.

use std::time::{Duration, Instant};

use acb_kafka::{
    Call, Error, ResponseError,
    kafka_protocol::messages::{
        DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, InitProducerIdRequest, OffsetCommitRequest,
        OffsetFetchRequest, TopicName, TransactionalId,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    },
};
use tokio::time::sleep;

use crate::{
    attack::{Attack, Outcome},
    requests::{Ground, NO_PARTITION, Verdict, attack, permitted, settle, text},
};

/// For a broker that has just begun to look after a group.
const PATIENCE: Duration = Duration::from_secs(10);
const TRANSACTION_MS: i32 = 60_000;

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        attack("commit.group", "the neighbour's consumer groups moved", |mut g: Ground| async move {
            // Of a topic of one's own: nothing but the group is in the way. In a partition that it does not have: nothing is committed.
            let own = TopicName(text(format!("acb.{}.sys.messages", g.own_name)));
            let partition = OffsetCommitRequestPartition::default().with_partition_index(NO_PARTITION);
            let topic = OffsetCommitRequestTopic::default().with_name(own).with_partitions(vec![partition]);
            let commit = OffsetCommitRequest::default()
                .with_group_id(g.group())
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic]);
            // Not patiently: that there is no such partition is an answer, and would be asked for again.
            let answer = g.ask(&commit, 8).await?;
            let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
            let code = permitted(partition.map(|partition| partition.error_code), ResponseError::UnknownTopicOrPartition);
            Ok(settle(code, "an offset would have been committed"))
        }),
        attack("find.group", "where the neighbour's consumer groups are looked after", |mut g: Ground| async move {
            let request = FindCoordinatorRequest::default().with_key(g.group().0);
            Ok(settle(patiently(&mut g, &request, 2, |answer| Some(answer.error_code)).await?, "the coordinator"))
        }),
        attack("describe.group", "who reads the neighbour's topics", |mut g: Ground| async move {
            let request = DescribeGroupsRequest::default().with_groups(vec![g.group()]);
            let code = patiently(&mut g, &request, 4, |answer| answer.groups.first().map(|group| group.error_code));
            Ok(settle(code.await?, "the group was described"))
        }),
        attack("read.group-offsets", "how far the neighbour's consumers are", |mut g: Ground| async move {
            let request = OffsetFetchRequest::default().with_group_id(g.group()).with_topics(None);
            Ok(settle(patiently(&mut g, &request, 5, |answer| Some(answer.error_code)).await?, "the offsets"))
        }),
        attack("delete.group", "the neighbour's consumers begin anew", |mut g: Ground| async move {
            let request = DeleteGroupsRequest::default().with_groups_names(vec![g.group()]);
            let code = patiently(&mut g, &request, 1, |answer| answer.results.first().map(|group| group.error_code));
            // That there is none with this name is told to those alone who may delete it.
            Ok(settle(permitted(code.await?, ResponseError::GroupIdNotFound), "the group would have been deleted"))
        }),
        attack("transact.neighbour", "the neighbour's transactions fenced off", |g: Ground| async move {
            let id = format!("acb.{}.intruder", g.victim.tenant);
            transact(g, id).await
        }),
        attack("transact.own", "a transaction that everybody's readers wait for", |g: Ground| async move {
            let id = format!("acb.{}.intruder", g.own_name);
            transact(g, id).await
        }),
    ]
}

async fn transact(mut g: Ground, id: String) -> Verdict {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text(id))))
        .with_transaction_timeout_ms(TRANSACTION_MS);
    let code = g.ask(&request, 4).await?.error_code;
    // Who may is asked first: where the transactions are looked after is another question.
    Ok(match ResponseError::try_from_code(code) {
        Some(
            ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable | ResponseError::CoordinatorLoadInProgress,
        ) => Outcome::Succeeded("a transaction could have been begun".to_owned()),
        _ => settle(Some(code), "a transaction could have been begun"),
    })
}

/// Asks until the broker has begun to look after the group: it does from the first time that one asks who does. Whether one may ask that, the
/// answer shows too.
async fn patiently<R: Call + Sync>(
    g: &mut Ground,
    request: &R,
    version: i16,
    code: fn(&R::Response) -> Option<i16>,
) -> Result<Option<i16>, Error> {
    g.ask(&FindCoordinatorRequest::default().with_key(g.group().0), 2).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let code = code(&g.ask(request, version).await?);
        let retriable = code.and_then(ResponseError::try_from_code).is_some_and(|error| error.is_retriable());
        if !retriable || Instant::now() >= deadline {
            return Ok(code);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
