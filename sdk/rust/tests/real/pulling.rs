//! Receiving by calls, and looking without taking: each call may come to another replica.

use std::time::Duration;

use acb_sdk::{Letters, Message};
use futures::TryStreamExt as _;

use crate::world::{LONG, client, client_at, until};

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_pulled_here_may_be_acknowledged_there() {
    let sender = client("acme", "asker").await;
    for number in 0..4 {
        sender.send(Message::to_agent("pulls").topic("n").json(&number)).await.unwrap();
    }
    let clients = [client_at("pulls", 0).await, client_at("pulls", 1).await];
    assert_eq!(clients[1].unread("asker").try_collect::<Vec<_>>().await.unwrap().len(), 4);
    let mut pullers = clients.each_ref().map(|client| client.puller().receiver("the program"));
    let mut seen = Vec::new();
    for turn in 0.. {
        let pulled = pullers[turn % 2].pull(2, WAIT).await.unwrap();
        pullers[(turn + 1) % 2].acknowledge(&pulled).await.unwrap();
        for one in pulled {
            if !seen.contains(&one.message.payload) {
                seen.push(one.message.payload);
            }
        }
        if seen.len() == 4 {
            break;
        }
    }
    assert_eq!(seen, ["0", "1", "2", "3"]);
    until("all of it is acknowledged", async || (clients[0].count_unread("").await.unwrap().messages == 0).then_some(())).await;
    let mut watch = clients[1].watch_unread("");
    let (next, sent) =
        tokio::join!(tokio::time::timeout(LONG, watch.next()), sender.send(Message::to_agent("pulls").topic("n").json(&4)));
    assert_eq!(next.unwrap().unwrap().id, sent.unwrap().message_id);
    // A session of another program, which does not take over, is refused; by default it does.
    let refused = clients[1].session().take_over(false).open().await.unwrap_err();
    assert_eq!(refused.reason(), "RECEIVER_PRESENT", "{refused}");
    let mut session = clients[1].session().open().await.unwrap();
    assert_eq!(crate::world::next(&mut session).await.json::<u32>().unwrap(), 4);
    assert!(clients[0].dead_letters(Letters::all()).try_collect::<Vec<_>>().await.unwrap().is_empty());
}
