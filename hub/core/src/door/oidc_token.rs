//! Tokens of OpenID Connect issuers that the tenant trusts: whether one proves an agent. Pure: the issuer's keys were asked for before.

use time::OffsetDateTime;

use super::subject_token::{NO_AGENT, OTHER_AUDIENCE, OTHER_ISSUER, Proved, RAISED, SubjectToken, Why};
use crate::directory::{
    issuer::Issuer,
    snapshot::Snapshot,
    source::{OidcToken, Source},
    trusted_issuer::{Mapped, TrustedIssuer},
};

/// Of a subject: OpenID Connect allows no longer ones.
const MAX_SUBJECT_BYTES: usize = 255;

/// Whether the token could be the issuer's by all that it says. No key is needed for that: what fails here asks no issuer for one.
pub(crate) fn may_be_of(token: &SubjectToken<'_>, trusted: &TrustedIssuer, now: OffsetDateTime) -> Result<OffsetDateTime, Why> {
    let terms = trusted.terms();
    if token.issuer() != terms.url {
        return Err(OTHER_ISSUER);
    }
    // Other than that of ServiceAccounts it is in the directory: a newer one may have it.
    token.is_for(&terms.audiences).map_err(|_| OTHER_AUDIENCE)?;
    let ends_at = token.valid_until(now)?;
    subject(token)?;
    token.id()?;
    Ok(ends_at)
}

/// Whom it proves by these keys of the issuer, and by what the directory knows. Nothing that it says counts before its signature.
pub(crate) fn prove(
    token: &SubjectToken<'_>,
    trusted: &TrustedIssuer,
    keys: &Issuer,
    snapshot: &Snapshot,
    now: OffsetDateTime,
) -> Result<Proved, Why> {
    let ends_at = may_be_of(token, trusted, now)?;
    token.is_signed_with(token.key_of(keys)?)?;
    let Mapped { agent, role } = trusted.map(token.claims()).ok_or(NO_AGENT)?;
    let agent = snapshot.agent_named(&agent).ok_or(NO_AGENT)?;
    // Whom one agent registered ends with that one's key, and is nobody's to log in as.
    if snapshot.registered_by(agent.id).is_some() {
        return Err(NO_AGENT);
    }
    if role.is_some_and(|role| !role.is_within(agent.role)) {
        return Err(RAISED);
    }
    let source = Source::Oidc(OidcToken {
        iss: trusted.terms().url.clone(),
        sub: subject(token)?.to_owned(),
        jti: token.id()?.to_owned(),
        terms: trusted.digest().to_owned(),
        // Also where it is the agent's own now: it may get a mightier one while the token lasts.
        role,
    });
    Ok(Proved { agent: agent.id, source, ends_at })
}

/// It is written down, so that nothing in it may break a line.
fn subject<'a>(token: &'a SubjectToken<'_>) -> Result<&'a str, Why> {
    let is_one = |sub: &&str| !sub.is_empty() && sub.len() <= MAX_SUBJECT_BYTES && !sub.contains(char::is_control);
    token.claim("sub").filter(is_one).ok_or("it has no subject, or one that is too long or unprintable")
}

#[cfg(test)]
mod tests;
