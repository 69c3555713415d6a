//! Contexts through their versions, and those who follow some of them.

use std::time::{Duration, SystemTime};

use acb_sdk::{Code, ContextEvent, Scope, Since, Subscription, context_event::Kind};
use futures::TryStreamExt as _;
use tokio::time::timeout;

use crate::world::{LONG, client, client_at};

async fn next(subscription: &mut Subscription) -> ContextEvent {
    timeout(LONG, subscription.next()).await.expect("an event comes").unwrap()
}

#[tokio::test]
async fn who_follows_a_filter_hears_of_what_enters_leaves_and_goes() {
    let (author, reader) = (client_at("author", 0).await, client_at("librarian", 1).await);
    let filter = r#"context.creator == "author" && context.metadata["state"] == "final" && context.size > 3"#;
    let mut finals = reader.subscribe_matching("documents", filter, Since::Now).await.unwrap();
    let begun = SystemTime::now() - Duration::from_secs(1);

    let draft = author.share("documents", "draft").metadata("state", "draft").scope(Scope::Public).send().await.unwrap();
    let read = author.context(&draft.id).await.unwrap();
    let second = author.update(&read, "final").metadata("state", "final").send().await.unwrap();
    assert_eq!((second.version, second.metadata["state"].as_str()), (2, "final"));
    let event = next(&mut finals).await;
    assert_eq!((event.kind(), event.context.unwrap().payload.as_ref()), (Kind::Updated, &b"final"[..]));
    // The version that was read is not the current one any more.
    let stale = author.update(&read, "too late").send().await.unwrap_err();
    assert_eq!((stale.code(), stale.reason()), (Code::Aborted, "CONTEXT_VERSION_CONFLICT"));

    let listed: Vec<_> = reader.contexts_matching("documents", filter).try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|context| context.id.as_str()).collect::<Vec<_>>(), [draft.id.as_str()]);
    let read = author.context(&draft.id).await.unwrap();
    let third = author.update(&read, "x").content_type("text/x").ttl(Duration::from_secs(600)).send().await.unwrap();
    assert_eq!((third.version, third.content_type.as_str(), third.metadata["state"].as_str()), (3, "text/x", "final"));
    let event = next(&mut finals).await;
    let left = event.context.as_ref().unwrap();
    assert_eq!((event.kind(), &left.id, left.version, left.metadata.len()), (Kind::Left, &draft.id, 3, 0));

    author.delete_context(&draft.id).await.unwrap();
    assert_eq!(author.context(&draft.id).await.unwrap_err().code(), Code::NotFound);
    let last = author.share("documents", "last one").metadata("state", "final").send().await.unwrap();
    let event = next(&mut finals).await;
    assert_eq!((event.kind(), event.context.unwrap().id), (Kind::Created, last.id.clone()));

    // From a time, by another replica; and on from where it stands.
    let from = Since::Time(begun);
    let mut again = client_at("asker", 0).await.subscribe_matching("documents", filter, from).await.unwrap();
    let mut kinds = Vec::new();
    while !again.positions().iter().any(|position| finals.positions().contains(position)) || kinds.len() < 3 {
        kinds.push(next(&mut again).await.kind());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [Kind::Created, Kind::Updated, Kind::Left]);
    author.delete_context(&last.id).await.unwrap();
    let mut on =
        client("acme", "asker").await.subscribe_matching("documents", filter, Since::After(again.positions())).await.unwrap();
    assert_eq!(next(&mut on).await.kind(), Kind::Deleted);
}

#[tokio::test]
async fn a_filter_that_is_none_ends_a_subscription_and_is_not_tried_again() {
    let reader = client("acme", "librarian").await;
    let refused = reader.subscribe_matching("documents", "context.sise > 1", Since::Now).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::InvalidArgument, "FILTER_INVALID"));
    assert!(refused.message().contains("\n          ^") && refused.message().contains("column 9"), "{refused}");
}
