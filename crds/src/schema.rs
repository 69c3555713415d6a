//! Checks a document against the schema of its kind, as an API server would: types, ranges, patterns, unknown fields, CEL rules. The
//! CustomResourceDefinition is the one place where each rule is; there is no second copy here.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value, json};

pub use crate::violation::{MAX_VIOLATIONS, Violation};
use crate::{API_VERSION, Agent, Quota, Tenant, cel::Rules, confirmation, definition, violation::Violations};

/// A resource of one of the kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A Tenant.
    Tenant(Box<Tenant>),
    /// An Agent.
    Agent(Box<Agent>),
    /// A Quota.
    Quota(Box<Quota>),
}

/// One of the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Cluster-scoped.
    Tenant,
    /// Namespaced.
    Agent,
    /// Namespaced.
    Quota,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tenant, Self::Agent, Self::Quota];

    /// As in a document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Agent => "Agent",
            Self::Quota => "Quota",
        }
    }

    /// By `kind`, plural, singular or short name, in any case.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| match kind {
            Self::Tenant => matches!(name.as_str(), "tenant" | "tenants" | "tn"),
            Self::Agent => matches!(name.as_str(), "agent" | "agents" | "agt"),
            Self::Quota => matches!(name.as_str(), "quota" | "quotas" | "acbquota" | "qta"),
        })
    }

    /// What is applied to a cluster.
    #[must_use]
    pub fn definition(self) -> CustomResourceDefinition {
        match self {
            Self::Tenant => definition::of::<Tenant>(),
            Self::Agent => definition::of::<Agent>(),
            Self::Quota => definition::of::<Quota>(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Of it.
    pub kind: Kind,
    /// Empty for a Tenant.
    pub namespace: String,
    /// Of it.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

impl Resource {
    /// Which object it is.
    #[must_use]
    pub fn object(&self) -> ObjectRef {
        let (kind, metadata) = match self {
            Self::Tenant(tenant) => (Kind::Tenant, &tenant.metadata),
            Self::Agent(agent) => (Kind::Agent, &agent.metadata),
            Self::Quota(quota) => (Kind::Quota, &quota.metadata),
        };
        let namespace = metadata.namespace.clone().unwrap_or_default();
        ObjectRef { kind, namespace, name: metadata.name.clone().unwrap_or_default() }
    }

    /// As JSON.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Tenant(tenant) => serde_json::to_value(tenant),
            Self::Agent(agent) => serde_json::to_value(agent),
            Self::Quota(quota) => serde_json::to_value(quota),
        }
    }
}

pub(crate) fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Which object a document is about, as far as it says.
#[must_use]
pub fn identify(value: &Value) -> Option<ObjectRef> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text_at(value, "/kind"))?;
    let name = text_at(value, "/metadata/name").to_owned();
    (!name.is_empty()).then(|| ObjectRef { kind, namespace: text_at(value, "/metadata/namespace").to_owned(), name })
}

/// Checks one document; with `old`, also the rules about changes. A `status` is left out of it: it is the operator's to write.
pub fn check(value: &Value, old: Option<&Value>) -> Result<Resource, Vec<Violation>> {
    let one = |path: &str, message: String| vec![Violation::new(path, message)];
    let Some(fields) = value.as_object() else {
        return Err(one("", "not an object: a document has apiVersion, kind, metadata and spec".into()));
    };
    let api_version = text_at(value, "/apiVersion");
    let kind = text_at(value, "/kind");
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind && api_version == API_VERSION) else {
        let message =
            format!("unknown kind {:?} of {:?}: use Tenant, Agent or Quota of {API_VERSION}", clip(kind), clip(api_version));
        return Err(one("kind", message));
    };
    let mut violations = Violations::default();
    check_metadata(kind, fields.get("metadata"), &mut violations);
    let mut document: Map<String, Value> = fields.clone();
    document.remove("status");
    let mut document = Value::Object(document);
    let checker = checker(kind).map_err(|error| one("", format!("the schema of {kind} is broken, which is a bug: {error}")))?;
    prune_nulls(&mut document, &checker.schema);
    no_nul(&document, "", &mut violations);
    for error in checker.validator.iter_errors(&document) {
        if violations.is_full() {
            break;
        }
        explain(&error, &checker.schema, &mut violations);
    }
    unique(&document, &checker.schema, "", &mut violations);
    // A rule may take the types that the schema promises for granted.
    if violations.is_empty() {
        checker.rules.evaluate(&document, old, "", &mut violations);
    }
    if let Some(violation) = old.and_then(|old| confirmation::check(value, old)) {
        violations.push(violation);
    }
    if !violations.is_empty() {
        return Err(violations.into_told());
    }
    let typed = match kind {
        Kind::Tenant => serde_json::from_value(document).map(|tenant| Resource::Tenant(Box::new(tenant))),
        Kind::Agent => serde_json::from_value(document).map(|agent| Resource::Agent(Box::new(agent))),
        Kind::Quota => serde_json::from_value(document).map(|quota| Resource::Quota(Box::new(quota))),
    };
    typed.map_err(|error| one("", clip(&error.to_string())))
}

