//! What belongs to no Tenant that is there: a deletion was let go with something left behind, or somebody took a Tenant out of the API by
//! force. What lets someone in is taken away; data never is: it is said. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use acb_crds::{
    Tenant,
    names::{TenantId, annotations::ADOPT, objects},
    schema::Kind,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    difference,
    effect::{kafka_inventory::KafkaInventory, kubernetes::ObjectKey, postgres_inventory::PostgresInventory, seal::MANAGED_BY},
    plan::{KafkaStep, KubernetesStep, PostgresStep, Step},
    tenancy::Tenancy,
    tenant::{
        access,
        namespace::{TENANT_LABEL, TENANT_UID_LABEL, adopted_id, label, served_id},
        network, object_quota,
        plan::DEPLOYMENT,
        scaling,
    },
};

/// From so many on it is asked whether this is the right cluster for these stores.
const FEW: usize = 3;
const HUB_NAMESPACE: &str = "acbhub-";

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum System {
    /// Objects.
    Kubernetes,
    /// Logins and rows.
    Postgres,
    /// Users and topics.
    Kafka,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kubernetes, Self::Postgres, Self::Kafka];

    /// For programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Postgres => "postgres",
            Self::Kafka => "kafka",
        }
    }
}

/// Something that belongs to nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// Where it is.
    pub system: System,
    /// What it is, for people.
    pub what: String,
    /// What takes it away; empty: that is for people to do.
    pub steps: Vec<Step>,
    /// Whether a tenant of this cluster had it. Stores may serve others, too.
    pub is_ours: bool,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What the last look found, and what of it is left. For people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphanReport {
    /// RFC 3339; nothing before the first look of a term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at: Option<String>,
    /// Systems that did not answer: nothing is known of them.
    #[serde(default)]
    pub away: Vec<System>,
    /// What belongs to no Tenant, and is still there.
    #[serde(default)]
    pub orphans: Vec<OrphanFound>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphanFound {
    /// Where it is.
    pub system: System,
    /// What it is.
    pub what: String,
    /// Whether a tenant of this cluster had it; a system may serve others, too.
    pub is_ours: bool,
}

impl From<&Orphan> for OrphanFound {
    fn from(orphan: &Orphan) -> Self {
        Self { system: orphan.system, what: orphan.what.clone(), is_ours: orphan.is_ours }
    }
}

/// What there is in each system; `None`: it could not be asked, and nothing is said of it.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Every Namespace, and what is in those of hubs and in those that the platform gave.
    pub objects: BTreeMap<ObjectKey, Value>,
    /// PostgreSQL.
    pub postgres: Option<PostgresInventory>,
    /// Kafka.
    pub kafka: Option<KafkaInventory>,
}

impl Inventory {
    /// The systems of which something is said. Whose a Kafka's users and topics are, PostgreSQL knows.
    #[must_use]
    pub fn judged(&self) -> Vec<System> {
        let is_judged = |system: &System| match system {
            System::Kubernetes => true,
            System::Postgres => self.postgres.is_some(),
            System::Kafka => self.postgres.is_some() && self.kafka.is_some(),
        };
        System::ALL.into_iter().filter(is_judged).collect()
    }
}

/// The Tenants that are there, also those that this version can't read, by what of them is known everywhere.
struct Everyone {
    names: BTreeSet<String>,
    uids: BTreeSet<String>,
    ids: BTreeSet<TenantId>,
}

impl Everyone {
    fn of(tenancy: &Tenancy, inventory: &Inventory) -> Self {
        let readable = tenancy.tenants.iter().map(|tenant: &Tenant| &tenant.metadata);
        let unreadable = tenancy.unreadable.iter().filter(|unreadable| unreadable.kind == Kind::Tenant);
        let all: Vec<&ObjectMeta> = readable.chain(unreadable.map(|unreadable| &unreadable.metadata)).collect();
        let uids: BTreeSet<String> = all.iter().filter_map(|metadata| metadata.uid.clone()).collect();
        let mut ids: BTreeSet<TenantId> = uids.iter().map(|uid| TenantId::from_uid(uid)).collect();
        // Nobody has the data of another name, whatever it asks for.
        let rows = inventory.postgres.as_ref().map(|postgres| &postgres.rows);
        let is_refused = |metadata: &ObjectMeta, id: &TenantId| {
            let name = rows.and_then(|rows| rows.get(id));
            name.is_some_and(|name| metadata.name.as_ref() != Some(name))
        };
        let asked = all.iter().filter_map(|metadata| {
            let id = TenantId::from_hex(metadata.annotations.as_ref()?.get(ADOPT)?)?;
            (!is_refused(metadata, &id)).then_some(id)
        });
        ids.extend(asked);
        // What a Tenant adopted is its own also where the annotation was taken away since.
        let own = namespaces(&inventory.objects)
            .filter(|(_, space)| label(space, TENANT_UID_LABEL).is_some_and(|uid| uids.contains(uid)));
        ids.extend(own.filter_map(|(_, space)| adopted_id(space)));
        let names = all.iter().filter_map(|metadata| metadata.name.clone()).collect();
        Self { names, uids, ids }
    }
}

