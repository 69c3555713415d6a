//! What a change of a tenant's rows means to its people: acts for its audit trail. A secret is in none of them: a key is named by its prefix.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::plan::{AgentRow, ContextTypeRow, IssuerRow, OidcIssuerRow, ServiceAccountRow, TenantRow};

/// Characters that an act keeps of what changed: the rows themselves say the rest.
const LONGEST: usize = 2000;

/// Something that the operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Such as `AgentAdded`.
    pub operation: &'static str,
    /// What it was about, such as `agent planner`.
    pub object: String,
    /// What changed about it, such as `role observer to admin`.
    pub change: String,
}

impl Act {
    pub(super) fn new(operation: &'static str, object: impl Into<String>, change: impl AsRef<str>) -> Self {
        let change = change.as_ref();
        let change = match change.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &change[..end]),
            None => change.to_owned(),
        };
        Self { operation, object: object.into(), change }
    }
}

/// An agent, and the keys that it can log in with.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentState {
    /// Its row.
    pub row: AgentRow,
    /// The prefixes of its keys, and whether each works for good: one that was replaced works for a while.
    pub keys: BTreeMap<String, bool>,
}

/// What was done to agents that were as before, and are as after: both by UID.
#[must_use]
pub fn of_agents(before: &BTreeMap<String, AgentState>, after: &BTreeMap<String, AgentState>) -> Vec<Act> {
    let ids: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut acts = Vec::new();
    // Those that are gone first: another one may have the name now.
    for gone in ids.iter().filter_map(|id| before.get(*id).filter(|_| !after.contains_key(*id))) {
        acts.push(Act::new("AgentRemoved", object(&gone.row), format!("uid {}", gone.row.id)));
    }
    for id in ids {
        match (before.get(id), after.get(id)) {
            (None, Some(new)) => {
                acts.push(Act::new("AgentAdded", object(&new.row), description(&new.row)));
                acts.extend(of_keys(object(&new.row), &BTreeMap::new(), &new.keys));
            }
            (Some(old), Some(new)) => {
                acts.extend(of_rows(&old.row, &new.row));
                acts.extend(of_keys(object(&new.row), &old.keys, &new.keys));
            }
            (_, None) => {}
        }
    }
    acts
}

/// What was done to a tenant. `before`: `None` where it had no row.
#[must_use]
pub fn of_tenant(before: Option<&TenantRow>, after: &TenantRow) -> Vec<Act> {
    let object = format!("tenant {}", after.name);
    let mut acts = Vec::new();
    match before {
        None => {
            let change = format!("tier {}; registration {}", after.tier, after.registration);
            acts.push(Act::new("TenantAdded", &object, change));
        }
        Some(before) => {
            let days = |row: &TenantRow| row.audit_days.to_string();
            let changed = differences([
                field("name", &before.name, &after.name),
                field("tier", &before.tier, &after.tier),
                field("registration", &before.registration, &after.registration),
                field("audit retention days", &days(before), &days(after)),
                context_types(&before.context_types, &after.context_types),
            ]);
            acts.extend(changed.map(|change| Act::new("TenantChanged", &object, change)));
            if before.suspended != after.suspended {
                let operation = if after.suspended { "TenantSuspended" } else { "TenantResumed" };
                acts.push(Act::new(operation, &object, ""));
            }
            acts.extend(limits(&object, &limits_of(before), &limits_of(after)));
        }
    }
    acts.extend(of_cluster_issuer(before.and_then(|row| row.issuer.as_ref()), after.issuer.as_ref()));
    acts.extend(of_issuers(before.map(|row| row.oidc_issuers.as_slice()).unwrap_or_default(), &after.oidc_issuers));
    acts
}

fn object(agent: &AgentRow) -> String {
    format!("agent {}", agent.name)
}

fn description(row: &AgentRow) -> String {
    let mut said = vec![format!("uid {}", row.id), format!("role {}", row.role)];
    if !row.groups.is_empty() {
        said.push(format!("groups {}", list(&row.groups)));
    }
    if row.service_account.is_some() {
        said.push(format!("serviceaccount {}", account(row)));
    }
    if row.suspended {
        said.push("suspended".to_owned());
    }
    said.join("; ")
}

