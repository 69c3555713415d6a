//! Whose data a Tenant has: its own, by its UID, or that of an earlier Tenant of its name, whose id the platform team wrote on it. Never
//! across names, and never what belongs to a Tenant that is there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use acb_crds::{
    Tenant,
    names::{TenantId, annotations::ADOPT},
};

use serde_json::Value;

use super::namespace::{TENANT_UID_LABEL, adopted_id, label};
use crate::plan::AgentRow;

/// What a Tenant is called in every system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of its data.
    pub id: TenantId,
    /// Whether it was asked for and granted, and does not follow from the UID alone.
    pub adopted: bool,
    /// Why what was asked for is not granted.
    pub refused: Option<String>,
}

/// The id that follows from the UID.
#[must_use]
pub fn own(tenant: &Tenant) -> TenantId {
    TenantId::from_uid(tenant.metadata.uid.as_deref().unwrap_or_default())
}

/// What the annotation says.
#[must_use]
pub fn asked(tenant: &Tenant) -> Option<&str> {
    tenant.metadata.annotations.as_ref()?.get(ADOPT).map(String::as_str)
}

/// The id that was granted: what its hub's namespace says of this very Tenant. The operator alone writes there.
#[must_use]
pub fn recorded(tenant: &Tenant, hub_namespace: Option<&Value>) -> Option<TenantId> {
    adopted_id(hub_namespace.filter(|namespace| label(namespace, TENANT_UID_LABEL) == tenant.metadata.uid.as_deref())?)
}

/// The id that is asked for: by the annotation or, where that was removed since, by what was granted. That holds for as long as the Tenant
/// is there; and it is what is taken down, whatever is asked for then. One that was provisioned without it has its own.
#[must_use]
pub fn wanted(tenant: &Tenant, hub_namespace: Option<&Value>) -> Option<String> {
    let recorded = recorded(tenant, hub_namespace).map(|id| id.hex());
    let asked = asked(tenant).map(str::to_owned);
    if tenant.metadata.deletion_timestamp.is_none() {
        return asked.or(recorded);
    }
    let uid = tenant.metadata.uid.as_deref();
    let is_provisioned = hub_namespace.is_some_and(|namespace| label(namespace, TENANT_UID_LABEL) == uid);
    recorded.or(asked.filter(|_| !is_provisioned))
}

fn asked_id(tenant: &Tenant) -> Option<TenantId> {
    TenantId::from_hex(asked(tenant)?)
}

/// Decides about the id that is [`wanted`]. `rows_of` is the name under which PostgreSQL holds it; `None`: it holds nothing of it.
#[must_use]
pub fn identity<'a>(
    tenant: &Tenant,
    wanted: Option<&str>,
    tenants: impl IntoIterator<Item = &'a Tenant>,
    rows_of: Option<&str>,
) -> Identity {
    let own = own(tenant);
    let refuse = |why: String| Identity { id: own, adopted: false, refused: Some(why) };
    let Some(text) = wanted else { return Identity { id: own, adopted: false, refused: None } };
    let Some(id) = TenantId::from_hex(text) else {
        return refuse(format!(
            "{text:?} is no tenant id: use the 20 hex digits that the status of the stalled Tenant named, or remove the annotation"
        ));
    };
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    if let Some(other) = rows_of.filter(|other| *other != name) {
        return refuse(format!("the data of id {id} is of tenant {other}, and stays under that name: remove the annotation"));
    }
    // Of two that ask for an id that nothing is known of, neither gets it.
    let claims = |other: &&Tenant| {
        let is_another = other.metadata.name != tenant.metadata.name;
        is_another && (self::own(other) == id || (asked_id(other) == Some(id) && rows_of.is_none()))
    };
    if let Some(other) = tenants.into_iter().find(claims) {
        let other = other.metadata.name.as_deref().unwrap_or_default();
        return refuse(format!("id {id} is tenant {other}'s, which is there: remove the annotation"));
    }
    Identity { id, adopted: true, refused: None }
}

impl Identity {
    /// The same, unless the Tenant has data already, under another id: it goes on with that, whatever is written on it since, and is restrained by it.
    /// `rows_of` is the name under which PostgreSQL holds what it has had until now.
    #[must_use]
    pub fn or_provisioned(self, tenant: &Tenant, recorded: Option<TenantId>, rows_of: Option<&str>) -> Self {
        let id = recorded.unwrap_or_else(|| own(tenant));
        let has_data = rows_of.is_some() && rows_of == tenant.metadata.name.as_deref();
        if !self.adopted || self.id == id || !has_data {
            return self;
        }
        let why =
            format!("this Tenant has data already, under id {id}, and can't have that of id {}: remove the annotation", self.id);
        Self { id, adopted: recorded.is_some(), refused: Some(why) }
    }

