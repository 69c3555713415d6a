//! The API over HTTP and JSON, as a shell script meets it.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::hub::Hub;

const LONG: Duration = Duration::from_secs(30);

/// An answer.
struct Told {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// How many answers came.
    answers: usize,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    /// The stable reason of a failure.
    fn reason(&self) -> String {
        let json = self.json();
        assert_eq!(json["error"]["code"], self.status, "{json}");
        json["error"]["details"][0]["reason"].as_str().unwrap_or_default().to_owned()
    }

    fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()
    }
}

/// What is sent to the hub as it is, and what comes until it closes.
async fn raw(hub: &Hub, request: &[u8]) -> Told {
    let mut stream = hub.http1().await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // What the hub refuses before it has read all of it may be cut off behind the answer.
    let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("the hub answers, and closes");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("there are headers");
    let headers = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer[end + 4..].to_vec();
    let chunked = headers.to_lowercase().contains("transfer-encoding: chunked");
    let answers = answer.windows(9).filter(|window| *window == b"HTTP/1.1 ").count();
    Told { status, headers, body: if chunked { unchunked(&body) } else { body }, answers }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

fn head(verb: &str, path: &str, token: Option<&str>, more: &str) -> String {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!("{verb} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{authorization}{more}\r\n")
}

async fn get(hub: &Hub, token: &str, path: &str) -> Told {
    raw(hub, head("GET", path, Some(token), "").as_bytes()).await
}

async fn send(hub: &Hub, token: Option<&str>, verb: &str, path: &str, body: impl AsRef<[u8]>) -> Told {
    send_with(hub, token, verb, path, body, "").await
}

async fn send_with(hub: &Hub, token: Option<&str>, verb: &str, path: &str, body: impl AsRef<[u8]>, more: &str) -> Told {
    let body = body.as_ref();
    let more = format!("content-type: application/json\r\ncontent-length: {}\r\n{more}", body.len());
    let mut request = head(verb, path, token, &more).into_bytes();
    request.extend_from_slice(body);
    raw(hub, &request).await
}

async fn post(hub: &Hub, token: &str, path: &str, body: Value) -> Told {
    send(hub, Some(token), "POST", path, body.to_string()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_sent_pulled_and_acknowledged() {
    let hub = Hub::start().await;
    let (alice, _) = hub.agent("alice", "agent-full").await;
    let (_, bob) = hub.agent("bob", "agent-full").await;
    let login = json!({ "apiKey": alice.api_key }).to_string();
    let tokens = send(&hub, None, "POST", "/v1/auth:exchangeToken", login).await.ok();
    let alice = tokens["accessToken"].as_str().unwrap();
    assert_eq!((&tokens["agent"], &tokens["tenant"]), (&json!("alice"), &json!(hub.tenant.name())));

    let payload = STANDARD.encode("hello, wörld");
    let message = json!({ "to": { "agent": "bob" }, "topic": "greeting", "type": "MESSAGE_TYPE_EVENT", "payload": payload });
    let key = "idempotency-key: once\r\nx-correlation-id: case-7\r\n";
    let first = send_with(&hub, Some(alice), "POST", "/v1/messages", message.to_string(), key).await;
    assert_eq!((first.header("x-correlation-id"), first.header("cache-control")), (Some("case-7"), Some("no-store")));
    let first = first.ok();
    let again = send_with(&hub, Some(alice), "POST", "/v1/messages", message.to_string(), key).await.ok();
    assert_eq!((&again["messageId"], &again["deduplicated"]), (&first["messageId"], &json!(true)));

    assert_eq!(get(&hub, &bob, "/v1/mailbox/messages:count?from=alice").await.ok()["messages"], "1");
    let pulled = post(&hub, &bob, "/v1/mailbox:pull", json!({ "receiver": "curl", "wait": "5s" })).await.ok();
    let delivery = &pulled["deliveries"][0];
    assert_eq!(delivery["message"]["payload"], payload);
    assert_eq!((&delivery["message"]["correlationId"], &delivery["message"]["from"]), (&json!("case-7"), &json!("alice")));
    let taken = json!({ "receiver": "curl", "deliveryIds": [delivery["deliveryId"]] });
    assert_eq!(post(&hub, &bob, "/v1/mailbox:acknowledge", taken).await.ok(), json!({}));
    // What was acknowledged is seen to be so within about a second.
    let deadline = std::time::Instant::now() + LONG;
    while get(&hub, &bob, "/v1/mailbox/messages:count").await.ok() != json!({}) {
        assert!(std::time::Instant::now() < deadline, "it is still unread");
    }
    let id = first["messageId"].as_str().unwrap();
    assert_eq!(get(&hub, alice, &format!("/v1/messages/{id}/trace")).await.ok()["trace"]["topic"], "greeting");
}

/// A subscription: what came of it so far.
struct Events {
    stream: TlsStream<TcpStream>,
    text: String,
}

impl Events {
    async fn open(hub: &Hub, token: &str, path: &str, more: &str) -> Self {
        let mut stream = hub.http1().await;
        stream.write_all(head("GET", path, Some(token), more).as_bytes()).await.unwrap();
        Self { stream, text: String::new() }
    }

    /// The next event: its id, its name and its data.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().to_owned()
                };
                let data = field("data: ");
                let found = (field("id: "), field("event: "), serde_json::from_str(&data).unwrap_or_default());
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return found;
                }
                continue;
            }
            let mut more = [0; 4096];
            let read = timeout(LONG, self.stream.read(&mut more)).await.expect("an event comes").unwrap();
            assert_ne!(read, 0, "the stream ended behind {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&more[..read]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_live_and_are_followed_without_a_gap() {
    let hub = Hub::start().await;
    hub.tenant.context_type("documents", 4).await;
    let mut row = hub.tenant.agent_row("alice");
    row.publishes = vec!["documents".to_owned()];
    row.subscribes = vec!["documents".to_owned()];
    let alice = hub.tenant.project(&row).await;
    let alice = hub.exchange(&alice.api_key).await.unwrap().access_token;
    let path = "/v1/contexts:subscribe?type=documents";
    let mut events = Events::open(&hub, &alice, path, "").await;
    let (from_nothing, _, event) = events.next().await;
    assert_eq!(event["kind"], "KIND_SUBSCRIBED");
    let new = json!({ "type": "documents", "payload": STANDARD.encode("one"), "metadata": { "n": "1" }, "ttl": "3600s" });
    let made = post(&hub, &alice, "/v1/contexts", new.clone()).await.ok();
    let id = made["id"].as_str().unwrap().to_owned();
    let (last, _, event) = events.next().await;
    assert_eq!((&event["kind"], &event["context"]["id"]), (&json!("KIND_CREATED"), &made["id"]));
    drop(events);
    // Who was cut off before the first change hears of it, too.
    assert_ne!(from_nothing, "", "an event without an id is where nobody goes on");
    let mut events = Events::open(&hub, &alice, path, &format!("last-event-id: {from_nothing}\r\n")).await;
    loop {
        let (_, _, event) = events.next().await;
        if event["kind"] == "KIND_CREATED" {
            assert_eq!(event["context"]["id"], made["id"]);
            break;
        }
    }
    drop(events);

    // While nobody listens.
    let changed = json!({ "version": "1", "payload": STANDARD.encode("two") }).to_string();
    let changed = send(&hub, Some(&alice), "PATCH", &format!("/v1/contexts/{id}"), changed).await.ok();
    assert_eq!((&changed["version"], &changed["id"]), (&json!("2"), &made["id"]));
    let mut events = Events::open(&hub, &alice, path, &format!("last-event-id: {last}\r\n")).await;
    loop {
        let (_, _, event) = events.next().await;
        if event["kind"] != "KIND_SUBSCRIBED" {
            assert_eq!((&event["kind"], &event["context"]["version"]), (&json!("KIND_UPDATED"), &json!("2")));
            break;
        }
    }

    let access = json!({ "access": { "scope": "SCOPE_PRIVATE" } });
    let private = post(&hub, &alice, &format!("/v1/contexts/{id}:setAccess"), access).await.ok();
    assert_eq!(private["access"]["scope"], "SCOPE_PRIVATE");
    assert_eq!(get(&hub, &alice, &format!("/v1/contexts/{id}")).await.ok()["payload"], STANDARD.encode("two"));
    let second = post(&hub, &alice, "/v1/contexts", new).await.ok();
    let page = get(&hub, &alice, "/v1/contexts?type=documents&pageSize=1").await.ok();
    assert_eq!(page["contexts"].as_array().unwrap().len(), 1);
    let next = page["nextPageToken"].as_str().unwrap().replace('+', "%2B");
    let rest = get(&hub, &alice, &format!("/v1/contexts?type=documents&page_token={next}")).await.ok();
    assert_eq!(rest["contexts"].as_array().unwrap().len(), 1, "{rest}");
    let filter = "/v1/contexts?filter=context.id%20%3D%3D%20%22none%22";
    assert_eq!(get(&hub, &alice, filter).await.reason(), "FILTER_INVALID", "there is no such field");
    for id in [&id, second["id"].as_str().unwrap()] {
        assert_eq!(raw(&hub, head("DELETE", &format!("/v1/contexts/{id}"), Some(&alice), "").as_bytes()).await.ok(), json!({}));
        assert_eq!(get(&hub, &alice, &format!("/v1/contexts/{id}")).await.status, 404);
    }
    let not_for_her = get(&hub, &alice, "/v1/contexts:subscribe?type=nothing").await;
    assert_eq!((not_for_her.status, not_for_her.reason().as_str()), (403, "CONTEXT_TYPE_NOT_SUBSCRIBED"));
    // A stream that ends before its time says why.
    row.suspended = true;
    hub.tenant.project_without_key(&row).await;
    loop {
        let (_, name, event) = events.next().await;
        if name == "error" {
            assert_eq!(event["error"]["status"], "UNAUTHENTICATED", "{event}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_said() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let (_, observer) = hub.agent("eve", "observer").await;
    for (verb, path, status, reason) in [
        ("GET", "/", 404, "NO_SUCH_PATH"),
        ("GET", "/v1/agents/", 404, "NO_SUCH_PATH"),
        ("GET", "/v1/agents/a/../b", 404, "NO_SUCH_PATH"),
        ("GET", "/v1/agents/%00", 400, "URL_INVALID"),
        ("GET", "/v1/agents/%zz", 400, "URL_INVALID"),
        ("GET", "/v1/agents/a%2Fb", 404, "AGENT_NOT_FOUND"),
        ("GET", "/v1/agents?pageSize=x", 400, "FIELD_INVALID"),
        ("GET", "/v1/agents?size=1", 400, "FIELD_UNKNOWN"),
        ("GET", "/v1/deadLetters?filter.reason=NO", 400, "FIELD_INVALID"),
        ("GET", "/v1/deadLetters?filter.reason.x=NO", 400, "FIELD_UNKNOWN"),
        ("GET", "/v1/deadLetters?filter.since=today", 400, "FIELD_INVALID"),
        ("PUT", "/v1/agents", 405, "NO_SUCH_METHOD"),
        ("GET", "/v1/mailbox:pull", 405, "NO_SUCH_METHOD"),
        ("POST", "/acb.v1.AgentRegistry/Heartbeat", 404, "NO_SUCH_PATH"),
    ] {
        let told = raw(&hub, head(verb, path, Some(&token), "").as_bytes()).await;
        assert_eq!((told.status, told.reason().as_str()), (status, reason), "{verb} {path}");
    }
    let openapi = raw(&hub, head("GET", "/openapi.json", None, "").as_bytes()).await.ok();
    assert_eq!(
        (&openapi["openapi"], &openapi["paths"]["/v1/messages"]["post"]["operationId"]),
        (&json!("3.1.0"), &json!("SendMessage"))
    );
    let put = raw(&hub, head("PUT", "/v1/agents", Some(&token), "").as_bytes()).await;
    assert_eq!(put.header("allow"), Some("GET"));
    let unknown = raw(&hub, head("GET", "/v1/agents", None, "").as_bytes()).await;
    assert_eq!((unknown.status, unknown.reason().as_str()), (401, "TOKEN_REQUIRED"));
    assert_eq!(unknown.header("www-authenticate"), Some("Bearer"));
    let message = json!({ "to": { "agent": "alice" } });
    assert_eq!(post(&hub, &observer, "/v1/messages", message.clone()).await.status, 403);
    let zipped = "content-encoding: gzip\r\n";
    let zipped = send_with(&hub, Some(&token), "POST", "/v1/messages", message.to_string(), zipped).await;
    let form = "content-type: text/plain\r\ncontent-length: 2\r\n";
    let form = raw(&hub, (head("POST", "/v1/messages", Some(&token), form) + "{}").as_bytes()).await;
    assert_eq!((form.status, form.reason().as_str()), (415, "CONTENT_TYPE_UNSUPPORTED"));
    assert_eq!((zipped.status, zipped.reason().as_str()), (415, "CONTENT_TYPE_UNSUPPORTED"));
    let twice = json!({ "to": { "agent": "alice" }, "idempotencyKey": "a" }).to_string();
    let twice = send_with(&hub, Some(&token), "POST", "/v1/messages", twice, "idempotency-key: b\r\n").await;
    assert_eq!(twice.reason(), "IDEMPOTENCY_KEY_TWICE");
    let cursor = raw(&hub, head("GET", "/v1/contexts:subscribe?type=x", Some(&token), "last-event-id: 7\r\n").as_bytes()).await;
    assert_eq!(cursor.reason(), "CURSOR_INVALID");

    assert_eq!(post(&hub, &token, "/v1/messages?message.to.agent=eve", message).await.reason(), "QUERY_UNSUPPORTED");
    for twice in ["/v1/agents?pageSize=1&pageSize=2", "/v1/agents/alice?name=eve"] {
        assert_eq!(get(&hub, &token, twice).await.reason(), "FIELD_TWICE", "{twice}");
    }
    let other = json!({ "id": "other" }).to_string();
    let told = send(&hub, Some(&token), "PATCH", "/v1/contexts/this", other).await;
    assert_eq!(told.reason(), "FIELD_TWICE");
    let grpc = "content-type: application/grpc\r\ncontent-length: 5\r\n";
    let mut watch = head("POST", "/grpc.health.v1.Health/Watch", None, grpc).into_bytes();
    watch.extend_from_slice(&[0; 6]);
    assert_eq!(raw(&hub, &watch).await.status, 505);
    let beat = raw(&hub, head("POST", "/v1/agents:heartbeat", Some(&token), "").as_bytes()).await.ok();
    assert_eq!(beat["intervalSeconds"], 30, "a request with nothing in it needs no body");

    let deep = format!("{{\"to\":{}1{}}}", "{\"replyTo\":".repeat(500), "}".repeat(500));
    let lists = format!("{{\"metadata\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for wrong in [
        &b"[]"[..],
        b"7",
        b"null",
        b"\"text\"",
        b"{",
        b"{} {}",
        b"{\"to\": {\"agent\": 7}}",
        b"{\"to\": {\"agent\": \"a\", \"group\": \"b\"}}",
        b"{\"unknown\": 1}",
        b"{\"topic\": \"a\", \"topic\": \"b\"}",
        b"{\"contentType\": \"a\", \"content_type\": \"b\"}",
        b"{\"topic\": NaN}",
        b"{\"type\": \"NO_SUCH_TYPE\"}",
        b"{\"type\": 99999999999}",
        b"{\"payload\": \"%%%\"}",
        b"{\"topic\": \"\xff\xfe\"}",
        b"{\"topic\": \"\\ud800\"}",
        b"{\"expiresAt\": \"tomorrow\"}",
        b"{\"expiresAt\": \"2026-02-30T00:00:00Z\"}",
        b"{\"metadata\": {\"a\": 1}}",
        deep.as_bytes(),
        lists.as_bytes(),
    ] {
        let told = send(&hub, Some(&token), "POST", "/v1/messages", wrong).await;
        let shown: String = String::from_utf8_lossy(wrong).chars().take(60).collect();
        assert_eq!((told.status, told.reason().as_str()), (400, "JSON_INVALID"), "{shown}");
    }
    // Both alphabets of base64 are read, as ProtoJSON has it.
    for payload in ["-_8", "+/8="] {
        let message = json!({ "to": { "agent": "alice" }, "payload": payload });
        post(&hub, &token, "/v1/messages", message).await.ok();
    }
    let unread = get(&hub, &token, "/v1/mailbox/messages").await.ok();
    assert_eq!(unread["messages"].as_array().unwrap().iter().map(|message| &message["payload"]).collect::<Vec<_>>(), ["+/8="; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_no_larger_than_it_may_be_however_it_comes() {
    const MIB: usize = 1024 * 1024;
    let hub = Hub::start().await;
    let (agent, token) = hub.agent("alice", "agent-full").await;
    let before = hub.resident();
    let large = json!({ "to": { "agent": "alice" }, "payload": STANDARD.encode(vec![7; 2 * MIB]) }).to_string();
    let told = send(&hub, Some(&token), "POST", "/v1/messages", &large).await;
    assert_eq!((told.status, told.reason().as_str()), (413, "REQUEST_TOO_LARGE"));
    let announced = format!("content-type: application/json\r\ncontent-length: {}\r\n", 3 * MIB);
    let told = raw(&hub, head("POST", "/v1/messages", Some(&token), &announced).as_bytes()).await;
    assert_eq!((told.status, told.reason().as_str()), (413, "REQUEST_TOO_LARGE"), "nothing of it needs to come");
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let mut request = head("POST", "/v1/messages", Some(&token), chunked).into_bytes();
    for piece in large.as_bytes().chunks(64 * 1024) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let told = raw(&hub, &request).await;
    assert_eq!((told.status, told.reason().as_str()), (413, "REQUEST_TOO_LARGE"));
    // A stranger has less.
    let login = json!({ "apiKey": format!("{}{}", agent.api_key, " ".repeat(17 * 1024)) }).to_string();
    let told = send(&hub, None, "POST", "/v1/auth:exchangeToken", login).await;
    assert_eq!((told.status, told.reason().as_str()), (413, "REQUEST_TOO_LARGE"));
    // The largest message goes through, there and back.
    let payload = STANDARD.encode(vec![7; MIB - 1024]);
    let message = json!({ "to": { "agent": "alice" }, "payload": payload });
    post(&hub, &token, "/v1/messages", message).await.ok();
    let pulled = post(&hub, &token, "/v1/mailbox:pull", json!({ "receiver": "curl" })).await.ok();
    assert_eq!(pulled["deliveries"][0]["message"]["payload"], payload);
    assert!(hub.resident() < before + 32 * MIB, "{} to {}", before, hub.resident());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_strange_http_is_refused_and_nothing_is_smuggled() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let many = head("GET", "/v1/agents", Some(&token), &"x-more: 1\r\n".repeat(10_000));
    assert_eq!(raw(&hub, many.as_bytes()).await.status, 431);
    let long = head("GET", &format!("/v1/agents?filter={}", "x".repeat(64 * 1024)), Some(&token), "");
    assert!([414, 431].contains(&raw(&hub, long.as_bytes()).await.status));
    // What a proxy before the hub takes for the body of the first request, the hub must not take for a second one.
    let second =
        format!("GET /v1/agents HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    let json = "content-type: application/json\r\n";
    for (lengths, status) in [
        // The chunks count (RFC 9112, 6.3), and nothing that comes behind them does.
        (format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", second.len()), 200),
        (format!("content-length: {}\r\ncontent-length: 0\r\n", second.len()), 400),
        ("transfer-encoding: chunked, identity\r\n".to_owned(), 400),
        ("transfer-encoding: \u{b}chunked\r\n".to_owned(), 400),
        ("content-length: +3\r\n".to_owned(), 400),
    ] {
        let first = format!(
            "POST /v1/agents:heartbeat HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n{json}{lengths}\r\n0\r\n\r\n"
        );
        let told = raw(&hub, format!("{first}{second}").as_bytes()).await;
        assert_eq!((told.status, told.answers), (status, 1), "{lengths:?}: {}", String::from_utf8_lossy(&told.body));
    }
    // In order, one after another, is no smuggling.
    let pipelined = second.replace("connection: close\r\n", "") + &second;
    let told = raw(&hub, pipelined.as_bytes()).await;
    assert_eq!((told.status, told.answers), (200, 2));
    get(&hub, &token, "/v1/agents").await.ok();
}

/// Nothing of what comes is read while an answer is open, and so nothing that comes ends such a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_keeps_no_connection_by_asking_ahead() {
    let hub = Hub::start().await;
    let mut stream = hub.http1().await;
    // More than the connection takes, of which nothing is read here.
    let ask = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(200);
    stream.write_all(ask.as_bytes()).await.unwrap();
    let began = std::time::Instant::now();
    let open = |metrics: &str| {
        let line = metrics.lines().find(|line| line.starts_with("acb_connections{") || line.starts_with("acb_connections "));
        line.unwrap().rsplit_once(' ').unwrap().1.to_owned()
    };
    hub.until("/metrics", |_, metrics| open(metrics) == "1").await;
    hub.until("/metrics", |_, metrics| open(metrics) == "0").await;
    assert!(began.elapsed() > Duration::from_secs(5), "it was there for a while");
}