const METADATA: [&str; 13] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "resourceVersion",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "deletionGracePeriodSeconds",
];

fn check_metadata(kind: Kind, metadata: Option<&Value>, violations: &mut Violations) {
    let Some(metadata) = metadata.and_then(Value::as_object) else {
        violations.push(Violation::new("metadata", "missing: set metadata.name"));
        return;
    };
    for field in metadata.keys().filter(|field| !METADATA.contains(&field.as_str())) {
        if violations.is_full() {
            return;
        }
        violations.push(Violation::new("metadata", format!("unknown field {:?}: remove it", clip(field))));
    }
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("name").is_empty() {
        violations.push(Violation::new("metadata.name", "missing: give the object a name"));
    }
    match (kind, text("namespace")) {
        (Kind::Tenant, "") => {}
        (Kind::Tenant, _) => violations.push(Violation::new("metadata.namespace", "a Tenant has no namespace: remove it")),
        (_, "") => {
            violations.push(Violation::new("metadata.namespace", "missing: set the tenant's namespace, such as acb-<tenant>"))
        }
        _ => {}
    }
}

/// What a kind's documents are checked with.
struct Checker {
    schema: Value,
    validator: Validator,
    rules: Rules,
}

fn checker(kind: Kind) -> Result<&'static Checker, String> {
    static CHECKERS: [OnceLock<Result<Checker, String>>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    CHECKERS[kind as usize].get_or_init(|| build(kind)).as_ref().map_err(Clone::clone)
}

fn build(kind: Kind) -> Result<Checker, String> {
    let definition = kind.definition();
    let mut versions = definition.spec.versions.iter();
    let version = versions.find(|version| API_VERSION.rsplit('/').next() == Some(version.name.as_str()));
    let schema = version.and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()).ok_or("no schema")?;
    let schema = serde_json::to_value(schema).map_err(|error| error.to_string())?;
    let rules = Rules::compile(&schema)?;
    let mut strict = schema.clone();
    make_strict(&mut strict);
    // What the definition leaves to the API server itself.
    if let Some(properties) = strict.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".into(), json!({"type": "string"}));
        properties.insert("kind".into(), json!({"type": "string"}));
        properties.insert("metadata".into(), json!({"type": "object"}));
    }
    let validator = jsonschema::draft202012::new(&strict).map_err(|error| error.to_string())?;
    Ok(Checker { schema, validator, rules })
}

/// A structural schema drops unknown fields silently; here they are an error, as with `kubectl --validate=strict`.
fn make_strict(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let open = fields.contains_key("additionalProperties")
        || fields.get("x-kubernetes-preserve-unknown-fields").is_some_and(|open| open == &Value::Bool(true));
    if fields.get("type").is_some_and(|name| name == "object") && !open {
        fields.insert("additionalProperties".into(), Value::Bool(false));
    }
    for field in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        make_strict(field.1);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            make_strict(inner);
        }
    }
}

