//! Tokens of other issuers: what one says, and what is checked of every one of them. And those of Kubernetes ServiceAccounts: whether one proves an
//! agent. Nobody is asked: the cluster's keys, and which accounts there are, the operator projected. Pure.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::crypto;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::access_token::LEEWAY_SECONDS;
use crate::{
    directory::{
        agent::AgentId,
        issuer::{Issuer, PublicKey, name_of},
        snapshot::Snapshot,
        source::{AccountToken, Source},
    },
    kit::strict_json,
};

/// The type of these tokens in an exchange (RFC 8693).
pub const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The longest token that is looked at: those of an API server have about 1,200 bytes.
const MAX_TOKEN_BYTES: usize = 8192;
/// Of a token's id.
const MAX_ID_BYTES: usize = 128;

/// A token that reads as one. Nothing in it is proved.
#[derive(Debug)]
pub(crate) struct SubjectToken<'a> {
    signed: &'a str,
    signature: &'a str,
    algorithm: String,
    kid: String,
    kind: Kind,
    claims: Map<String, Value>,
}

/// What a header says that the token is, by its `typ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jwt,
    /// RFC 9068.
    AccessToken,
}

/// Whom a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) agent: AgentId,
    /// The token, as what is issued for it came from it.
    pub(crate) source: Source,
    /// When the token ends.
    pub(crate) ends_at: OffsetDateTime,
}

/// Why a token proves nobody. For the hub's log: who shows one is not told.
pub(crate) type Why = &'static str;

const NO_ISSUER: Why = "no agent of the tenant has a ServiceAccount";
pub(super) const OTHER_ISSUER: Why = "it is of another issuer";
pub(super) const OTHER_AUDIENCE: Why = "its audience is none of those that the tenant names, or not alone";
pub(super) const NO_KEY: Why = "the issuer has no such key";
pub(super) const NO_KEYS: Why = "its issuer did not say which keys it has";
pub(super) const NO_AGENT: Why = "its claims are no agent's";
pub(super) const RAISED: Why = "its claims would raise the role of its agent";
const NO_ACCOUNT: Why = "its ServiceAccount is no agent's";
const OTHER_UID: Why = "its ServiceAccount was deleted, and made again";

/// Whether a newer directory may say otherwise.
pub(crate) fn may_change(why: Why) -> bool {
    [NO_ISSUER, OTHER_ISSUER, OTHER_AUDIENCE, NO_KEY, NO_KEYS, NO_AGENT, RAISED, NO_ACCOUNT, OTHER_UID].contains(&why)
}

impl<'a> SubjectToken<'a> {
    pub(crate) fn parse(token: &'a str) -> Result<Self, Why> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it is no JWT")?;
        let (header, payload) = signed.split_once('.').ok_or("it is no JWT")?;
        let read = |part: &str| strict_json::object(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?);
        let header = read(header).ok_or("its header is no JSON object, or names something twice")?;
        let claims = read(payload).ok_or("its claims are no JSON object, or name something twice")?;
        // A key that a token brings along, or an extension that must be understood, is never what it is judged by.
        // Of a thumbprint nothing follows: some issuers name their keys twice.
        if header.keys().any(|name| !["alg", "kid", "typ", "x5t", "x5t#S256"].contains(&name.as_str())) {
            return Err("its header has more than alg, kid and typ");
        }
        let kind = match header.get("typ").map(Value::as_str) {
            None | Some(Some("JWT")) => Kind::Jwt,
            Some(Some("at+jwt" | "application/at+jwt")) => Kind::AccessToken,
            Some(_) => return Err("its typ is another than JWT and at+jwt"),
        };
        let named = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        let algorithm = named("alg").ok_or("its header names no algorithm")?;
        let kid = named("kid").ok_or("its header names no key")?;
        Ok(Self { signed, signature, algorithm, kid, kind, claims })
    }

    /// Who issued it, as it says.
    pub(crate) fn issuer(&self) -> &str {
        self.claim("iss").unwrap_or_default()
    }

    /// The name of the key that it is said to be signed with.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    pub(super) fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// Its id; empty where it has none.
    pub(super) fn id(&self) -> Result<&str, Why> {
        match self.claim("jti").unwrap_or_default() {
            id if id.len() > MAX_ID_BYTES || id.contains(char::is_control) => Err("its id is too long"),
            id => Ok(id),
        }
    }

