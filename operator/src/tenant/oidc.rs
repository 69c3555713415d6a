//! The OpenID Connect issuers of a Tenant: which of them may be, and by which terms hubs take their tokens. Pure.

use std::collections::BTreeSet;

use acb_crds::{Tenant, tenant::OidcIssuer};
use acb_hub_core::kit::claims::ClaimExpression;

use crate::{
    condition::{Problem, Reason},
    effect::certificates,
    plan::OidcIssuerRow,
    platform::{AllowedIssuer, Platform},
};

/// Those of the spec, as hubs read them. What is wrong with one is added to the problems.
pub(super) fn issuers(tenant: &Tenant, platform: &Platform, problems: &mut Vec<Problem>) -> Vec<OidcIssuerRow> {
    let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, issuer) in listed(tenant).iter().enumerate() {
        let field = format!("spec.auth.oidc[{index}]");
        if !seen.insert(issuer.issuer.as_str()) {
            let message = format!("{} is listed twice: join both into one", issuer.issuer);
            problems.push(Problem::new(Reason::InvalidSpec, format!("{field}.issuer"), message));
            continue;
        }
        let Some(allowed) = platform.allowed_issuer(&issuer.issuer) else {
            let message = format!(
                "{} is not among the issuers that the platform allows (oidc.allowedIssuers), to the letter: the platform team adds it",
                issuer.issuer
            );
            problems.push(Problem::new(Reason::IssuerNotAllowed, format!("{field}.issuer"), message));
            continue;
        };
        let mappings = &issuer.claim_mappings;
        for (name, mapping) in [("agent", Some(&mappings.agent)), ("role", mappings.role.as_ref())] {
            // By what hubs compile it with: they would take no token of the issuer.
            if let Some(problem) = mapping.and_then(|mapping| ClaimExpression::compile(&mapping.expression).err()) {
                let field = format!("{field}.claimMappings.{name}.expression");
                problems.push(Problem::new(
                    Reason::InvalidSpec,
                    field,
                    format!("no expression that can be used: {}", problem.what),
                ));
            }
        }
        if issuer.certificate_authority.as_deref().is_some_and(|pem| !certificates::are_some(pem.as_bytes())) {
            let message = "no certificates in PEM: give those that sign the issuer's, or leave it out for public ones";
            problems.push(Problem::new(Reason::InvalidSpec, format!("{field}.certificateAuthority"), message));
        }
        rows.push(row(issuer, &allowed));
    }
    rows.sort_by(|left, right| left.issuer.cmp(&right.issuer));
    rows
}

/// What is left of those that were, where the Tenant can't be provisioned as it is written: none that the spec or the platform has given up, and none by
/// other terms.
pub(super) fn still_trusted(known: &[OidcIssuerRow], tenant: &Tenant, platform: &Platform) -> Vec<OidcIssuerRow> {
    let wanted = |issuer: &OidcIssuer| Some(row(issuer, &platform.allowed_issuer(&issuer.issuer)?));
    let wanted: Vec<OidcIssuerRow> = listed(tenant).iter().filter_map(wanted).collect();
    known.iter().filter(|row| wanted.contains(row)).cloned().collect()
}

fn listed(tenant: &Tenant) -> &[OidcIssuer] {
    tenant.spec.auth.as_ref().map_or(&[], |auth| &auth.oidc)
}

fn row(issuer: &OidcIssuer, allowed: &AllowedIssuer) -> OidcIssuerRow {
    let mappings = &issuer.claim_mappings;
    OidcIssuerRow {
        issuer: issuer.issuer.clone(),
        audiences: issuer.audiences.clone(),
        agent: mappings.agent.expression.clone(),
        role: mappings.role.as_ref().map(|role| role.expression.clone()),
        authorities: issuer.certificate_authority.clone(),
        networks: allowed.cidrs.clone(),
    }
}
