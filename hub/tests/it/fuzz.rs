//! Random requests by random callers of one tenant, at its own hub and at its neighbour's. Each answer is held against the table of permissions and
//! searched for what only the neighbour may know; at the end the neighbour has what it had.
//!
//! `ACB_FUZZ_REQUESTS` makes more of them than 10,000, `ACB_FUZZ_SEED` others, and `ACB_FUZZ_ONLY` the one with this number alone.

use std::{env, sync::Arc, time::Duration};

use acb_hub_core::{
    directory::agent::Role,
    door::rules::{Requirement, Rule, of_grpc},
};
use acb_proto::v1::{
    CreateContextRequest, OutgoingMessage, ScheduleMessageRequest, Scope, SendMessageRequest,
    context_service_client::ContextServiceClient, message_service_client::MessageServiceClient,
    schedule_service_client::ScheduleServiceClient,
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sqlx::{Connection as _, Row as _};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    hub::{Hub, reason, with},
    permissions::{expired, needed},
    wire::{Contract, Field, Method, Random, body, encode, shown, smaller},
};

/// What a call that is let in may take: some wait for something, and are let go then.
const LET_IN: Duration = Duration::from_millis(250);
/// A refusal comes at once. This long only where the machine is busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);
/// In all that the neighbour alone may know.
const CANARY: &str = "canary-7f3a9c";
const AT_A_TIME: usize = 8;
const AT_THE_DOOR: [&str; 5] = ["TOKEN_REQUIRED", "TOKEN_INVALID", "TOKEN_EXPIRED", "TENANT_SUSPENDED", "ROLE_LACKS_PERMISSION"];

/// Rows of the neighbour that nothing in here may touch. What it writes of its own, or of who knocks at its door, is not among them.
const KEPT: [&str; 17] = [
    "tenant",
    "context_type",
    "agent",
    "group_member",
    "api_key",
    "registered_agent",
    "registered_key",
    "refresh_token",
    "mailbox",
    "cursor",
    "dead_letter",
    "lease",
    "timer",
    "upload",
    "chunk",
    "context",
    "service_account",
];

/// Who calls.
#[derive(Clone)]
struct Caller {
    name: String,
    token: String,
    /// Of one that is let in at its own hub.
    role: Option<Role>,
}

/// One request.
struct Try {
    caller: Caller,
    method: Method,
    /// At the neighbour's hub, and not at one's own.
    abroad: bool,
    messages: Vec<Vec<Field>>,
    /// Cut short: no protobuf, most likely.
    damaged: bool,
}

struct World {
    own: Hub,
    theirs: Hub,
    callers: Vec<Caller>,
    words: Vec<String>,
    contract: Contract,
}

impl World {
    async fn start() -> Self {
        let (own, theirs) = (Hub::start().await, Hub::start().await);
        let mut callers = Vec::new();
        for role in Role::ALL {
            let (_, token) = own.agent(&format!("as-{}", role.as_str()), role.as_str()).await;
            callers.push(Caller { name: role.as_str().to_owned(), token, role: Some(role) });
        }
        for (name, token) in strangers(&own).await {
            callers.push(Caller { name: name.to_owned(), token, role: None });
        }
        let words = [hostile(), known_of(&theirs).await, vec!["as-agent-full".to_owned(), "notes".to_owned()]].concat();
        Self { own, theirs, callers, words, contract: Contract::read() }
    }

    /// The request of this number: the same each time.
    fn request(&self, seed: u64, number: u64) -> Try {
        let mut random = Random::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let method = random.pick(&self.contract.methods).clone();
        let caller = random.pick(&self.callers).clone();
        let abroad = random.below(2) == 0;
        let times = if method.asks_many { 1 + random.below(3) } else { 1 };
        let messages = (0..times).map(|_| self.contract.request(&method, &self.words, &mut random)).collect();
        Try { caller, method, abroad, messages, damaged: random.below(20) == 0 }
    }
}

/// Texts that have been somebody's undoing.
fn hostile() -> Vec<String> {
    let mut words: Vec<String> = [
        "",
        " ",
        "*",
        ".",
        "..",
        "../../etc/passwd",
        "/",
        "\\",
        "\0",
        "a\0b",
        "'",
        "\"",
        "' OR '1'='1",
        "'; DROP TABLE acb.agent; --",
        "%",
        "_",
        "%s%n",
        "$1",
        "{{7*7}}",
        "\u{202e}",
        "\u{feff}",
        "аcme",
        "ａｃｍｅ",
        "acme.",
        "acme/alice",
        "acb.acme.sys.messages",
        "sys",
        "-1",
        "0",
        "1e309",
        "NaN",
        "true",
        "null",
        "[]",
        "{}",
        "[\"a\"]",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "1970-01-01T00:00:00Z",
        "message.topic == 'x' || true",
        "true && (",
        "size(message.topic) > 0",
        "acb_000000000000_0000000000000000000000000000000000000000000",
        "application/json",
        "text/plain",
        "admin",
        "Admin",
        "eyJhbGciOiJub25lIn0.e30.",
    ]
    .map(str::to_owned)
    .to_vec();
    words.extend(["a".repeat(64), "a".repeat(201), "é".repeat(5000), "\u{1f980}".repeat(65)]);
    words
}

