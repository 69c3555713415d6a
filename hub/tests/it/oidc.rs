//! Tokens of OpenID Connect issuers, exchanged at a real hub that asks a real server for their keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acb_operator::plan::OidcIssuerRow;
use acb_proto::v1::{
    ExchangeSubjectTokenRequest, HeartbeatRequest, ListAgentsRequest, RegisterRequest, SendMessageRequest, TokenResponse,
    message_service_client::MessageServiceClient,
};
use acb_testbed::{Response, TestIssuer, issuer_row, public_key};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::{
    hub::{Hub, reason, with},
    trail::logged_so_many,
};

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn signed(key: &KeyPair, kid: &str, claims: &Value) -> String {
    let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encoded(&json!({"alg": "ES256", "kid": kid})), encoded(claims));
    let key = EncodingKey::from_ec_der(&key.serialize_der());
    format!("{message}.{}", crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap())
}

/// A hub whose tenant trusts an issuer, and an agent `ada`.
struct World {
    hub: Hub,
    issuer: TestIssuer,
    key: KeyPair,
    row: OidcIssuerRow,
}

impl World {
    async fn start() -> Self {
        let (hub, key) = (Hub::start().await, key());
        let issuer = TestIssuer::start(&[public_key(&key, "one")]).await;
        let row = OidcIssuerRow {
            role: Some("claims.level == 'low' ? 'Observer' : ''".to_owned()),
            ..issuer_row(issuer.url(), issuer.ca(), &["acb"])
        };
        hub.tenant.oidc_issuers(std::slice::from_ref(&row)).await;
        hub.tenant.project_without_key(&hub.tenant.agent_row("ada")).await;
        Self { hub, issuer, key, row }
    }

