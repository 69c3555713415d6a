//! Against the hubs: one's own, with the neighbour's names; and the neighbour's, with one's own credentials.

use std::time::{SystemTime, UNIX_EPOCH};

use acb_proto::v1::{
    Access, Address, AgentNames, Chunk, CreateContextRequest, DeleteContextRequest, DiscoverRequest, ExchangeTokenRequest,
    GetAgentRequest, GetContextRequest, GetJwksRequest, GetStreamProgressRequest, ListAgentsRequest, ListContextsRequest,
    OutgoingMessage, ReceiveContextRequest, RefreshTokenRequest, RequestAddress, Scope, SendMessageRequest, SessionRequest,
    StreamContextRequest, SubscribeRequest, UpdateContextRequest, WaitForUnreadRequest, address,
    agent_registry_client::AgentRegistryClient, auth_service_client::AuthServiceClient,
    context_service_client::ContextServiceClient, exchange_token_request::Credential,
    mailbox_service_client::MailboxServiceClient, message_service_client::MessageServiceClient, session_request,
    stream_context_request, stream_service_client::StreamServiceClient,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    attack::{Attack, Need, Outcome, Wall},
    methods,
    postgres::{self, OwnAgent},
    target::{Attacker, Thing, Victim},
    token::{self, Signer},
};

/// What an attempt needs, made with the attacker's own credentials.
struct Ground {
    /// Lets the attacker in at its own hub. No other is shown it.
    attacker_token: String,
    /// What the neighbour's hub is shown.
    shown_token: String,
    refresh_token: Option<String>,
    api_key: Option<String>,
    signer: Option<Signer>,
    own_ca_pem: String,
    own: Channel,
    /// Where the attack needs it.
    theirs: Option<Channel>,
    victim: Victim,
}

type Verdict = Result<Outcome, Status>;

/// How long tokens live: a little longer than the one attack that each is made for.
const TOKEN_SECONDS: u64 = 60;

/// What a wall says. Where another part of the hub answers, an attack was stopped by chance: at the door that is a breach.
type Refusals = &'static [Code];
/// Who asks is not let in, whatever it asks for.
const DOOR: Refusals = &[Code::Unauthenticated];
/// What is the neighbour's does not exist.
const NAMES: Refusals = &[Code::NotFound];
/// Nor do its context types, and no agent of another tenant was given a right to them.
const TYPES: Refusals = &[Code::FailedPrecondition, Code::PermissionDenied];

