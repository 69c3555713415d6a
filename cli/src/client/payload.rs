//! Payloads and other values, as they are written on a command line and shown.

use std::{
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime},
};

use acb_sdk::{Scope, address, system_time};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::output::{self, Exit, Failure};

/// The most that can be sent inline.
pub(super) const MOST: u64 = 1 << 20;

/// What `DATA` stands for: itself, `-` the standard input, `@file` a file, `@@text` a text that begins with `@`.
pub(super) fn data(argument: &str) -> Result<Vec<u8>, Failure> {
    match argument.strip_prefix('@') {
        Some(text) if text.starts_with('@') => Ok(text.as_bytes().to_vec()),
        Some(path) => {
            file(Path::new(path)).map_err(|failure| failure.with_hint("; a text that begins with @ is written with @@"))
        }
        None if argument == "-" => bounded("standard input", std::io::stdin().lock()),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

/// The content of a file; `-` is the standard input.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, Failure> {
    if path == Path::new("-") {
        return bounded("standard input", std::io::stdin().lock());
    }
    let name = path.display().to_string();
    bounded(&name, std::fs::File::open(path).map_err(|error| local(&name, &error))?)
}

/// The text of a file that is small by its kind, such as a certificate.
pub(super) fn text_of(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| local(&path.display().to_string(), &error))
}

fn bounded(name: &str, source: impl std::io::Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| local(name, &error))?;
    if bytes.len() as u64 > MOST {
        let message = format!(
            "{name}: more than 1 MiB can't be sent inline; share it with `acb context share`, and refer to the context with --about"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(bytes)
}

/// A local failure, for the file that it is about.
pub(super) fn local(name: &str, error: &std::io::Error) -> Failure {
    let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format_args!("{name}: {error}"))
}

/// What the bytes are, as far as can be told.
pub(super) fn content_type(bytes: &[u8]) -> &'static str {
    if std::str::from_utf8(bytes).is_ok() { "text/plain; charset=utf-8" } else { "application/octet-stream" }
}

/// `30s`, `5m`, `2h`, `1d`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "" | "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return Err("write a number and ms, s, m, h or d, such as 30s".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "write a number and a unit, such as 30s".to_owned())?;
    Ok(unit * number)
}

/// `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".to_owned()),
    }
}

/// `public`, `private`, `group:a,b`, `shared:a,b`.
pub(super) fn scope(text: &str) -> Result<Scope, String> {
    let names =
        |list: &str| list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    match text.split_once(':') {
        None if text == "public" => Ok(Scope::Public),
        None if text == "private" => Ok(Scope::Private),
        Some(("group", list)) if !names(list).is_empty() => Ok(Scope::Groups(names(list))),
        Some(("shared", list)) if !names(list).is_empty() => Ok(Scope::Agents(names(list))),
        _ => Err("write public, private, group:NAME[,NAME] or shared:AGENT[,AGENT]".to_owned()),
    }
}

/// In RFC 3339.
pub(super) fn time(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

/// The same without fractions of seconds: one width in a table.
pub(super) fn time_in_seconds(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default()
}

/// Where a message goes, as JSON.
pub(super) fn to(to: Option<&address::To>) -> Value {
    match to {
        Some(address::To::Agent(name)) => json!({"agent": name}),
        Some(address::To::Agents(agents)) => json!({"agents": agents.names}),
        Some(address::To::Group(name)) => json!({"group": name}),
        Some(address::To::All(_)) => json!({"all": true}),
        Some(address::To::Request(request)) => json!({"request": request.request_id}),
        None => Value::Null,
    }
}

/// Where a message goes, in a table.
pub(super) fn recipient(to: Option<&address::To>) -> String {
    match to {
        Some(address::To::Agent(name)) => name.clone(),
        Some(address::To::Agents(agents)) => agents.names.join(","),
        Some(address::To::Group(name)) => format!("group {name}"),
        Some(address::To::All(_)) => "all".to_owned(),
        Some(address::To::Request(_)) | None => "unknown".to_owned(),
    }
}

/// A time in RFC 3339, such as 2026-11-27T17:00:00Z.
pub(super) fn instant(text: &str) -> Result<SystemTime, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "write a time such as 2026-11-27T17:00:00Z".to_owned())?;
    Ok(time.into())
}

/// What a message is.
pub(super) fn kind(message: &acb_proto::v1::Message) -> String {
    message.r#type().as_str_name().trim_start_matches("MESSAGE_TYPE_").to_lowercase()
}

/// A message as JSON.
pub(super) fn message(message: &acb_proto::v1::Message) -> Value {
    let to = to(message.to.as_ref().and_then(|to| to.to.as_ref()));
    let mut view = json!({
        "id": message.id, "from": message.from, "to": to, "topic": message.topic, "contentType": message.content_type,
        "contextId": message.context_id, "correlationId": message.correlation_id, "metadata": message.metadata,
        "type": kind(message),
        "sentAt": system_time(message.sent_at).map(time), "traceparent": message.traceparent,
    });
    if !message.replayed_from.is_empty() {
        view["replayedFrom"] = json!(message.replayed_from);
    }
    attach(&mut view, &message.payload);
    view
}

/// Adds a payload to a JSON object: text as it is, anything else in hex.
pub(super) fn attach(view: &mut Value, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => view["payload"] = json!(text),
        Err(_) => view["payloadHex"] = json!(hex::encode(payload)),
    }
}

/// A message for a terminal. Further lines of its payload are indented: none of them looks like another message.
pub(super) fn received(message: &acb_proto::v1::Message) -> String {
    format!(
        "{}  {}  {}",
        output::cell(&message.from),
        output::cell(&message.topic),
        printable(&message.payload).replace('\n', "\n    ")
    )
}

/// A payload for a terminal.
pub(super) fn printable(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => output::printable(text),
        Err(_) => format!("({} bytes)", payload.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for text in ["", "s", "5 s", "-1s", "1w", "99999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn scopes() {
        assert_eq!(scope("group:a, b"), Ok(Scope::Groups(vec!["a".into(), "b".into()])));
        assert_eq!(scope("private"), Ok(Scope::Private));
        for text in ["", "group", "group:", "everyone", "shared:,"] {
            assert!(scope(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_payload_cannot_steer_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(printable(b"\xff\xfe"), "(2 bytes)");
        let forged = acb_proto::v1::Message {
            from: "worker\r\n".into(),
            topic: "a".into(),
            payload: b"hi\nadmin  orders  pay".to_vec().into(),
            ..Default::default()
        };
        assert_eq!(received(&forged), "worker\\u{d}   a  hi\n    admin  orders  pay");
    }
}
