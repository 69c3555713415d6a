//! Who issues the tokens of ServiceAccounts, as a tenant's hub is to know it: keys are added at once, and go when the cluster has given them up; the
//! issuer before is known for a while, since pods have its tokens. Pure.

use serde_json::{Value, json};

use crate::{observed::ObservedIssuer, plan::IssuerRow};

/// As many keys as a hub reads, and as many bytes of them. An API server has a handful of keys.
pub const MAX_KEYS: usize = 64;
/// See [`MAX_KEYS`].
pub const MAX_BYTES: usize = 64 * 1024;

/// The row, from what it says now and what was heard of the cluster. It is a fact of the cluster: a Tenant that is stalled follows it, too.
#[must_use]
pub(super) fn following(row: Option<&IssuerRow>, seen: &ObservedIssuer) -> IssuerRow {
    let Some(row) = row else { return IssuerRow::new(&seen.issuer, seen.jwks.clone()) };
    let is_current = row.issuer == seen.issuer;
    // Who has just begun to ask may have heard the one replica that is behind.
    let is_behind = !seen.is_settled && row.previous.as_ref() == Some(&seen.issuer);
    let (issuer, previous) = match is_current || is_behind {
        true => (row.issuer.clone(), row.previous.clone()),
        false => (seen.issuer.clone(), Some(row.issuer.clone())),
    };
    let mut keys = keys(&seen.jwks);
    if !seen.is_settled {
        for kept in self::keys(&row.jwks) {
            keys = with(keys, kept);
        }
    }
    IssuerRow { issuer, previous, jwks: key_set(keys) }
}

fn keys(jwks: &Value) -> Vec<Value> {
    jwks["keys"].as_array().cloned().unwrap_or_default()
}

/// One more key, where there is room for it and none of its name: of two with one name a hub takes neither.
#[must_use]
pub fn with(mut keys: Vec<Value>, key: Value) -> Vec<Value> {
    if keys.iter().any(|known| known["kid"] == key["kid"]) {
        return keys;
    }
    keys.push(key);
    if are_too_many(&keys) {
        keys.pop();
    }
    keys
}

/// Whether a hub would not read all of them.
#[must_use]
pub fn are_too_many(keys: &[Value]) -> bool {
    keys.len() > MAX_KEYS || key_set(keys.to_vec()).to_string().len() > MAX_BYTES
}

/// A JSON Web Key Set, in an order that does not change: replicas of an API server may list the keys in another one.
#[must_use]
pub fn key_set(mut keys: Vec<Value>) -> Value {
    keys.sort_by_key(|key| key["kid"].to_string());
    json!({"keys": keys})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(kids: &[&str]) -> Value {
        key_set(kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA"})).collect())
    }

    fn seen(issuer: &str, kids: &[&str], is_settled: bool) -> ObservedIssuer {
        ObservedIssuer { issuer: issuer.to_owned(), jwks: set(kids), is_settled }
    }

    fn row(issuer: &str, previous: Option<&str>, kids: &[&str]) -> IssuerRow {
        IssuerRow { previous: previous.map(str::to_owned), ..IssuerRow::new(issuer, set(kids)) }
    }

    #[test]
    fn keys_come_at_once_and_go_when_it_is_known_that_the_cluster_gave_them_up() {
        let known = row("one", None, &["a", "b"]);
        assert_eq!(following(None, &seen("one", &["a"], false)), row("one", None, &["a"]));
        // Who leads since a moment ago has heard one replica alone.
        assert_eq!(following(Some(&known), &seen("one", &["b", "c"], false)), row("one", None, &["a", "b", "c"]));
        assert_eq!(following(Some(&known), &seen("one", &["b", "c"], true)), row("one", None, &["b", "c"]));
        // Under the name of a key that is another one now, it is that one alone.
        let another = ObservedIssuer { jwks: json!({"keys": [{"kid": "a", "kty": "EC"}]}), ..seen("one", &[], false) };
        let keys = following(Some(&row("one", None, &["a"])), &another).jwks;
        assert_eq!(keys, another.jwks);
    }

    #[test]
    fn the_issuer_before_stays_known() {
        let known = row("one", None, &["a"]);
        for is_settled in [false, true] {
            assert_eq!(following(Some(&known), &seen("two", &["a"], is_settled)), row("two", Some("one"), &["a"]));
        }
        let changed = row("two", Some("one"), &["a"]);
        assert_eq!(following(Some(&changed), &seen("two", &["a"], true)), changed, "nothing is new");
        assert_eq!(following(Some(&changed), &seen("one", &["a"], false)), changed, "a replica that is behind");
        assert_eq!(following(Some(&changed), &seen("one", &["a"], true)), row("one", Some("two"), &["a"]), "it was taken back");
        assert_eq!(following(Some(&changed), &seen("three", &["a"], true)), row("three", Some("two"), &["a"]));
    }

    #[test]
    fn no_more_is_kept_than_a_hub_reads() {
        let many: Vec<String> = (0..MAX_KEYS).map(|number| format!("k{number:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let known = row("one", None, &["old"]);
        assert_eq!(following(Some(&known), &seen("one", &many, false)).jwks, set(&many), "those of now come first");
        let large = json!({"kid": "large", "n": "x".repeat(MAX_BYTES)});
        assert_eq!(with(vec![json!({"kid": "a"})], large), [json!({"kid": "a"})]);
    }
}
