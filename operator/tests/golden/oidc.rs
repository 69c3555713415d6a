//! OpenID Connect issuers of a Tenant: which may be, what is planned for them, and what is taken away.

use acb_operator::{
    condition::{Problem, Reason},
    effect::kubernetes::ObjectKey,
    plan::Plan,
    platform::{AllowedIssuer, Platform},
    tenancy::Tenancy,
    tenant::{self, Decision},
};

use crate::given::{apply, converged, first, plan, platform, tenancy, tenant_text, world};

const URL: &str = "https://login.example.com/realms/acme";

fn allowing(issuers: &[(&str, &[&str])]) -> Platform {
    let issuer = |(url, cidrs): &(&str, &[&str])| AllowedIssuer {
        url: (*url).to_owned(),
        cidrs: cidrs.iter().map(ToString::to_string).collect(),
    };
    Platform { allowed_issuers: Some(issuers.iter().map(issuer).collect()), ..platform() }
}

fn given(oidc: &str) -> Tenancy {
    tenancy(&tenant_text("acme", &format!("{{tier: Free, auth: {{oidc: [{oidc}]}}}}")))
}

fn issuer(url: &str) -> String {
    format!("{{issuer: '{url}', audiences: [acb], claimMappings: {{agent: {{expression: claims.sub}}}}}}")
}

fn problems(oidc: &str, platform: &Platform) -> Vec<Problem> {
    let given = given(oidc);
    tenant::validate::validate(&first(&given), &world(&given), platform).err().unwrap_or_default()
}

#[test]
fn only_what_the_platform_lists_is_an_issuer_to_the_letter() {
    let allowed = allowing(&[(URL, &[])]);
    assert_eq!(problems(&issuer(URL), &allowed), []);
    for other in [
        "https://login.example.com/realms/acme/",
        "https://LOGIN.example.com/realms/acme",
        "https://login.example.com/realms",
        "https://login.example.com:443/realms/acme",
        "https://evil.example",
    ] {
        let found = problems(&issuer(other), &allowed);
        let found: Vec<_> = found.iter().map(|problem| (problem.reason, problem.field.as_str())).collect();
        assert_eq!(found, [(Reason::IssuerNotAllowed, "spec.auth.oidc[0].issuer")], "{other}");
    }
    assert_eq!(problems(&issuer(URL), &platform())[0].reason, Reason::IssuerNotAllowed, "none is allowed unless it is listed");
}

#[test]
fn an_expression_that_hubs_could_not_use_is_refused_with_why() {
    let allowed = allowing(&[(URL, &[])]);
    let with = |mappings: &str| format!("{{issuer: '{URL}', audiences: [acb], claimMappings: {mappings}}}");
    for (mappings, field, why) in [
        ("{agent: {expression: claims.sub ==}}", "agent", "before its end"),
        ("{agent: {expression: 'true'}}", "agent", "has to yield a text"),
        ("{agent: {expression: claims.sub}, role: {expression: claim.role}}", "role", "no variable claim"),
        ("{agent: {expression: 'claims.groups.exists(g, g == 1)'}}", "agent", "no loops"),
    ] {
        let found = problems(&with(mappings), &allowed);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].reason, found[0].field.as_str()),
            (Reason::InvalidSpec, format!("spec.auth.oidc[0].claimMappings.{field}.expression").as_str())
        );
        assert!(found[0].message.contains(why), "{}", found[0].message);
    }
    let authority = issuer(URL).replace("audiences", "certificateAuthority: no PEM, audiences");
    assert_eq!(problems(&authority, &allowed)[0].field, "spec.auth.oidc[0].certificateAuthority");
}

