//! Whose what is: data that outlives its Tenant, namespaces that the platform gave, and what went by force.

use std::collections::BTreeSet;

use acb_crds::names::TenantId;
use serde_json::{Value, json};

use crate::{
    documents::name,
    history::{self, Act, play, successions},
    kubernetes,
    operator::Operator,
    promises,
    systems::System,
    trial::{Snapshot, campaign, recover, same, settled, shut, unbroken},
    watch::tenants_of,
};

#[test]
fn data_that_is_retained_is_shut_and_nobody_elses() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let rows = |operator: &Operator| operator.systems.postgres.tenants.len();
        play(&mut operator, &[Act::Delete(name("Tenant", "", "acme"))]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        assert_eq!(rows(&operator), 2, "rows are kept");
        shut(&operator, &BTreeSet::new()).unwrap();
        let kept = operator.snapshot();
        // Another of the name does not get them, nor takes them with it.
        play(&mut operator, &[Act::Put(name("Tenant", "", "acme"), history::tenants()[0].clone())]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        same(&operator.snapshot(), &kept).unwrap();
        play(&mut operator, &[Act::Delete(name("Tenant", "", "acme"))]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        same(&operator.snapshot(), &kept).unwrap();
    }
}

#[test]
fn what_a_tenant_leaves_that_went_by_force_is_found() {
    let mut operator = settled(true, "Delete");
    let id = operator.documents.id(operator.documents.get(&name("Tenant", "", "acme")).unwrap()).login();
    assert_eq!(operator.orphans(), Vec::<String>::new());
    let of_acme = |at: &crate::documents::Name| at.2 == "acme" || at.1 == "acb-acme";
    let gone: Vec<_> = operator.documents.names().into_iter().filter(of_acme).collect();
    gone.iter().for_each(|at| operator.documents.let_go(at));
    let found = operator.orphans().join("; ");
    for left in ["the hub in namespace acbhub-acme", &format!("login {id}"), &format!("user {id}")] {
        assert!(found.contains(left), "{left}: {found}");
    }
}

/// A namespace as the platform team makes it for a tenant.
fn give(operator: &mut Operator, space: &str, tenant: &str) {
    let labels = json!({"acb.dev/tenant": tenant});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}});
    operator.systems.kubernetes.objects.insert(kubernetes::namespace(space), object);
}

