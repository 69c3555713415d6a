//! Files of resources, read as kubectl reads them: several documents in a file, lists, JSON, and other kinds beside ours.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    API_VERSION,
    schema::{ObjectRef, Resource, check, clip, identify, text_at},
    violation::Violation,
};

/// The most bytes of a file of resources.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// How deep lists may be in lists.
const LISTS: usize = 8;

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file.
    pub source: String,
    /// Which object, as far as the document says.
    pub object: Option<ObjectRef>,
    /// Never empty.
    pub violations: Vec<Violation>,
}

impl std::error::Error for LoadError {}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &self.object {
                Some(object) => write!(f, "{}: {object}: {violation}", self.source)?,
                None => write!(f, "{}: {violation}", self.source)?,
            }
        }
        Ok(())
    }
}

/// The documents of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// Ours, and what can't be read, in their order.
    pub ours: Vec<Result<Resource, LoadError>>,
    /// Objects of other API groups. They are somebody else's to apply.
    pub others: Vec<Other>,
}

/// An object of another API group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// As `ConfigMap settings of v1`.
    pub name: String,
    /// What it would be if it were of ours: its kind has the name of one. A slip in `apiVersion` looks like that.
    pub object: Option<ObjectRef>,
}

/// Reads the documents of a file, with the items of lists in place of the lists. `source_name` is for messages.
#[must_use]
pub fn load(text: &str, source_name: &str) -> Documents {
    let refuse = |object, violations| Err(LoadError { source: source_name.to_owned(), object, violations });
    let mut loaded = Documents::default();
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, and at most {MAX_FILE_BYTES} are read: split it", text.len());
        loaded.ours.push(refuse(None, vec![Violation::new("", message)]));
        return loaded;
    }
    for document in split(text) {
        let options = serde_saphyr::options! {
            // What aliases repeat is bounded as nodes are. How often one anchor is used says nothing: 60 alike items are no attack.
            budget: serde_saphyr::budget! { max_depth: 64, max_nodes: 100_000, enforce_alias_anchor_ratio: false },
            alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 200_000 },
            with_snippet: false,
            strict_booleans: true,
        };
        match serde_saphyr::from_str_with_options::<Option<Value>>(&document, options) {
            Ok(None | Some(Value::Null)) => {}
            Ok(Some(value)) => unfold(value, LISTS, &mut |value| match other(&value) {
                // It is there for an API server, which takes no Agent without it. Here it is made with its Tenant.
                Some(_) if is_tenants_namespace(&value) => {}
                Some(other) => loaded.others.push(other),
                None => loaded.ours.push(check(&value, None).or_else(|violations| refuse(identify(&value), violations))),
            }),
            Err(error) => loaded.ours.push(refuse(None, vec![Violation::new("", unreadable(&error))])),
        }
    }
    loaded
}

/// In the words of a person who writes YAML.
fn unreadable(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    if text.contains("budget") || text.contains("limit exceeded") {
        return "too large or too deeply nested: at most 100,000 values and a depth of 64 are read; split it".to_owned();
    }
    format!("not YAML: {}", clip(&text))
}

/// The objects of a document: itself, or the items of a `List`, `TenantList` and the like.
fn unfold(mut value: Value, depth: usize, take: &mut impl FnMut(Value)) {
    let is_list = text_at(&value, "/kind").ends_with("List") && value.get("items").is_some_and(Value::is_array);
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list && depth > 0 => items.into_iter().for_each(|item| unfold(item, depth - 1, take)),
        Some(items) => {
            value["items"] = items;
            take(value);
        }
        None => take(value),
    }
}

/// An object of another API group. `None` where it is one of ours, or says not what it is: then it is checked, and refused. So is a list
/// that could not be unfolded: passed over, it would take away what was in it.
fn other(value: &Value) -> Option<Other> {
    let (version, kind) = (text_at(value, "/apiVersion"), text_at(value, "/kind"));
    let ours = API_VERSION.split('/').next().unwrap_or_default();
    let is_ours = version.split('/').next() == Some(ours);
    let name = || format!("{} {} of {}", clip(kind), clip(text_at(value, "/metadata/name")), clip(version)).replace("  ", " ");
    (!is_ours && !version.is_empty() && !kind.is_empty() && kind != "List")
        .then(|| Other { name: name(), object: identify(value) })
}

fn is_tenants_namespace(value: &Value) -> bool {
    let label = value.pointer("/metadata/labels").and_then(|labels| labels.get("acb.dev/tenant")).and_then(Value::as_str);
    // One that the platform gives has to be there: that it is passed over is said.
    let is_made = label.is_some_and(|tenant| text_at(value, "/metadata/name") == format!("acb-{tenant}"));
    text_at(value, "/apiVersion") == "v1" && text_at(value, "/kind") == "Namespace" && is_made
}

/// Everything in some files, and what was refused.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// With the file that each is from.
    pub resources: Vec<(String, Resource)>,
    /// In the order of the files.
    pub errors: Vec<LoadError>,
    /// What is not ours, with the file that it is in.
    pub others: Vec<(String, Other)>,
}

impl Loaded {
    /// Whether nothing of ours was found, not even something that is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.errors.is_empty()
    }

    /// What people should know of what was passed over, a line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = |(source, Other { name, .. }): &(String, Other)| {
            let advice = match name.starts_with("Kustomization") {
                true => ". It is not run: `kubectl kustomize DIR | acb plan -f -` plans for what it makes",
                false => "",
            };
            format!("{source}: passed over: {name}{advice}")
        };
        self.others.iter().map(note).collect()
    }
}

