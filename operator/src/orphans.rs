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
use serde_json::{Value, json};

use crate::{
    difference,
    effect::{kafka_inventory::KafkaInventory, kubernetes::ObjectKey, postgres_inventory::PostgresInventory},
    plan::{KafkaStep, KubernetesStep, PostgresStep, Step},
    tenancy::Tenancy,
    tenant::{
        access,
        namespace::{TENANT_LABEL, TENANT_UID_LABEL, adopted_id, label, served_id},
        network,
        plan::DEPLOYMENT,
        scaling,
    },
};

/// From so many on it is asked whether this is the right cluster for these stores.
const FEW: usize = 3;
const HUB_NAMESPACE: &str = "acbhub-";

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
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

/// The Tenants that are there, also those that this version can't read, by what of them is known everywhere.
struct Everyone {
    names: BTreeSet<String>,
    uids: BTreeSet<String>,
    ids: BTreeSet<TenantId>,
}

impl Everyone {
    fn of(tenancy: &Tenancy, objects: &BTreeMap<ObjectKey, Value>) -> Self {
        let readable = tenancy.tenants.iter().map(|tenant: &Tenant| &tenant.metadata);
        let unreadable = tenancy.unreadable.iter().filter(|unreadable| unreadable.kind == Kind::Tenant);
        let all: Vec<&ObjectMeta> = readable.chain(unreadable.map(|unreadable| &unreadable.metadata)).collect();
        let uids: BTreeSet<String> = all.iter().filter_map(|metadata| metadata.uid.clone()).collect();
        let mut ids: BTreeSet<TenantId> = uids.iter().map(|uid| TenantId::from_uid(uid)).collect();
        let asked = all.iter().filter_map(|metadata| TenantId::from_hex(metadata.annotations.as_ref()?.get(ADOPT)?));
        ids.extend(asked);
        // What a Tenant adopted is its own also where the annotation was taken away since.
        let own = namespaces(objects).filter(|(_, space)| label(space, TENANT_UID_LABEL).is_some_and(|uid| uids.contains(uid)));
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
    let everyone = Everyone::of(tenancy, &inventory.objects);
    let marked = namespaces(&inventory.objects).filter(|(_, space)| label(space, TENANT_UID_LABEL).is_some());
    let mut found = careful(in_kubernetes(&everyone, inventory), marked.count());
    if let Some(postgres) = &inventory.postgres {
        found.extend(careful(in_postgres(&everyone, postgres), postgres.logins.len()));
        if let Some(kafka) = &inventory.kafka {
            found.extend(careful(in_kafka(&everyone, inventory, postgres, kafka), kafka.users.union(&kafka.granted).count()));
        }
    }
    found
}

/// Where most of what there is would be taken away, this may be another cluster's: that is for people to say.
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
    let mut found = Vec::new();
    for (key, space) in namespaces(&inventory.objects) {
        let uid = label(space, TENANT_UID_LABEL).filter(|uid| !uid.is_empty() && !everyone.uids.contains(*uid));
        // A Tenant may be about to take it over.
        if uid.is_none() || served_id(space).is_some_and(|id| everyone.ids.contains(&id)) {
            continue;
        }
        let there = |keys: &[(&str, &str, &str)]| -> Vec<Step> {
            let keys = keys.iter().map(|(api_version, kind, name)| ObjectKey::new(api_version, kind, &key.name, name));
            keys.filter(|key| inventory.objects.contains_key(key)).map(|key| delete(&key)).collect()
        };
        let is_given = label(space, "app.kubernetes.io/managed-by").is_none();
        let (what, mut steps) = if key.name.starts_with(HUB_NAMESPACE) {
            let of_hub = [scaling::AUTOSCALER, DEPLOYMENT, ("v1", "Service"), network::TLS_ROUTE, scaling::DISRUPTION_BUDGET];
            (format!("the hub in namespace {}", key.name), there(&of_hub.map(|(version, kind)| (version, kind, objects::HUB))))
        } else if is_given {
            let (version, kind) = access::ROLE_BINDING;
            let bindings = [(version, kind, objects::TENANT_ADMINS), (version, kind, objects::OPERATOR)];
            (format!("what ACB has in namespace {}", key.name), there(&bindings))
        } else {
            continue;
        };
        if is_given && !key.name.starts_with(HUB_NAMESPACE) {
            let name = label(space, TENANT_LABEL).map(|name| json!({TENANT_LABEL: name})).unwrap_or_else(|| json!({}));
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key.name, "labels": name}});
            steps.push(Step::Kubernetes(KubernetesStep::Apply { object: difference::marked(object) }));
        }
        if !steps.is_empty() {
            found.push(Orphan { system: System::Kubernetes, what, steps });
        }
    }
    found
}

