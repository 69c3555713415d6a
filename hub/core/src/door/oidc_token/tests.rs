//! Vectors are made here, of keys that are used for nothing else.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::{
    directory::{
        agent::{Agent, AgentId, Role},
        trusted_issuer::IssuerTerms,
    },
    door::access_token::tests::agent,
};

const URL: &str = "https://issuer.example/tenant";

fn rsa() -> (Algorithm, EncodingKey) {
    (Algorithm::RS256, EncodingKey::from_rsa_der(include_bytes!("../subject_token/keys/rsa.der")))
}

fn p256() -> (Algorithm, EncodingKey) {
    (Algorithm::ES256, EncodingKey::from_ec_der(include_bytes!("../subject_token/keys/p256.der")))
}

fn public((algorithm, key): &(Algorithm, EncodingKey), kid: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, *algorithm).unwrap()).unwrap();
    jwk["kid"] = kid.into();
    jwk
}

fn sign(header: &Value, claims: &str, (algorithm, key): &(Algorithm, EncodingKey)) -> String {
    let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header.to_string()), BASE64_URL_SAFE_NO_PAD.encode(claims));
    format!("{message}.{}", crypto::sign(message.as_bytes(), key, *algorithm).unwrap())
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn at(seconds: i64) -> i64 {
    now().unix_timestamp() + seconds
}

