//! What happens: people write, delete and rotate, systems go away and come back, the operator dies in the middle, others change things.

use std::collections::BTreeSet;

use acb_operator::{effect::kubernetes::ObjectKey, observed::ObservedIssuer, plan::ServiceAccountRow};
use serde_json::{Value, json};

use crate::{
    cache::Cache,
    documents::{ACCOUNT, Name, name},
    operator::Operator,
    random::Random,
    systems::{Crash, System},
};

const TENANTS: [&str; 2] = ["acme", "globex"];
const AGENTS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Put(Name, Value),
    Delete(Name),
    Rotate(Name, String),
    /// The operator looks at everything once.
    Round,
    /// These are away from now on.
    Away(BTreeSet<System>),
    /// These do not say what they hold from now on, and take every step.
    Unread(BTreeSet<System>),
    /// So many steps from now.
    Crash {
        after: usize,
        answered: bool,
    },
    /// Whether new pods don't come to be from now on.
    Stuck(bool),
    /// Somebody else changes something; the number says what.
    Drift(usize),
    /// A Tenant asks for the data of one that was once; the number says whose, or that it asks for nobody's any more.
    Adopt(Name, usize),
    /// Somebody takes a Tenant and its Agents out of the API, whatever holds them.
    Force(Name),
    /// The operator looks for what belongs to no Tenant.
    Sweep,
    /// The watches of these kinds tell nothing from now on, and those of all others what there is.
    Behind(BTreeSet<String>),
    /// Those that are behind tell so many changes.
    Tell(usize),
    /// Another process leads from now on, which has followed the same watches.
    Successor,
    /// The cluster's tokens are of this issuer, with these keys, from now on, and whether what else there was is known to be given up; see [`issuer`].
    Issuer(usize, bool),
    /// The process falls asleep so many steps from now, and another leads.
    Sleep(usize),
    /// It wakes.
    Wake,
}

/// Specs that are good, whatever there was before.
pub(crate) fn tenants() -> Vec<Value> {
    vec![
        json!({"tier": "Starter", "deletionPolicy": "Delete"}),
        json!({"tier": "Professional", "deletionPolicy": "Delete", "contextTypes": [{"name": "documents", "retention": "7d"}]}),
        json!({"tier": "Professional", "deletionPolicy": "Delete", "contextTypes": [{"name": "documents", "retention": "1d"}, {"name": "reports"}],
               "limits": {"maxAgents": 9, "messagesPerMonth": 1000}}),
        json!({"tier": "Enterprise", "deletionPolicy": "Delete", "hub": {"replicas": 3}, "limits": {"storageBytes": 1_000_000}}),
        json!({"tier": "Starter", "deletionPolicy": "Delete", "suspend": true}),
        json!({"tier": "Enterprise", "deletionPolicy": "Delete", "hub": {"autoscaling": {"minReplicas": 2, "maxReplicas": 4}},
               "admins": [{"kind": "Group", "name": "team"}]}),
    ]
}

/// Specs with fewer agents than there may be.
pub(crate) fn bounded() -> Vec<Value> {
    vec![
        json!({"tier": "Starter", "deletionPolicy": "Delete", "limits": {"maxAgents": 1}}),
        json!({"tier": "Professional", "deletionPolicy": "Delete", "limits": {"maxAgents": 2}}),
    ]
}

pub(crate) fn agents() -> Vec<Value> {
    vec![
        json!({"role": "AgentFull"}),
        json!({"role": "Admin", "groups": ["g", "h"], "publishes": ["documents"]}),
        json!({"role": "AgentProducer", "publishes": ["documents", "extra"], "attributes": {"k": "v"}}),
        json!({"role": "Observer", "subscribes": ["reports"], "type": "watcher"}),
        json!({"role": "AgentFull", "suspend": true}),
        json!({"role": "AgentFull", "credentials": {"serviceAccount": {"name": OWN}}}),
        json!({"role": "AgentConsumer", "credentials": {"apiKey": {}, "serviceAccount": {"name": OWN}}}),
    ]
}