#[test]
fn a_given_namespace_is_left_as_it_was() {
    for with_kafka in [false, true] {
        let mut operator = Operator::new(with_kafka);
        give(&mut operator, "given", "acme");
        let begin = operator.snapshot();
        let (acme, agent) = (name("Tenant", "", "acme"), name("Agent", "given", "a"));
        let spec = json!({"tier": "Starter", "deletionPolicy": "Delete", "agentNamespace": "given",
                          "admins": [{"kind": "Group", "name": "team"}]});
        assert!(operator.documents.put(&acme, &spec));
        assert!(operator.documents.put(&agent, &json!({"role": "AgentFull"})));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        assert!(operator.snapshot().contains_key("RoleBinding given/acb-tenant-admins"));
        play(&mut operator, &[Act::Delete(agent), Act::Delete(acme)]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        assert_eq!(operator.documents.names(), [], "all are let go");
        let left: Vec<String> = operator.snapshot().into_keys().filter(|key| key.starts_with("RoleBinding")).collect();
        assert_eq!(left, Vec::<String>::new(), "nobody has a right in it any more");
        let labels = |snapshot: &Snapshot| {
            serde_json::from_str::<Value>(&snapshot["Namespace given"]).unwrap()["metadata"]["labels"].clone()
        };
        assert_eq!(labels(&operator.snapshot()), labels(&begin));
    }
}

#[test]
fn of_two_that_claim_a_namespace_the_older_has_it() {
    for order in [["acme", "globex"], ["globex", "acme"]] {
        let mut operator = Operator::new(true);
        // The second one asks for the namespace of the first.
        assert!(operator.documents.put(&name("Tenant", "", order[0]), &json!({"tier": "Starter"})));
        let space = format!("acb-{}", order[0]);
        assert!(operator.documents.put(&name("Agent", &space, "a"), &json!({"role": "AgentFull"})));
        let thief = json!({"tier": "Starter", "agentNamespace": space});
        assert!(operator.documents.put(&name("Tenant", "", order[1]), &thief));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        let snapshot = operator.snapshot();
        assert!(snapshot.contains_key(&format!("row <id of {}>", order[0])), "{:?}", snapshot.keys());
        assert!(!snapshot.contains_key(&format!("row <id of {}>", order[1])), "{:?}", snapshot.keys());
    }
}

/// A slip in the annotation of one that runs: it goes on as it was, what is taken away is, and without the annotation all is as before.
#[test]
fn who_has_data_and_asks_for_other_data_goes_on_with_its_own() {
    for with_kafka in [false, true] {
        let (mut operator, acme) = (settled(with_kafka, "Delete"), name("Tenant", "", "acme"));
        let of_globex = operator.documents.id(operator.documents.get(&name("Tenant", "", "globex")).unwrap());
        let before = operator.snapshot();
        for asked in ["99887766554433221100".to_owned(), of_globex.hex(), "nonsense".to_owned()] {
            operator.documents.ask(&acme, &asked);
            operator.settle_late();
            unbroken(&operator).and_then(|()| same(&operator.snapshot(), &before)).unwrap_or_else(|why| panic!("{asked}: {why}"));
            let mut suspended = operator.clone();
            let spec = json!({"tier": "Professional", "deletionPolicy": "Delete", "suspend": true});
            assert!(suspended.documents.put(&acme, &spec));
            suspended.settle_late();
            unbroken(&suspended).and_then(|()| promises::kept(&suspended)).unwrap_or_else(|why| panic!("{asked}: {why}"));
            suspended.documents.forget_adoption(&acme);
            suspended.settle_late();
            unbroken(&suspended).and_then(|()| promises::kept(&suspended)).unwrap_or_else(|why| panic!("{asked}: {why}"));
        }
    }
}

#[test]
fn topics_of_an_earlier_tenant_are_nobodys() {
    let mut operator = Operator::new(true);
    let earlier = acb_operator::plan::TopicSpec {
        name: "acb.acme.documents".into(),
        partitions: 4,
        retention_seconds: 60,
        cleanup: "delete".into(),
        max_message_bytes: 1,
    };
    operator.systems.kafka.as_mut().unwrap().topics.insert(earlier.name.clone(), earlier);
    let kept = operator.snapshot();
    operator.systems.away.insert(System::Kafka);
    let acme = name("Tenant", "", "acme");
    assert!(operator.documents.put(&acme, &json!({"tier": "Starter", "deletionPolicy": "Delete"})));
    operator.round();
    operator.systems.away.clear();
    operator.settle_late();
    play(&mut operator, &[Act::Delete(acme)]);
    operator.settle_late();
    unbroken(&operator).unwrap();
    assert_eq!(operator.snapshot().get("topic acb.acme.documents"), kept.get("topic acb.acme.documents"));
}

#[test]
fn retained_data_is_adopted_under_its_own_name_alone() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let acme = name("Tenant", "", "acme");
        let id = operator.documents.id(operator.documents.get(&acme).unwrap()).hex();
        let there = operator.documents.get(&name("Tenant", "", "globex")).unwrap();
        let globex = operator.documents.id(there).hex();
        play(&mut operator, &[Act::Delete(acme.clone())]);
        operator.settle_late();
        // Neither the data of one that is there, nor that of another name.
        for (tenant, adopted) in [("acme", &globex), ("initech", &id)] {
            let mut thief = operator.clone();
            let at = name("Tenant", "", tenant);
            assert!(thief.documents.put(&at, &history::tenants()[0]));
            thief.documents.adopt(&at, TenantId::from_hex(adopted).unwrap());
            let rows = |operator: &Operator| -> Vec<String> {
                let all = operator.systems.postgres.tenants.iter();
                all.map(|(id, rows)| format!("{id} {:?} {:?}", rows.observed.tenant, rows.observed.login)).collect()
            };
            let before = rows(&thief);
            thief.settle_late();
            unbroken(&thief).unwrap();
            assert_eq!(rows(&thief), before, "{tenant} asks for {adopted}");
        }
        // Nor that of one that is there, and of which nothing is known yet.
        for first in ["initech", "umbrella"] {
            let (mut both, second) = (operator.clone(), if first == "initech" { "umbrella" } else { "initech" });
            let (one, two) = (name("Tenant", "", first), name("Tenant", "", second));
            assert!(both.documents.put(&one, &history::tenants()[0]) && both.documents.put(&two, &history::tenants()[0]));
            let id = both.documents.id(both.documents.get(&one).unwrap());
            both.documents.adopt(&two, id);
            both.settle_late();
            unbroken(&both).and_then(|()| promises::kept(&both)).unwrap();
            assert!(both.systems.postgres.observe(&id.hex()).tenant.is_some_and(|row| row.name == first));
        }
        assert!(operator.documents.put(&acme, &history::tenants()[1]));
        operator.documents.adopt(&acme, TenantId::from_hex(&id).unwrap());
        assert!(operator.documents.put(&name("Agent", "acb-acme", "a"), &json!({"role": "AgentFull"})));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        assert!(operator.systems.postgres.observe(&id).login.is_some_and(|login| login.enabled));
    }
}

