//! One question and its answer: HTTP/1.1 over TLS 1.3, on a connection of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{address::Reach, url::Url};

/// A question and its answer, all of it.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
pub const MAX_ANSWER: usize = 256 * 1024;

/// Asks.
#[derive(Clone)]
pub struct Https {
    tls: TlsConnector,
    reach: Reach,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Https").field("reach", &self.reach).finish_non_exhaustive()
    }
}

/// An answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    fn json(&self, url: &Url) -> Result<Answer, String> {
        let status = self.status.as_u16();
        // What it says of an error is shown to nobody: it may be of any size and language.
        let json =
            serde_json::from_slice(&self.body).map_err(|_| format!("{url}: it answers with status {status} and no JSON"))?;
        Ok(Answer { is_success: self.status.is_success(), status, json })
    }
}

/// An answer in JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether it is what was asked for, and no error.
    pub is_success: bool,
    /// The status.
    pub status: u16,
    /// What it says.
    pub json: Value,
}

impl Https {
    /// One that trusts these authorities (PEM), or the system's where there are none, and goes as far as this.
    ///
    /// # Errors
    /// Authorities that are none.
    pub fn new(authorities: Option<&str>, reach: Reach) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let added = certificate
                        .map_err(|error| error.to_string())
                        .and_then(|der| roots.add(der).map_err(|error| error.to_string()));
                    added.map_err(|error| format!("the authorities can't be used: {error}"))?;
                }
            }
            None => {
                // Some of the system's are of no use to anybody: the others count.
                let (_taken, _left_out) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err("there are no authorities that a certificate could be signed by".to_owned());
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), reach })
    }

    /// What becomes of this text, whatever the answer is. A redirect is an error.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn submit(&self, url: &Url, text: String) -> Result<Reply, String> {
        self.ask(Method::POST, url, Some(("text/plain; charset=utf-8", text.into())), None).await
    }

    /// What is there. Anything but 200 is an error, a redirect, too.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get(&self, url: &Url) -> Result<Value, String> {
        let answer = self.ask(Method::GET, url, None, None).await?.json(url)?;
        if answer.status == StatusCode::OK.as_u16() {
            Ok(answer.json)
        } else {
            Err(format!("{url} answers with status {}", answer.status))
        }
    }

    /// What becomes of this form. An error that is told in JSON is an answer. `basic` is a client and its secret.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&self, url: &Url, form: &[(&str, &str)], authorization: Option<&str>) -> Result<Answer, String> {
        let form: Vec<String> = form.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let form = ("application/x-www-form-urlencoded", form.join("&").into());
        self.ask(Method::POST, url, Some(form), authorization).await?.json(url)
    }

    async fn ask(
        &self,
        method: Method,
        url: &Url,
        body: Option<(&'static str, Bytes)>,
        authorization: Option<&str>,
    ) -> Result<Reply, String> {
        let asked = async {
            let stream = self.connect(url).await?;
            exchange(stream, method, url, body, authorization).await
        };
        timeout(DEADLINE, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
            .map_err(|why| format!("{url}: {why}"))
    }

    /// The address is looked at that the connection goes to, and a name is looked up once: it can't be another one in between.
    async fn connect(&self, url: &Url) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let found: Vec<SocketAddr> = match url.ip() {
            Some(ip) => vec![SocketAddr::new(ip, url.port())],
            None => lookup_host((url.host(), url.port())).await.map_err(|error| error.to_string())?.collect(),
        };
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(|address| self.reach.allows(address.ip())).collect();
        if allowed.is_empty() {
            let found: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            return Err(format!(
                "it is at {}, which is no public address, and the platform does not list its network",
                found.join(", ")
            ));
        }
        let stream = TcpStream::connect(allowed.as_slice()).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(url.host().to_owned()).map_err(|error| error.to_string())?;
        self.tls.connect(name, stream).await.map_err(|error| error.to_string())
    }
}

async fn exchange(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
    method: Method,
    url: &Url,
    body: Option<(&'static str, Bytes)>,
    authorization: Option<&str>,
) -> Result<Reply, String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(method)
        .uri(url.path())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("acb/", env!("CARGO_PKG_VERSION")));
    if let Some((content_type, _)) = &body {
        request = request.header(header::CONTENT_TYPE, *content_type);
    }
    if let Some(authorization) = authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let body = body.map(|(_, body)| body).unwrap_or_default();
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let asked = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                format!("the answer has more than {MAX_ANSWER} bytes")
            } else {
                error.to_string()
            }
        })?;
        Ok::<_, String>((status, body.to_bytes()))
    };
    // The connection is driven by who waits for its answer, and ends with it.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    let (status, body) = tokio::select! {
        biased;
        answer = asked => answer?,
        () = driven => return Err("the connection ended".to_owned()),
    };
    if status.is_redirection() {
        return Err(format!("it answers with a redirect (status {}), which is not followed", status.as_u16()));
    }
    Ok(Reply { status, body })
}

/// As forms and RFC 6749 want it: all but letters, digits and four signs is escaped.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_escaped() {
        assert_eq!(encoded("a b&c=d/ü~"), "a%20b%26c%3Dd%2F%C3%BC~");
    }

    #[test]
    fn without_authorities_nobody_is_asked() {
        for none in ["", "no certificate"] {
            assert!(Https::new(Some(none), Reach::Anywhere).is_err(), "{none}");
        }
    }
}