fn claims() -> Value {
    json!({"iss": URL, "aud": "acb", "sub": "ada", "exp": at(600), "iat": at(-10), "jti": "j1", "groups": ["lead"]})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn token(claims: &Value) -> String {
    sign(&json!({"alg": "RS256", "kid": "rsa"}), &claims.to_string(), &rsa())
}

fn terms() -> IssuerTerms {
    IssuerTerms {
        url: URL.to_owned(),
        audiences: vec!["acb".to_owned(), "acb-machines".to_owned()],
        agent: "claims.sub".to_owned(),
        role: Some("'lead' in claims.groups ? '' : 'Observer'".to_owned()),
        ..IssuerTerms::default()
    }
}

fn snapshot() -> Snapshot {
    let named = |id, name: &str, role| Agent { id: AgentId(Uuid::from_u128(id)), name: name.to_owned(), ..agent(role) };
    let registered = (named(9, "helper", Role::Full), AgentId(Uuid::from_u128(7)));
    let mut snapshot = Snapshot::new(1, vec![named(7, "ada", Role::Full), named(8, "sender", Role::Producer)], Vec::new())
        .with_registered(vec![registered]);
    snapshot.trusted_issuers.insert(URL.to_owned(), Arc::new(TrustedIssuer::new(terms()).unwrap()));
    snapshot
}

fn keys() -> Issuer {
    Issuer::new(URL, &json!({"keys": [public(&rsa(), "rsa"), public(&p256(), "p256")]}))
}

fn prove_by(terms: IssuerTerms, token: &str) -> Result<Proved, Why> {
    prove(&SubjectToken::parse(token)?, &TrustedIssuer::new(terms).unwrap(), &keys(), &snapshot(), now())
}

fn proved(token: &str) -> Result<Proved, Why> {
    prove_by(terms(), token)
}

#[test]
fn a_token_proves_the_agent_that_its_claims_are_mapped_to() {
    let found = proved(&token(&claims())).unwrap();
    assert_eq!((found.agent, found.ends_at.unix_timestamp()), (AgentId(Uuid::from_u128(7)), at(600)));
    let Source::Oidc(source) = &found.source else { panic!("{:?}", found.source) };
    assert_eq!((source.iss.as_str(), source.sub.as_str(), source.jti.as_str(), source.role), (URL, "ada", "j1", None));
    assert_eq!(found.source.name(), format!("oidc:{URL}#ada"));
    assert!(snapshot().source_lives(found.agent, &found.source, now()));
    proved(&token(&with("aud", json!(["acb-machines"])))).unwrap();
    proved(&token(&without("jti"))).unwrap();
    for header in [
        json!({"alg": "ES256", "kid": "p256", "typ": "JWT"}),
        json!({"alg": "ES256", "kid": "p256", "typ": "at+jwt"}),
        json!({"alg": "ES256", "kid": "p256", "x5t": "dGh1bWI"}),
    ] {
        proved(&sign(&header, &claims().to_string(), &p256())).unwrap();
    }
}

#[test]
fn a_role_is_lowered_and_never_raised() {
    let Source::Oidc(lowered) = proved(&token(&with("groups", json!([])))).unwrap().source else { panic!() };
    assert_eq!(lowered.role, Some(Role::Observer));
    let own = IssuerTerms { role: Some("'AgentFull'".to_owned()), ..terms() };
    assert_eq!(prove_by(own, &token(&claims())).unwrap().source.role(), Some(Role::Full), "the agent may get a mightier one");
    // Undecided is no: a token that lacks the claim is not one with the whole role.
    assert_eq!(proved(&token(&without("groups"))), Err("its claims are no agent's"));
    for (role, proves) in
        [("'AgentProducer'", true), ("'AgentFull'", true), ("'Admin'", false), ("'Auditor'", false), ("'x'", false)]
    {
        let terms = IssuerTerms { role: Some(role.to_owned()), ..terms() };
        assert_eq!(prove_by(terms, &token(&claims())).is_ok(), proves, "{role}");
    }
    let consumer = IssuerTerms { role: Some("'AgentConsumer'".to_owned()), ..terms() };
    assert_eq!(prove_by(consumer, &token(&with("sub", json!("sender")))), Err(RAISED));
}

#[test]
fn who_is_no_agent_of_its_own_is_nobody() {
    for nobody in ["bob", "Ada", "ada ", "helper"] {
        assert_eq!(proved(&token(&with("sub", json!(nobody)))), Err(NO_AGENT), "{nobody}");
    }
    let constant = IssuerTerms { agent: "claims.email_verified ? 'ada' : ''".to_owned(), ..terms() };
    prove_by(constant.clone(), &token(&with("email_verified", json!(true)))).unwrap();
    for unproved in [json!(false), json!("true"), json!(1), json!(null)] {
        assert_eq!(prove_by(constant.clone(), &token(&with("email_verified", unproved.clone()))), Err(NO_AGENT), "{unproved}");
    }
    let long = "x".repeat(256);
    for unprintable in [json!(""), json!("ada\n"), json!("a\u{7}"), json!(long), json!(["ada"]), json!(7)] {
        assert!(proved(&token(&with("sub", unprintable.clone()))).is_err(), "{unprintable}");
    }
    assert!(proved(&token(&without("sub"))).is_err());
}

#[test]
fn an_issuer_and_an_audience_are_taken_to_the_letter() {
    for iss in [
        "https://issuer.example/tenant/",
        "https://ISSUER.example/tenant",
        "https://issuer.example/Tenant",
        "https://issuer.example",
        "https://issuer.example:443/tenant",
        "http://issuer.example/tenant",
        "issuer.example/tenant",
        "",
    ] {
        assert_eq!(proved(&token(&with("iss", json!(iss)))), Err(OTHER_ISSUER), "{iss}");
    }
    assert_eq!(proved(&token(&without("iss"))), Err(OTHER_ISSUER));
    for aud in
        [json!("ACB"), json!("acb "), json!(["acb", "acb-machines"]), json!(["acb", "other"]), json!([]), json!({}), json!(null)]
    {
        assert_eq!(proved(&token(&with("aud", aud.clone()))), Err(OTHER_AUDIENCE), "{aud}");
    }
    for (changed, why) in [
        (with("exp", at(0).into()), "it has expired"),
        (with("nbf", at(60).into()), "it is from the future"),
        (with("iat", at(60).into()), "it is from the future"),
        (without("exp"), "it has no end"),
    ] {
        assert_eq!(proved(&token(&changed)), Err(why));
    }
}

#[test]
fn only_the_issuers_keys_sign_for_it() {
    let text = claims().to_string();
    let modulus = public(&rsa(), "rsa")["n"].as_str().unwrap().to_owned();
    let mac = (Algorithm::HS256, EncodingKey::from_secret(modulus.as_bytes()));
    for (header, key) in [
        (json!({"alg": "HS256", "kid": "rsa"}), &mac),
        (json!({"alg": "RS256", "kid": "rsa"}), &mac),
        (json!({"alg": "none", "kid": "rsa"}), &mac),
        (json!({"alg": "RS256", "kid": "p256"}), &rsa()),
        (json!({"alg": "ES256", "kid": "rsa"}), &p256()),
        (json!({"alg": "RS256", "kid": "../rsa"}), &rsa()),
        (json!({"alg": "RS256", "kid": "rsa", "jwk": public(&rsa(), "rsa")}), &rsa()),
        (json!({"alg": "RS256", "kid": "rsa", "jku": "https://evil.example"}), &rsa()),
        (json!({"alg": "RS256"}), &rsa()),
        (json!({"alg": "RS256", "kid": "rsa", "typ": "logout+jwt"}), &rsa()),
    ] {
        assert!(proved(&sign(&header, &text, key)).is_err(), "{header}");
    }
    let good = token(&claims());
    let (head, _) = good.rsplit_once('.').unwrap();
    assert!(proved(&format!("{head}.")).is_err());
    let twice = text.replacen('{', r#"{"sub":"ada","#, 1);
    assert!(proved(&sign(&json!({"alg": "RS256", "kid": "rsa"}), &twice, &rsa())).is_err());
    // The same key on a curve that nobody verifies with.
    let mut other = public(&p256(), "p256");
    other["crv"] = "secp256k1".into();
    let keys = Issuer::new(URL, &json!({"keys": [other]}));
    let shown = sign(&json!({"alg": "ES256", "kid": "p256"}), &text, &p256());
    let trusted = TrustedIssuer::new(terms()).unwrap();
    assert!(prove(&SubjectToken::parse(&shown).unwrap(), &trusted, &keys, &snapshot(), now()).is_err());
}

#[test]
fn what_came_of_a_token_ends_with_the_terms_for_its_issuer() {
    let Proved { agent, source, .. } = proved(&token(&claims())).unwrap();
    let lives = |change: fn(&mut IssuerTerms)| {
        let (mut snapshot, mut terms) = (snapshot(), terms());
        change(&mut terms);
        snapshot.trusted_issuers.clear();
        snapshot.trusted_issuers.insert(terms.url.clone(), Arc::new(TrustedIssuer::new(terms).unwrap()));
        snapshot.source_lives(agent, &source, now())
    };
    assert!(lives(|_| ()));
    assert!(lives(|terms| terms.authorities = Some("another".to_owned())));
    assert!(!lives(|terms| terms.url.push('2')));
    assert!(!lives(|terms| terms.agent = "claims.email".to_owned()));
    assert!(!lives(|terms| terms.role = None));
    assert!(!lives(|terms| terms.audiences = vec!["acb".to_owned()]));
}