    fn claims(&self) -> Value {
        json!({"iss": self.issuer.url(), "aud": "acb", "sub": "ada", "exp": now() + 600, "iat": now(), "jti": "j1", "level": "high"})
    }

    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        signed(&self.key, "one", &claims)
    }

    fn token(&self) -> String {
        signed(&self.key, "one", &self.claims())
    }

    async fn exchange(&self, token: &str) -> Result<TokenResponse, Status> {
        let request = ExchangeSubjectTokenRequest { subject_token: token.to_owned(), subject_token_type: JWT.to_owned() };
        self.hub.auth().exchange_subject_token(request).await.map(tonic::Response::into_inner)
    }

    async fn is_refused(&self, token: &str, what: &str) {
        let status = self.exchange(token).await.expect_err(what);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "SUBJECT_TOKEN_REFUSED"), "{what}");
    }

    async fn is_let_in(&self, access_token: &str) -> bool {
        self.hub.agents().heartbeat(with(access_token, HeartbeatRequest {})).await.is_ok()
    }

    /// Waits until an access token is not taken any more. A revocation holds within 5 s.
    async fn until_refused(&self, access_token: &str) {
        let began = Instant::now();
        while self.is_let_in(access_token).await {
            assert!(began.elapsed() < Duration::from_secs(5), "still let in");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn an_issuers_token_is_exchanged_and_the_trail_says_whose_it_was() {
    let world = World::start().await;
    let (hub, url, token) = (&world.hub, world.issuer.url(), world.token());
    let granted = world.exchange(&token).await.unwrap();
    assert_eq!((granted.agent.as_str(), granted.tenant.as_str()), ("ada", hub.tenant.name()));
    assert!(granted.refresh_token.is_empty() && granted.refresh_token_expires_at.is_none());
    assert!(granted.access_token_expires_at.unwrap().seconds <= world.claims()["exp"].as_i64().unwrap());
    assert!(world.is_let_in(&granted.access_token).await);
    for _ in 0..20 {
        world.exchange(&token).await.unwrap();
    }
    assert_eq!(world.issuer.asked(), 1);

    let records = logged_so_many(hub, &["ExchangeSubjectToken"], 1).await;
    let record = &records[0];
    assert_eq!((record.agent.as_str(), record.key.as_str()), ("ada", format!("oidc:{url}#ada").as_str()));
    assert_eq!((record.object.as_str(), record.outcome.as_str()), (format!("token j1 of {url}").as_str(), "done"));
    let (_, metrics) = hub.operations("/metrics").await.unwrap();
    assert!(metrics.contains(&format!("acb_oidc_keys_fetched_timestamp_seconds{{issuer=\"{url}\"}}")), "{metrics}");
    let log = hub.log();
    assert!(!log.contains(&token) && !log.contains(&granted.access_token), "a token is in the log");
    // What it registered would outlive the token.
    let request = RegisterRequest { name: "helper".to_owned(), ..RegisterRequest::default() };
    let status = hub.agents().register(with(&granted.access_token, request)).await.unwrap_err();
    assert_eq!(reason(&status), "REGISTRAR_KEY_UNKNOWN");
    // The issuer's token is for being exchanged, and for nothing else.
    let status = hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_INVALID");
}

#[tokio::test]
async fn a_token_may_lower_the_role_of_its_agent() {
    let world = World::start().await;
    let low = world.exchange(&world.with("level", json!("low"))).await.unwrap().access_token;
    world.hub.agents().list_agents(with(&low, ListAgentsRequest::default())).await.unwrap();
    let status =
        MessageServiceClient::new(world.hub.channel()).send_message(with(&low, SendMessageRequest::default())).await.unwrap_err();
    assert_eq!(reason(&status), "ROLE_LACKS_PERMISSION");
    // A role that the agent has no more is none that its token lowers it to.
    let row = acb_testbed::AgentRow { role: "agent-producer".to_owned(), ..world.hub.tenant.agent_row("ada") };
    world.hub.tenant.project_without_key(&row).await;
    let began = Instant::now();
    while world.hub.agents().list_agents(with(&low, ListAgentsRequest::default())).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "still let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.is_refused(&world.with("level", json!("low")), "a role that would be raised").await;
}

#[tokio::test]
async fn what_came_of_an_issuer_ends_with_it_within_seconds() {
    let world = World::start().await;
    let token = world.token();
    let others = [
        (vec![], "no issuer"),
        (vec![OidcIssuerRow { audiences: vec!["another".to_owned()], ..world.row.clone() }], "another audience"),
        (vec![OidcIssuerRow { agent: "claims.email".to_owned(), ..world.row.clone() }], "another claim"),
        (vec![OidcIssuerRow { issuer: format!("{}/", world.issuer.url()), ..world.row.clone() }], "another spelling"),
    ];
    for (rows, what) in others {
        world.hub.tenant.oidc_issuers(std::slice::from_ref(&world.row)).await;
        let access = world.exchange(&token).await.unwrap().access_token;
        world.hub.tenant.oidc_issuers(&rows).await;
        // At once: an exchange never goes by what was.
        world.is_refused(&token, what).await;
        world.until_refused(&access).await;
    }
}

#[tokio::test]
async fn a_token_that_proves_nobody_is_refused_whatever_is_wrong_with_it() {
    let world = World::start().await;
    world.exchange(&world.token()).await.unwrap();
    let url = world.issuer.url().to_owned();
    for (token, what) in [
        (world.with("iss", json!(format!("{url}/"))), "a trailing slash"),
        (world.with("iss", json!(url.replace("localhost", "LOCALHOST"))), "other case"),
        (world.with("aud", json!("ACB")), "another audience"),
        (world.with("aud", json!(["acb", "more"])), "two audiences"),
        (world.with("exp", json!(now() - 60)), "expired"),
        (world.with("iat", json!(now() + 60)), "from the future"),
        (world.with("sub", json!("nobody")), "no agent"),
        (world.with("sub", json!("ada\u{0}")), "an unprintable subject"),
        (world.with("level", json!(7)), "an undecided role"),
        (signed(&key(), "one", &world.claims()), "another key"),
        (signed(&world.key, "two", &world.claims()), "a key that there is not"),
        (signed(&world.key, "../../one", &world.claims()), "a path for a key"),
    ] {
        world.is_refused(&token, what).await;
    }
    let token = world.token();
    let parts: Vec<&str> = token.split('.').collect();
    for header in [
        json!({"alg": "none", "kid": "one"}),
        json!({"alg": "HS256", "kid": "one"}),
        json!({"alg": "ES256", "kid": "one", "jku": url}),
    ] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        world.is_refused(&format!("{header}.{}.{}", parts[1], parts[2]), &header).await;
        world.is_refused(&format!("{header}.{}.", parts[1]), &header).await;
    }
    world.exchange(&token).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_is_away_or_means_no_good_keeps_nobody_else_out() {
    let world = World::start().await;
    world.issuer.responds("/jwks", Response::Never);
    let token = world.token();
    let (_, api) = world.hub.agent("bob", "agent-full").await;
    let slow = world.exchange(&token);
    tokio::pin!(slow);
    let others = async {
        for _ in 0..10 {
            assert!(world.is_let_in(&api).await);
        }
        world.hub.agent("carol", "agent-full").await;
    };
    tokio::select! {
        biased;
        _ = &mut slow => panic!("an issuer that does not answer has answered"),
        () = others => {}
    }
    assert_eq!(reason(&slow.await.unwrap_err()), "SUBJECT_TOKEN_REFUSED");
    world.hub.until_ready().await;
    let (_, metrics) = world.hub.operations("/metrics").await.unwrap();
    assert!(metrics.contains(&format!("acb_oidc_fetch_failures_total{{issuer=\"{}\"}} 1", world.issuer.url())), "{metrics}");
    assert!(world.hub.log().contains("no answer within"), "{}", world.hub.log());
    // Asked again after a while, and not by each token.
    world.issuer.has(&[public_key(&world.key, "one")]);
    let began = Instant::now();
    while world.exchange(&token).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(15), "still refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(world.issuer.asked(), 2);
}

#[tokio::test]
async fn an_issuer_inside_is_asked_where_the_platform_lists_its_network_only() {
    let world = World::start().await;
    let nowhere = OidcIssuerRow { networks: Vec::new(), ..world.row.clone() };
    world.hub.tenant.oidc_issuers(&[nowhere]).await;
    world.is_refused(&world.token(), "a loopback address").await;
    assert_eq!(world.issuer.asked(), 0);
    assert!(world.hub.log().contains("no public address"), "{}", world.hub.log());
    // By the terms of now, at once.
    world.hub.tenant.oidc_issuers(std::slice::from_ref(&world.row)).await;
    world.exchange(&world.token()).await.unwrap();
}