/// Who is refused at every door.
async fn strangers(own: &Hub) -> Vec<(&'static str, String)> {
    let (alice, token) = own.agent("gone", "admin").await;
    own.tenant.remove(alice.id).await;
    let (other, fresh) = own.agent("late", "admin").await;
    let expired = expired(own, acb_hub_core::directory::agent::AgentId(other.id), &other.api_key);
    let (_, suspended) = own.agent("suspended", "admin").await;
    let mut row = own.tenant.agent_row("suspended");
    row.suspended = true;
    own.tenant.project(&row).await;
    // Of a third tenant, so that nobody may do anything with it here.
    let (_, foreign) = Hub::start().await.agent("alice", "admin").await;
    vec![
        ("nobody", String::new()),
        ("a removed agent", token),
        ("an expired token", expired),
        ("a suspended agent", suspended),
        ("a third tenant's agent", foreign),
        ("a changed token", format!("{fresh}x")),
        ("an API key as the token", other.api_key),
    ]
}

/// Fills the neighbour with what nobody else may know. What of it others may know, by name or by id.
async fn known_of(theirs: &Hub) -> Vec<String> {
    theirs.tenant.context_type("notes", 1).await;
    let mut row = theirs.tenant.agent_row("bob");
    row.publishes = vec!["notes".to_owned()];
    row.subscribes = vec!["notes".to_owned()];
    row.groups = vec!["guards".to_owned()];
    row.metadata = serde_json::json!({"note": CANARY});
    row.capabilities = vec![CANARY.to_owned()];
    row.location = CANARY.to_owned();
    let bob = theirs.tenant.project(&row).await;
    let token = theirs.exchange(&bob.api_key).await.unwrap().access_token;
    let (hidden, _) = theirs.agent(&format!("{CANARY}-agent"), "agent-full").await;
    let access = acb_proto::v1::Access { scope: Scope::Public.into(), ..Default::default() };
    let create =
        CreateContextRequest { r#type: "notes".to_owned(), payload: CANARY.into(), access: Some(access), ..Default::default() };
    let context = ContextServiceClient::new(theirs.channel()).create_context(with(&token, create)).await.unwrap().into_inner();
    let message = || OutgoingMessage {
        to: Some(acb_proto::v1::Address { to: Some(acb_proto::v1::address::To::Agent("bob".to_owned())) }),
        topic: CANARY.to_owned(),
        r#type: acb_proto::v1::MessageType::Event.into(),
        payload: CANARY.into(),
        ..Default::default()
    };
    let mut messages = MessageServiceClient::new(theirs.channel());
    let sent = messages.send_message(with(&token, SendMessageRequest { message: Some(message()) })).await.unwrap().into_inner();
    let later = ScheduleMessageRequest {
        message: Some(message()),
        deliver_after: Some(prost_types::Duration { seconds: 500_000, nanos: 0 }),
    };
    let scheduled =
        ScheduleServiceClient::new(theirs.channel()).schedule_message(with(&token, later)).await.unwrap().into_inner();
    let mut known =
        vec!["bob".to_owned(), "guards".to_owned(), theirs.tenant.name().to_owned(), theirs.tenant.id_hex().to_owned()];
    known.extend([bob.id.to_string(), hidden.id.to_string(), context.id, sent.message_id, scheduled.message_id]);
    known.push(format!("{}/bob", theirs.tenant.name()));
    known
}

/// What the neighbour has.
async fn kept(theirs: &Hub) -> Vec<(String, i64, String)> {
    let mut superuser = acb_testbed::Postgres::shared().await.superuser().await;
    let mut all = Vec::new();
    for table in KEPT {
        let sql = format!(
            "SELECT count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM acb.{table} AS t WHERE encode(tenant_id, 'hex') = '{}'",
            theirs.tenant.id_hex()
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut superuser).await.unwrap();
        all.push((table.to_owned(), row.get(0), row.get(1)));
    }
    superuser.close().await.unwrap();
    all
}

/// The same, once what it was sent is where it stays.
async fn settled(theirs: &Hub) -> Vec<(String, i64, String)> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut last = Vec::new();
    loop {
        let now = kept(theirs).await;
        if now == last && now.iter().any(|(table, count, _)| table == "mailbox" && *count > 0) {
            return now;
        }
        assert!(Instant::now() < deadline, "what was sent is in no mailbox: {now:?}");
        last = now;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Connections that are kept, one for each that calls at a time.
struct Lines<'a> {
    world: &'a World,
    own: Option<SendRequest<Full<Bytes>>>,
    theirs: Option<SendRequest<Full<Bytes>>>,
}

/// What came back.
#[derive(Default)]
struct Answer {
    reason: String,
    /// Whether it was an answer that was asked for.
    is_success: bool,
    bytes: Vec<u8>,
    /// Nothing came before it was let go.
    is_open: bool,
    hung_up: bool,
}

impl<'a> Lines<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, own: None, theirs: None }
    }

    async fn call(&mut self, attempt: &Try, messages: &[Vec<Field>], patience: Duration) -> Answer {
        let mut messages: Vec<Vec<u8>> = messages.iter().map(|message| encode(message)).collect();
        if attempt.damaged {
            messages.iter_mut().for_each(|message| message.truncate(message.len() * 2 / 3));
        }
        let content = body(&messages);
        // A connection that the hub has ended is made anew, once.
        for _ in 0..2 {
            let (hub, line) =
                if attempt.abroad { (&self.world.theirs, &mut self.theirs) } else { (&self.world.own, &mut self.own) };
            let sender = match line.take().filter(|sender| sender.is_ready()) {
                Some(sender) => line.insert(sender),
                None => line.insert(dial(hub).await),
            };
            let mut request = Request::post(format!("https://localhost{}", attempt.method.path))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            if !attempt.caller.token.is_empty() {
                request = request.header("authorization", format!("Bearer {}", attempt.caller.token));
            }
            let request = request.body(Full::new(content.clone())).unwrap();
            match timeout(patience, answer(sender, request, Instant::now() + patience)).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => *line = None,
                Err(_) => return Answer { is_open: true, ..Answer::default() },
            }
        }
        Answer { hung_up: true, ..Answer::default() }
    }
}