fn namespaces(objects: &BTreeMap<ObjectKey, Value>) -> impl Iterator<Item = (&ObjectKey, &Value)> {
    objects.iter().filter(|(key, _)| key.kind == "Namespace")
}

/// What belongs to nobody. `tenancy` is to be read after the inventory: who is made in between has nothing in it yet.
#[must_use]
pub fn orphans(tenancy: &Tenancy, inventory: &Inventory) -> Vec<Orphan> {
    let everyone = Everyone::of(tenancy, inventory);
    let known = Known::of(&inventory.objects);
    let mut found = in_kubernetes(&everyone, inventory);
    if let Some(postgres) = &inventory.postgres {
        found.extend(in_postgres(&everyone, &known, postgres));
        if let Some(kafka) = &inventory.kafka {
            found.extend(in_kafka(&everyone, &known, postgres, kafka));
        }
    }
    found
}

/// Whom the namespaces of this cluster serve, or served. Stores may be another cluster's: what of them nobody here is known to have had is
/// not this operator's to take away.
struct Known {
    ids: BTreeSet<TenantId>,
    names: BTreeSet<String>,
}

impl Known {
    fn of(objects: &BTreeMap<ObjectKey, Value>) -> Self {
        let marked = || namespaces(objects).filter_map(|(_, space)| Some((space, served_id(space)?)));
        let names = marked().filter_map(|(space, _)| label(space, TENANT_LABEL).map(str::to_owned)).collect();
        Self { ids: marked().map(|(_, id)| id).collect(), names }
    }
}

/// `all`: how many there are that could be taken away. Where most of them would be, this may be another cluster's: that is for people to say.
fn careful(mut found: Vec<Orphan>, all: usize) -> Vec<Orphan> {
    let finished = found.iter().filter(|orphan| !orphan.steps.is_empty()).count();
    if finished > FEW && finished * 2 > all {
        found.iter_mut().for_each(|orphan| orphan.steps.clear());
    }
    found
}

fn delete(key: &ObjectKey) -> Step {
    Step::Kubernetes(KubernetesStep::Delete {
        api_version: key.api_version.clone(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    })
}

fn in_kubernetes(everyone: &Everyone, inventory: &Inventory) -> Vec<Orphan> {
    let (mut found, mut all) = (Vec::new(), 0);
    for (key, space) in namespaces(&inventory.objects) {
        let Some(uid) = label(space, TENANT_UID_LABEL).filter(|uid| !uid.is_empty()) else { continue };
        // Retained namespaces have nothing that could be taken away, and so do not count.
        let Some(orphan) = left_in(key, space, inventory) else { continue };
        all += 1;
        // A Tenant may be about to take it over.
        if !everyone.uids.contains(uid) && served_id(space).is_none_or(|id| !everyone.ids.contains(&id)) {
            found.push(orphan);
        }
    }
    careful(found, all)
}

/// What could be taken away in a namespace, were it nobody's.
fn left_in(key: &ObjectKey, space: &Value, inventory: &Inventory) -> Option<Orphan> {
    let there = |keys: &[(&str, &str, &str)]| -> Vec<Step> {
        let keys = keys.iter().map(|(api_version, kind, name)| ObjectKey::new(api_version, kind, &key.name, name));
        keys.filter(|key| inventory.objects.contains_key(key)).map(|key| delete(&key)).collect()
    };
    let (what, steps) = if key.name.starts_with(HUB_NAMESPACE) {
        let of_hub = [scaling::AUTOSCALER, DEPLOYMENT, ("v1", "Service"), network::TLS_ROUTE, scaling::DISRUPTION_BUDGET];
        (format!("the hub in namespace {}", key.name), there(&of_hub.map(|(version, kind)| (version, kind, objects::HUB))))
    } else if label(space, MANAGED_BY.0) != Some(MANAGED_BY.1) {
        // The platform gave it. The operator's way in goes last.
        let ((version, kind), (quota_version, quota)) = (access::ROLE_BINDING, object_quota::RESOURCE_QUOTA);
        let own = [
            (version, kind, objects::TENANT_ADMINS),
            (quota_version, quota, objects::OBJECT_QUOTA),
            (version, kind, objects::OPERATOR),
        ];
        let mut steps = there(&own);
        let name = label(space, TENANT_LABEL).map(|name| json!({TENANT_LABEL: name})).unwrap_or_else(|| json!({}));
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.name, "labels": name}});
        steps.push(Step::Kubernetes(KubernetesStep::Apply { object: difference::marked(object) }));
        (format!("what ACB has in namespace {}", key.name), steps)
    } else {
        return None;
    };
    (!steps.is_empty()).then_some(Orphan { system: System::Kubernetes, what, steps, is_ours: true })
}