fn of_rows(before: &AgentRow, after: &AgentRow) -> Vec<Act> {
    let object = object(after);
    let changed = differences([
        field("name", &before.name, &after.name),
        field("role", &before.role, &after.role),
        field("groups", &list(&before.groups), &list(&after.groups)),
        field("publishes", &list(&before.publishes), &list(&after.publishes)),
        field("subscribes", &list(&before.subscribes), &list(&after.subscribes)),
        field("serviceaccount", &account(before), &account(after)),
        field("type", &before.r#type, &after.r#type),
        field("capabilities", &list(&before.capabilities), &list(&after.capabilities)),
        field("location", &before.location, &after.location),
        // Its people's own words, of any length: the name of the field is enough.
        (before.metadata != after.metadata).then(|| "metadata".to_owned()),
    ]);
    let mut acts: Vec<Act> = changed.map(|change| Act::new("AgentChanged", &object, change)).into_iter().collect();
    if before.suspended != after.suspended {
        acts.push(Act::new(if after.suspended { "AgentSuspended" } else { "AgentResumed" }, &object, ""));
    }
    acts.extend(limits(&object, &numbers(&before.limits), &numbers(&after.limits)));
    acts
}

fn of_keys(object: String, before: &BTreeMap<String, bool>, after: &BTreeMap<String, bool>) -> Vec<Act> {
    let mut acts = Vec::new();
    let replaced =
        before.iter().find(|(prefix, lasting)| **lasting && after.get(*prefix) != Some(&true)).map(|(prefix, _)| prefix);
    let mut told = None;
    for issued in after.keys().filter(|prefix| !before.contains_key(*prefix)) {
        acts.push(match replaced {
            None => Act::new("ApiKeyIssued", &object, format!("key {issued}")),
            Some(old) => {
                told = Some(old);
                let until = if after.contains_key(old) { "works for a while yet" } else { "has ended" };
                Act::new("ApiKeyRotated", &object, format!("key {issued} in place of {old}, which {until}"))
            }
        });
    }
    let withdrawn = before.keys().filter(|prefix| !after.contains_key(*prefix) && told != Some(*prefix));
    acts.extend(withdrawn.map(|prefix| Act::new("ApiKeyWithdrawn", &object, format!("key {prefix}"))));
    acts
}

fn of_cluster_issuer(before: Option<&IssuerRow>, after: Option<&IssuerRow>) -> Option<Act> {
    let object = |row: &IssuerRow| format!("serviceaccount issuer {}", row.issuer);
    match (before, after) {
        (None, None) => None,
        (None, Some(new)) => Some(Act::new("IssuerAdded", object(new), "")),
        (Some(old), None) => Some(Act::new("IssuerRemoved", object(old), "")),
        (Some(old), Some(new)) => differences([
            field("issuer", &old.issuer, &new.issuer),
            field("issuer before", old.previous.as_deref().unwrap_or_default(), new.previous.as_deref().unwrap_or_default()),
            (old.jwks != new.jwks).then(|| "keys".to_owned()),
        ])
        .map(|change| Act::new("IssuerChanged", object(new), change)),
    }
}

fn of_issuers(before: &[OidcIssuerRow], after: &[OidcIssuerRow]) -> Vec<Act> {
    let object = |row: &OidcIssuerRow| format!("issuer {}", row.issuer);
    let of = |rows: &[OidcIssuerRow], name: &str| rows.iter().find(|row| row.issuer == name).cloned();
    let terms = |row: &OidcIssuerRow| format!("audiences {}; agent {}", list(&row.audiences), row.agent);
    let mut acts = Vec::new();
    for old in before.iter().filter(|old| of(after, &old.issuer).is_none()) {
        acts.push(Act::new("IssuerRemoved", object(old), ""));
    }
    for new in after {
        let Some(old) = of(before, &new.issuer) else {
            acts.push(Act::new("IssuerAdded", object(new), terms(new)));
            continue;
        };
        let changed = differences([
            field("audiences", &list(&old.audiences), &list(&new.audiences)),
            field("agent", &old.agent, &new.agent),
            field("role", old.role.as_deref().unwrap_or_default(), new.role.as_deref().unwrap_or_default()),
            field("networks", &list(&old.networks), &list(&new.networks)),
            (old.authorities != new.authorities).then(|| "certificate authorities".to_owned()),
        ]);
        acts.extend(changed.map(|change| Act::new("IssuerChanged", object(new), change)));
    }
    acts
}

fn context_types(before: &[ContextTypeRow], after: &[ContextTypeRow]) -> Option<String> {
    let of = |rows: &[ContextTypeRow], name: &str| rows.iter().find(|row| row.name == name).cloned();
    let gone = before.iter().filter(|row| of(after, &row.name).is_none()).map(|row| format!("context type {} removed", row.name));
    let changed = after.iter().filter_map(|row| match of(before, &row.name) {
        None => Some(format!("context type {} added", row.name)),
        Some(old) => (old != *row).then(|| format!("context type {} changed", row.name)),
    });
    differences(gone.chain(changed).map(Some))
}

fn limits(object: &str, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Option<Act> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |limits: &BTreeMap<String, String>, name: &str| limits.get(name).cloned().unwrap_or_default();
    let changed = differences(names.into_iter().map(|name| field(name, &of(before, name), &of(after, name))));
    changed.map(|change| Act::new("LimitsChanged", object, change))
}

/// Those of all of its operations together, and those of single ones.
fn limits_of(tenant: &TenantRow) -> BTreeMap<String, String> {
    let operations = tenant.operation_limits.iter().map(|(name, most)| (name.clone(), most.to_string()));
    numbers(&tenant.limits).into_iter().chain(operations).collect()
}

fn numbers(limits: &Value) -> BTreeMap<String, String> {
    limits.as_object().into_iter().flatten().map(|(name, most)| (name.clone(), most.to_string())).collect()
}

fn account(row: &AgentRow) -> String {
    let name = |ServiceAccountRow { namespace, name, uid }: &ServiceAccountRow| format!("{namespace}/{name} (uid {uid})");
    row.service_account.as_ref().map(name).unwrap_or_default()
}

fn list(items: &[String]) -> String {
    items.join(", ")
}

/// What is said of a field that is another one. `None`: it is the same.
fn field(name: &str, before: &str, after: &str) -> Option<String> {
    let said = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
    (before != after).then(|| format!("{name} {} to {}", said(before), said(after)))
}

fn differences(fields: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let said: Vec<String> = fields.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(name: &str) -> AgentRow {
        AgentRow {
            id: format!("uid-of-{name}"),
            name: name.to_owned(),
            r#type: String::new(),
            capabilities: Vec::new(),
            groups: vec!["ops".to_owned()],
            location: String::new(),
            metadata: json!({}),
            role: "observer".to_owned(),
            publishes: Vec::new(),
            subscribes: Vec::new(),
            limits: json!({"messagesPerMinute": 100}),
            suspended: false,
            service_account: None,
        }
    }

    fn states(rows: &[AgentRow], keys: &[(&str, bool)]) -> BTreeMap<String, AgentState> {
        let keys: BTreeMap<String, bool> = keys.iter().map(|(prefix, lasting)| ((*prefix).to_owned(), *lasting)).collect();
        rows.iter().map(|row| (row.id.clone(), AgentState { row: row.clone(), keys: keys.clone() })).collect()
    }

    fn told(acts: &[Act]) -> Vec<String> {
        acts.iter().map(|act| format!("{} {}: {}", act.operation, act.object, act.change)).collect()
    }

    #[test]
    fn what_is_as_it_was_is_no_act() {
        let one = states(&[row("planner")], &[("k1", true)]);
        assert_eq!(of_agents(&one, &one), []);
        let tenant = tenant();
        assert_eq!(of_tenant(Some(&tenant), &tenant), []);
    }

    #[test]
    fn an_agent_is_added_changed_and_removed() {
        let none = BTreeMap::new();
        let old = states(&[row("planner")], &[("k1", true)]);
        assert_eq!(
            told(&of_agents(&none, &old)),
            ["AgentAdded agent planner: uid uid-of-planner; role observer; groups ops", "ApiKeyIssued agent planner: key k1"]
        );
        let account = ServiceAccountRow { namespace: "acb-acme".to_owned(), name: "planner".to_owned(), uid: "u".to_owned() };
        let new = AgentRow {
            role: "admin".to_owned(),
            groups: Vec::new(),
            metadata: json!({"password": "hunter2"}),
            limits: json!({"messagesPerMinute": 50, "requestBytes": 7}),
            suspended: true,
            service_account: Some(account),
            ..row("planner")
        };
        let changed = told(&of_agents(&old, &states(&[new], &[("k1", true)])));
        assert_eq!(
            changed,
            [
                "AgentChanged agent planner: role observer to admin; groups ops to none; serviceaccount none to acb-acme/planner (uid u); metadata",
                "AgentSuspended agent planner: ",
                "LimitsChanged agent planner: messagesPerMinute 100 to 50; requestBytes none to 7",
            ]
        );
        // Made again under its name.
        let again = states(&[AgentRow { id: "another".to_owned(), ..row("planner") }], &[]);
        assert_eq!(
            told(&of_agents(&old, &again)),
            [
                "AgentRemoved agent planner: uid uid-of-planner",
                "AgentAdded agent planner: uid another; role observer; groups ops",
            ]
        );
    }

    #[test]
    fn keys_are_issued_rotated_and_withdrawn() {
        let keys = |keys| states(&[row("a")], keys);
        let acts = |before, after| told(&of_agents(&keys(before), &keys(after)));
        assert_eq!(acts(&[], &[("k1", true)]), ["ApiKeyIssued agent a: key k1"]);
        assert_eq!(
            acts(&[("k1", true)], &[("k1", false), ("k2", true)]),
            ["ApiKeyRotated agent a: key k2 in place of k1, which works for a while yet"]
        );
        assert_eq!(
            acts(&[("k0", false), ("k1", true)], &[("k2", true)]),
            ["ApiKeyRotated agent a: key k2 in place of k1, which has ended", "ApiKeyWithdrawn agent a: key k0"]
        );
        assert_eq!(acts(&[("k1", true)], &[]), ["ApiKeyWithdrawn agent a: key k1"]);
    }

    fn tenant() -> TenantRow {
        TenantRow {
            name: "acme".to_owned(),
            tier: "Starter".to_owned(),
            registration: "Open".to_owned(),
            suspended: false,
            limits: json!({"agents": 5}),
            operation_limits: BTreeMap::new(),
            audit_days: 90,
            context_types: Vec::new(),
            issuer: None,
            oidc_issuers: Vec::new(),
        }
    }

    fn oidc(agent: &str) -> OidcIssuerRow {
        OidcIssuerRow {
            issuer: "https://id.example".to_owned(),
            audiences: vec!["acb".to_owned()],
            agent: agent.to_owned(),
            role: None,
            authorities: None,
            networks: Vec::new(),
        }
    }

    #[test]
    fn a_tenant_is_added_limited_suspended_and_has_its_issuers() {
        let before = tenant();
        assert_eq!(told(&of_tenant(None, &before)), ["TenantAdded tenant acme: tier Starter; registration Open"]);
        let after = TenantRow {
            registration: "Declared".to_owned(),
            suspended: true,
            limits: json!({"agents": 3}),
            operation_limits: BTreeMap::from([("SendMessage".to_owned(), 60)]),
            issuer: Some(IssuerRow::new("https://cluster", json!({"keys": []}))),
            oidc_issuers: vec![oidc("claims.sub")],
            ..tenant()
        };
        assert_eq!(
            told(&of_tenant(Some(&before), &after)),
            [
                "TenantChanged tenant acme: registration Open to Declared",
                "TenantSuspended tenant acme: ",
                "LimitsChanged tenant acme: SendMessage none to 60; agents 5 to 3",
                "IssuerAdded serviceaccount issuer https://cluster: ",
                "IssuerAdded issuer https://id.example: audiences acb; agent claims.sub",
            ]
        );
        let other = TenantRow { oidc_issuers: vec![oidc("claims.name")], issuer: None, suspended: false, ..after.clone() };
        assert_eq!(
            told(&of_tenant(Some(&after), &other)),
            [
                "TenantResumed tenant acme: ",
                "IssuerRemoved serviceaccount issuer https://cluster: ",
                "IssuerChanged issuer https://id.example: agent claims.sub to claims.name",
            ]
        );
        let none = TenantRow { oidc_issuers: Vec::new(), ..other.clone() };
        assert_eq!(told(&of_tenant(Some(&other), &none)), ["IssuerRemoved issuer https://id.example: "]);
    }

    #[test]
    fn what_is_long_is_cut() {
        let act = Act::new("AgentChanged", "agent a", "ü".repeat(LONGEST + 1));
        assert_eq!(act.change.chars().count(), LONGEST + 1);
        assert!(act.change.ends_with('…'));
    }
}
