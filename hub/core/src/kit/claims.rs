//! The claims of a token, and expressions of CEL over them, such as `claims.sub` or `'deployers' in claims.groups ? 'deployer' : ''`.

use serde_json::{Map, Value as Json};

use super::filter::{
    TextExpression,
    problem::Problem,
    vocabulary::{Subject, Value, Vocabulary},
};

/// What an expression is about: whatever claims there are.
const CLAIMS: Vocabulary = Vocabulary { root: "claims", fields: &[], is_open: true };

/// An expression over claims that yields a text.
#[derive(Clone, Debug)]
pub struct ClaimExpression(TextExpression);

impl ClaimExpression {
    /// Compiles one.
    ///
    /// # Errors
    /// Where it is no expression, yields no text, or costs too much.
    pub fn compile(source: &str) -> Result<Self, Problem> {
        TextExpression::compile(source, &CLAIMS).map(Self)
    }

    /// What it yields for these claims. `None` where it is undecided: it needs a claim that is not there, or that is of another kind.
    #[must_use]
    pub fn text(&self, claims: &Map<String, Json>) -> Option<String> {
        self.0.text(&Claims(claims)).map(str::to_owned)
    }
}

struct Claims<'a>(&'a Map<String, Json>);

impl Subject for Claims<'_> {
    fn value(&self, _: usize) -> Option<Value<'_>> {
        None
    }

    fn whole(&self) -> Option<&Map<String, Json>> {
        Some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims() -> Map<String, Json> {
        let claims = json!({
            "sub": "ada", "email": "ada@example.com", "email_verified": true, "level": 3, "score": 1.5, "nothing": null,
            "groups": ["people", "admins", 7], "realm_access": {"roles": ["a", "b"]}, "https://example.com/team": "blue",
        });
        claims.as_object().cloned().unwrap()
    }

    /// What this yields, and what another implementation of CEL does.
    fn both(source: &str) -> (Option<String>, Option<String>) {
        let own = ClaimExpression::compile(source).unwrap_or_else(|problem| panic!("{}", problem.fault(source))).text(&claims());
        let mut context = cel::Context::default();
        context.add_variable("claims", Json::Object(claims())).unwrap();
        let other = cel::Program::compile(source).unwrap().execute(&context);
        let other = match other {
            Ok(cel::Value::String(text)) => Some(text.to_string()),
            _ => None,
        };
        (own, other)
    }

    #[test]
    fn an_expression_yields_what_cel_says() {
        for (source, wanted) in [
            ("claims.sub", Some("ada")),
            ("claims['https://example.com/team']", Some("blue")),
            ("'admins' in claims.groups ? 'admin' : claims.sub", Some("admin")),
            ("'nobody' in claims.groups ? 'admin' : claims.sub", Some("ada")),
            ("claims.email_verified && claims.email.endsWith('@example.com') ? 'staff' : ''", Some("staff")),
            ("claims.email_verified == false ? 'x' : 'y'", Some("y")),
            ("'b' in claims.realm_access.roles ? 'b' : 'none'", Some("b")),
            ("has(claims.team) ? 'team' : 'none'", Some("none")),
            ("has(claims.realm_access.roles) && !has(claims.realm_access.groups) ? 'roles' : 'none'", Some("roles")),
            ("'sub' in claims && claims.groups.size() == 3 ? 'three' : ''", Some("three")),
            ("claims.sub in ['ada', 'bob'] ? 'known' : ''", Some("known")),
            ("claims.sub.matches('^[a-z]+$') ? claims.sub : ''", Some("ada")),
            // Undecided: it yields nothing, and proves nobody.
            ("claims.team", None),
            ("claims.realm_access.groups", None),
            ("claims.sub.more", None),
            ("claims.team == 'a' ? 'x' : 'y'", None),
            ("'x' in claims.team ? 'x' : 'y'", None),
            ("has(claims.a.b) ? 'x' : 'y'", None),
            ("claims.groups", None),
            ("claims.level", None),
            ("claims.nothing", None),
            ("claims", None),
        ] {
            let (own, other) = both(source);
            assert_eq!((own.as_deref(), other.as_deref()), (wanted, wanted), "{source}");
        }
    }

    /// CEL compares values of two kinds, too. Here that is undecided, so that a claim of a kind that nobody thought of proves nobody.
    #[test]
    fn a_claim_of_another_kind_decides_nothing() {
        for source in [
            "claims.email_verified == 'true' ? 'x' : 'y'",
            "claims.email_verified != 'true' ? 'x' : 'y'",
            "claims.sub == 3 ? 'x' : 'y'",
            "claims.sub && true ? 'x' : 'y'",
            "claims.score > 1 ? 'x' : 'y'",
            "claims.groups == claims.groups ? 'x' : 'y'",
        ] {
            assert_eq!(ClaimExpression::compile(source).unwrap().text(&claims()), None, "{source}");
        }
    }

    #[test]
    fn what_yields_no_text_is_no_expression() {
        for (source, what) in [
            ("true", "it has to yield a text, and this is true or false"),
            ("claims.level + 1", "it has to yield a text, and this is a number"),
            ("claim.sub", "no variable claim"),
            ("claims.sub ==", "before its end"),
            ("claims.groups.exists(g, g == 'a') ? 'a' : 'b'", "no loops"),
            ("true ? 'a' : 1", "a text is needed here, and this is a number"),
            ("timestamp('2026-01-31T12:00:00Z') in claims.groups ? 'a' : 'b'", "a time can't be looked for there"),
        ] {
            let problem = ClaimExpression::compile(source).unwrap_err();
            assert!(problem.what.contains(what), "{source}: {}", problem.what);
        }
        let long = format!("'{}'", "x".repeat(3000));
        assert!(ClaimExpression::compile(&long).is_err());
        let deep = format!("{}claims.sub{}", "(".repeat(100), ")".repeat(100));
        assert!(ClaimExpression::compile(&deep).is_err());
    }
}
