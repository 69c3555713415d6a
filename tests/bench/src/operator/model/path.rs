//! Which objects a request is about.

/// The objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::operator) struct Kind {
    /// Such as `apps/v1`.
    pub(in crate::operator) api_version: String,
    /// Such as `deployments`.
    pub(in crate::operator) plural: String,
}

impl Kind {
    pub(in crate::operator) fn new(api_version: &str, plural: &str) -> Self {
        Self { api_version: api_version.to_owned(), plural: plural.to_owned() }
    }
}

/// The path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) kind: Kind,
    /// Empty: all, or of a kind that has none.
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) part: Option<String>,
}

impl Path {
    /// `None`: nothing of Kubernetes'.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let api_version = match parts.next()? {
            "api" => parts.next()?.to_owned(),
            "apis" => format!("{}/{}", parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, rest) = rest.split_first()?;
        let text = |index: usize| rest.get(index).map(|text| (*text).to_owned());
        Some(Self { kind: Kind::new(&api_version, plural), namespace: namespace.to_owned(), name: text(0), part: text(1) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_are_read_as_kubernetes_has_them() {
        let parsed = |path: &str| {
            let path = Path::parse(path).unwrap();
            let Kind { api_version, plural } = path.kind;
            [api_version, plural, path.namespace, path.name.unwrap_or_default(), path.part.unwrap_or_default()].join(" ")
        };
        assert_eq!(parsed("/api/v1/namespaces"), "v1 namespaces   ");
        assert_eq!(parsed("/api/v1/namespaces/acb-acme"), "v1 namespaces  acb-acme ");
        assert_eq!(parsed("/api/v1/namespaces/acb-acme/secrets"), "v1 secrets acb-acme  ");
        assert_eq!(parsed("/apis/acb.dev/v1alpha1/tenants/acme/status"), "acb.dev/v1alpha1 tenants  acme status");
        assert_eq!(parsed("/apis/apps/v1/namespaces/acbhub-acme/deployments/hub"), "apps/v1 deployments acbhub-acme hub ");
        assert_eq!(Path::parse("/metrics"), None);
    }
}
