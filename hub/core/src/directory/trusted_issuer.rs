//! Issuers of OpenID Connect that the tenant trusts: whose tokens prove which agent. Their keys are not here: the hub asks each issuer for them.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::agent::Role;
use crate::kit::claims::ClaimExpression;

/// What the Tenant says of one, as the operator projected it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerTerms {
    /// What its tokens have as `iss`, to the letter: the URL below which its discovery document is.
    pub url: String,
    /// Its tokens are for one of these, and for nobody else.
    pub audiences: Vec<String>,
    /// Yields the name of the agent.
    pub agent: String,
    /// Yields a role that is lower than the agent's, or an empty text.
    pub role: Option<String>,
    /// Certificates (PEM) that its own is signed by. `None`: those of the system.
    pub authorities: Option<String>,
    /// Private networks (CIDR) in which it may be.
    pub networks: Vec<String>,
}

/// An issuer that the tenant trusts.
pub struct TrustedIssuer {
    terms: IssuerTerms,
    agent: ClaimExpression,
    role: Option<ClaimExpression>,
    digest: String,
}

impl fmt::Debug for TrustedIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedIssuer").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Whom the claims of a token are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The agent's name.
    pub agent: String,
    /// The role that it is to have, where that is not its own.
    pub role: Option<Role>,
}

impl TrustedIssuer {
    /// By these terms.
    ///
    /// # Errors
    /// Which expression is none.
    pub fn new(terms: IssuerTerms) -> Result<Self, String> {
        let compile = |source: &str| ClaimExpression::compile(source).map_err(|problem| format!("{source}: {}", problem.what));
        let (agent, role) = (compile(&terms.agent)?, terms.role.as_deref().map(compile).transpose()?);
        Ok(Self { agent, role, digest: digest(&terms), terms })
    }

    /// What was said of it.
    #[must_use]
    pub fn terms(&self) -> &IssuerTerms {
        &self.terms
    }

    /// Another one, where the issuer's tokens may mean something else: what was issued by the terms before has ended then.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whom these claims are, where an expression decides that.
    #[must_use]
    pub fn map(&self, claims: &Map<String, Value>) -> Option<Mapped> {
        let agent = self.agent.text(claims).filter(|agent| !agent.is_empty())?;
        let role = match &self.role {
            None => None,
            Some(role) => match role.text(claims)?.as_str() {
                "" => None,
                named => Some(Role::named(named)?),
            },
        };
        Some(Mapped { agent, role })
    }
}

/// Of what decides whom a token is. How the issuer is reached is none of it.
fn digest(terms: &IssuerTerms) -> String {
    let mut hash = Sha256::new();
    let role = terms.role.as_deref().unwrap_or_default();
    let parts = [terms.url.as_str(), &terms.agent, role].into_iter().chain(terms.audiences.iter().map(String::as_str));
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize().get(..8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn terms() -> IssuerTerms {
        IssuerTerms {
            url: "https://issuer.example".to_owned(),
            audiences: vec!["acb".to_owned()],
            agent: "claims.sub".to_owned(),
            role: Some("'lead' in claims.groups ? '' : 'Observer'".to_owned()),
            ..IssuerTerms::default()
        }
    }

    #[test]
    fn claims_are_whom_the_expressions_say_or_nobody() {
        let issuer = TrustedIssuer::new(terms()).unwrap();
        let mapped = |claims: Value| issuer.map(claims.as_object().unwrap());
        let ada = |role| Some(Mapped { agent: "ada".to_owned(), role });
        assert_eq!(mapped(json!({"sub": "ada", "groups": ["lead"]})), ada(None));
        assert_eq!(mapped(json!({"sub": "ada", "groups": []})), ada(Some(Role::Observer)));
        for nobody in
            [json!({"sub": "ada"}), json!({"groups": []}), json!({"sub": "", "groups": []}), json!({"sub": 7, "groups": []})]
        {
            assert_eq!(mapped(nobody.clone()), None, "{nobody}");
        }
        let unknown = TrustedIssuer::new(IssuerTerms { role: Some("'Emperor'".to_owned()), ..terms() }).unwrap();
        assert_eq!(unknown.map(json!({"sub": "ada"}).as_object().unwrap()), None);
        assert!(TrustedIssuer::new(IssuerTerms { agent: "claims.sub ==".to_owned(), ..terms() }).is_err());
        assert!(TrustedIssuer::new(IssuerTerms { role: Some("1".to_owned()), ..terms() }).is_err());
    }

    #[test]
    fn other_terms_have_another_digest_and_another_way_there_has_not() {
        let digest = |change: fn(&mut IssuerTerms)| {
            let mut terms = terms();
            change(&mut terms);
            TrustedIssuer::new(terms).unwrap().digest().to_owned()
        };
        let known = digest(|_| ());
        let others: [fn(&mut IssuerTerms); 4] = [
            |terms| terms.url.push('/'),
            |terms| terms.audiences.push("more".to_owned()),
            |terms| terms.agent = "claims.email".to_owned(),
            |terms| terms.role = None,
        ];
        for other in others {
            assert_ne!(digest(other), known);
        }
        assert_eq!(
            digest(|terms| (terms.authorities, terms.networks) = (Some(String::new()), vec!["10.0.0.0/8".to_owned()])),
            known
        );
        assert_eq!(known.len(), 16);
    }
}
