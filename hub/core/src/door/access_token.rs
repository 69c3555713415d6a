//! Access tokens: EdDSA JWTs that speak for one agent of one tenant.

use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::keyring::Keyring;
use crate::{
    directory::{
        agent::{Agent, AgentId},
        source::{AccountToken, OidcToken, Source},
    },
    fault::{Code, Fault},
};

/// How long an access token is valid at most. Each ends up to a tenth earlier: the tokens that all agents got after an outage must not end,
/// and their sessions with them, in the same moment.
pub const ACCESS_TOKEN_LIFE: Duration = Duration::hours(1);

/// The longest token that is looked at: ours have about 500 bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// Clocks of replicas may differ by this much.
pub(super) const LEEWAY_SECONDS: u64 = 5;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The tenant's name.
    pub iss: String,
    /// The tenant's name.
    pub aud: String,
    /// The tenant's id: a later tenant of the same name has another.
    pub tid: String,
    /// The agent's UID.
    pub sub: Uuid,
    /// The agent's name, for people.
    pub name: String,
    /// The directory's generation at issue: a replica that knows less reads first.
    pub r#gen: u64,
    /// The epoch of the tenant's credentials at issue: the token ends where that is another.
    #[serde(default)]
    pub epoch: u64,
    /// Unix seconds.
    pub iat: i64,
    /// Unix seconds.
    pub exp: i64,
    /// Names this token in the audit.
    pub jti: Uuid,
    /// The prefix of the API key that it came from: the token ends with it. `None` in those of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The token of a ServiceAccount that it came from: the token ends with the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountToken>,
    /// The token of an OpenID Connect issuer that it came from: the token ends where the tenant's terms for that issuer do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcToken>,
}

impl Claims {
    /// Who the token speaks for.
    #[must_use]
    pub fn agent(&self) -> AgentId {
        AgentId(self.sub)
    }

    /// What the token came from, where it says so.
    #[must_use]
    pub fn source(&self) -> Option<Source> {
        let account = self.account.clone().map(Source::Account);
        let account = account.or_else(|| self.oidc.clone().map(Source::Oidc));
        account.or_else(|| self.key.clone().map(Source::ApiKey))
    }
}

/// What a token is issued on.
#[derive(Clone, Debug, Default)]
pub struct Grounds {
    /// The credential that it comes from.
    pub source: Option<Source>,
    /// When that ends, where it does: the token never ends later.
    pub until: Option<OffsetDateTime>,
    /// The directory's generation.
    pub generation: u64,
    /// The epoch of the tenant's credentials.
    pub epoch: u64,
}

/// Issues and verifies the access tokens of one tenant.
#[derive(Clone, Debug)]
pub struct Tokens {
    tenant: Arc<str>,
    tenant_id: Arc<str>,
    keyring: Arc<RwLock<Arc<Keyring>>>,
}

