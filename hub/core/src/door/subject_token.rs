//! Tokens of Kubernetes ServiceAccounts: what one says, and whether it proves an agent. Nobody is asked: the cluster's keys, and which accounts there
//! are, the operator projected. Pure.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::crypto;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::access_token::LEEWAY_SECONDS;
use crate::{
    directory::{agent::AgentId, issuer::name_of, snapshot::Snapshot, source::AccountToken},
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
    claims: Map<String, Value>,
}

/// Whom a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) agent: AgentId,
    pub(crate) token: AccountToken,
    /// When the token ends.
    pub(crate) ends_at: OffsetDateTime,
}

/// Why a token proves nobody. For the hub's log: who shows one is not told.
pub(crate) type Why = &'static str;

const NO_ISSUER: Why = "no agent of the tenant has a ServiceAccount";
const OTHER_ISSUER: Why = "it is of another issuer";
const NO_KEY: Why = "the issuer has no such key";
const NO_ACCOUNT: Why = "its ServiceAccount is no agent's";
const OTHER_UID: Why = "its ServiceAccount was deleted, and made again";

/// Whether a newer directory may say otherwise.
pub(crate) fn may_change(why: Why) -> bool {
    [NO_ISSUER, OTHER_ISSUER, NO_KEY, NO_ACCOUNT, OTHER_UID].contains(&why)
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
        if header.keys().any(|name| !["alg", "kid", "typ"].contains(&name.as_str())) {
            return Err("its header has more than alg, kid and typ");
        }
        if header.get("typ").is_some_and(|kind| kind != "JWT") {
            return Err("its typ is another than JWT");
        }
        let named = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        let algorithm = named("alg").ok_or("its header names no algorithm")?;
        let kid = named("kid").ok_or("its header names no key")?;
        Ok(Self { signed, signature, algorithm, kid, claims })
    }

    /// Whom it proves to the tenant with this audience, by what the directory knows.
    pub(crate) fn prove(&self, snapshot: &Snapshot, audience: &str, now: OffsetDateTime) -> Result<Proved, Why> {
        let issuer = snapshot.issuer.as_ref().ok_or(NO_ISSUER)?;
        let claim = |name: &str| self.claims.get(name).and_then(Value::as_str);
        // All that takes no time comes before the signature. A stranger knows the issuer, and not the UID of an account: whoever floods the hub has it
        // check no signatures.
        let iss = claim("iss").filter(|iss| issuer.is_named(iss, now)).ok_or(OTHER_ISSUER)?;
        if !self.is_for(audience) {
            return Err("its audience is another, or not this tenant's alone");
        }
        let key = issuer.key(&self.kid).ok_or(NO_KEY)?;
        // The key says which algorithm it is for. What the token says of it only has to agree.
        if self.algorithm != name_of(key.algorithm) {
            return Err("its algorithm is not that of its key");
        }
        let ends_at = self.valid_until(now)?;
        let (account, uid) = self.account()?;
        let known = snapshot.accounts.get(&account).ok_or(NO_ACCOUNT)?;
        if known.uid != uid {
            return Err(OTHER_UID);
        }
        match crypto::verify(self.signature, self.signed.as_bytes(), &key.key, key.algorithm) {
            Ok(true) => {}
            _ => return Err("its signature is wrong"),
        }
        let jti = claim("jti").unwrap_or_default();
        if jti.len() > MAX_ID_BYTES {
            return Err("its id is too long");
        }
        let token = AccountToken { iss: iss.to_owned(), jti: jti.to_owned(), account, uid };
        Ok(Proved { agent: known.agent, token, ends_at })
    }

    /// Whether it is for this audience and for nobody else: who else it is for could show it here.
    fn is_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::Array(named)) => matches!(named.as_slice(), [only] if only == audience),
            Some(only) => only == audience,
            None => false,
        }
    }

    /// Clocks may differ a little. That makes no token last longer: what comes of one ends with it.
    fn valid_until(&self, now: OffsetDateTime) -> Result<OffsetDateTime, Why> {
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
