//! One HTTP probe of a process on loopback, as a kubelet does it: any status from 200 to 399 is good.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An answer is read up to here: the status, and the start of the reason.
const ANSWER_BYTES: u64 = 2048;

/// Asks; the error says what was answered, or that nothing was.
pub async fn http_get(port: u16, path: &str, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(port, path)).await {
        Ok(Ok(answer)) => judge(&answer),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer within {timeout:?}")),
    }
}

async fn ask(port: u16, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: acb-probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn judge(answer: &[u8]) -> Result<(), String> {
    let answer = String::from_utf8_lossy(answer);
    let status: u16 = answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    if (200..400).contains(&status) {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    Err(if body.is_empty() { format!("answered {status}") } else { format!("answered {status}: {body}") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_answer_is_judged_by_its_status() {
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
        assert_eq!(judge(b"HTTP/1.1 503 x\r\n\r\nwaiting for the log"), Err("answered 503: waiting for the log".into()));
        assert_eq!(judge(b"nonsense"), Err("answered 0".into()));
    }
}
