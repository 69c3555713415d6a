//! Who issues the tokens of this cluster's ServiceAccounts: what the API server says of itself, asked again and again. A key that it gives up, or takes
//! into use, is in PostgreSQL within seconds, wherever an agent has an account.

use std::{sync::Arc, time::Duration};

use http::Request;
use serde_json::{Map, Value, json};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::{
    cluster::Cluster,
    requests::{Refusal, Requests},
};
use crate::{effect::EffectError, plan::IssuerRow};

const EVERY: Duration = Duration::from_secs(3);
/// As much as a hub reads of it. An API server has a handful of keys.
const MAX_KEYS: usize = 64;
const MAX_BYTES: usize = 64 * 1024;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// Asks, for as long as this process leads.
pub(super) async fn follow(cluster: Arc<Cluster>, requests: Requests, known: watch::Sender<Option<IssuerRow>>) {
    let mut complained = false;
    loop {
        match ask(&requests).await {
            Ok(issuer) => {
                complained = false;
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

async fn ask(requests: &Requests) -> Result<IssuerRow, EffectError> {
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
fn read(discovery: &Value, keys: &Value) -> Result<IssuerRow, EffectError> {
    let issuer = discovery.get("issuer").and_then(Value::as_str).filter(|issuer| !issuer.is_empty());
    let issuer = issuer.ok_or_else(|| damaged(DISCOVERY, "it names no issuer"))?;
    let listed = keys.get("keys").and_then(Value::as_array).ok_or_else(|| damaged(KEYS, "it is no JSON Web Key Set"))?;
    let mut keys: Vec<Value> = listed.iter().filter_map(public).collect();
    // Replicas of an API server may list them in another order.
    keys.sort_by_key(|key| key["kid"].to_string());
    let jwks = json!({"keys": keys});
    if keys_are_too_many(&jwks) {
        return Err(damaged(KEYS, &format!("it has more than {MAX_KEYS} keys, or {MAX_BYTES} bytes")));
    }
    Ok(IssuerRow { issuer: issuer.to_owned(), jwks })
}

fn keys_are_too_many(jwks: &Value) -> bool {
    jwks["keys"].as_array().map_or(0, Vec::len) > MAX_KEYS || jwks.to_string().len() > MAX_BYTES
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

    use super::*;

    #[test]
    fn of_what_the_api_server_says_the_issuer_and_public_keys_are_kept() {
        let discovery = json!({"issuer": "https://kubernetes.default.svc", "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"});
        let rsa = |kid: &str| json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": "AA", "e": "AQAB", "d": "secret", "x5c": []});
        let keys = json!({"keys": [rsa("b"), {"kid": "s", "kty": "oct", "k": "secret"}, rsa("a")]});
        let row = read(&discovery, &keys).unwrap();
        assert_eq!(row.issuer, "https://kubernetes.default.svc");
        let kept = |kid: &str| json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": "AA", "e": "AQAB"});
        assert_eq!(row.jwks, json!({"keys": [kept("a"), kept("b")]}));
        let mut swapped = keys.clone();
        swapped["keys"].as_array_mut().unwrap().reverse();
        assert_eq!(read(&discovery, &swapped).unwrap(), row);
    }

    #[test]
    fn what_is_damaged_or_too_much_is_not_taken() {
        let discovery = json!({"issuer": "https://kubernetes.default.svc"});
        for (discovery, keys) in [
            (json!({}), json!({"keys": []})),
            (json!({"issuer": ""}), json!({"keys": []})),
            (json!({"issuer": 7}), json!({"keys": []})),
            (discovery.clone(), json!({})),
            (discovery.clone(), json!({"keys": "none"})),
            (discovery.clone(), json!({"keys": vec![json!({"kid": "a", "kty": "RSA"}); MAX_KEYS + 1]})),
            (discovery, json!({"keys": [{"kid": "a", "kty": "RSA", "n": "x".repeat(10_000_000)}]})),
        ] {
            assert!(read(&discovery, &keys).is_err());
        }
    }
}