/// Reads files, given as name and text. Of two documents for one object the first is taken, and the second refused.
#[must_use]
pub fn collect(files: &[(String, String)]) -> Loaded {
    let mut collected = Loaded::default();
    let mut seen: BTreeMap<ObjectRef, String> = BTreeMap::new();
    for (source, text) in files {
        if is_kustomization(source) {
            collected.others.push((source.clone(), Other { name: "Kustomization".to_owned(), object: None }));
            continue;
        }
        let documents = load(text, source);
        collected.others.extend(documents.others.into_iter().map(|other| (source.clone(), other)));
        for document in documents.ours {
            match document {
                Err(error) => collected.errors.push(error),
                Ok(resource) => match seen.get(&resource.object()) {
                    Some(first) => collected.errors.push(LoadError {
                        source: source.clone(),
                        violations: vec![Violation::new(
                            "metadata.name",
                            format!("duplicate name: {first} holds this object already; rename or remove one of them"),
                        )],
                        object: Some(resource.object()),
                    }),
                    None => {
                        seen.insert(resource.object(), source.clone());
                        collected.resources.push((source.clone(), resource));
                    }
                },
            }
        }
    }
    collected
}

/// By its name: most say neither kind nor version.
fn is_kustomization(source: &str) -> bool {
    let name = source.rsplit('/').next().unwrap_or(source);
    matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization")
}

/// Each document, with empty lines in place of what is before it, so that messages have the line of the file.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    // Directives are before the `---` of their document.
    let mut at_start = true;
    for (number, line) in text.lines().enumerate() {
        let begins = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        let line = match begins {
            Some(rest) => {
                documents.push("\n".repeat(number));
                at_start = false;
                // A comment is the only thing there that is no content.
                if rest.trim_start().starts_with('#') { "" } else { rest }
            }
            None if at_start && line.starts_with('%') => "",
            None if line == "..." => {
                at_start = true;
                ""
            }
            None => line,
        };
        if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {tier: Free}\n";

    fn names(text: &str) -> Vec<String> {
        let Documents { ours, others } = load(text, "a.yaml");
        let ours = ours.into_iter().map(|document| match document {
            Ok(resource) => resource.object().to_string(),
            Err(error) => format!("refused: {error}"),
        });
        others.into_iter().map(|other| format!("other: {}", other.name)).chain(ours).collect()
    }

    #[test]
    fn files_of_others_are_read_as_kubectl_reads_them() {
        let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}},
            {"apiVersion": "acb.dev/v1alpha1", "kind": "TenantList", "items": [
                {"apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"tier": "Free"}}]}]}"#;
        assert_eq!(names(list), ["other: ConfigMap settings of v1", "Tenant acme"]);
        for text in [
            format!("%YAML 1.2\n---\n{TENANT}"),
            format!("---\t# note\n{TENANT}"),
            format!("--- # note\n{TENANT}...\n"),
            format!("# note\n\n---\n---\n{TENANT}---\n"),
        ] {
            assert_eq!(names(&text), ["Tenant acme"], "{text:?}");
        }
        let items: String = (0..60).map(|n| format!("- {{<<: *base, metadata: {{name: t{n}}}}}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: List\nx: &base {{apiVersion: acb.dev/v1alpha1, kind: Tenant, spec: &s {{tier: Free}}}}\nitems:\n{items}"
        );
        assert_eq!(names(&text).len(), 60, "{:?}", names(&text));
        assert!(names(&text).iter().all(|name| name.starts_with("Tenant t")), "{:?}", names(&text));
    }

    #[test]
    fn what_is_wrong_with_our_own_is_said() {
        for (text, says) in [
            (TENANT.replace("v1alpha1", "v9"), "unknown kind \"Tenant\" of \"acb.dev/v9\""),
            ("replicas: 3\n".to_owned(), "unknown kind"),
            ("apiVersion: v1\nkind: List\nitems: {a: 1}\n".to_owned(), "unknown kind \"List\""),
            ("a: [".to_owned(), "not YAML"),
            ("a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned() + &bomb(), "too large"),
            (format!("{}1{}", "[".repeat(100), "]".repeat(100)), "too large"),
        ] {
            let found = names(&text);
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
            assert!(!found[0].contains("breached") && !found[0].contains('{'), "{found:?}");
        }
    }

    fn bomb() -> String {
        let line = |pair: &[char]| format!("{}: &{} [{}]\n", pair[1], pair[1], vec![format!("*{}", pair[0]); 10].join(","));
        ('a'..='g').collect::<Vec<_>>().windows(2).map(line).collect()
    }

    #[test]
    fn what_is_not_ours_is_passed_over_with_a_word() {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let files = [
            file("kustomization.yaml", "resources: [a.yaml]"),
            file("sub/ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: acb-acme}"),
        ];
        let loaded = collect(&files);
        assert!(loaded.is_empty());
        let notes = loaded.notes();
        assert!(notes[0].contains("acb plan -f -"), "{notes:?}");
        assert_eq!(notes[1], "sub/ns.yaml: passed over: Namespace acb-acme of v1");
    }
}