#[test]
fn issuers_are_projected_and_reached_and_go_again() {
    let allowed = allowing(&[(URL, &[]), ("https://idp.inside:8443", &["10.1.0.0/16"])]);
    let (with, without) = (given(&format!("{}, {}", issuer(URL), issuer("https://idp.inside:8443"))), given(""));
    let mut world = converged(&without, &allowed);
    let of = |given: &Tenancy, world: &tenant::World| {
        let world = tenant::World { tenancy: given.clone(), ..world.clone() };
        plan(&first(given), &world, &allowed)
    };
    assert_eq!(of(&without, &world), Plan::default());
    let planned = of(&with, &world);
    let text = planned.to_string();
    assert!(text.contains(&format!("; tokens of https://idp.inside:8443, {URL})")) && planned.steps.len() == 2, "{text}");
    apply(&mut world, &planned);
    assert_eq!(of(&with, &world), Plan::default());
    let policy = &world.objects[&ObjectKey::new("networking.k8s.io/v1", "NetworkPolicy", "acbhub-acme", "hub-to-issuers")];
    let egress = policy["spec"]["egress"].as_array().unwrap();
    let ports: Vec<_> = egress.iter().map(|rule| rule["ports"][0]["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [8443, 443]);
    let to = |rule: usize| egress[rule]["to"].to_string();
    assert_eq!(to(0), r#"[{"ipBlock":{"cidr":"10.1.0.0/16"}}]"#, "public addresses are not reached where networks are listed");
    assert!(!to(1).contains("10.1.0.0/16"), "{policy}");
    assert!(to(1).contains("169.254.0.0/16") && to(1).contains("2000::/3"), "{policy}");
    let gone = of(&without, &world);
    let text = gone.to_string();
    assert!(
        gone.steps.len() == 2 && text.contains("- NetworkPolicy acbhub-acme/hub-to-issuers") && !text.contains("tokens of"),
        "{text}"
    );
    apply(&mut world, &gone);
    assert_eq!(of(&without, &world), Plan::default());
}

/// The values and the Tenant in docs/authentication.md go together.
#[test]
fn the_tenant_of_the_page_names_what_the_platform_of_the_page_lists() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/authentication.md")).unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let [_, _, values, tenant] = blocks[..] else { panic!("{} blocks", blocks.len()) };
    let values: serde_json::Value = serde_saphyr::from_str(values).unwrap();
    let issuers: Vec<AllowedIssuer> = serde_json::from_value(values["oidc"]["allowedIssuers"].clone()).unwrap();
    assert!(issuers.len() == 2 && issuers.iter().all(|issuer| issuer.check().is_ok()));
    let given = tenancy(tenant);
    let platform = Platform { allowed_issuers: Some(issuers), ..platform() };
    let validated = tenant::validate::validate(&first(&given), &world(&given), &platform).unwrap();
    assert_eq!(validated.oidc_issuers[0].issuer, "https://login.example.com/realms/acme");
}

/// A Tenant that can't be as it is written keeps what it had, but for those whom somebody has given up.
#[test]
fn an_issuer_that_is_given_up_goes_also_where_the_tenant_is_stalled() {
    let second = "https://other.example";
    let both = allowing(&[(URL, &[]), (second, &[])]);
    let given_both = given(&format!("{}, {}", issuer(URL), issuer(second)));
    let world = converged(&given_both, &both);
    let restraint = |given: &Tenancy, platform: &Platform| {
        let world = tenant::World { tenancy: given.clone(), ..world.clone() };
        match tenant::decide(&first(given), &world, platform) {
            Decision::Refused { restraint, .. } => restraint.to_string(),
            other => panic!("{other:?}"),
        }
    };
    // The platform takes one off its list.
    let one = restraint(&given_both, &allowing(&[(URL, &[])]));
    assert!(one.contains(&format!("; tokens of {URL})")) && one.lines().count() == 1, "{one}");
    let none = restraint(&given_both, &platform());
    assert!(none.contains("postgres tenant acme") && !none.contains("tokens of"), "{none}");
    // The Tenant gives one up, and is wrong in something else.
    let mut wrong = given(&issuer(second));
    wrong.tenants[0].spec.limits = Some(acb_crds::TenantLimits { max_agents: Some(1_000_000), ..Default::default() });
    let left = restraint(&wrong, &both);
    assert!(left.contains(&format!("; tokens of {second})")), "{left}");
    // Nothing is added meanwhile, and no other terms hold.
    let mut other = given(&issuer(second).replace("claims.sub", "claims.email"));
    other.tenants[0].spec.limits.clone_from(&wrong.tenants[0].spec.limits);
    let none = restraint(&other, &both);
    assert!(none.contains("postgres tenant acme") && !none.contains("tokens of"), "{none}");
}