fn needing<F, R>(needs: &'static [Need], refusals: Refusals, name: &str, prize: &str, attempt: F) -> Attack
where
    F: Fn(Ground) -> R + Send + Sync + Clone + 'static,
    R: Future<Output = Verdict> + Send + 'static,
{
    Attack::new(Wall::Hub, name, prize, move |attacker, victim| {
        let attempt = attempt.clone();
        Box::pin(async move {
            match Ground::prepare(attacker, victim, needs).await {
                Ok(ground) => settle(refusals, attempt(ground).await),
                Err(why) => Outcome::Inconclusive(why),
            }
        })
    })
    .needing(needs)
}

pub(crate) fn attacks() -> Vec<Attack> {
    fn attack<F, R>(refusals: Refusals, name: &str, prize: &str, attempt: F) -> Attack
    where
        F: Fn(Ground) -> R + Send + Sync + Copy + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        needing(if refusals == DOOR { &[Need::Door] } else { &[] }, refusals, name, prize, attempt)
    }

    let mut attacks = vec![
        // With one's own credential, at the neighbour's door.
        needing(&[Need::Door, Need::ApiKey], DOOR, "door.api-key", "a token of the neighbour's", |g: Ground| async move {
            let theirs = g.theirs()?;
            let request = ExchangeTokenRequest { credential: g.api_key.map(Credential::ApiKey) };
            AuthServiceClient::new(theirs).exchange_token(request).await?;
            got("tokens")
        }),
        needing(&[Need::Door, Need::ApiKey], DOOR, "door.refresh-token", "a token of the neighbour's", |g: Ground| async move {
            let theirs = g.theirs()?;
            let request = RefreshTokenRequest { refresh_token: g.refresh_token.unwrap_or_default() };
            AuthServiceClient::new(theirs).refresh_token(request).await?;
            got("tokens")
        }),
        attack(DOOR, "door.no-token", "the neighbour's agents", |g: Ground| async move {
            AgentRegistryClient::new(g.theirs()?).list_agents(ListAgentsRequest::default()).await?;
            got("the list of agents")
        }),
        attack(DOOR, "door.unsigned-token", "the neighbour's agents", |g: Ground| async move {
            let token = forged(&g, r#"{"alg":"none","typ":"JWT"}"#, "");
            AgentRegistryClient::new(g.theirs()?).list_agents(bearer(ListAgentsRequest::default(), &token)).await?;
            got("the list of agents")
        }),
        attack(DOOR, "door.renamed-token", "the neighbour's agents", |g: Ground| async move {
            let (header, signature) =
                (token::part(&g.shown_token, 0), g.shown_token.rsplit('.').next().unwrap_or_default().to_owned());
            let token = forged(&g, &header, &signature);
            AgentRegistryClient::new(g.theirs()?).list_agents(bearer(ListAgentsRequest::default(), &token)).await?;
            got("the list of agents")
        }),
        attack(DOOR, "door.certificate", "the neighbour's hub, taken for one's own", |g: Ground| async move {
            // Were one CA to sign for all, a hub could stand in for its neighbour.
            let endpoint = g.victim.hub_endpoints.first().cloned().unwrap_or_default();
            match channel(&endpoint, &g.own_ca_pem).await {
                Ok(_) => got("a connection that one's own CA vouches for"),
                Err(error) if ["UnknownIssuer", "BadSignature"].iter().any(|why| error.contains(why)) => {
                    Ok(Outcome::Refused(error))
                }
                Err(error) => Ok(Outcome::Inconclusive(error)),
            }
        }),
    ];

    // With one's own token, at the neighbour's door: each method of use.
    attacks.extend([
        attack(DOOR, "token.list-agents", "the neighbour's agents", |g: Ground| async move {
            let request = bearer(ListAgentsRequest::default(), &g.shown_token);
            AgentRegistryClient::new(g.theirs()?).list_agents(request).await?;
            got("the list of agents")
        }),
        attack(DOOR, "token.send", "a message to the neighbour's agent", |g: Ground| async move {
            let request = bearer(message_to(address::To::Agent(g.victim.agent.clone())), &g.shown_token);
            MessageServiceClient::new(g.theirs()?).send_message(request).await?;
            got("the message was accepted")
        }),
        attack(DOOR, "token.session", "the neighbour's messages", |g: Ground| async move {
            let request = bearer(open(), &g.shown_token);
            first(MessageServiceClient::new(g.theirs()?).session(request).await?.into_inner()).await?;
            got("a session")
        }),
        attack(DOOR, "token.wait-for-unread", "what the neighbour's agents have not read", |g: Ground| async move {
            let request = WaitForUnreadRequest { timeout: Some(prost_types::Duration::default()), ..Default::default() };
            MailboxServiceClient::new(g.theirs()?).wait_for_unread(bearer(request, &g.shown_token)).await?;
            got("the unread messages")
        }),
        attack(DOOR, "token.get-context", "the neighbour's context", |g: Ground| async move {
            let request = bearer(GetContextRequest { id: g.victim.context_id.clone() }, &g.shown_token);
            ContextServiceClient::new(g.theirs()?).get_context(request).await?;
            got("the context")
        }),
        attack(DOOR, "token.subscribe", "the neighbour's contexts as they change", |g: Ground| async move {
            let request =
                bearer(SubscribeRequest { r#type: g.victim.context_type.clone(), ..Default::default() }, &g.shown_token);
            first(ContextServiceClient::new(g.theirs()?).subscribe(request).await?.into_inner()).await?;
            got("a subscription")
        }),
        attack(DOOR, "token.receive", "the neighbour's large context", |g: Ground| async move {
            let request =
                bearer(ReceiveContextRequest { context_id: g.victim.context_id.clone(), from_chunk: 0 }, &g.shown_token);
            first(StreamServiceClient::new(g.theirs()?).receive_context(request).await?.into_inner()).await?;
            got("the stream")
        }),
    ]);

    // And every other method, with an empty request: what is looked at first is who asks.
    attacks.extend(methods::all().into_iter().filter(|method| !method.is_tried_by_hand()).map(|method| {
        let (name, prize) = (format!("token.{}", method.kebab()), format!("{} at the neighbour's door", method.name));
        needing(&[Need::Door], DOOR, &name, &prize, move |g: Ground| {
            let method = method.clone();
            async move {
                method.call(g.theirs()?, &g.shown_token).await?;
                got("an answer")
            }
        })
    }));

    // With tokens that one's own hub signed, or seemed to.
    attacks.extend(forgeries());

    // At one's own door, with the neighbour's names and ids.
    attacks.extend([
        attack(NAMES, "names.get-agent", "what the neighbour's agent is", |g: Ground| async move {
            let request = bearer(GetAgentRequest { name: g.victim.agent.clone() }, &g.attacker_token);
            AgentRegistryClient::new(g.own).get_agent(request).await?;
            got("the agent")
        })
        .on(Thing::Agent),
        attack(NAMES, "names.discover", "the neighbour's agents", |g: Ground| async move {
            let request = bearer(DiscoverRequest { page_size: 1000, ..Default::default() }, &g.attacker_token);
            let found = AgentRegistryClient::new(g.own).discover(request).await?.into_inner().agents;
            nothing_of(
                found.iter().filter(|agent| agent.tenant == g.victim.tenant || agent.name == g.victim.agent).count(),
                found.len(),
            )
        })
        .on(Thing::Agent),
        attack(NAMES, "names.send-agent", "a message to the neighbour's agent", |g: Ground| async move {
            let request = bearer(message_to(address::To::Agent(g.victim.agent.clone())), &g.attacker_token);
            MessageServiceClient::new(g.own).send_message(request).await?;
            got("the message was accepted")
        })
        .on(Thing::Agent),
        attack(NAMES, "names.send-several", "a message to the neighbour's agent, among one's own", |g: Ground| async move {
            let names = vec![g.victim.agent.clone(), own_name(&g.attacker_token)];
            let request = bearer(message_to(address::To::Agents(AgentNames { names })), &g.attacker_token);
            MessageServiceClient::new(g.own).send_message(request).await?;
            got("the message was accepted")
        })
        .on(Thing::Agent),
        attack(NAMES, "names.send-group", "a message to the neighbour's group", |g: Ground| async move {
            let request = bearer(message_to(address::To::Group(g.victim.group.clone())), &g.attacker_token);
            MessageServiceClient::new(g.own).send_message(request).await?;
            got("the message was accepted")
        })
        .on(Thing::Group),
        attack(NAMES, "names.send-qualified", "a message to the neighbour's agent", |g: Ground| async move {
            let name = format!("{}/{}", g.victim.tenant, g.victim.agent);
            let request = bearer(message_to(address::To::Agent(name)), &g.attacker_token);
            MessageServiceClient::new(g.own).send_message(request).await?;
            got("the message was accepted")
        })
        .on(Thing::Agent),
        attack(NAMES, "names.answer", "a reply that the neighbour's agent waits for", |g: Ground| async move {
            let to = RequestAddress { agent: g.victim.agent.clone(), request_id: g.victim.upload_id.clone() };
            let request = bearer(message_to(address::To::Request(to)), &g.attacker_token);
            MessageServiceClient::new(g.own).send_message(request).await?;
            got("the reply was accepted")
        })
        .on(Thing::Agent),
        attack(NAMES, "ids.get-context", "the neighbour's context", |g: Ground| async move {
            let request = bearer(GetContextRequest { id: g.victim.context_id.clone() }, &g.attacker_token);
            ContextServiceClient::new(g.own).get_context(request).await?;
            got("the context")
        })
        .on(Thing::Context),
        attack(NAMES, "ids.update-context", "the neighbour's context changed", |g: Ground| async move {
            let update = UpdateContextRequest { id: g.victim.context_id.clone(), version: 1, ..Default::default() };
            ContextServiceClient::new(g.own).update_context(bearer(update, &g.attacker_token)).await?;
            got("the context was changed")
        })
        .on(Thing::Context),
        attack(NAMES, "ids.delete-context", "the neighbour's context gone", |g: Ground| async move {
            let request = bearer(DeleteContextRequest { id: g.victim.context_id.clone() }, &g.attacker_token);
            ContextServiceClient::new(g.own).delete_context(request).await?;
            got("the context was deleted")
        })
        .on(Thing::Context),
        attack(NAMES, "ids.list-contexts", "the neighbour's contexts", |g: Ground| async move {
            let request = bearer(ListContextsRequest { page_size: 1000, ..Default::default() }, &g.attacker_token);
            let found = ContextServiceClient::new(g.own).list_contexts(request).await?.into_inner().contexts;
            nothing_of(found.iter().filter(|context| context.id == g.victim.context_id).count(), found.len())
        })
        .on(Thing::Context),
        attack(NAMES, "ids.receive", "the neighbour's large context", |g: Ground| async move {
            let request =
                bearer(ReceiveContextRequest { context_id: g.victim.context_id.clone(), from_chunk: 0 }, &g.attacker_token);
            first(StreamServiceClient::new(g.own).receive_context(request).await?.into_inner()).await?;
            got("the stream")
        })
        .on(Thing::Context),
        attack(NAMES, "ids.progress", "what the neighbour uploads", |g: Ground| async move {
            let request = bearer(GetStreamProgressRequest { upload_id: g.victim.upload_id.clone() }, &g.attacker_token);
            StreamServiceClient::new(g.own).get_stream_progress(request).await?;
            got("the progress")
        })
        .on(Thing::Upload),
        attack(NAMES, "ids.resume", "chunks planted in the neighbour's upload", |g: Ground| async move {
            let resume = stream_context_request::Resume { upload_id: g.victim.upload_id.clone() };
            let frames = [
                stream_context_request::Frame::Resume(resume),
                stream_context_request::Frame::Chunk(Chunk { index: 0, data: vec![0].into(), sha256: vec![0; 32].into() }),
            ]
            .map(|frame| StreamContextRequest { frame: Some(frame) });
            let request = bearer(stream::iter(frames), &g.attacker_token);
            first(StreamServiceClient::new(g.own).stream_context(request).await?.into_inner()).await?;
            got("the upload")
        })
        .on(Thing::Upload),
        attack(TYPES, "names.publish", "a context of a type that only the neighbour has", |g: Ground| async move {
            let request = CreateContextRequest {
                r#type: format!("{}.{}", g.victim.tenant, g.victim.context_type),
                payload: "forged".into(),
                access: Some(Access { scope: Scope::Public.into(), ..Default::default() }),
                ..Default::default()
            };
            ContextServiceClient::new(g.own).create_context(bearer(request, &g.attacker_token)).await?;
            got("the context was created")
        }),
        attack(TYPES, "names.subscribe", "the neighbour's contexts as they change", |g: Ground| async move {
            let type_ = format!("{}.{}", g.victim.tenant, g.victim.context_type);
            let request = bearer(SubscribeRequest { r#type: type_, ..Default::default() }, &g.attacker_token);
            first(ContextServiceClient::new(g.own).subscribe(request).await?.into_inner()).await?;
            got("a subscription")
        }),
    ]);
    attacks
}

/// Tokens with the neighbour's names in them.
fn forgeries() -> Vec<Attack> {
    const WITH_KEY: &[Need] = &[Need::Door, Need::SigningKey];
    fn forgery(name: &str, prize: &str, forge: fn(&Signer, &Keys, Value) -> String) -> Attack {
        needing(WITH_KEY, DOOR, name, prize, move |g: Ground| async move {
            let (theirs, keys) = (g.theirs()?, Keys::of(g.theirs()?).await?);
            let signer = g.signer.as_ref().ok_or_else(|| Status::unknown("there is no signing key"))?;
            let token = forge(signer, &keys, renamed(&g.shown_token, &g.victim));
            AgentRegistryClient::new(theirs).list_agents(bearer(ListAgentsRequest::default(), &token)).await?;
            got("the list of agents")
        })
    }
    vec![
        forgery("door.own-signature", "the neighbour's agents", |signer, _, claims| {
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": signer.key_id()}), &claims)
        }),
        forgery("door.neighbours-key-id", "the neighbour's agents", |signer, keys, claims| {
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": keys.id}), &claims)
        }),
        forgery("door.no-key-id", "the neighbour's agents", |signer, _, claims| {
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT"}), &claims)
        }),
        forgery("door.key-in-header", "the neighbour's agents", |signer, keys, claims| {
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": keys.id, "jwk": signer.jwk()}), &claims)
        }),
        forgery("door.key-by-address", "the neighbour's agents", |signer, keys, claims| {
            let at = "https://127.0.0.1:1/jwks.json";
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": keys.id, "jku": at, "x5u": at}), &claims)
        }),
        forgery("door.key-id-of-a-file", "the neighbour's agents", |_, _, claims| {
            token::hs256(&json!({"alg": "HS256", "typ": "JWT", "kid": "../../../../dev/null"}), &claims, &[])
        }),
        forgery("door.public-key-as-secret", "the neighbour's agents", |_, keys, claims| {
            token::hs256(&json!({"alg": "HS256", "typ": "JWT", "kid": keys.id}), &claims, &keys.public)
        }),
        forgery("door.public-key-text-as-secret", "the neighbour's agents", |_, keys, claims| {
            token::hs256(&json!({"alg": "HS256", "typ": "JWT", "kid": keys.id}), &claims, keys.encoded.as_bytes())
        }),
        forgery("door.names-twice", "the neighbour's agents", |signer, keys, claims| {
            // Who checks the one and uses the other was told two things.
            let twice = claims.to_string().replacen('{', r#"{"tid":"00000000000000000000","iss":"nobody","#, 1);
            signer.text(&json!({"alg": "EdDSA", "typ": "JWT", "kid": keys.id}).to_string(), &twice)
        }),
        forgery("door.critical-header", "the neighbour's agents", |signer, keys, claims| {
            signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": keys.id, "crit": ["b64"], "b64": false}), &claims)
        }),
    ]
}

/// The neighbour's public key, as it tells anybody.
struct Keys {
    id: String,
    encoded: String,
    public: Vec<u8>,
}

impl Keys {
    async fn of(theirs: Channel) -> Result<Self, Status> {
        let answer = AuthServiceClient::new(theirs).get_jwks(GetJwksRequest::default()).await?.into_inner();
        let keys: Value = serde_json::from_str(&answer.jwks_json).unwrap_or_default();
        let text = |name: &str| keys["keys"][0][name].as_str().unwrap_or("none").to_owned();
        let encoded = text("x");
        Ok(Self { id: text("kid"), public: URL_SAFE_NO_PAD.decode(&encoded).unwrap_or_default(), encoded })
    }
}

impl Ground {
    /// With its own credentials an attacker must get in at its own door, and the neighbour's must be there where that is what is tried, or
    /// nothing is proved.
    async fn prepare(attacker: &Attacker, victim: &Victim, needs: &[Need]) -> Result<Self, String> {
        let own = any(&attacker.hub.endpoints, &attacker.hub.ca_pem).await?;
        let theirs = match needs.contains(&Need::Door) {
            true => Some(any(&victim.hub_endpoints, &victim.ca_pem).await?),
            false => None,
        };
        let signer = attacker.hub.signing_key.as_deref().map(Signer::new).transpose()?;
        let (attacker_token, refresh_token) = match (&attacker.hub.api_key, &signer) {
            (Some(key), _) => {
                let request = ExchangeTokenRequest { credential: Some(Credential::ApiKey(key.clone())) };
                let tokens = AuthServiceClient::new(own.clone()).exchange_token(request).await;
                let tokens = tokens.map_err(|status| format!("could not log in as oneself: {status}"))?.into_inner();
                (tokens.access_token, Some(tokens.refresh_token))
            }
            (None, Some(signer)) => (own_token(attacker, signer).await?, None),
            (None, None) => return Err("there is neither an API key nor a signing key to attack with".to_owned()),
        };
        AgentRegistryClient::new(own.clone())
            .list_agents(bearer(ListAgentsRequest::default(), &attacker_token))
            .await
            .map_err(|status| format!("could not call one's own hub: {status}"))?;
        // A neighbour's hub is somebody else's program: whatever it is shown, it could keep and use. An API key alone signs nothing.
        let shown_token = match &signer {
            Some(signer) => signed(signer, &worthless(attacker)),
            None => attacker_token.clone(),
        };
        Ok(Self {
            attacker_token,
            shown_token,
            refresh_token,
            api_key: attacker.hub.api_key.clone(),
            signer,
            own_ca_pem: attacker.hub.ca_pem.clone(),
            own,
            theirs,
            victim: foreign(attacker, victim).await?,
        })
    }

    fn theirs(&self) -> Result<Channel, Status> {
        self.theirs.clone().ok_or_else(|| Status::unknown("the neighbour's hub was not connected to"))
    }
}

/// The neighbour, by the name of an agent that one has not oneself: agents that were registered are in no manifest, and may be called as one
/// of the neighbour's is. Who then finds the name has found its own agent.
async fn foreign(attacker: &Attacker, victim: &Victim) -> Result<Victim, String> {
    let is_own = postgres::has_agent(&attacker.postgres, &victim.agent).await?;
    let agent = if is_own { format!("{}-only", victim.tenant) } else { victim.agent.clone() };
    Ok(Victim { agent, ..victim.clone() })
}

/// A token for an agent of one's own, as one's hub makes it: its rows say which agents there are, and its key signs.
async fn own_token(attacker: &Attacker, signer: &Signer) -> Result<String, String> {
    let agent = postgres::own_agent(&attacker.postgres).await?;
    Ok(signed(signer, &claims(attacker, &agent)))
}

fn signed(signer: &Signer, claims: &Value) -> String {
    signer.token(&json!({"alg": "EdDSA", "typ": "JWT", "kid": signer.key_id()}), claims)
}

/// What a token of one's own hub says, of an agent that there is not: it opens no door, one's own hub's included.
fn worthless(attacker: &Attacker) -> Value {
    claims(attacker, &OwnAgent { id: uuid::Uuid::new_v4(), name: "isolation".to_owned(), generation: 0, epoch: 0 })
}

fn claims(attacker: &Attacker, agent: &OwnAgent) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "iss": attacker.tenant, "aud": attacker.tenant, "tid": attacker.tenant_id, "sub": agent.id, "name": agent.name,
        "gen": agent.generation, "epoch": agent.epoch, "iat": now, "exp": now + TOKEN_SECONDS, "jti": uuid::Uuid::new_v4(),
    })
}

async fn any(endpoints: &[String], ca_pem: &str) -> Result<Channel, String> {
    let mut last = "there is no endpoint".to_owned();
    for endpoint in endpoints {
        match channel(endpoint, ca_pem).await {
            Ok(channel) => return Ok(channel),
            Err(error) => last = format!("{endpoint}: {error}"),
        }
    }
    Err(last)
}

async fn channel(endpoint: &str, ca_pem: &str) -> Result<Channel, String> {
    acb_sdk::channel(endpoint, ca_pem).await.map_err(|error| error.to_string())
}

fn bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(value) = format!("Bearer {token}").parse() {
        request.metadata_mut().insert("authorization", value);
    }
    methods::mark(&mut request);
    request
}

/// What a token says, with the neighbour's names in it.
fn renamed(token: &str, victim: &Victim) -> Value {
    let mut claims: Value = serde_json::from_str(&token::part(token, 1)).unwrap_or_default();
    for (key, value) in [("iss", &victim.tenant), ("aud", &victim.tenant), ("tid", &victim.tenant_id)] {
        claims[key] = json!(value);
    }
    claims
}

/// The token that is shown, with the neighbour's names in it.
fn forged(ground: &Ground, header: &str, signature: &str) -> String {
    let claims = renamed(&ground.shown_token, &ground.victim).to_string();
    format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// The name of the agent that a token speaks for.
fn own_name(token: &str) -> String {
    let claims: serde_json::Value = serde_json::from_str(&token::part(token, 1)).unwrap_or_default();
    claims["name"].as_str().unwrap_or_default().to_owned()
}

fn message_to(to: address::To) -> SendMessageRequest {
    let message = OutgoingMessage {
        to: Some(Address { to: Some(to) }),
        topic: "intrusion".to_owned(),
        r#type: acb_proto::v1::MessageType::Event.into(),
        payload: "let me in".into(),
        ..Default::default()
    };
    SendMessageRequest { message: Some(message) }
}

fn open() -> impl futures::Stream<Item = SessionRequest> + Send + 'static {
    let open = session_request::Open { receive: true, max_unacknowledged: 1, ..Default::default() };
    stream::iter([SessionRequest { frame: Some(session_request::Frame::Open(open)) }]).chain(stream::pending())
}

async fn first<T>(mut stream: tonic::Streaming<T>) -> Result<T, Status> {
    stream.message().await?.ok_or_else(|| Status::unknown("the stream ended without a word"))
}

fn got(what: &str) -> Verdict {
    Ok(Outcome::Succeeded(format!("got {what}")))
}

fn nothing_of(theirs: usize, all: usize) -> Verdict {
    Ok(match theirs {
        0 => Outcome::Refused(format!("none of the neighbour's among {all}")),
        theirs => Outcome::Succeeded(format!("{theirs} of the neighbour's")),
    })
}

/// Whether the wall held, or what got past it.
fn settle(refusals: Refusals, verdict: Verdict) -> Outcome {
    verdict.unwrap_or_else(|status| match status.code() {
        code if refusals.contains(&code) => Outcome::Refused(format!("{code:?}: {}", status.message())),
        Code::PermissionDenied | Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::Aborted
            if refusals == DOOR =>
        {
            Outcome::Succeeded(format!("got past the door: {:?}: {}", status.code(), status.message()))
        }
        _ => Outcome::Inconclusive(format!("{:?}: {}", status.code(), status.message())),
    })
}
