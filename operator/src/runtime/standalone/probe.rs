//! One HTTP probe of a process on loopback, as a kubelet does it: any status from 200 to 399 is good.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A probe's answer is read up to here: the status, and the start of the reason.
pub(super) const ANSWER_BYTES: usize = 2048;

/// Asks, and answers with the body; the error says what was answered, or that nothing was. No more than `most` bytes of an answer are read.
pub async fn http_get(port: u16, path: &str, timeout: Duration, most: usize) -> Result<String, String> {
    match tokio::time::timeout(timeout, ask(port, path, most)).await {
        Ok(Ok(answer)) => judge(&answer),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer within {timeout:?}")),
    }
}

async fn ask(port: u16, path: &str, most: usize) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: acb-probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(most as u64).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn judge(answer: &[u8]) -> Result<String, String> {
    let answer = String::from_utf8_lossy(answer);
    let status: u16 = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    if (200..400).contains(&status) {
        return Ok(body.to_owned());
    }
    Err(if body.is_empty() { format!("answered {status}") } else { format!("answered {status}: {body}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(String::new()));
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n\r\nall is well\n"), Ok("all is well".into()));
        assert_eq!(judge(b"HTTP/1.1 503 x\r\n\r\nwaiting for the log"), Err("answered 503: waiting for the log".into()));
        assert_eq!(judge(b"nonsense"), Err("answered 0".into()));
    }
}