#[test]
fn a_tenant_whose_namespaces_went_before_it_is_shut_all_the_same() {
    for (with_kafka, policy) in [(false, "Retain"), (false, "Delete"), (true, "Retain"), (true, "Delete")] {
        let (mut operator, acme) = (settled(with_kafka, policy), name("Tenant", "", "acme"));
        for space in ["acbhub-acme", "acb-acme"] {
            operator.systems.kubernetes.remove(&kubernetes::namespace(space));
        }
        play(&mut operator, &[Act::Delete(acme.clone())]);
        operator.settle_late();
        unbroken(&operator).and_then(|()| shut(&operator, &BTreeSet::new())).unwrap();
        assert!(operator.documents.get(&acme).is_none(), "it is let go");
    }
}

/// Who is let in is there; or it is said that they are not.
pub(crate) fn only_who_is_there_is_let_in(operator: &Operator) -> Result<(), String> {
    let (documents, systems) = (&operator.documents, &operator.systems);
    let found = operator.orphans().join("; ");
    let is_there = |id: &str, row: Option<&str>| {
        let mut owners = tenants_of(id, documents, systems).into_iter();
        owners.any(|(owner, _)| row.is_none_or(|row| row == owner))
    };
    for (id, rows) in &systems.postgres.tenants {
        let row = rows.observed.tenant.as_ref().map(|row| row.name.as_str());
        let login = format!("acb_t_{id}");
        let enabled = rows.observed.login.is_some_and(|login| login.enabled);
        if enabled && !is_there(id, row) && !found.contains(&format!("login {login}")) {
            return Err(format!("{login} of {row:?} works, and its Tenant is not there"));
        }
        let has_user = systems.kafka.as_ref().is_some_and(|kafka| kafka.users.contains_key(&login));
        if has_user && !is_there(id, row) && !found.contains(&format!("user {login}")) {
            return Err(format!("{login} of {row:?} works in Kafka, and its Tenant is not there"));
        }
    }
    for key in systems.kubernetes.objects.keys().filter(|key| key.kind == "Deployment") {
        let of = key.namespace.trim_start_matches("acbhub-");
        if documents.get(&name("Tenant", "", of)).is_none() {
            return Err(format!("{key} runs, and its Tenant is not there"));
        }
    }
    Ok(())
}

fn everybody_has_their_own(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    play(&mut operator, acts);
    recover(&mut operator);
    operator.settle_late();
    operator.sweep();
    operator.settle();
    unbroken(&operator)?;
    promises::kept(&operator)?;
    only_who_is_there_is_let_in(&operator)
}

#[test]
fn whoever_comes_and_goes_everybody_has_their_own() {
    campaign("successions", successions, everybody_has_their_own);
}