impl Tokens {
    /// For this tenant.
    #[must_use]
    pub fn new(tenant: &str, tenant_id: &str, keyring: Keyring) -> Self {
        Self { tenant: tenant.into(), tenant_id: tenant_id.into(), keyring: Arc::new(RwLock::new(Arc::new(keyring))) }
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The keys of now.
    #[must_use]
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes rotated keys.
    pub fn replace(&self, keyring: Keyring) {
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }

    /// What is accepted as the audience of other issuers' tokens that are exchanged here: `acb:<tenant id>`.
    #[must_use]
    pub fn audience(&self) -> String {
        format!("acb:{}", self.tenant_id)
    }

    /// A token for this agent, and when it ends.
    pub fn issue(&self, agent: &Agent, grounds: Grounds, now: OffsetDateTime) -> Result<(String, OffsetDateTime), Fault> {
        let Grounds { source, until, generation, epoch } = grounds;
        let keyring = self.keyring();
        let own_end = now + ACCESS_TOKEN_LIFE - earlier();
        let expires_at = until.map_or(own_end, |until| until.min(own_end));
        // A replica of an earlier version knows keys alone, and must not take what came of a token for what ends with nothing: it finds no such key.
        let key = source.as_ref().map(Source::name);
        let (account, oidc) = match source {
            Some(Source::Account(token)) => (Some(token), None),
            Some(Source::Oidc(token)) => (None, Some(token)),
            Some(Source::ApiKey(_)) | None => (None, None),
        };
        let claims = Claims {
            iss: self.tenant.to_string(),
            aud: self.tenant.to_string(),
            tid: self.tenant_id.to_string(),
            sub: agent.id.0,
            name: agent.name.clone(),
            r#gen: generation,
            epoch,
            iat: now.unix_timestamp(),
            exp: expires_at.unix_timestamp(),
            jti: Uuid::new_v4(),
            key,
            account,
            oidc,
        };
        let (kid, key) = keyring.signer(now);
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = jsonwebtoken::encode(&header, &claims, key)
            .map_err(|_| Fault::new(Code::Internal, "TOKEN_NOT_SIGNED", "the hub could not sign a token: see its log"))?;
        Ok((token, expires_at))
    }

    /// What a token says, if it is one of this tenant's and still valid. A token that is not says nothing about why.
    pub fn verify(&self, token: &str) -> Result<Claims, Fault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid_token());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid_token())?;
        let keyring = self.keyring();
        let (_, key) = header.kid.and_then(|kid| keyring.verifying.get(&kid)).ok_or_else(invalid_token)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_SECONDS;
        validation.set_issuer(&[&self.tenant]);
        validation.set_audience(&[&self.tenant]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => {
                Fault::new(Code::Unauthenticated, "TOKEN_EXPIRED", "the access token has expired: call AuthService.RefreshToken")
            }
            _ => invalid_token(),
        })?;
        if claims.claims.tid != *self.tenant_id {
            return Err(invalid_token());
        }
        Ok(claims.claims)
    }
}

/// How much earlier than it could a token ends: up to a tenth of its life.
fn earlier() -> Duration {
    let mut byte = [0_u8];
    // Without randomness it ends as late as it may.
    let _ = getrandom::fill(&mut byte);
    ACCESS_TOKEN_LIFE / 10 * f64::from(byte[0]) / f64::from(u8::MAX)
}

