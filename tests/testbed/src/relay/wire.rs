//! Cuts what a client sends into requests, as far as it takes to know which is which: Kafka's, PostgreSQL's, HTTP's.

use std::collections::HashMap;

/// Nothing that an operator sends is larger.
const LARGEST: usize = 64 << 20;
/// PostgreSQL's protocol 3.0. What comes before it has no type.
const POSTGRES_START: u32 = 3 << 16;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Kafka's own.
    Kafka,
    /// PostgreSQL's, version 3.
    Postgres,
    /// HTTP/1.1.
    Http,
}

/// A request, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// Kafka: the name of the request. PostgreSQL: the statement that is run. HTTP: method and path. Empty: a part that asks for nothing.
    pub what: String,
    /// What it is about; of a COMMIT the whole transaction.
    pub content: Vec<u8>,
}

impl Request {
    /// Whether these bytes are in it.
    #[must_use]
    pub fn holds(&self, part: &[u8]) -> bool {
        !part.is_empty() && self.content.windows(part.len()).any(|window| window == part)
    }
}

/// What a client has sent on one connection.
#[derive(Debug)]
pub(super) struct Stream {
    protocol: Protocol,
    pub(super) unread: Vec<u8>,
    /// PostgreSQL's first message has no type.
    started: bool,
    statements: HashMap<Vec<u8>, String>,
    transaction: Vec<u8>,
}

