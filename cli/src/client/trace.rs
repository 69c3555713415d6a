//! `acb trace`: what happened to a message.

use std::time::SystemTime;

use acb_sdk::{MessageTrace, system_time, trace_event::Kind};
use serde_json::{Value, json};

use super::{Target, payload, refused};
use crate::output::{self, Failure, Output};

/// Shows what happened to a message: when and by which replica it was taken, logged, delivered, acknowledged, or put into the dead letters.
///
/// Of messages that this agent sent or is to receive; with the roles admin and auditor of all. The content is not shown. What happened in the last
/// second may be missing.
#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    #[command(flatten)]
    target: Target,
    /// As `acb send` and `acb receive` show it.
    message_id: String,
}

impl Trace {
    pub(super) async fn run(self, output: Output) -> Result<(), Failure> {
        let client = self.target.connect().await?;
        let trace = client
            .message_trace(&self.message_id)
            .await
            .map_err(|error| refused(&format!("message {:?}", self.message_id), &error))?;
        match output {
            Output::Document(syntax) => syntax.document(&view(&trace)),
            Output::Table { .. } => show(&trace),
        }
    }
}

/// Something that happened, by whom it was noted.
struct Step {
    at: Option<SystemTime>,
    what: &'static str,
    agent: String,
    replica: String,
    details: String,
}

/// What happened, in the order of its times. That the log took the message is the log's word, by its own clock.
fn steps(trace: &MessageTrace) -> Vec<Step> {
    let logged = Step {
        at: system_time(trace.logged_at),
        what: "logged",
        agent: String::new(),
        replica: String::new(),
        details: format!("at {}", trace.place),
    };
    let mut steps = vec![logged];
    steps.extend(trace.events.iter().map(|event| {
        let details = match event.kind() {
            Kind::Delivered | Kind::Redelivered => format!("attempt {}", event.attempt),
            Kind::Dead => event.reason.clone(),
            Kind::Unspecified | Kind::Accepted | Kind::Acknowledged => String::new(),
        };
        let (agent, replica) = (event.agent.clone(), event.replica.clone());
        Step { at: system_time(event.time), what: name(event.kind()), agent, replica, details }
    }));
    steps.sort_by_key(|step| (step.at, step.what != "accepted"));
    steps
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "unknown",
        Kind::Accepted => "accepted",
        Kind::Delivered => "delivered",
        Kind::Redelivered => "redelivered",
        Kind::Acknowledged => "acknowledged",
        Kind::Dead => "dead",
    }
}

fn show(trace: &MessageTrace) -> Result<(), Failure> {
    let to = payload::recipient(trace.to.as_ref().and_then(|to| to.to.as_ref()));
    let time = |at| system_time(at).map(payload::time).unwrap_or_default();
    let facts = [
        ("Message", trace.message_id.clone()),
        ("From", trace.from.clone()),
        ("To", to),
        ("Topic", trace.topic.clone()),
        ("Bytes", trace.size.to_string()),
        ("Correlation", trace.correlation_id.clone()),
        ("Trace", trace.traceparent.clone()),
        ("Expires", time(trace.expires_at)),
    ];
    let facts: Vec<(&str, String)> = facts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect();
    let widths = output::widths(&["", ""], &rows);
    rows.iter().try_for_each(|cells| output::row(&widths, cells))?;
    output::line("")?;
    let cells = |step: Step| {
        vec![step.at.map(payload::time).unwrap_or_default(), step.what.to_owned(), step.agent, step.replica, step.details]
    };
    output::table(&["TIME", "EVENT", "AGENT", "REPLICA", "DETAILS"], steps(trace).into_iter().map(cells).collect())?;
    if trace.recipients.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let recipient = |recipient: &acb_sdk::v1::TraceRecipient| {
        vec![recipient.agent.clone(), if recipient.acknowledged { "yes" } else { "no" }.to_owned()]
    };
    output::table(&["RECIPIENT", "ACKNOWLEDGED"], trace.recipients.iter().map(recipient).collect())?;
    match trace.more_recipients {
        0 => Ok(()),
        more => output::line(format_args!("and {more} more")),
    }
}

fn view(trace: &MessageTrace) -> Value {
    let time = |at| system_time(at).map(payload::time);
    let event = |event: &acb_sdk::v1::TraceEvent| {
        json!({
            "at": time(event.time), "event": name(event.kind()), "agent": event.agent, "replica": event.replica,
            "attempt": event.attempt, "reason": event.reason,
        })
    };
    let recipient =
        |recipient: &acb_sdk::v1::TraceRecipient| json!({"agent": recipient.agent, "acknowledged": recipient.acknowledged});
    json!({
        "messageId": trace.message_id, "from": trace.from, "to": payload::to(trace.to.as_ref().and_then(|to| to.to.as_ref())),
        "topic": trace.topic, "type": trace.r#type().as_str_name().trim_start_matches("MESSAGE_TYPE_").to_lowercase(),
        "bytes": trace.size, "correlationId": trace.correlation_id, "traceparent": trace.traceparent,
        "acceptedAt": time(trace.accepted_at), "loggedAt": time(trace.logged_at), "expiresAt": time(trace.expires_at),
        "place": trace.place, "events": trace.events.iter().map(event).collect::<Vec<_>>(),
        "recipients": trace.recipients.iter().map(recipient).collect::<Vec<_>>(), "moreRecipients": trace.more_recipients,
    })
}

#[cfg(test)]
mod tests {
    use acb_sdk::v1::TraceEvent;

    use super::*;

    #[test]
    fn that_it_was_logged_stands_where_it_happened() {
        let at = |seconds| {
            let mut time = TraceEvent::default().time.unwrap_or_default();
            time.seconds = seconds;
            Some(time)
        };
        let event =
            |kind: Kind, seconds| TraceEvent { time: at(seconds), kind: kind.into(), attempt: 1, ..TraceEvent::default() };
        let trace = MessageTrace {
            logged_at: at(10),
            place: "3-64".to_owned(),
            events: vec![event(Kind::Accepted, 10), event(Kind::Delivered, 11)],
            ..MessageTrace::default()
        };
        let steps: Vec<_> = steps(&trace).into_iter().map(|step| (step.what, step.details)).collect();
        let expected = [("accepted", ""), ("logged", "at 3-64"), ("delivered", "attempt 1")];
        assert_eq!(steps, expected.map(|(what, details)| (what, details.to_owned())));
    }
}