/// The one answer to every token that does not prove an agent of this tenant.
#[must_use]
pub fn invalid_token() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "TOKEN_INVALID",
        "the access token is not valid here: get one from this tenant's hub with AuthService.ExchangeToken",
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
    use ed25519_dalek::{
        SigningKey,
        pkcs8::{EncodePrivateKey as _, EncodePublicKey as _},
    };

    use super::*;
    use crate::directory::agent::Role;

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
    }

    fn private(seed: u8) -> String {
        pem("PRIVATE KEY", SigningKey::from_bytes(&[seed; 32]).to_pkcs8_der().unwrap().as_bytes())
    }

    fn public(seed: u8) -> String {
        pem("PUBLIC KEY", SigningKey::from_bytes(&[seed; 32]).verifying_key().to_public_key_der().unwrap().as_bytes())
    }

    pub(crate) fn keyring(seed: u8) -> Keyring {
        Keyring::new(&private(seed), vec![1; 32], vec![2; 32], &[]).unwrap()
    }

    pub(crate) fn agent(role: Role) -> Agent {
        Agent {
            id: AgentId(Uuid::from_u128(7)),
            name: "alice".to_owned(),
            kind: String::new(),
            capabilities: Vec::new(),
            groups: Vec::new(),
            location: String::new(),
            metadata: BTreeMap::new(),
            role,
            publishes: Vec::new(),
            subscribes: Vec::new(),
            limits: Default::default(),
            suspended: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn of(generation: u64) -> Grounds {
        Grounds { generation, ..Grounds::default() }
    }

    fn reason(tokens: &Tokens, token: &str) -> &'static str {
        tokens.verify(token).unwrap_err().reason
    }

    #[test]
    fn a_token_says_who_it_was_issued_to() {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let now = OffsetDateTime::now_utc();
        let (token, expires_at) = tokens.issue(&agent(Role::Full), of(9), now).unwrap();
        let claims = tokens.verify(&token).unwrap();
        assert_eq!((claims.agent(), claims.r#gen, claims.exp), (AgentId(Uuid::from_u128(7)), 9, expires_at.unix_timestamp()));
        assert_eq!(claims.exp, expires_at.unix_timestamp());
    }

    #[test]
    fn tokens_that_were_issued_together_do_not_end_together() {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let now = OffsetDateTime::now_utc();
        let lives: Vec<Duration> = (0..100).map(|_| tokens.issue(&agent(Role::Full), of(1), now).unwrap().1 - now).collect();
        let (shortest, longest) = (lives.iter().min().unwrap(), lives.iter().max().unwrap());
        assert!(*longest <= ACCESS_TOKEN_LIFE && *shortest >= ACCESS_TOKEN_LIFE * 9 / 10, "{shortest} to {longest}");
        assert!(*longest - *shortest > Duration::minutes(1), "{shortest} to {longest}");
    }

    #[test]
    fn expired_foreign_and_changed_tokens_are_refused() {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let now = OffsetDateTime::now_utc();
        let agent = agent(Role::Full);
        let expired = tokens.issue(&agent, of(1), now - Duration::hours(2)).unwrap().0;
        assert_eq!(reason(&tokens, &expired), "TOKEN_EXPIRED");
        for foreign in [
            Tokens::new("acme", "00", keyring(2)),
            Tokens::new("acme", "01", keyring(1)),
            Tokens::new("globex", "00", keyring(1)),
        ] {
            assert_eq!(reason(&tokens, &foreign.issue(&agent, of(1), now).unwrap().0), "TOKEN_INVALID");
        }
        let good = tokens.issue(&agent, of(1), now).unwrap().0;
        let (head, signature) = good.rsplit_once('.').unwrap();
        let unsigned = format!("{}.{}.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), head.split_once('.').unwrap().1);
        let changed = format!("{head}x.{signature}");
        for bad in ["", ".", "..", "a.b.c", unsigned.as_str(), changed.as_str(), &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert_eq!(reason(&tokens, bad), "TOKEN_INVALID", "{bad}");
        }
    }

    #[test]
    fn tokens_of_the_key_before_stay_valid_while_both_overlap() {
        let tokens = Tokens::new("acme", "00", keyring(1));
        let old = tokens.issue(&agent(Role::Full), of(1), OffsetDateTime::now_utc()).unwrap().0;
        tokens.replace(Keyring::new(&private(2), vec![1; 32], vec![2; 32], &[public(1)]).unwrap());
        tokens.verify(&old).unwrap();
        let new = tokens.issue(&agent(Role::Full), of(1), OffsetDateTime::now_utc()).unwrap().0;
        tokens.verify(&new).unwrap();
        let jwks: serde_json::Value = serde_json::from_str(&tokens.keyring().jwks()).unwrap();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
        tokens.replace(keyring(2));
        assert_eq!(reason(&tokens, &old), "TOKEN_INVALID");
    }

    #[test]
    fn a_new_key_signs_once_every_replica_may_know_it() {
        let now = OffsetDateTime::now_utc();
        let from = now + Duration::minutes(15);
        let rotated = || Keyring::new(&private(2), vec![1; 32], vec![2; 32], &[public(1)]).unwrap();
        let issued = |tokens: &Tokens, at| tokens.issue(&agent(Role::Full), of(1), at).unwrap().0;
        let (behind, ahead) = (Tokens::new("acme", "00", keyring(1)), Tokens::new("acme", "00", keyring(1)));
        ahead.replace(rotated().signing_from(from, &private(1)).unwrap());
        behind.verify(&issued(&ahead, now)).unwrap();
        let new = issued(&ahead, from);
        assert_eq!(reason(&behind, &new), "TOKEN_INVALID");
        ahead.verify(&new).unwrap();
        behind.replace(rotated().signing_from(from, &private(1)).unwrap());
        behind.verify(&new).unwrap();
        // Another key than the one before signs nothing that others know.
        let error = rotated().signing_from(from, &private(3)).unwrap_err();
        assert_eq!(error.to_string(), "signing.previous.key: is not the key of signing.previous.pub");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = format!("{:?}", Tokens::new("acme", "00", keyring(1)));
        assert!(!text.contains("[1, 1") && !text.contains("pepper"), "{text}");
    }
}