fn in_postgres(everyone: &Everyone, postgres: &PostgresInventory) -> Vec<Orphan> {
    let strangers = postgres.logins.iter().filter(|(id, _)| !everyone.ids.contains(*id));
    let orphan = |(id, enabled): (&TenantId, &bool)| {
        let tenant_id = id.hex();
        let step = match (*enabled, postgres.rows.contains_key(id)) {
            (true, _) => PostgresStep::DisableLogin { tenant_id },
            // Without a row there is nothing to keep it for.
            (false, false) => PostgresStep::RemoveTenant { tenant_id },
            // Retained: barred, and its data is there for who adopts it.
            (false, true) => return None,
        };
        Some(Orphan { system: System::Postgres, what: format!("login {}", id.login()), steps: vec![Step::Postgres(step)] })
    };
    strangers.filter_map(orphan).collect()
}

fn in_kafka(everyone: &Everyone, inventory: &Inventory, postgres: &PostgresInventory, kafka: &KafkaInventory) -> Vec<Orphan> {
    // A Kafka may serve others than this cluster: only who is known here is taken for ours.
    let served: BTreeSet<TenantId> = namespaces(&inventory.objects).filter_map(|(_, space)| served_id(space)).collect();
    let is_ours = |id: &TenantId| postgres.logins.contains_key(id) || postgres.rows.contains_key(id) || served.contains(id);
    let strangers = kafka.users.union(&kafka.granted).filter(|id| !everyone.ids.contains(*id));
    let users = strangers.map(|id| {
        let step = Step::Kafka(KafkaStep::RemoveUser { username: id.login() });
        let steps = if is_ours(id) { vec![step] } else { Vec::new() };
        Orphan { system: System::Kafka, what: format!("user {}", id.login()), steps }
    });
    let retained: BTreeSet<&String> = postgres.rows.values().collect();
    let nobodys = kafka.topics.iter().filter(|name| !everyone.names.contains(*name) && !retained.contains(name));
    let topics = nobodys.map(|name| Orphan { system: System::Kafka, what: format!("topics acb.{name}.*"), steps: Vec::new() });
    users.chain(topics).collect()
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
        tenancy.unreadable = vec![Unreadable { kind: Kind::Tenant, metadata, space: None }];
        assert_eq!(orphans(&tenancy, &inventory), []);
        // A Tenant of a new UID that takes it over.
        tenancy.unreadable.clear();
        let mut adopting = tenant("acme", json!({ADOPT: id("acme").hex()}));
        adopting.metadata.uid = Some("another".into());
        tenancy.tenants.push(adopting);
        assert_eq!(orphans(&tenancy, &inventory), []);
        // And has it, without the annotation.
        tenancy.tenants.last_mut().unwrap().metadata.annotations = None;
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
    }

    #[test]
    fn a_system_that_was_not_asked_has_no_orphans() {
        let (mut tenancy, mut inventory) = everything(&["acme", "globex"]);
        tenancy.tenants.remove(0);
        inventory.postgres = None;
        let systems: Vec<System> = orphans(&tenancy, &inventory).iter().map(|orphan| orphan.system).collect();
        assert_eq!(systems, [System::Kubernetes], "whose a Kafka user is, PostgreSQL knows");
    }

    #[test]
    fn a_cluster_that_knows_nobody_takes_nothing_from_anybody() {
        let (_, inventory) = everything(&["a", "b", "c", "d", "e"]);
        let found = orphans(&Tenancy::default(), &inventory);
        assert_eq!((found.len(), steps(&found).len()), (15, 0));
        let some =
            Tenancy { tenants: ["a", "b", "c"].iter().map(|name| tenant(name, json!({}))).collect(), ..Tenancy::default() };
        assert_eq!(steps(&orphans(&some, &inventory)).len(), 6);
    }

    #[test]
    fn a_namespace_that_the_platform_gave_is_released() {
        let mut inventory = Inventory::default();
        let labels = json!({TENANT_LABEL: "acme", TENANT_UID_LABEL: "uid-acme"});
        add(&mut inventory, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a", "labels": labels}}));
        let (version, kind) = access::ROLE_BINDING;
        add(
            &mut inventory,
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": "acb-operator", "namespace": "team-a"}}),
        );
        let found = orphans(&Tenancy::default(), &inventory);
        assert_eq!(steps(&found), ["- RoleBinding team-a/acb-operator", "+ Namespace team-a"]);
    }
}