    /// Whether it was signed with this key. The key says which algorithm it is for. What the token says of it only has to agree.
    pub(super) fn is_signed_with(&self, key: &PublicKey) -> Result<(), Why> {
        match crypto::verify(self.signature, self.signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => Ok(()),
            _ => Err("its signature is wrong"),
        }
    }

    /// Of this issuer the key that the token names.
    pub(super) fn key_of<'k>(&self, issuer: &'k Issuer) -> Result<&'k PublicKey, Why> {
        let key = issuer.key(&self.kid).ok_or(NO_KEY)?;
        if self.algorithm == name_of(key.algorithm) { Ok(key) } else { Err("its algorithm is not that of its key") }
    }

    /// Whom it proves to the tenant with this audience, by what the directory knows.
    pub(crate) fn prove(&self, snapshot: &Snapshot, audience: &str, now: OffsetDateTime) -> Result<Proved, Why> {
        let issuer = snapshot.issuer.as_ref().ok_or(NO_ISSUER)?;
        // All that takes no time comes before the signature. A stranger knows the issuer, and not the UID of an account: whoever floods the hub has it
        // check no signatures.
        let iss = self.claim("iss").filter(|iss| issuer.is_named(iss, now)).ok_or(OTHER_ISSUER)?;
        if self.kind != Kind::Jwt {
            return Err("its typ is another than JWT");
        }
        self.is_for(&[audience])?;
        let key = self.key_of(issuer)?;
        let ends_at = self.valid_until(now)?;
        let (account, uid) = self.account()?;
        let known = snapshot.accounts.get(&account).ok_or(NO_ACCOUNT)?;
        if known.uid != uid {
            return Err(OTHER_UID);
        }
        self.is_signed_with(key)?;
        let token = AccountToken { iss: iss.to_owned(), jti: self.id()?.to_owned(), account, uid };
        Ok(Proved { agent: known.agent, source: Source::Account(token), ends_at })
    }

    /// Whether it is for one of these audiences and for nobody else: who else it is for could show it here.
    pub(super) fn is_for(&self, audiences: &[impl AsRef<str>]) -> Result<(), Why> {
        let named = match self.claims.get("aud") {
            Some(Value::Array(named)) => match named.as_slice() {
                [only] => only.as_str(),
                _ => None,
            },
            Some(only) => only.as_str(),
            None => None,
        };
        let is_one = named.is_some_and(|named| audiences.iter().any(|audience| audience.as_ref() == named));
        if is_one { Ok(()) } else { Err("its audience is another, or not this tenant's alone") }
    }

    /// Clocks may differ a little. That makes no token last longer: what comes of one ends with it.
    pub(super) fn valid_until(&self, now: OffsetDateTime) -> Result<OffsetDateTime, Why> {
        let instant = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(seconds) => {
                let at = seconds.as_i64().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
                at.map(Some).ok_or("a time in it is none")
            }
        };
        let leeway = Duration::seconds(LEEWAY_SECONDS.cast_signed());
        let ends_at = instant("exp")?.ok_or("it has no end")?;
        if ends_at <= now {
            return Err("it has expired");
        }
        for begin in [instant("nbf")?, instant("iat")?].into_iter().flatten() {
            if begin > now + leeway {
                return Err("it is from the future");
            }
        }
        Ok(ends_at)
    }

    /// The account, as `<namespace>/<name>`, and its UID: what the API server says of it apart must agree with the subject.
    fn account(&self) -> Result<(String, String), Why> {
        let claims = self.claims.get("kubernetes.io").ok_or("it is no ServiceAccount's")?;
        let text = |pointer: &str| claims.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let found = (text("/namespace"), text("/serviceaccount/name"), text("/serviceaccount/uid"));
        let (Some(namespace), Some(name), Some(uid)) = found else { return Err("it is no ServiceAccount's") };
        let subject = format!("system:serviceaccount:{namespace}:{name}");
        if self.claims.get("sub").and_then(Value::as_str) != Some(&subject) {
            return Err("its subject is another than its ServiceAccount");
        }
        Ok((format!("{namespace}/{name}"), uid.to_owned()))
    }
}

#[cfg(test)]
mod tests;
