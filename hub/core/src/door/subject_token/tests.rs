//! Vectors are made here, of keys that are used for nothing else.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::directory::{
    issuer::Issuer,
    snapshot::{KnownAccount, Snapshot},
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const AUDIENCE: &str = "acb:00112233445566778899";
const UID: &str = "7d0c2ad2-6d7c-4a43-8b4e-0a4a2f5d8f11";

struct Key {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

fn rsa() -> Key {
    Key { kid: "rsa", algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_der(include_bytes!("keys/rsa.der")) }
}

fn p256() -> Key {
    Key { kid: "p256", algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(include_bytes!("keys/p256.der")) }
}

fn p384() -> Key {
    Key { kid: "p384", algorithm: Algorithm::ES384, key: EncodingKey::from_ec_der(include_bytes!("keys/p384.der")) }
}

impl Key {
    fn public(&self) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = self.kid.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token of these texts, whatever they say.
    fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), BASE64_URL_SAFE_NO_PAD.encode(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn header(&self) -> Value {
        json!({"alg": name_of(self.algorithm), "kid": self.kid})
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn at(seconds: i64) -> i64 {
    now().unix_timestamp() + seconds
}

/// As an API server writes them.
fn claims() -> Value {
    json!({
        "aud": [AUDIENCE], "exp": at(600), "iat": at(-10), "nbf": at(-10), "iss": ISSUER, "jti": "0b1f2c6e-9b1c-4f13-9f54-1f7a4f6a6c11",
        "kubernetes.io": {
            "namespace": "acb-acme", "serviceaccount": {"name": "worker", "uid": UID},
            "pod": {"name": "worker-0", "uid": "3f6b7a52-7d4e-4b5c-9d1e-2c7d0d4a7b55"}, "warnafter": at(300),
        },
        "sub": "system:serviceaccount:acb-acme:worker",
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut claims = claims();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    claims.pointer_mut(parent).unwrap()[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name).unwrap();
    claims
}

fn snapshot() -> Snapshot {
    let jwks = json!({"keys": [rsa().public(), p256().public(), p384().public()]});
    let account = KnownAccount { agent: AgentId(Uuid::from_u128(7)), uid: UID.to_owned() };
    let mut snapshot = Snapshot::new(1, Vec::new(), Vec::new());
    snapshot.issuer = Some(Arc::new(Issuer::new(ISSUER, &jwks)));
    snapshot.accounts.insert("acb-acme/worker".to_owned(), account);
    snapshot
}

fn prove(token: &str) -> Result<Proved, Why> {
    SubjectToken::parse(token)?.prove(&snapshot(), AUDIENCE, now())
}

#[test]
fn a_token_proves_the_agent_whose_account_it_names_with_every_kind_of_key() {
    for key in [rsa(), p256(), p384()] {
        let proved = prove(&key.token(&claims())).unwrap();
        assert_eq!((proved.agent, proved.ends_at.unix_timestamp()), (AgentId(Uuid::from_u128(7)), at(600)));
        let Source::Account(token) = proved.source.clone() else { panic!("{:?}", proved.source) };
        let AccountToken { iss, jti, account, uid } = token;
        assert_eq!((iss.as_str(), account.as_str(), uid.as_str()), (ISSUER, "acb-acme/worker", UID));
        assert_eq!(Value::from(jti), claims()["jti"]);
        assert!(snapshot().source_lives(proved.agent, &proved.source, now()));
    }
    let mut header = rsa().header();
    header["typ"] = "JWT".into();
    prove(&rsa().sign(&header.to_string(), &claims().to_string())).unwrap();
    prove(&rsa().token(&with("/aud", AUDIENCE.into()))).unwrap();
    prove(&rsa().token(&without("jti"))).unwrap();
}

#[test]
fn what_is_no_token_is_refused() {
    let good = rsa().token(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "acb_x_y",
        head,
        &format!("{good}.x"),
        &format!(".{good}"),
        &format!("{head}."),
        &format!("{good}="),
        &format!("{head}.{signature}\n"),
        &format!(" {good}"),
        &"x".repeat(10_000_000),
        &format!("{}.{}", "a".repeat(MAX_TOKEN_BYTES), "b.c"),
    ] {
        assert!(prove(bad).is_err(), "{}", &bad[..bad.len().min(80)]);
    }
}

#[test]
fn a_signature_counts_with_the_key_and_the_algorithm_that_belong_together_only() {
    let text = claims().to_string();
    let of = |header: &Value, key: &Key| key.sign(&header.to_string(), &text);
    let payload = BASE64_URL_SAFE_NO_PAD.encode(&text);
    // Nothing is signed.
    for alg in ["none", "None", "NONE", ""] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "rsa"}).to_string());
        for signature in ["", "AA"] {
            assert!(prove(&format!("{header}.{payload}.{signature}")).is_err(), "{alg}");
        }
    }
    // The public key, which everybody has, as the secret of a MAC.
    for key in [rsa(), p256()] {
        let public = key.public();
        for secret in [public.to_string(), public["n"].as_str().or(public["x"].as_str()).unwrap().to_owned()] {
            let hmac = Key { kid: key.kid, algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret.as_bytes()) };
            for alg in ["HS256", "RS256", "ES256"] {
                assert!(prove(&of(&json!({"alg": alg, "kid": key.kid}), &hmac)).is_err(), "{alg}");
            }
        }
    }
    // One key's algorithm with another one's signature.
    for (alg, kid) in [
        ("RS256", "p256"),
        ("ES256", "rsa"),
        ("ES384", "p256"),
        ("ES256", "p384"),
        ("RS512", "rsa"),
        ("PS256", "rsa"),
        ("ES512", "p384"),
    ] {
        for key in [rsa(), p256(), p384()] {
            assert!(prove(&of(&json!({"alg": alg, "kid": kid}), &key)).is_err(), "{alg} {kid} {}", key.kid);
        }
    }
    for (signs, named) in [(rsa(), p256()), (p256(), rsa()), (p384(), p256())] {
        assert_eq!(prove(&of(&named.header(), &signs)), Err("its signature is wrong"));
    }
    // A key that it names otherwise, or brings along.
    let path = "../../../../dev/null";
    for kid in
        [json!("unknown"), json!(""), json!(path), json!("rsa\0"), json!("' OR 1=1 --"), json!(["rsa"]), json!(null), json!(7)]
    {
        assert!(prove(&of(&json!({"alg": "RS256", "kid": kid}), &rsa())).is_err(), "{kid}");
    }
    assert!(prove(&of(&json!({"alg": "RS256"}), &rsa())).is_err());
    let stranger = rsa();
    for (name, value) in [
        ("jwk", stranger.public()),
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let mut header = stranger.header();
        header[name] = value;
        assert_eq!(prove(&of(&header, &stranger)), Err("its header has more than alg, kid and typ"), "{name}");
    }
    assert!(prove(&of(&json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}), &rsa())).is_err());
    // A changed claim.
    let good = rsa().token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let other = BASE64_URL_SAFE_NO_PAD.encode(with("/jti", "another".into()).to_string());
    assert_eq!(prove(&format!("{}.{other}.{}", parts[0], parts[2])), Err("its signature is wrong"));
}

