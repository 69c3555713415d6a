//! Questions and their answers.

use std::time::{Duration, Instant};

use acb_sdk::{Code, Message};
use futures::future::join_all;

use crate::world::{LONG, client, client_at, next};

#[tokio::test]
async fn each_question_gets_its_own_answer_across_replicas() {
    let mut session = client_at("librarian", 0).await.session().open().await.unwrap();
    session.on("square", |number: u64, received| async move {
        received.reply(Message::answer().json(&(number * number))).await?;
        Ok(())
    });
    let answering = tokio::spawn(session.run());
    for replica in [0, 1] {
        let asker = client_at("asker", replica).await;
        let ask = |number: u64| {
            let question = Message::to_agent("librarian").topic("square").json(&number).correlation_id(format!("c{number}"));
            let asker = asker.clone();
            async move {
                let answer = asker.request(question, LONG).await.unwrap();
                assert_eq!(answer.json::<u64>().unwrap(), number * number);
                assert_eq!((answer.message().from.as_str(), answer.message().topic.as_str()), ("librarian", "square"));
                assert_eq!(answer.message().correlation_id, format!("c{number}"));
                assert_eq!(answer.failure(), None);
            }
        };
        join_all((0..30).map(ask)).await;
    }
    answering.abort();
}

#[tokio::test]
async fn an_answer_may_be_that_there_is_none() {
    let mut session = client("acme", "failing").await.session().open().await.unwrap();
    let asker = client("acme", "asker").await;
    let question = Message::to_agent("failing").topic("lookup").text("x");
    let (answer, ()) = tokio::join!(asker.request(question, LONG), async {
        let received = next(&mut session).await;
        received.reply(Message::failure("no such book")).await.unwrap();
        received.ack();
    });
    assert_eq!(answer.unwrap().failure(), Some("no such book"));
}

#[tokio::test]
async fn a_late_answer_is_refused_and_is_no_one_elses() {
    let mut session = client("acme", "slow").await.session().open().await.unwrap();
    let asker = client("acme", "asker").await;
    let question = |text: &str| Message::to_agent("slow").topic("lookup").text(text);
    let began = Instant::now();
    let error = asker.request(question("first"), Duration::from_millis(700)).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, "NO_REPLY"));
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(error.message().contains("reply_to"), "it says what to do: {error}");

    let late = next(&mut session).await;
    let (answer, ()) = tokio::join!(asker.request(question("second"), LONG), async {
        let second = next(&mut session).await;
        let refused = late.reply(Message::answer().text("late")).await.unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (Code::FailedPrecondition, "REQUEST_OVER"));
        second.reply(Message::answer().text("in time")).await.unwrap();
        late.ack();
        second.ack();
    });
    assert_eq!(answer.unwrap().message().payload.as_ref(), b"in time");
    let nobody = asker.request(Message::to_agent("nobody").topic("t"), LONG).await.unwrap_err();
    assert_eq!((nobody.code(), nobody.reason()), (Code::NotFound, "RECIPIENT_NOT_FOUND"));
}

#[tokio::test]
async fn an_answer_may_come_later_to_the_mailbox() {
    let asker = client("acme", "lonely").await;
    let mut worker = client("acme", "elder").await.session().open().await.unwrap();
    let question = Message::to_agent("elder").topic("later").text("?").reply_to_agent("lonely").correlation_id("7");
    asker.send(question).await.unwrap();
    let received = next(&mut worker).await;
    received.reply(Message::answer().text("!")).await.unwrap();
    received.ack();
    let answer = next(&mut asker.session().open().await.unwrap()).await;
    let message = answer.message();
    assert_eq!((message.payload.as_ref(), message.correlation_id.as_str(), message.topic.as_str()), (&b"!"[..], "7", "later"));
    answer.ack();
}
