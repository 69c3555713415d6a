//! What is sent later, as the wire shows it.

use std::time::Duration;

use acb_proto::v1::{
    CancelScheduledMessageRequest, ListScheduledMessagesRequest, ScheduleMessageRequest, WaitForUnreadRequest,
    mailbox_service_client::MailboxServiceClient, schedule_service_client::ScheduleServiceClient,
};
use tonic::Code;

use crate::{
    audit::records,
    hub::{Hub, reason, with},
    messages::to,
};

fn later(agent: &str, payload: &'static [u8], after: Duration) -> ScheduleMessageRequest {
    ScheduleMessageRequest { message: to(agent, payload).message, deliver_after: after.try_into().ok() }
}

#[tokio::test]
async fn a_message_is_sent_later_or_cancelled() {
    is_sent_later(&Hub::start().await).await;
}

/// What holds on either log.
pub async fn is_sent_later(hub: &Hub) {
    const HOUR: Duration = Duration::from_secs(3600);
    let (_, boris) = hub.agent("boris", "agent-consumer").await;
    let (_, olga) = hub.agent("olga", "observer").await;
    let (_, anna) = hub.agent("anna", "agent-producer").await;
    let mut schedule = ScheduleServiceClient::new(hub.channel());
    let mut mailbox = MailboxServiceClient::new(hub.channel());
    let soon =
        schedule.schedule_message(with(&anna, later("boris", b"soon", Duration::from_millis(300)))).await.unwrap().into_inner();
    let far = schedule.schedule_message(with(&anna, later("boris", b"in an hour", HOUR))).await.unwrap().into_inner();
    assert!(far.due_at.unwrap().seconds - soon.due_at.unwrap().seconds >= 3599 && !far.deduplicated);
    let timeout = Some(Duration::from_secs(20).try_into().unwrap());
    let wait = WaitForUnreadRequest { timeout, ..WaitForUnreadRequest::default() };
    let came = mailbox.wait_for_unread(with(&boris, wait)).await.unwrap().into_inner().messages;
    assert_eq!(
        came.iter().map(|message| (&message.id, &message.payload[..])).collect::<Vec<_>>(),
        [(&soon.message_id, &b"soon"[..])]
    );

    let waits = async |token: &str, all| {
        let request = ListScheduledMessagesRequest { all, ..ListScheduledMessagesRequest::default() };
        ScheduleServiceClient::new(hub.channel()).list_scheduled_messages(with(token, request)).await
    };
    let listed = waits(&anna, false).await.unwrap().into_inner().scheduled_messages;
    let [one] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&one.message_id, one.from.as_str(), one.size, one.due_at), (&far.message_id, "anna", 10, far.due_at));
    assert_eq!(one.to, to("boris", b"").message.unwrap().to);
    let refused = waits(&anna, true).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "ROLE_LACKS_PERMISSION"));
    for token in [&olga, &boris] {
        assert_eq!(waits(token, false).await.unwrap_err().code(), Code::PermissionDenied);
        let refused = schedule.schedule_message(with(token, later("boris", b"", HOUR))).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    for request in
        [later("boris", b"", Duration::ZERO), ScheduleMessageRequest { message: to("boris", b"").message, deliver_after: None }]
    {
        let refused = schedule.schedule_message(with(&anna, request)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, "DELIVERY_TIME_INVALID"));
    }

    let cancel = |id: &str| CancelScheduledMessageRequest { message_id: id.to_owned() };
    for before in [false, true] {
        let answer = schedule.cancel_scheduled_message(with(&anna, cancel(&far.message_id))).await.unwrap().into_inner();
        assert_eq!(answer.before, before);
    }
    for (id, code, why) in [
        (soon.message_id.as_str(), Code::FailedPrecondition, "SCHEDULED_MESSAGE_SENT"),
        ("00000000-0000-7000-8000-000000000000", Code::NotFound, "SCHEDULED_MESSAGE_NOT_FOUND"),
        ("x", Code::InvalidArgument, "MESSAGE_ID_INVALID"),
    ] {
        let refused = schedule.cancel_scheduled_message(with(&anna, cancel(id))).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, why));
    }
    assert!(waits(&anna, false).await.unwrap().into_inner().scheduled_messages.is_empty());
    let [outcome, _, agent, _, object, _] = records(hub, "ScheduleMessage", 1).await.swap_remove(0);
    assert_eq!((outcome.as_str(), agent.as_str(), object), ("done", "anna", format!("message {}", soon.message_id)));
    let [outcome, _, agent, _, object, _] = records(hub, "CancelScheduledMessage", 1).await.swap_remove(0);
    assert_eq!((outcome.as_str(), agent.as_str(), object), ("done", "anna", format!("message {}", far.message_id)));
    let fired = format!(r#"acb_timer_lateness_seconds_count{{tenant_id="{}"}} 1"#, hub.tenant.name());
    let waiting = format!(r#"acb_timers_waiting{{tenant_id="{}"}} 0"#, hub.tenant.name());
    hub.until("/metrics", |_, metrics| metrics.contains(&fired) && metrics.contains(&waiting)).await;
}