#[test]
fn a_key_that_is_no_point_of_its_curve_proves_nothing() {
    let mut public = p256().public();
    let ones = BASE64_URL_SAFE_NO_PAD.encode([1_u8; 32]);
    (public["x"], public["y"]) = (ones.as_str().into(), ones.as_str().into());
    let mut snapshot = snapshot();
    snapshot.issuer = Some(Arc::new(Issuer::new(ISSUER, &json!({"keys": [public]}))));
    let token = p256().token(&claims());
    assert_eq!(SubjectToken::parse(&token).unwrap().prove(&snapshot, AUDIENCE, now()), Err("its signature is wrong"));
}

#[test]
fn what_is_named_twice_is_refused() {
    let text = claims().to_string();
    let header = rsa().header().to_string();
    for (name, value) in
        [("aud", json!([AUDIENCE])), ("sub", claims()["sub"].clone()), ("exp", json!(at(600))), ("iss", json!(ISSUER))]
    {
        let twice = text.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        assert_eq!(prove(&rsa().sign(&header, &twice)), Err("its claims are no JSON object, or name something twice"), "{name}");
    }
    let nested = text.replacen(r#""serviceaccount":{"#, &format!(r#""serviceaccount":{{"uid":"{UID}","#), 1);
    assert!(nested != text && prove(&rsa().sign(&header, &nested)).is_err());
    let twice = header.replacen('{', r#"{"alg":"RS256","#, 1);
    assert_eq!(prove(&rsa().sign(&twice, &text)), Err("its header is no JSON object, or names something twice"));
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    for aud in [
        json!("https://kubernetes.default.svc"),
        json!(["https://kubernetes.default.svc"]),
        // Whoever is meant beside this tenant could show it here.
        json!([AUDIENCE, "https://kubernetes.default.svc"]),
        json!([AUDIENCE, "acb:99887766554433221100"]),
        json!([AUDIENCE, AUDIENCE]),
        json!(["acb:99887766554433221100"]),
        json!("acb:"),
        json!("ACB:00112233445566778899"),
        json!(format!("{AUDIENCE} ")),
        json!([[AUDIENCE]]),
        json!({"acb": AUDIENCE}),
        json!([]),
        json!(null),
    ] {
        assert_eq!(
            prove(&rsa().token(&with("/aud", aud.clone()))),
            Err("its audience is another, or not this tenant's alone"),
            "{aud}"
        );
    }
    assert!(prove(&rsa().token(&without("aud"))).is_err());
    for iss in [
        json!("https://kubernetes.default.svc.cluster.local/"),
        json!("https://evil.example"),
        json!(""),
        json!([ISSUER]),
        json!(null),
    ] {
        assert_eq!(prove(&rsa().token(&with("/iss", iss.clone()))), Err("it is of another issuer"), "{iss}");
    }
    assert!(prove(&rsa().token(&without("iss"))).is_err());
}

#[test]
fn a_token_counts_from_its_beginning_to_its_end() {
    for claims in
        [with("/exp", at(1).into()), with("/nbf", at(4).into()), with("/iat", at(4).into()), without("nbf"), without("iat")]
    {
        prove(&rsa().token(&claims)).unwrap();
    }
    for (claims, why) in [
        (with("/exp", at(0).into()), "it has expired"),
        (with("/exp", 0.into()), "it has expired"),
        (with("/exp", (-1).into()), "it has expired"),
        (with("/nbf", at(6).into()), "it is from the future"),
        (with("/iat", at(86_400).into()), "it is from the future"),
        (without("exp"), "it has no end"),
        (with("/exp", json!("1800000600")), "a time in it is none"),
        (with("/exp", json!(1.8e9)), "a time in it is none"),
        (with("/exp", json!(u64::MAX)), "a time in it is none"),
        (with("/exp", json!(i64::MAX)), "a time in it is none"),
        (with("/nbf", json!(i64::MIN)), "a time in it is none"),
        (with("/nbf", json!(null)), "a time in it is none"),
    ] {
        assert_eq!(prove(&rsa().token(&claims)), Err(why), "{claims}");
    }
}

#[test]
fn only_an_agents_account_of_now_proves_it() {
    for (claims, why) in [
        (with("/sub", json!("system:serviceaccount:acb-acme:admin")), "its subject is another than its ServiceAccount"),
        (with("/sub", json!("worker")), "its subject is another than its ServiceAccount"),
        (without("sub"), "its subject is another than its ServiceAccount"),
        (with("/kubernetes.io/namespace", json!("acb-globex")), "its subject is another than its ServiceAccount"),
        (with("/kubernetes.io/serviceaccount/name", json!("admin")), "its subject is another than its ServiceAccount"),
        (with("/kubernetes.io/serviceaccount/uid", json!("another")), "its ServiceAccount was deleted, and made again"),
        (with("/kubernetes.io/serviceaccount/uid", json!("")), "it is no ServiceAccount's"),
        (with("/kubernetes.io/serviceaccount/uid", json!([UID])), "it is no ServiceAccount's"),
        (with("/kubernetes.io/serviceaccount", json!("worker")), "it is no ServiceAccount's"),
        (with("/kubernetes.io", json!(null)), "it is no ServiceAccount's"),
        (without("kubernetes.io"), "it is no ServiceAccount's"),
    ] {
        assert_eq!(prove(&rsa().token(&claims)), Err(why), "{claims}");
    }
    // Of the same name, in another namespace: another account.
    let mut elsewhere = with("/sub", json!("system:serviceaccount:acb-globex:worker"));
    elsewhere["kubernetes.io"]["namespace"] = "acb-globex".into();
    assert_eq!(prove(&rsa().token(&elsewhere)), Err("its ServiceAccount is no agent's"));
    assert_eq!(prove(&rsa().token(&with("/jti", json!("x".repeat(200))))), Err("its id is too long"));
    let token = rsa().token(&claims());
    let proved = |change: fn(&mut Snapshot)| {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        SubjectToken::parse(&token).unwrap().prove(&snapshot, AUDIENCE, now()).map(drop)
    };
    assert_eq!(proved(|snapshot| snapshot.issuer = None), Err("no agent of the tenant has a ServiceAccount"));
    assert_eq!(proved(|snapshot| snapshot.accounts.clear()), Err("its ServiceAccount is no agent's"));
}

#[test]
fn tokens_of_the_issuer_before_are_taken_until_their_time_is_over() {
    let token = rsa().token(&claims());
    let renamed = |until: i64| {
        let mut snapshot = snapshot();
        let jwks = json!({"keys": [rsa().public()]});
        let until = now() + Duration::seconds(until);
        snapshot.issuer = Some(Arc::new(Issuer::new("https://renamed", &jwks).after(ISSUER.to_owned(), until)));
        snapshot
    };
    let prove = |snapshot: &Snapshot| SubjectToken::parse(&token).unwrap().prove(snapshot, AUDIENCE, now());
    let proved = prove(&renamed(1)).unwrap();
    assert!(matches!(&proved.source, Source::Account(token) if token.iss == ISSUER));
    assert!(renamed(1).source_lives(proved.agent, &proved.source, now()));
    assert!(!renamed(0).source_lives(proved.agent, &proved.source, now()));
    assert_eq!(prove(&renamed(0)), Err("it is of another issuer"));
}

#[test]
fn what_came_of_a_token_ends_with_its_account_and_its_issuer() {
    let proved = prove(&rsa().token(&claims())).unwrap();
    let source = proved.source;
    let lives = |change: fn(&mut Snapshot)| {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        snapshot.source_lives(proved.agent, &source, now())
    };
    assert!(lives(|_| {}));
    assert!(!lives(|snapshot| snapshot.accounts.clear()));
    assert!(!lives(|snapshot| snapshot.accounts.values_mut().for_each(|account| account.uid = "another".to_owned())));
    assert!(!lives(|snapshot| snapshot.accounts.values_mut().for_each(|account| account.agent = AgentId(Uuid::nil()))));
    assert!(!lives(|snapshot| snapshot.issuer = None));
    assert!(!lives(|snapshot| snapshot.issuer = Some(Arc::new(Issuer::new("https://another", &json!({}))))));
}