/// In the place of the name of an account that is an agent's own.
const OWN: &str = "own";

/// One of the specs, with an account of the agent's own where it has one. Two that share one are another matter: the one that has to go without keeps
/// its mailbox, and so the end is not that of a fresh cluster.
pub(crate) fn put_agent(random: &mut Random) -> Act {
    let at = agent(random);
    let mut spec = random.pick(&agents()).clone();
    if let Some(account) = spec.pointer_mut("/credentials/serviceAccount/name") {
        *account = json!(at.2);
    }
    Act::Put(at, spec)
}

/// An account of an agent comes or goes, or the cluster's keys change.
pub(crate) fn of_accounts(random: &mut Random) -> Act {
    let (.., space, account) = agent(random);
    let at = name(ACCOUNT, &space, &account);
    match random.below(5) {
        0 => Act::Delete(at),
        1 => Act::Issuer(random.below(ISSUERS.len()), random.one_in(2)),
        _ => Act::Put(at, Value::Null),
    }
}

/// Issuers and their keys, as clusters have them one after the other.
const ISSUERS: [(&str, &[&str]); 4] =
    [("https://one", &["a"]), ("https://one", &["a", "b"]), ("https://one", &["b"]), ("https://two", &["b"])];

/// One of them, as an API server says it.
pub(crate) fn issuer(which: usize, is_settled: bool) -> ObservedIssuer {
    let (name, kids) = ISSUERS[which];
    let keys: Vec<Value> = kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA"})).collect();
    ObservedIssuer { issuer: name.to_owned(), jwks: json!({"keys": keys}), is_settled }
}

pub(crate) fn quotas() -> Vec<Value> {
    vec![
        json!({"limits": {"messagesPerMinute": 10}, "selector": {"names": ["a"]}}),
        json!({"limits": {"storageBytes": 500_000, "messagesPerMonth": 9_000_000}}),
        json!({"limits": {"bytesPerMinute": 100_000, "concurrentStreams": 3}, "selector": {"names": ["b", "c"]}}),
        json!({"limits": {"bytesPerMinute": 1_000_000, "concurrentStreams": 7, "messagesPerMinute": 90}}),
    ]
}

pub(crate) fn tenant(random: &mut Random) -> Name {
    name("Tenant", "", random.pick::<&str>(&TENANTS))
}

pub(crate) fn agent(random: &mut Random) -> Name {
    name("Agent", &format!("acb-{}", random.pick(&TENANTS)), random.pick::<&str>(&AGENTS))
}

pub(crate) fn quota(random: &mut Random) -> Name {
    name("Quota", &format!("acb-{}", random.pick(&TENANTS)), "q")
}

/// What may be among the acts of a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) crashes: bool,
    pub(crate) away: bool,
    pub(crate) drift: bool,
    /// More agents than a tenant may have. Those that are left out keep their mailboxes, and so its end is not that of a fresh cluster.
    pub(crate) crowds: bool,
}

pub(crate) fn history(random: &mut Random, length: usize, troubles: Troubles) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..length {
        acts.push(match random.below(15) {
            0 if troubles.crowds => Act::Put(tenant(random), random.pick(&bounded()).clone()),
            0..3 => Act::Put(tenant(random), random.pick(&tenants()).clone()),
            3 if troubles.crowds => Act::Put(agent(random), random.pick(&agents()).clone()),
            3..6 => put_agent(random),
            6 => Act::Put(quota(random), random.pick(&quotas()).clone()),
            7 => Act::Delete(if random.one_in(2) { tenant(random) } else { agent(random) }),
            8 => Act::Delete(if random.one_in(2) { quota(random) } else { agent(random) }),
            9 => Act::Rotate(if random.one_in(2) { tenant(random) } else { agent(random) }, format!("r{}", random.below(3))),
            10 if troubles.crashes => Act::Crash { after: random.below(25), answered: random.one_in(2) },
            11 if troubles.away => absence(random),
            12 if troubles.drift => Act::Drift(random.below(1 << 20)),
            13 => of_accounts(random),
            _ => Act::Round,
        });
        if random.one_in(2) {
            acts.push(Act::Round);
        }
    }
    acts
}