async fn dial(hub: &Hub) -> SendRequest<Full<Bytes>> {
    let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// All that comes until then.
async fn answer(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>, until: Instant) -> hyper::Result<Answer> {
    let response = sender.send_request(request).await?;
    let (parts, mut body) = response.into_parts();
    let mut status = tonic::Status::from_header_map(&parts.headers);
    let mut bytes = Vec::new();
    let mut is_open = false;
    while status.is_none() {
        match tokio::time::timeout_at(until - Duration::from_millis(20), body.frame()).await {
            Ok(Some(frame)) => {
                let frame = frame?;
                if let Some(trailers) = frame.trailers_ref() {
                    status = tonic::Status::from_header_map(trailers);
                }
                bytes.extend(frame.data_ref().map(|data| data.to_vec()).unwrap_or_default());
            }
            Ok(None) => break,
            Err(_) => {
                is_open = true;
                break;
            }
        }
    }
    let is_success = status.as_ref().is_none_or(|status| status.code() == tonic::Code::Ok);
    if let Some(status) = &status {
        bytes.extend(status.message().as_bytes());
        bytes.extend(status.details());
        bytes.extend(format!("{:?}", status.metadata()).into_bytes());
    }
    Ok(Answer { reason: status.as_ref().map(reason).unwrap_or_default(), is_success, bytes, is_open, hung_up: false })
}

/// Whether a role has some of the permissions that an operation is for, and not all.
fn has_a_part(rule: &Rule, role: Option<Role>) -> bool {
    match (rule.access, role) {
        (Requirement::AnyOf(any_of), Some(role)) => !any_of.iter().all(|permission| role.allows(*permission)),
        _ => false,
    }
}

/// What is wrong with an answer.
fn wrong(attempt: &Try, answer: &Answer) -> Option<String> {
    if answer.bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
        return Some("what only the neighbour may know came out".to_owned());
    }
    let rule = of_grpc(&attempt.method.path).unwrap();
    let is_public = rule.access == Requirement::Public;
    let may = is_public || (!attempt.abroad && attempt.caller.role.is_some_and(|role| needed(rule, role)));
    let refused = AT_THE_DOOR.contains(&answer.reason.as_str());
    match (may, refused) {
        // Of some operations a role may do a part, such as what is its own.
        (true, true) if !(is_public || answer.reason == "ROLE_LACKS_PERMISSION" && has_a_part(rule, attempt.caller.role)) => {
            Some(format!("refused with {}, though the table allows it", answer.reason))
        }
        // A connection that ends tells nothing, and gives nothing.
        (false, false) if !answer.hung_up => Some(format!(
            "not refused at the door, though the table does not allow it: {:?}{}",
            answer.reason,
            if answer.is_open { ", and still open" } else { "" }
        )),
        _ if is_public
            && attempt.abroad
            && attempt.method.path.contains("Token")
            && !attempt.method.path.ends_with("RevokeToken") =>
        {
            (answer.is_success && !answer.is_open && !answer.hung_up)
                .then(|| "tokens of the neighbour's were given out".to_owned())
        }
        _ => None,
    }
}

