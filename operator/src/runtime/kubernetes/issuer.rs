//! Who issues the tokens of this cluster's ServiceAccounts: what the API server says of itself, asked again and again. A key that it takes into use is in
//! PostgreSQL within seconds, wherever an agent has an account; one that it gives up goes within a minute. Of an API server there are several
//! replicas, and while they are changed one after the other they say different things.

use std::{sync::Arc, time::Duration};

use http::Request;
use serde_json::{Map, Value};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    cluster::Cluster,
    requests::{Refusal, Requests},
};
use crate::{effect::EffectError, observed::ObservedIssuer, tenant::issuer};

const EVERY: Duration = Duration::from_secs(3);
/// What so many answers in a row do not name is given up: a minute's.
const ANSWERS: u32 = 20;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// One answer.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    issuer: String,
    keys: Vec<Value>,
}

/// What was named lately, each with how many answers since did not name it.
#[derive(Debug, Default)]
struct Heard {
    /// The one that was named last for the first time at the end.
    issuers: Vec<(String, u32)>,
    keys: Vec<(Value, u32)>,
    answers: u32,
}

impl Heard {
    /// Takes one more answer in. Which of two issuers is the newer one says who came later, not who spoke last: so two replicas that differ have
    /// nothing written again and again.
    fn hear(&mut self, said: Said) -> ObservedIssuer {
        self.answers = self.answers.saturating_add(1);
        count(&mut self.issuers, vec![said.issuer], |one, other| one == other);
        // Under the name of a key that is another one now, it is that one alone.
        count(&mut self.keys, said.keys, |one, other| one["kid"] == other["kid"]);
        self.keys.sort_by_key(|(_, missing)| *missing);
        let keys = self.keys.iter().fold(Vec::new(), |keys, (key, _)| issuer::with(keys, key.clone()));
        let name = self.issuers.last().map(|(name, _)| name.clone()).unwrap_or_default();
        ObservedIssuer { issuer: name, jwks: issuer::key_set(keys), is_settled: self.answers >= ANSWERS }
    }
}

/// What is named counts from now; what is not counts one answer more, and goes at the last of them.
fn count<T: PartialEq>(known: &mut Vec<(T, u32)>, named: Vec<T>, is_of_its_name: fn(&T, &T) -> bool) {
    known.retain(|(one, _)| named.contains(one) || !named.iter().any(|other| is_of_its_name(one, other)));
    for (one, missing) in known.iter_mut() {
        *missing = if named.contains(one) { 0 } else { *missing + 1 };
    }
    known.retain(|(_, missing)| *missing < ANSWERS);
    for one in named {
        if known.iter().all(|(other, _)| *other != one) {
            known.push((one, 0));
        }
    }
}