/// Systems go away, or come back.
fn absence(random: &mut Random) -> Act {
    let some = |random: &mut Random| System::ALL.into_iter().filter(|_| random.one_in(2)).collect();
    match random.below(4) {
        0 => Act::Stuck(random.one_in(2)),
        1 => Act::Unread(some(random)),
        _ => Act::Away(some(random)),
    }
}

/// Tenants come and go, and leave their data or not, and ask for what others left.
pub(crate) fn successions(random: &mut Random, length: usize) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..length {
        acts.push(match random.below(15) {
            0..4 => {
                let mut spec = random.pick(&tenants()).clone();
                if random.one_in(2) {
                    spec["deletionPolicy"] = json!("Retain");
                }
                Act::Put(tenant(random), spec)
            }
            4 => put_agent(random),
            12 => of_accounts(random),
            5..8 => Act::Delete(tenant(random)),
            8..10 => Act::Adopt(tenant(random), random.below(1 << 10)),
            10 if random.one_in(2) => Act::Force(tenant(random)),
            10 => Act::Sweep,
            11 if random.one_in(2) => Act::Crash { after: random.below(25), answered: random.one_in(2) },
            11 => absence(random),
            _ => Act::Round,
        });
        if random.one_in(2) {
            acts.push(Act::Round);
        }
    }
    acts
}

pub(crate) fn play(operator: &mut Operator, acts: &[Act]) {
    for act in acts {
        match act {
            Act::Put(at, spec) => {
                operator.documents.put(at, spec);
            }
            Act::Delete(at) => {
                operator.documents.delete(at);
                // With the namespace its Agents and Quotas go, as an API server does it.
                if at.0 == "Tenant" {
                    let space = format!("acb-{}", at.2);
                    let inside = operator.documents.names().into_iter().filter(|(_, namespace, _)| *namespace == space);
                    inside.collect::<Vec<_>>().iter().for_each(|inside| operator.documents.delete(inside));
                }
            }
            Act::Rotate(at, request) => operator.documents.rotate(at, request),
            Act::Round => {
                operator.round();
            }
            Act::Away(systems) => operator.systems.away.clone_from(systems),
            Act::Unread(systems) => operator.systems.unread.clone_from(systems),
            Act::Stuck(is_stuck) => operator.systems.kubernetes.is_stuck = *is_stuck,
            Act::Crash { after, answered } => {
                let at = operator.systems.steps + after;
                operator.systems.crash = Some(if *answered { Crash::After(at) } else { Crash::Before(at) });
            }
            Act::Drift(which) => drift(operator, *which),
            Act::Adopt(at, which) => {
                let ids = operator.documents.every_id();
                match ids.get(which % (ids.len() + 1)) {
                    Some(id) => operator.documents.adopt(at, *id),
                    None => operator.documents.forget_adoption(at),
                }
            }
            Act::Force(at) => {
                let space = format!("acb-{}", at.2);
                let mut gone = operator.documents.names();
                gone.retain(|name| name == at || name.1 == space);
                gone.iter().for_each(|name| operator.documents.let_go(name));
            }
            Act::Sweep => operator.sweep(),
            Act::Behind(kinds) => operator.cache.iter_mut().for_each(|cache| cache.behind.clone_from(kinds)),
            Act::Tell(changes) => operator.cache.iter_mut().for_each(|cache| cache.tell(*changes)),
            Act::Sleep(after) if operator.asleep.is_none() => operator.sleeps_at = Some(operator.systems.steps + after),
            Act::Sleep(_) => {}
            Act::Wake => operator.wake(),
            Act::Issuer(which, is_settled) => operator.issuer = issuer(*which, *is_settled),
            Act::Successor => operator.cache.iter_mut().for_each(Cache::change_leader),
        }
        operator.note();
    }
}