impl Stream {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self { protocol, unread: Vec::new(), started: false, statements: HashMap::new(), transaction: Vec::new() }
    }

    /// The next whole request; none where more has to come.
    pub(super) fn next(&mut self) -> Result<Option<Request>, String> {
        let request = match self.protocol {
            Protocol::Kafka => self.kafka()?,
            Protocol::Postgres => self.postgres()?,
            Protocol::Http => self.http()?,
        };
        if request.is_none() && self.unread.len() > LARGEST {
            return Err(format!("{:?}: a request of more than {LARGEST} bytes", self.protocol));
        }
        Ok(request)
    }

    /// Takes so many bytes, where they are there.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        (self.unread.len() >= length).then(|| self.unread.drain(..length).collect())
    }

    fn number(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.unread.get(at..at + 4)?.try_into().ok()?))
    }

    fn kafka(&mut self) -> Result<Option<Request>, String> {
        let Some(length) = self.number(0) else { return Ok(None) };
        let Some(bytes) = self.take(length as usize + 4) else { return Ok(None) };
        let key = bytes.get(4..6).and_then(|key| key.try_into().ok()).map(i16::from_be_bytes);
        let what = match key {
            Some(3) => "Metadata",
            Some(17) => "SaslHandshake",
            Some(19) => "CreateTopics",
            Some(20) => "DeleteTopics",
            Some(29) => "DescribeAcls",
            Some(30) => "CreateAcls",
            Some(31) => "DeleteAcls",
            Some(32) => "DescribeConfigs",
            Some(36) => "SaslAuthenticate",
            Some(37) => "CreatePartitions",
            Some(44) => "IncrementalAlterConfigs",
            Some(48) => "DescribeClientQuotas",
            Some(49) => "AlterClientQuotas",
            Some(50) => "DescribeUserScramCredentials",
            Some(51) => "AlterUserScramCredentials",
            Some(_) => "another",
            None => return Err("Kafka: a request without a key".to_owned()),
        };
        Ok(Some(Request { what: what.to_owned(), content: bytes.clone(), bytes }))
    }

    fn postgres(&mut self) -> Result<Option<Request>, String> {
        if !self.started {
            let (Some(length), Some(code)) = (self.number(0), self.number(4)) else { return Ok(None) };
            let Some(bytes) = self.take(length as usize) else { return Ok(None) };
            self.started = code == POSTGRES_START;
            return Ok(Some(Request { bytes, ..Request::default() }));
        }
        let Some(length) = self.number(1) else { return Ok(None) };
        let Some(bytes) = self.take(length as usize + 1) else { return Ok(None) };
        let body = bytes.get(5..).unwrap_or_default();
        let mut words = body.split(|byte| *byte == 0);
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut request = Request { bytes: bytes.clone(), ..Request::default() };
        match bytes.first() {
            Some(b'Q') => {
                request.what = text(first);
                if request.what.starts_with("BEGIN") {
                    self.transaction.clear();
                }
                request.content = if request.what == "COMMIT" { std::mem::take(&mut self.transaction) } else { body.to_vec() };
            }
            Some(b'P') => drop(self.statements.insert(first.to_vec(), text(second))),
            Some(b'B') => {
                request.what = self.statements.get(second).cloned().unwrap_or_default();
                request.content = body.to_vec();
                self.transaction.extend(request.what.as_bytes());
                self.transaction.extend(body);
            }
            _ => {}
        }
        Ok(Some(request))
    }

    fn http(&mut self) -> Result<Option<Request>, String> {
        let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let mut length = 0;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(|error| format!("HTTP: Content-Length: {error}"))?,
                "transfer-encoding" => return Err("HTTP: a body in chunks".to_owned()),
                _ => {}
            }
        }
        let what = first.rsplit_once(" HTTP/").map_or(first, |(what, _)| what).to_owned();
        let Some(bytes) = self.take(end + 4 + length) else { return Ok(None) };
        let content = bytes.get(end + 4..).unwrap_or_default().to_vec();
        Ok(Some(Request { bytes, what, content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever pieces it comes in.
    fn requests(protocol: Protocol, bytes: &[u8]) -> Vec<Request> {
        let mut stream = Stream::new(protocol);
        let mut found = Vec::new();
        for byte in bytes {
            stream.unread.push(*byte);
            found.extend(stream.next().unwrap());
        }
        assert!(stream.unread.is_empty());
        assert_eq!(found.iter().flat_map(|request| request.bytes.clone()).collect::<Vec<_>>(), bytes);
        found
    }

    #[test]
    fn kafka_is_told_by_its_key() {
        let found = requests(Protocol::Kafka, b"\x00\x00\x00\x05\x00\x13abc\x00\x00\x00\x02\x00\x03");
        assert_eq!(found.iter().map(|request| request.what.as_str()).collect::<Vec<_>>(), ["CreateTopics", "Metadata"]);
        assert!(found[0].holds(b"abc") && !found[1].holds(b"abc"));
    }

    #[test]
    fn postgres_is_told_by_its_statements_and_a_commit_by_its_transaction() {
        let message = |kind: u8, body: &[u8]| {
            let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
            [&[kind], &length[..], body].concat()
        };
        let bytes = [
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f".to_vec(),
            b"\x00\x00\x00\x09\x00\x03\x00\x00\x00".to_vec(),
            message(b'Q', b"BEGIN\0"),
            message(b'P', b"s1\0INSERT INTO t\0\0\0"),
            message(b'B', b"\0s1\0\0\0acme"),
            message(b'Q', b"COMMIT\0"),
            message(b'Q', b"COMMIT\0"),
        ];
        let found = requests(Protocol::Postgres, &bytes.concat());
        assert_eq!(found.len(), 7);
        assert_eq!((found[4].what.as_str(), found[4].holds(b"acme")), ("INSERT INTO t", true));
        assert_eq!((found[5].what.as_str(), found[5].holds(b"acme"), found[5].holds(b"INSERT")), ("COMMIT", true, true));
        assert!(!found[6].holds(b"acme"));
    }

    #[test]
    fn http_is_told_by_its_first_line() {
        let found = requests(Protocol::Http, b"PATCH /a?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n");
        assert_eq!(found.iter().map(|request| request.what.as_str()).collect::<Vec<_>>(), ["PATCH /a?x=1", "GET /b"]);
        assert!(found[0].holds(b"abc"));
        let mut stream = Stream::new(Protocol::Http);
        stream.unread = b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        assert!(stream.next().is_err());
    }
}