    /// The same, with what was granted before where what is asked for now is not: a wrong annotation must not hide whose login there is.
    #[must_use]
    pub fn or_recorded(self, recorded: Option<TenantId>) -> Self {
        match recorded {
            Some(id) if self.refused.is_some() => Self { id, adopted: true, ..self },
            _ => self,
        }
    }
}

/// By which ids the agents of a Tenant with adopted data are known. Worked out once for all of them.
#[derive(Clone, Debug, Default)]
pub struct AgentIds {
    /// The ids that have a row.
    rows: BTreeSet<String>,
    /// The rows that are no Agent's by its UID, by name.
    orphaned: BTreeMap<String, String>,
}

impl AgentIds {
    /// `uids` are those of all Agents there.
    #[must_use]
    pub fn new<'a>(uids: impl IntoIterator<Item = &'a str>, rows: &BTreeMap<String, AgentRow>) -> Self {
        let uids: BTreeSet<&str> = uids.into_iter().collect();
        let orphaned = rows.values().filter(|row| !uids.contains(row.id.as_str()));
        Self { rows: rows.keys().cloned().collect(), orphaned: orphaned.map(|row| (row.name.clone(), row.id.clone())).collect() }
    }

    /// The id of an Agent: that of the row of its name, where no Agent has that UID any more. Its mailbox and its contexts are that one's.
    #[must_use]
    pub fn of(&self, uid: &str, name: &str) -> String {
        let taken = self.orphaned.get(name).filter(|_| !self.rows.contains(uid));
        taken.map_or_else(|| uid.to_owned(), Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    const EARLIER: &str = "00112233445566778899";

    fn tenant(name: &str, uid: &str, adopt: Option<&str>) -> Tenant {
        let annotations = adopt.map(|id| json!({ADOPT: id})).unwrap_or(json!({}));
        serde_json::from_value(json!({
            "apiVersion": acb_crds::API_VERSION, "kind": "Tenant",
            "metadata": {"name": name, "uid": uid, "annotations": annotations}, "spec": {"tier": "Free"},
        }))
        .unwrap()
    }

    #[test]
    fn an_earlier_tenants_data_is_taken_over_under_its_own_name_only() {
        let acme = tenant("acme", "a", Some(EARLIER));
        let all = [acme.clone(), tenant("globex", "g", None)];
        let adopted = identity(&acme, asked(&acme), &all, Some("acme"));
        assert_eq!((adopted.id.hex().as_str(), adopted.adopted, adopted.refused), (EARLIER, true, None));
        let other = identity(&acme, asked(&acme), &all, Some("globex"));
        assert_eq!((other.id, other.adopted), (own(&acme), false));
        assert!(other.refused.unwrap().contains("of tenant globex"));
        let plain = tenant("acme", "a", None);
        assert_eq!(identity(&plain, asked(&plain), &all, None), Identity { id: own(&plain), adopted: false, refused: None });
    }

    #[test]
    fn what_belongs_to_one_that_is_there_is_nobody_elses() {
        let globex = tenant("globex", "g", None);
        let thief = tenant("acme", "a", Some(&own(&globex).hex()));
        for rows_of in [None, Some("globex"), Some("acme")] {
            let refused = identity(&thief, asked(&thief), &[thief.clone(), globex.clone()], rows_of);
            assert_eq!((refused.id, refused.adopted), (own(&thief), false), "{rows_of:?}");
            assert!(refused.refused.is_some());
        }
        // Two ask for the same unknown id: neither may have it, whoever comes first.
        let (one, two) = (tenant("one", "1", Some(EARLIER)), tenant("two", "2", Some(EARLIER)));
        let all = [one.clone(), two.clone()];
        assert!(!identity(&one, asked(&one), &all, None).adopted && !identity(&two, asked(&two), &all, None).adopted);
        assert!(
            identity(&one, asked(&one), &all, Some("one")).adopted && !identity(&two, asked(&two), &all, Some("one")).adopted
        );
    }

    #[test]
    fn what_was_granted_holds_without_the_annotation_for_this_very_tenant_alone() {
        let namespace = |uid: &str| {
            let labels = json!({TENANT_UID_LABEL: uid});
            json!({"metadata": {"name": "acbhub-acme", "labels": labels, "annotations": {"acb.dev/tenant-id": EARLIER}}})
        };
        let acme = tenant("acme", "a", None);
        assert_eq!(wanted(&acme, Some(&namespace("a"))).as_deref(), Some(EARLIER));
        assert_eq!(wanted(&acme, Some(&namespace("b"))), None);
        assert_eq!(wanted(&acme, None), None);
        // One that is being deleted is taken down by what it has, not by what is asked for last.
        let mut leaving = tenant("acme", "a", Some("nonsense"));
        let wrong = identity(&leaving, asked(&leaving), &[], None).or_recorded(recorded(&leaving, Some(&namespace("a"))));
        assert_eq!((wrong.id.hex().as_str(), wrong.adopted, wrong.refused.is_some()), (EARLIER, true, true));
        leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(wanted(&leaving, Some(&namespace("a"))).as_deref(), Some(EARLIER));
        assert_eq!(wanted(&leaving, None).as_deref(), Some("nonsense"));
        // One that asked after it was provisioned goes with what it has: its own login would work on.
        let mut own = namespace("a");
        own["metadata"]["annotations"] = json!({});
        assert_eq!(wanted(&leaving, Some(&own)), None);
        let later = "99887766554433221100";
        assert_eq!(wanted(&tenant("acme", "a", Some(later)), Some(&namespace("a"))).as_deref(), Some(later));
    }

    #[test]
    fn who_has_data_goes_on_with_it_whatever_is_asked_for() {
        let (plain, asking) = (tenant("acme", "a", None), tenant("acme", "a", Some(EARLIER)));
        let of = |recorded, rows_of: Option<&str>| {
            identity(&asking, asked(&asking), &[], None).or_provisioned(&asking, recorded, rows_of)
        };
        let refused = of(None, Some("acme"));
        assert_eq!((refused.id, refused.adopted), (own(&plain), false));
        assert!(refused.refused.unwrap().ends_with("remove the annotation"));
        let granted = TenantId::from_hex("99887766554433221100");
        let refused = of(granted, Some("acme"));
        assert!((Some(refused.id), refused.adopted) == (granted, true) && refused.refused.is_some());
        // It has none yet, or what has its id is another's.
        for rows_of in [None, Some("globex")] {
            assert_eq!((of(None, rows_of).id.hex().as_str(), of(None, rows_of).refused), (EARLIER, None));
        }
        // It asks for what it has.
        let same = tenant("acme", "a", Some(&own(&plain).hex()));
        let identity = identity(&same, asked(&same), &[], Some("acme")).or_provisioned(&same, None, Some("acme"));
        assert_eq!((identity.id, identity.refused), (own(&plain), None));
    }

    #[test]
    fn what_is_no_id_is_said() {
        for bad in ["", "x", "00112233445566778", "0011223344556677889G", "00112233445566778899 ", "AABBCCDDEEFF00112233"] {
            let refused = {
                let tenant = tenant("acme", "a", Some(bad));
                identity(&tenant, asked(&tenant), &[], None)
            };
            assert!(!refused.adopted && refused.refused.unwrap().contains("20 hex digits"), "{bad}");
        }
    }

    #[test]
    fn an_agent_finds_the_row_of_its_name_unless_that_is_anothers() {
        let row = |id: &str, name: &str| {
            let row = AgentRow {
                id: id.to_owned(),
                name: name.to_owned(),
                r#type: String::new(),
                capabilities: Vec::new(),
                groups: Vec::new(),
                location: String::new(),
                metadata: json!({}),
                role: "observer".to_owned(),
                publishes: Vec::new(),
                subscribes: Vec::new(),
                limits: json!({}),
                suspended: false,
                service_account: None,
            };
            (id.to_owned(), row)
        };
        let rows = BTreeMap::from([row("old-a", "a"), row("old-b", "b"), row("new-c", "c")]);
        let id = |uid: &str, name: &str, uids: &[&str]| AgentIds::new(uids.iter().copied(), &rows).of(uid, name);
        assert_eq!(id("new-a", "a", &["new-a", "new-b"]), "old-a");
        assert_eq!(id("new-a", "a", &["new-a", "old-a"]), "new-a", "an Agent has that UID");
        assert_eq!(id("new-c", "c", &["new-c"]), "new-c", "it has a row of its own");
        assert_eq!(id("new-d", "d", &["new-d"]), "new-d");
    }
}