/// Changes one thing that is the operator's.
fn drift(operator: &mut Operator, which: usize) {
    let systems = &mut operator.systems;
    let nth = |count: usize| (count > 0).then(|| which / 16 % count.max(1));
    match which % 13 {
        12 => {
            // Another account proves an agent.
            let mut agents: Vec<_> =
                systems.postgres.tenants.values_mut().flat_map(|rows| rows.observed.agents.values_mut()).collect();
            if let Some(index) = nth(agents.len()) {
                let uid = "of-somebody-else".to_owned();
                let account = ServiceAccountRow { namespace: "acb-acme".to_owned(), name: "evil".to_owned(), uid };
                agents[index].service_account = Some(account);
            }
        }
        0 | 1 => {
            let keys: Vec<ObjectKey> = systems.kubernetes.objects.keys().filter(|key| key.kind != "Namespace").cloned().collect();
            if let Some(index) = nth(keys.len()) {
                systems.kubernetes.remove(&keys[index]);
            }
        }
        2 => {
            let keys: Vec<ObjectKey> = systems.kubernetes.objects.keys().cloned().collect();
            if let Some(index) = nth(keys.len()) {
                let object = systems.kubernetes.objects.get_mut(&keys[index]).unwrap();
                match keys[index].kind.as_str() {
                    "Deployment" => object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("evil:1"),
                    "NetworkPolicy" => object["spec"]["podSelector"] = json!({"matchLabels": {"x": "y"}}),
                    "RoleBinding" => object["subjects"] = json!([]),
                    "Service" => object["spec"]["selector"] = json!({"app": "other"}),
                    _ => {}
                }
            }
        }
        3 => {
            let mut rows: Vec<_> = systems.postgres.tenants.values_mut().collect();
            if let Some(row) = nth(rows.len()).and_then(|index| rows[index].observed.tenant.as_mut()) {
                row.suspended = !row.suspended;
                row.limits = json!({});
                row.issuer.iter_mut().for_each(|issuer| issuer.jwks = json!({"keys": [{"kid": "evil"}]}));
            }
        }
        4 | 5 => {
            let mut agents: Vec<_> =
                systems.postgres.tenants.values_mut().flat_map(|rows| rows.observed.agents.values_mut()).collect();
            if let Some(index) = nth(agents.len()) {
                agents[index].role = "admin".to_owned();
                agents[index].suspended = false;
            }
        }
        6 => {
            let mut keys: Vec<_> =
                systems.postgres.tenants.values_mut().flat_map(|rows| rows.observed.api_keys.values_mut()).collect();
            if let Some(index) = nth(keys.len()) {
                keys[index][0].hmac = vec![0];
            }
        }
        7 => {
            let mut logins: Vec<_> =
                systems.postgres.tenants.values_mut().filter_map(|rows| rows.observed.login.as_mut()).collect();
            // One that is barred stays barred, whoever bars it.
            if let Some(index) = nth(logins.len()) {
                logins[index].connection_limit = -1;
            }
        }
        8 => {
            let mut users: Vec<_> = systems.kafka.iter_mut().flat_map(|kafka| kafka.users.values_mut()).collect();
            if let Some(index) = nth(users.len()) {
                users[index].prefixes.push("acb.".to_owned());
            }
        }
        9 => {
            let mut users: Vec<_> = systems.kafka.iter_mut().flat_map(|kafka| kafka.users.values_mut()).collect();
            if let Some(index) = nth(users.len()) {
                users[index].quota = Default::default();
            }
        }
        10 => {
            let mut topics: Vec<_> = systems.kafka.iter_mut().flat_map(|kafka| kafka.topics.values_mut()).collect();
            if let Some(index) = nth(topics.len()) {
                topics[index].retention_seconds = 1;
            }
        }
        _ => {
            let names: Vec<_> = systems.kafka.iter().flat_map(|kafka| kafka.topics.keys().cloned()).collect();
            if let (Some(index), Some(kafka)) = (nth(names.len()), systems.kafka.as_mut()) {
                kafka.topics.remove(&names[index]);
            }
        }
    }
}
