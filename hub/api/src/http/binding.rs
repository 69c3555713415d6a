//! Where each method is found over HTTP: what the `google.api.http` options of the protos say.

use std::sync::LazyLock;

use acb_proto::FILE_DESCRIPTOR_SET;
use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};

use super::template::{Parts, Template};
use crate::json::call::TextIs;

/// One method's place.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) verb: Method,
    template: Template,
    pub(super) text_is: TextIs,
    pub(super) method: MethodDescriptor,
}

impl Binding {
    /// The gRPC path of its method.
    pub(super) fn grpc_path(&self) -> String {
        format!("/{}/{}", self.method.parent_service().full_name(), self.method.name())
    }
}

#[cfg(test)]
impl Binding {
    pub(super) fn path(&self) -> String {
        self.template.to_string()
    }

    /// The names of the fields that are in the path.
    pub(super) fn variables(&self) -> Vec<&str> {
        self.template.variables()
    }
}

/// What a request is for.
pub(super) enum Found<'a> {
    /// The method, and the variables of the path, still escaped.
    Method(&'a Binding, Vec<(&'a str, &'a str)>),
    /// There is something, for these verbs.
    Other(Vec<Method>),
    Nothing,
}

/// What this request is for.
pub(super) fn find<'a>(verb: &Method, path: &'a str) -> Found<'a> {
    let Some(parts) = Parts::of(path) else { return Found::Nothing };
    let mut others = Vec::new();
    for binding in BINDINGS.iter() {
        let Some(variables) = binding.template.matches(&parts) else { continue };
        if binding.verb == verb {
            return Found::Method(binding, variables);
        }
        others.push(binding.verb.clone());
    }
    if others.is_empty() { Found::Nothing } else { Found::Other(others) }
}

/// Read when the first request comes: a hub without any keeps no descriptors.
static BINDINGS: LazyLock<Vec<Binding>> = LazyLock::new(|| {
    read().unwrap_or_else(|| {
        tracing::error!("the HTTP bindings of the protos can't be read: nothing is served over HTTP");
        Vec::new()
    })
});

fn read() -> Option<Vec<Binding>> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).ok()?;
    let http = pool.get_extension_by_name("google.api.http")?;
    let mut bindings = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let rule = options.get_extension(&http).into_owned();
        bindings.push(binding(method, rule.as_message()?)?);
    }
    Some(bindings)
}

fn binding(method: MethodDescriptor, rule: &DynamicMessage) -> Option<Binding> {
    let field = |name: &str| match rule.get_field_by_name(name)?.into_owned() {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    };
    let (verb, template) = [
        ("get", Method::GET),
        ("post", Method::POST),
        ("put", Method::PUT),
        ("patch", Method::PATCH),
        ("delete", Method::DELETE),
    ]
    .into_iter()
    .find_map(|(name, verb)| field(name).map(|template| (verb, template)))?;
    let text_is = match field("body").as_deref() {
        None => TextIs::Nothing,
        Some("*") => TextIs::Request,
        Some(name) => TextIs::Field(name.to_owned()),
    };
    Some(Binding { verb, template: Template::parse(&template)?, text_is, method })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

    use acb_hub_core::door::rules::{RULES, of_grpc};

    use super::{
        super::{face::OPENAPI, openapi::document},
        *,
    };

    const BEGIN: &str = "<!-- What follows is printed from the protos by `UPDATE_DOCS=1 cargo test -p acb-hub-api`. -->\n";
    const END: &str = "<!-- End of what is printed. -->\n";

    #[test]
    fn the_page_of_paths_is_current() {
        let mut table = String::from("| | path | body | method |\n|---|---|---|---|\n");
        for binding in read().unwrap() {
            let body = match &binding.text_is {
                TextIs::Nothing => String::new(),
                TextIs::Request => "the request".to_owned(),
                TextIs::Field(name) => format!("`{name}`"),
            };
            let events = if binding.method.is_server_streaming() { ", events" } else { "" };
            let (service, method) = (binding.method.parent_service(), binding.method.name().to_owned());
            let (verb, path) = (&binding.verb, &binding.template);
            writeln!(table, "| `{verb}` | `{path}` | {body} | `{}.{method}`{events} |", service.name()).unwrap();
        }
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/http.md");
        let found = fs::read_to_string(&path).unwrap();
        let (before, rest) = found.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let page = format!("{before}{BEGIN}{table}{END}{after}");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, &page).unwrap();
            return;
        }
        assert!(found == page, "docs/http.md is out of date: run UPDATE_DOCS=1 cargo test -p acb-hub-api");
    }

    #[test]
    fn the_openapi_document_is_current() {
        let made = serde_json::to_string_pretty(&document(&read().unwrap())).unwrap() + "\n";
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json"), &made).unwrap();
            return;
        }
        assert!(made == OPENAPI, "docs/openapi.json is out of date: run UPDATE_DOCS=1 cargo test -p acb-hub-api");
    }

    #[test]
    fn every_method_that_asks_once_is_found_over_http() {
        let bound: BTreeSet<_> = read().unwrap().iter().map(Binding::grpc_path).collect();
        assert!(bound.iter().all(|path| of_grpc(path).is_some()), "one is no method");
        let missing = RULES.iter().filter(|rule| !bound.contains(rule.bindings.grpc)).filter(|rule| !rule.asks_many);
        let missing: Vec<_> = missing.map(|rule| rule.operation.name()).collect();
        assert_eq!(missing, ["CheckHealth", "WatchHealth"], "probes of gRPC's own");
    }

    #[test]
    fn each_path_is_one_method_s() {
        let bindings = read().unwrap();
        for binding in &bindings {
            for other in bindings.iter().filter(|other| other.method != binding.method && other.verb == binding.verb) {
                assert_ne!(binding.template, other.template, "{} {}", binding.method.name(), other.method.name());
            }
        }
    }

    #[test]
    fn variables_and_texts_are_fields_of_the_request() {
        for binding in read().unwrap() {
            let input = binding.method.input();
            for name in binding.variables() {
                assert!(input.get_field_by_name(name).is_some(), "{} {name}", binding.method.name());
            }
            if let TextIs::Field(name) = &binding.text_is {
                let field = input.get_field_by_name(name).unwrap();
                assert!(field.kind().as_message().is_some(), "{} {name}", binding.method.name());
            }
        }
    }
}