fn patience(attempt: &Try) -> Duration {
    let rule = of_grpc(&attempt.method.path).unwrap();
    let may =
        rule.access == Requirement::Public || (!attempt.abroad && attempt.caller.role.is_some_and(|role| needed(rule, role)));
    if may { LET_IN } else { REFUSED_WITHIN }
}

/// The shortest request that is wrong in the same way, as far as leaving out its fields one by one leads to it.
async fn shortest(lines: &mut Lines<'_>, attempt: &Try, said: &str) -> Vec<Vec<Field>> {
    let mut messages = attempt.messages.clone();
    'again: loop {
        for (index, message) in messages.clone().iter().enumerate() {
            for less in smaller(message) {
                let mut with = messages.clone();
                with[index] = less;
                let answer = lines.call(attempt, &with, patience(attempt)).await;
                if wrong(attempt, &answer).as_deref() == Some(said) {
                    messages = with;
                    continue 'again;
                }
            }
        }
        return messages;
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "how much was tried is for whoever runs more")]
async fn random_requests_get_what_the_table_allows_and_nothing_of_the_neighbours() {
    let (requests, seed) = (number("ACB_FUZZ_REQUESTS").unwrap_or(10_000), number("ACB_FUZZ_SEED").unwrap_or(20_261_127));
    let world = Arc::new(World::start().await);
    let before = settled(&world.theirs).await;
    assert!(before.iter().filter(|(_, count, _)| *count > 0).count() >= 6, "there is too little to take: {before:?}");
    let numbers: Vec<u64> = number("ACB_FUZZ_ONLY").map_or_else(|| (0..requests).collect(), |only| vec![only]);
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..AT_A_TIME {
        let (world, numbers) = (Arc::clone(&world), numbers.clone());
        workers.spawn(async move {
            let mut lines = Lines::new(&world);
            let (mut let_in, mut refused, mut hung_up) = (0_u64, 0_u64, 0_u64);
            for number in numbers.into_iter().skip(worker).step_by(AT_A_TIME) {
                let attempt = world.request(seed, number);
                let answer = lines.call(&attempt, &attempt.messages, patience(&attempt)).await;
                if let Some(said) = wrong(&attempt, &answer) {
                    let messages = shortest(&mut lines, &attempt, &said).await;
                    let at = if attempt.abroad { "the neighbour's hub" } else { "its own hub" };
                    let shown: Vec<String> = messages.iter().map(|message| format!("{{{}}}", shown(message))).collect();
                    panic!(
                        "{said}\n{} as {} at {at}: {}\nagain: ACB_FUZZ_SEED={seed} ACB_FUZZ_ONLY={number}",
                        attempt.method.path,
                        attempt.caller.name,
                        shown.join(" then ")
                    );
                }
                match &answer {
                    answer if answer.hung_up => hung_up += 1,
                    answer if AT_THE_DOOR.contains(&answer.reason.as_str()) => refused += 1,
                    _ => let_in += 1,
                }
            }
            (let_in, refused, hung_up)
        });
    }
    let mut counts = (0, 0, 0);
    while let Some(ended) = workers.join_next().await {
        let (let_in, refused, hung_up) = ended.unwrap();
        counts = (counts.0 + let_in, counts.1 + refused, counts.2 + hung_up);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} requests in {seconds:.1} s: {} let in, {} refused at the door, {} hung up",
        numbers.len(),
        counts.0,
        counts.1,
        counts.2
    );
    assert_eq!(kept(&world.theirs).await, before, "the neighbour has something else than before");
    for hub in [&world.own, &world.theirs] {
        assert_eq!(hub.operations("/livez").await.unwrap().0, 200);
        assert!(!hub.log().contains("panicked"), "{}", hub.log());
    }
    if numbers.len() >= 1000 {
        let all = counts.0 + counts.1 + counts.2;
        assert!(
            counts.0 * 10 > all && counts.1 * 10 > all && counts.2 * 10 < all,
            "{counts:?}: too much of one kind proves little"
        );
    }
}