fn in_postgres(everyone: &Everyone, known: &Known, postgres: &PostgresInventory) -> Vec<Orphan> {
    // Retained: barred, and its data is there for who adopts it. Without a row there is nothing to keep a login for.
    let removable = |(id, enabled): &(&TenantId, &bool)| **enabled || !postgres.rows.contains_key(*id);
    let all = postgres.logins.iter().filter(removable);
    let strangers = all.clone().filter(|(id, _)| !everyone.ids.contains(*id));
    let orphan = |(id, enabled): (&TenantId, &bool)| {
        let (tenant_id, is_ours) = (id.hex(), known.ids.contains(id));
        let step = match *enabled {
            true => PostgresStep::DisableLogin { tenant_id },
            false => PostgresStep::RemoveTenant { tenant_id },
        };
        let steps = if is_ours { vec![Step::Postgres(step)] } else { Vec::new() };
        Orphan { system: System::Postgres, what: format!("login {}", id.login()), steps, is_ours }
    };
    careful(strangers.map(orphan).collect(), all.count())
}

fn in_kafka(everyone: &Everyone, known: &Known, postgres: &PostgresInventory, kafka: &KafkaInventory) -> Vec<Orphan> {
    let all = || kafka.users.union(&kafka.granted);
    let users = all().filter(|id| !everyone.ids.contains(*id)).map(|id| {
        let (step, is_ours) = (Step::Kafka(KafkaStep::RemoveUser { username: id.login() }), known.ids.contains(id));
        let steps = if is_ours { vec![step] } else { Vec::new() };
        Orphan { system: System::Kafka, what: format!("user {}", id.login()), steps, is_ours }
    });
    let retained: BTreeSet<&String> = postgres.rows.values().collect();
    let nobodys = kafka.topics.iter().filter(|name| !everyone.names.contains(*name) && !retained.contains(name));
    let topics = nobodys.map(|name| {
        let is_ours = known.names.contains(name);
        Orphan { system: System::Kafka, what: format!("topics acb.{name}.*"), steps: Vec::new(), is_ours }
    });
    careful(users.chain(topics).collect(), all().filter(|id| known.ids.contains(*id)).count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::tenancy::Unreadable;

    fn tenant(name: &str, annotations: Value) -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": acb_crds::API_VERSION, "kind": "Tenant",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "annotations": annotations}, "spec": {"tier": "Free"},
        }))
        .unwrap()
    }

    fn id(name: &str) -> TenantId {
        TenantId::from_uid(&format!("uid-{name}"))
    }

    fn add(inventory: &mut Inventory, object: Value) {
        inventory.objects.insert(ObjectKey::of(&object).unwrap(), object);
    }

    fn hub(inventory: &mut Inventory, name: &str) {
        let labels =
            json!({TENANT_LABEL: name, TENANT_UID_LABEL: format!("uid-{name}"), "app.kubernetes.io/managed-by": "acb-operator"});
        let space = format!("acbhub-{name}");
        add(inventory, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}));
        add(inventory, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": space}}));
    }

    /// Tenants with everything that they have.
    fn everything(names: &[&str]) -> (Tenancy, Inventory) {
        let tenancy = Tenancy { tenants: names.iter().map(|name| tenant(name, json!({}))).collect(), ..Tenancy::default() };
        let mut inventory = Inventory::default();
        names.iter().for_each(|name| hub(&mut inventory, name));
        inventory.postgres = Some(PostgresInventory {
            logins: names.iter().map(|name| (id(name), true)).collect(),
            rows: names.iter().map(|name| (id(name), (*name).to_owned())).collect(),
        });
        inventory.kafka = Some(KafkaInventory {
            users: names.iter().map(|name| id(name)).collect(),
            granted: names.iter().map(|name| id(name)).collect(),
            topics: names.iter().map(|name| (*name).to_owned()).collect(),
        });
        (tenancy, inventory)
    }

    fn steps(found: &[Orphan]) -> Vec<String> {
        found.iter().flat_map(|orphan| orphan.steps.iter().map(ToString::to_string)).collect()
    }

    #[test]
    fn what_a_tenant_left_behind_is_shut_and_its_data_kept() {
        let (mut tenancy, inventory) = everything(&["acme", "globex"]);
        assert_eq!(orphans(&tenancy, &inventory), []);
        tenancy.tenants.remove(0);
        let (found, login) = (orphans(&tenancy, &inventory), id("acme").login());
        let expected = [
            "- Deployment acbhub-acme/hub".to_owned(),
            format!("- postgres login {login} barred; its data stays"),
            format!("- kafka user {login}, its acls and its quota"),
        ];
        assert_eq!(steps(&found), expected);
        // Whoever of another name asks for its data has nothing of it.
        tenancy.tenants[0].metadata.annotations = Some([(ADOPT.to_owned(), id("acme").hex())].into());
        assert_eq!(steps(&orphans(&tenancy, &inventory)), expected);
        assert_eq!(found.iter().map(|orphan| orphan.system).collect::<Vec<_>>(), System::ALL);
    }

    #[test]
    fn retained_data_is_no_orphan() {
        let (mut tenancy, mut inventory) = everything(&["acme", "globex"]);
        tenancy.tenants.remove(0);
        inventory.objects.retain(|key, _| key.kind == "Namespace");
        inventory.postgres.as_mut().unwrap().logins.insert(id("acme"), false);
        let kafka = inventory.kafka.as_mut().unwrap();
        kafka.users.remove(&id("acme"));
        kafka.granted.remove(&id("acme"));
        assert_eq!(orphans(&tenancy, &inventory), []);
        // Its rows were removed by hand: a login without them is of no use, and topics are nobody's.
        inventory.postgres.as_mut().unwrap().rows.remove(&id("acme"));
        let found = orphans(&tenancy, &inventory);
        assert_eq!(steps(&found).len(), 1, "{found:?}");
        assert_eq!(found.last().unwrap().what, "topics acb.acme.*");
    }

    #[test]
    fn who_is_there_keeps_what_it_has_however_it_is_known() {
        let (mut tenancy, inventory) = everything(&["acme", "globex"]);
        // A version that can't read it.
        let metadata = tenancy.tenants.remove(0).metadata;
        tenancy.unreadable = vec![Unreadable::new(Kind::Tenant, metadata)];
        assert_eq!(orphans(&tenancy, &inventory), []);
        // A Tenant of a new UID that takes it over.
        tenancy.unreadable.clear();
        let mut adopting = tenant("acme", json!({ADOPT: id("acme").hex()}));
        adopting.metadata.uid = Some("another".into());
        tenancy.tenants.push(adopting);
        assert_eq!(orphans(&tenancy, &inventory), []);
        // And has it, without the annotation.
        let last = tenancy.tenants.len() - 1;
        tenancy.tenants[last].metadata.annotations = None;
        let mut taken = inventory.clone();
        let key = ObjectKey::new("v1", "Namespace", "", "acbhub-acme");
        let space = taken.objects.get_mut(&key).unwrap();
        space["metadata"]["labels"][TENANT_UID_LABEL] = json!("another");
        space["metadata"]["annotations"] = json!({"acb.dev/tenant-id": id("acme").hex()});
        assert_eq!(orphans(&tenancy, &taken), []);
        assert!(!orphans(&tenancy, &inventory).is_empty(), "one that is only of the same name has nothing of it");
    }

    #[test]
    fn a_kafka_that_others_use_too_is_theirs() {
        let (tenancy, mut inventory) = everything(&["acme"]);
        inventory.kafka.as_mut().unwrap().users.insert(id("stranger"));
        inventory.kafka.as_mut().unwrap().topics.insert("stranger".into());
        let found = orphans(&tenancy, &inventory);
        assert_eq!((found.len(), steps(&found).len()), (2, 0), "said, and left alone: {found:?}");
        assert!(found.iter().all(|orphan| !orphan.is_ours), "and not counted: {found:?}");
        // Of a tenant of this cluster it is.
        let (_, other) = everything(&["acme", "stranger"]);
        inventory.objects = other.objects;
        assert!(orphans(&tenancy, &inventory).iter().all(|orphan| orphan.is_ours));
    }

    #[test]
    fn a_second_cluster_with_the_same_stores_bars_nobody() {
        let (_, mut inventory) = everything(&["a", "b", "c"]);
        inventory.objects.clear();
        inventory.postgres.as_mut().unwrap().rows.remove(&id("c"));
        inventory.postgres.as_mut().unwrap().logins.insert(id("c"), false);
        let found = orphans(&Tenancy::default(), &inventory);
        assert_eq!(steps(&found), Vec::<String>::new());
        let logins = found.iter().filter(|orphan| orphan.system == System::Postgres).count();
        assert_eq!((logins, found.iter().filter(|orphan| orphan.is_ours).count()), (3, 0), "said: {found:?}");
    }

    #[test]
    fn a_system_that_was_not_asked_has_no_orphans() {
        let (mut tenancy, mut inventory) = everything(&["acme", "globex"]);
        tenancy.tenants.remove(0);
        inventory.postgres = None;
        let systems: Vec<System> = orphans(&tenancy, &inventory).iter().map(|orphan| orphan.system).collect();
        assert_eq!(systems, [System::Kubernetes], "whose a Kafka user is, PostgreSQL knows");
        assert_eq!(inventory.judged(), [System::Kubernetes], "and nothing is known of how many there are");
        inventory.postgres = Some(PostgresInventory::default());
        assert_eq!(inventory.judged(), System::ALL);
        inventory.kafka = None;
        assert_eq!(inventory.judged(), [System::Kubernetes, System::Postgres]);
    }

    #[test]
    fn a_cluster_that_knows_nobody_takes_nothing_from_anybody() {
        let (_, mut inventory) = everything(&["a", "b", "c", "d", "e"]);
        // What is no longer there to be taken away does not make the rest few.
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
            let labels = json!({TENANT_LABEL: name, TENANT_UID_LABEL: format!("uid-{name}"), "app.kubernetes.io/managed-by": "acb-operator"});
            for space in ["acb", "acbhub"] {
                let space = format!("{space}-{name}");
                add(
                    &mut inventory,
                    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}}),
                );
            }
            let postgres = inventory.postgres.as_mut().unwrap();
            postgres.logins.entry(id(name)).or_insert(false);
            postgres.rows.entry(id(name)).or_insert_with(|| name.to_owned());
        }
        let found = orphans(&Tenancy::default(), &inventory);
        assert_eq!((found.len(), steps(&found).len()), (15, 0));
        let some =
            Tenancy { tenants: ["a", "b", "c"].iter().map(|name| tenant(name, json!({}))).collect(), ..Tenancy::default() };
        assert_eq!(steps(&orphans(&some, &inventory)).len(), 6);
    }

    #[test]
    fn a_namespace_that_the_platform_gave_is_released() {
        let mut inventory = Inventory::default();
        // Whoever manages it: Argo CD and Helm write their own name.
        let labels = json!({TENANT_LABEL: "acme", TENANT_UID_LABEL: "uid-acme", "app.kubernetes.io/managed-by": "Helm"});
        add(&mut inventory, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": labels}}));
        let (version, kind) = access::ROLE_BINDING;
        for (version, kind, name) in [(version, kind, "acb-operator"), ("v1", "ResourceQuota", "acb-objects")] {
            add(&mut inventory, json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "team-a"}}));
        }
        let found = orphans(&Tenancy::default(), &inventory);
        let expected = ["- ResourceQuota team-a/acb-objects", "- RoleBinding team-a/acb-operator", "+ Namespace team-a"];
        assert_eq!(steps(&found), expected);
    }
}