/// Asks, for as long as this process leads.
pub(super) async fn follow(cluster: Arc<Cluster>, requests: Requests, known: watch::Sender<Option<ObservedIssuer>>) {
    let (mut complained, mut heard) = (false, Heard::default());
    loop {
        match ask(&requests).await {
            Ok(said) => {
                complained = false;
                let issuer = heard.hear(said);
                let is_new = known.send_if_modified(|known| {
                    let is_new = known.as_ref() != Some(&issuer);
                    *known = Some(issuer);
                    is_new
                });
                if is_new {
                    info!("the cluster's tokens are checked with other keys now");
                    cluster.woken.add(cluster.cache.account_namespaces());
                }
            }
            // What was known holds.
            Err(error) if !complained => {
                complained = true;
                warn!(%error, "the API server does not say what its tokens are checked with, and agents that have a ServiceAccount wait: compare docs/rbac.md");
            }
            Err(_) => {}
        }
        if cluster.closing.run_until_cancelled(sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

async fn ask(requests: &Requests) -> Result<Said, EffectError> {
    let get = async |path: &'static str| {
        let request = Request::get(path).body(Vec::new()).map_err(|error| Refusal::Other(damaged(path, &error.to_string())))?;
        requests.send("get", &path, requests.client().request::<Value>(request)).await
    };
    let (discovery, keys) = (get(DISCOVERY).await?, get(KEYS).await?);
    read(&discovery, &keys)
}

fn damaged(path: &str, why: &str) -> EffectError {
    EffectError::refused("the Kubernetes API", format!("{path}: {why}"))
}

/// What hubs need of the two documents.
fn read(discovery: &Value, keys: &Value) -> Result<Said, EffectError> {
    let name = discovery.get("issuer").and_then(Value::as_str).filter(|issuer| !issuer.is_empty());
    let name = name.ok_or_else(|| damaged(DISCOVERY, "it names no issuer"))?;
    let listed = keys.get("keys").and_then(Value::as_array).ok_or_else(|| damaged(KEYS, "it is no JSON Web Key Set"))?;
    let mut keys: Vec<Value> = listed.iter().filter_map(public).collect();
    if issuer::are_too_many(&keys) {
        let (most, bytes) = (issuer::MAX_KEYS, issuer::MAX_BYTES);
        return Err(damaged(KEYS, &format!("it has more than {most} keys, or {bytes} bytes")));
    }
    // Of two with one name nobody knows which it is: a hub takes neither.
    let named = keys.clone();
    keys.retain(|key| named.iter().filter(|other| other["kid"] == key["kid"]).count() == 1);
    // It signs tokens with one of them: an answer without any ends nobody's.
    if keys.is_empty() {
        return Err(damaged(KEYS, "it has no public key"));
    }
    Ok(Said { issuer: name.to_owned(), keys })
}

/// What is needed of a public key, and nothing that is none.
fn public(key: &Value) -> Option<Value> {
    let fields: &[&str] = match key.get("kty")?.as_str()? {
        "RSA" => &["kid", "kty", "alg", "use", "n", "e"],
        "EC" => &["kid", "kty", "alg", "use", "crv", "x", "y"],
        _ => return None,
    };
    let kept = fields.iter().filter_map(|field| Some(((*field).to_owned(), key.get(*field)?.clone())));
    Some(Value::Object(kept.collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn of_what_the_api_server_says_the_issuer_and_public_keys_are_kept() {
        let discovery = json!({"issuer": "https://kubernetes.default.svc", "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"});
        let rsa = |kid: &str| json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": "AA", "e": "AQAB", "d": "secret", "x5c": []});
        let keys = json!({"keys": [rsa("b"), {"kid": "s", "kty": "oct", "k": "secret"}, rsa("a")]});
        let said = Heard::default().hear(read(&discovery, &keys).unwrap());
        assert_eq!(said.issuer, "https://kubernetes.default.svc");
        let kept = |kid: &str| json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": "AA", "e": "AQAB"});
        assert_eq!(said.jwks, json!({"keys": [kept("a"), kept("b")]}));
        let mut swapped = keys.clone();
        swapped["keys"].as_array_mut().unwrap().reverse();
        assert_eq!(Heard::default().hear(read(&discovery, &swapped).unwrap()), said);
    }

    fn said(issuer: &str, kids: &[&str]) -> Said {
        Said { issuer: issuer.to_owned(), keys: kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA"})).collect() }
    }

    fn kids(seen: &ObservedIssuer) -> Vec<&str> {
        seen.jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_key_that_is_given_up_goes_after_those_that_come() {
        let mut heard = Heard::default();
        assert!(!heard.hear(said("one", &["a"])).is_settled);
        assert_eq!(kids(&heard.hear(said("one", &["b"]))), ["a", "b"], "it comes at once");
        for _ in 2..ANSWERS {
            assert_eq!(kids(&heard.hear(said("one", &["b"]))), ["a", "b"]);
        }
        let last = heard.hear(said("one", &["b"]));
        assert_eq!((kids(&last), last.is_settled), (vec!["b"], true));
        // Under its name there is another key.
        let another = json!({"kid": "b", "kty": "EC"});
        let answer = Said { keys: vec![another.clone()], ..said("one", &[]) };
        assert_eq!(heard.hear(answer).jwks, json!({"keys": [another]}));
    }

    #[test]
    fn replicas_that_differ_have_nothing_written_again_and_again() {
        let mut heard = Heard::default();
        heard.hear(said("old", &["a"]));
        let new = heard.hear(said("new", &["b"]));
        assert_eq!((new.issuer.as_str(), kids(&new)), ("new", vec!["a", "b"]));
        let mut written = BTreeSet::new();
        for turn in 0..200 {
            let answer = if turn % 3 == 0 { said("new", &["b"]) } else { said("old", &["a"]) };
            let seen = heard.hear(answer);
            written.insert((seen.issuer.clone(), seen.jwks.to_string(), seen.is_settled));
        }
        // Once more when it is known for certain.
        assert!(written.len() <= 2, "{written:?}");
        // The change is taken back everywhere.
        for _ in 0..ANSWERS {
            heard.hear(said("old", &["a"]));
        }
        let back = heard.hear(said("old", &["a"]));
        assert_eq!((back.issuer.as_str(), kids(&back)), ("old", vec!["a"]));
    }

    #[test]
    fn what_is_damaged_or_too_much_is_not_taken() {
        let discovery = json!({"issuer": "https://kubernetes.default.svc"});
        for (discovery, keys) in [
            (json!({}), json!({"keys": []})),
            (json!({"issuer": ""}), json!({"keys": []})),
            (json!({"issuer": 7}), json!({"keys": []})),
            (discovery.clone(), json!({})),
            (discovery.clone(), json!({"keys": [{"kid": "s", "kty": "oct", "k": "secret"}]})),
            (discovery.clone(), json!({"keys": [{"kid": "a", "kty": "RSA", "n": "x"}, {"kid": "a", "kty": "RSA", "n": "y"}]})),
            (discovery.clone(), json!({"keys": "none"})),
            (discovery.clone(), json!({"keys": vec![json!({"kid": "a", "kty": "RSA"}); issuer::MAX_KEYS + 1]})),
            (discovery, json!({"keys": [{"kid": "a", "kty": "RSA", "n": "x".repeat(10_000_000)}]})),
        ] {
            assert!(read(&discovery, &keys).is_err());
        }
    }
}