/// Removes fields that are null, which no schema of ours has, as an API server does: `groups:` with nothing behind it is absent.
fn prune_nulls(value: &mut Value, schema: &Value) {
    let properties = schema.get("properties").and_then(Value::as_object);
    match value {
        Value::Object(fields) => {
            let is_known = |name: &str| properties.is_some_and(|properties| properties.contains_key(name));
            fields.retain(|name, value| !value.is_null() || !is_known(name));
            for (name, value) in fields {
                if let Some(field) = properties.and_then(|properties| properties.get(name)) {
                    prune_nulls(value, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| prune_nulls(item, schema));
            }
        }
        _ => {}
    }
}

/// PostgreSQL takes no text with a NUL. What is refused here is not half applied there.
fn no_nul(value: &Value, path: &str, violations: &mut Violations) {
    let is_bad = |text: &str| text.contains('\0');
    match value {
        Value::String(text) if is_bad(text) => {
            violations.push(Violation::new(path, "a NUL character (\\0) can't be stored: remove it"));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| no_nul(item, &format!("{path}[{index}]"), violations));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { clip(name) } else { format!("{path}.{}", clip(name)) };
                if is_bad(name) {
                    violations.push(Violation::new(
                        path.replace('\0', ""),
                        "a NUL character (\\0) in a name can't be stored: remove it",
                    ));
                } else {
                    no_nul(value, &path, violations);
                }
            }
        }
        _ => {}
    }
}

/// Lists that are maps or sets, which only an API server knows to check.
fn unique(value: &Value, schema: &Value, path: &str, violations: &mut Violations) {
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.get(name) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            unique(value, field, &path, violations);
        }
    }
    let (Some(items), Some(list)) = (value.as_array(), schema.get("x-kubernetes-list-type").and_then(Value::as_str)) else {
        return;
    };
    let keys: Vec<&str> = match schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
        Some(keys) => keys.iter().filter_map(Value::as_str).collect(),
        None => Vec::new(),
    };
    let mut seen = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let key = match list {
            "map" => {
                keys.iter().map(|key| item.get(key).map(ToString::to_string).unwrap_or_default()).collect::<Vec<_>>().join(" ")
            }
            "set" => item.to_string(),
            _ => return,
        };
        if violations.is_full() {
            return;
        }
        if let Some(first) = seen.insert(key.clone(), index) {
            let message = format!("{} is already at {path}[{first}]: remove or rename one of them", clip(&key));
            violations.push(Violation::new(format!("{path}[{index}]"), message));
        }
    }
}

/// Cuts what a user wrote to what a message can hold.
pub(crate) fn clip(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn explain(error: &ValidationError<'_>, schema: &Value, violations: &mut Violations) {
    let (path, place) = locate(error.instance_path().as_str(), schema);
    let given = clip(&error.instance().to_string());
    let message = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = place.and_then(|place| place.get("properties")).and_then(Value::as_object);
            let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let known = known.join(", ");
            // One more than are told, so that it is known that there are more.
            for field in unexpected.iter().take(MAX_VIOLATIONS + 1) {
                let message = format!("unknown field {:?}: remove it; known here are {known}", clip(field));
                violations.push(Violation::new(path.clone(), message));
            }
            return;
        }
        ValidationErrorKind::Required { property } => format!("field {property} is missing: set it"),
        // The one choice that there is in a structural schema.
        ValidationErrorKind::AnyOf { .. } => format!("{given} is neither a whole number nor text"),
        ValidationErrorKind::Enum { options } => {
            let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            format!("{given} is none of {}: use one of these", options.join(", "))
        }
        ValidationErrorKind::Pattern { pattern } => format!("{given} does not match {pattern}"),
        ValidationErrorKind::Maximum { limit } => format!("{given} is more than {limit}, which is the most"),
        ValidationErrorKind::Minimum { limit } => format!("{given} is less than {limit}, which is the least"),
        ValidationErrorKind::MaxLength { limit } => format!("{given} is longer than {limit} characters: shorten it"),
        ValidationErrorKind::MaxItems { limit } => format!("more than {limit} items: remove some"),
        _ => clip(&error.to_string()),
    };
    violations.push(Violation::new(path, message));
}

/// A JSON pointer as people write it, and the schema at that place.
fn locate<'a>(pointer: &str, schema: &'a Value) -> (String, Option<&'a Value>) {
    let mut path = String::new();
    let mut place = Some(schema);
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if let Some(items) = place.and_then(|place| place.get("items")) {
            path.push_str(&format!("[{part}]"));
            place = Some(items);
            continue;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&clip(&part));
        place = place.and_then(|place| place.get("properties")?.get(&part).or_else(|| place.get("additionalProperties")));
    }
    (path, place)
}
