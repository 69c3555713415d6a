//! Path templates of `google.api.http`, as far as `acb.v1` uses them: `/v1/contexts/{id}:setAccess`.

use std::fmt;

/// A path with variables, each of which is one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    segments: Vec<Segment>,
    /// Behind the last colon.
    verb: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Variable(String),
}

/// A path as it came, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    segments: Vec<&'a str>,
    verb: Option<&'a str>,
}

/// Segments of a path, at most.
const MAX_SEGMENTS: usize = 16;

impl<'a> Parts<'a> {
    /// `None` where it has more segments than any template.
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (path, verb) = match path.rsplit_once(':') {
            Some((before, verb)) if !verb.contains('/') => (before, Some(verb)),
            _ => (path, None),
        };
        let segments: Vec<_> = path.split('/').take(MAX_SEGMENTS + 1).collect();
        (segments.len() <= MAX_SEGMENTS).then_some(Self { segments, verb })
    }
}

impl Template {
    pub(super) fn parse(template: &str) -> Option<Self> {
        let Parts { segments, verb } = Parts::of(template)?;
        let segments = segments.into_iter().map(|segment| match segment.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').map(|name| Segment::Variable(name.to_owned())),
            None => Some(Segment::Literal(segment.to_owned())),
        });
        Some(Self { segments: segments.collect::<Option<_>>()?, verb: verb.map(str::to_owned) })
    }

    #[cfg(test)]
    pub(super) fn variables(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for segment in &self.segments {
            if let Segment::Variable(name) = segment {
                names.push(name.as_str());
            }
        }
        names
    }

    /// The variables' names and what the path has there, still escaped. `None` where the path is another one.
    pub(super) fn matches<'a>(&self, path: &Parts<'a>) -> Option<Vec<(&str, &'a str)>> {
        if self.verb.as_deref() != path.verb || self.segments.len() != path.segments.len() {
            return None;
        }
        let mut variables = Vec::new();
        for (segment, part) in self.segments.iter().zip(&path.segments) {
            match segment {
                Segment::Literal(literal) if literal == part => {}
                Segment::Variable(name) if !part.is_empty() => variables.push((name.as_str(), *part)),
                Segment::Literal(_) | Segment::Variable(_) => return None,
            }
        }
        Some(variables)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => write!(f, "/{literal}")?,
                Segment::Variable(name) => write!(f, "/{{{name}}}")?,
            }
        }
        self.verb.as_ref().map_or(Ok(()), |verb| write!(f, ":{verb}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).unwrap();
        let variables = template.matches(&Parts::of(path)?)?;
        Some(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_path_is_that_of_its_template_alone() {
        assert_eq!(of("/v1/agents", "/v1/agents"), Some(vec![]));
        assert_eq!(of("/v1/agents/{name}", "/v1/agents/a%20b"), Some(vec![("name".to_owned(), "a%20b".to_owned())]));
        assert_eq!(of("/v1/contexts/{id}:setAccess", "/v1/contexts/7:setAccess").map(|found| found.len()), Some(1));
        for (template, path) in [
            ("/v1/agents", "/v1/agents/"),
            ("/v1/agents", "/v1/agents:discover"),
            ("/v1/agents/{name}", "/v1/agents/"),
            ("/v1/agents/{name}", "/v1/agents/a/b"),
            ("/v1/agents/{name}", "v1/agents/a"),
            ("/v1/agents/{name}", "//v1/agents/a"),
            ("/v1/contexts/{id}:setAccess", "/v1/contexts/7"),
            ("/v1/contexts/{id}:setAccess", "/v1/contexts/:setAccess"),
            ("/v1/agents/{name}", "/v1/agents/a/../b"),
        ] {
            assert_eq!(of(template, path), None, "{template} {path}");
        }
        assert_eq!(Parts::of(&"/x".repeat(MAX_SEGMENTS + 1)), None);
    }
}
