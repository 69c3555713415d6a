use acb_crds::tenant::{Endpoint, EndpointType};
use acb_operator::{
    condition::{Basis, Outcome, Problem, Reason, conditions, merge},
    observed::{ObservedHub, ObservedUsage},
    quota,
    tenant::{self, status::Seen},
};

use crate::given::{census, first, platform, sample, tenancy, tenant_text, world};

const FIRST: &str = "2025-01-01T00:00:00Z";
const LATER: &str = "2025-01-02T00:00:00Z";

#[test]
fn a_status_changes_only_when_something_did() {
    let (given, platform) = (sample("acme.yaml"), platform());
    let mut tenant = first(&given);
    let validated = tenant::validate::validate(&tenant, &world(&given), &platform).unwrap();
    let endpoint = Endpoint { r#type: EndpointType::ClusterIP, address: "hub.acbhub-acme.svc:8443".into() };
    let running = ObservedHub { image: "acb-hub:0.1.0".into(), ..hub(2, false) };
    let seen = Seen { endpoints: vec![endpoint], agents: 3, hub: Some(running), ..Seen::default() };
    let status =
        |tenant: &_, outcome: &Outcome, now| tenant::status::status(tenant, Some(&validated), outcome, &seen, &platform, now);
    let ready = status(&tenant, &Outcome::Ready, FIRST);
    assert_eq!(ready.observed_generation, Some(1));
    assert_eq!(names(&ready), [("Ready", "True"), ("Synced", "True")]);
    let runs = ready.hub.clone().unwrap();
    assert_eq!((runs.replicas, runs.ready_replicas, runs.version.as_deref()), (2, 2, Some("0.1.0")));
    let types = ready.context_types.iter().map(|found| format!("{} of {}: {}", found.topic, found.origin, found.partitions));
    assert!(types.clone().any(|text| text == "acb.acme.documents of Tenant: 4"), "{:?}", types.collect::<Vec<_>>());
    tenant.status = Some(ready.clone());
    assert_eq!(status(&tenant, &Outcome::Ready, LATER), ready, "nothing changed");

    let problems = vec![Problem::new(Reason::AboveTier, "spec.hub", "too many")];
    let stalled = tenant::status::status(&tenant, None, &Outcome::Stalled(problems), &seen, &platform, LATER);
    assert_eq!(names(&stalled), [("Ready", "False"), ("Synced", "False"), ("Stalled", "True")]);
    assert_eq!(stalled.conditions[0].last_transition_time, LATER);
    assert_eq!(stalled.conditions[0].message, "spec.hub: too many");
    assert_eq!(stalled.effective, ready.effective, "what was provisioned stays said");
}

fn names(status: &acb_crds::TenantStatus) -> Vec<(&str, &str)> {
    status.conditions.iter().map(|condition| (condition.r#type.as_str(), condition.status.as_str())).collect()
}

/// Conditions one after another, each with what was said before; `conditions` alone.
struct Told {
    said: Vec<acb_crds::Condition>,
    generation: i64,
    suspended: bool,
}

impl Told {
    fn new() -> Self {
        Self { said: Vec::new(), generation: 1, suspended: false }
    }

    fn by(&mut self, outcome: &Outcome, hub: Option<&ObservedHub>) -> Vec<String> {
        let generation = Some(self.generation);
        let basis = Basis { generation, previous: &self.said, suspended: self.suspended, hub, not_acted_on: &[] };
        self.said = merge(&self.said, conditions(outcome, &basis), generation, FIRST);
        let texts = self.said.iter().map(|said| format!("{}={} {}", said.r#type, said.status, said.reason));
        texts.collect()
    }
}

fn hub(ready: u32, rolling: bool) -> ObservedHub {
    ObservedHub {
        replicas: 2,
        ready,
        rolled_out: ready == 2 && !rolling,
        rolling,
        lacks: "lacks".into(),
        ..ObservedHub::default()
    }
}

#[test]
fn ready_changes_with_the_hub_and_with_a_spec_that_is_not_in_force() {
    let mut told = Told::new();
    let starting = Outcome::Starting("the hub has 0 of 2 replicas ready".into());
    let away = Outcome::Retrying("Kafka is away".into());
    let (whole, half, none) = (hub(2, false), hub(1, false), hub(0, false));
    let first = ["Ready=False Waiting", "Synced=True Applied", "Reconciling=True Waiting"];
    assert_eq!(told.by(&starting, Some(&hub(1, true))), first, "all of it, the first time");
    let fine = ["Ready=True Provisioned", "Synced=True Applied"];
    assert_eq!(told.by(&Outcome::Ready, Some(&whole)), fine);
    // A roll that the platform began.
    let rolling = ["Ready=True Provisioned", "Synced=True Applied", "Reconciling=True Waiting"];
    assert_eq!(told.by(&starting, Some(&hub(2, true))), rolling);
    assert_eq!(told.by(&away, Some(&whole)), ["Ready=True Provisioned", "Synced=False Retrying"]);
    let lost = ["Ready=True Provisioned", "Synced=True Applied", "Degraded=True HubDegraded"];
    assert_eq!(told.by(&starting, Some(&half)), lost);
    let gone = ["Ready=False HubUnavailable", "Synced=True Applied", "Degraded=True HubUnavailable"];
    assert_eq!(told.by(&starting, Some(&none)), gone);
    let worse = ["Ready=False HubUnavailable", "Synced=False Retrying", "Degraded=True HubUnavailable"];
    assert_eq!(told.by(&away, Some(&none)), worse);
    // The hub comes back while the store is still away.
    assert_eq!(told.by(&away, Some(&whole)), ["Ready=True Provisioned", "Synced=False Retrying"]);
    let refused = Outcome::Refused("wrong password".into());
    let degraded = ["Ready=True Provisioned", "Synced=False Refused", "Degraded=True Refused"];
    assert_eq!(told.by(&refused, Some(&whole)), degraded, "who uses it notices nothing");
    told.generation = 2;
    assert_eq!(told.by(&refused, Some(&whole)), ["Ready=False Refused", "Synced=False Refused", "Stalled=True Refused"]);
    let edited = ["Ready=False Retrying", "Synced=False Retrying", "Reconciling=True Retrying"];
    assert_eq!(told.by(&away, Some(&whole)), edited);
    assert_eq!(told.by(&starting, Some(&hub(2, true))), rolling.map(|text| text.replace("True Provisioned", "False Waiting")));
    assert_eq!(told.by(&Outcome::Ready, Some(&whole)), fine);
    assert_eq!(
        told.by(&Outcome::Deleting("the hub".into()), None),
        ["Ready=False Deleting", "Synced=False Deleting", "Reconciling=True Deleting"]
    );
}

#[test]
fn what_is_suspended_has_come_to_where_it_was_to_be() {
    let mut told = Told { suspended: true, ..Told::new() };
    let suspended = ["Ready=True Suspended", "Synced=True Applied", "Suspended=True Suspended"];
    assert_eq!(told.by(&Outcome::Ready, None), suspended);
    // Nobody waits for a hub that nobody may use.
    assert_eq!(told.by(&Outcome::Starting("0 of 2".into()), Some(&hub(0, false))), suspended);
    let away = ["Ready=True Suspended", "Synced=False Retrying", "Suspended=True Suspended"];
    assert_eq!(told.by(&Outcome::Retrying("away".into()), Some(&hub(0, false))), away);
    // An Agent of a tenant that is not there any more.
    (told.suspended, told.said) = (false, Vec::new());
    told.by(&Outcome::Ready, None);
    let waits = ["Ready=False Waiting", "Synced=False Waiting", "Reconciling=True Waiting"];
    assert_eq!(told.by(&Outcome::Waiting("for its tenant".into()), None), waits);
}

#[test]
fn a_hub_that_never_came_up_is_told_where_it_is_held_up() {
    let held_up = ["Ready=False Waiting", "Synced=True Applied", "Reconciling=True Waiting", "Degraded=True HubUnavailable"];
    assert_eq!(Told::new().by(&Outcome::Starting("no such image".into()), Some(&hub(0, false))), held_up);
}

#[test]
fn fields_that_nothing_acts_on_are_named() {
    let given = tenancy(&tenant_text(
        "acme",
        "{tier: Professional, limits: {messagesPerMonth: 5, maxAgents: 1}, audit: {retentionDays: 90}, auth: {mtls: {caConfigMap: ca}}, hub: {autoscaling: {minReplicas: 1, maxReplicas: 2}}}",
    ));
    let platform = platform();
    let validated = tenant::validate::validate(&first(&given), &world(&given), &platform).unwrap();
    let status = tenant::status::status(&first(&given), Some(&validated), &Outcome::Ready, &Seen::default(), &platform, FIRST);
    assert_eq!(status.fields_not_acted_on, ["spec.auth.mtls"]);
    let condition = status.conditions.iter().find(|condition| condition.r#type == "FieldsNotActedOn").unwrap();
    assert!(condition.message.contains("spec.auth.mtls"));
}

#[test]
fn what_no_hub_acts_on_in_a_json_schema_is_named() {
    let given = tenancy(&tenant_text(
        "acme",
        "{tier: Professional, contextTypes: [{name: notes, payloadSchema: {id: note, version: '1', jsonSchema: {requird: [id], properties: {at: {format: datetime}}}}}]}",
    ));
    let validated = tenant::validate::validate(&first(&given), &world(&given), &platform()).unwrap();
    assert_eq!(
        validated.not_acted_on,
        [
            "spec.contextTypes[0].payloadSchema.jsonSchema: /properties/at/format (there is no such format)",
            "spec.contextTypes[0].payloadSchema.jsonSchema: /requird (there is no such keyword)",
        ]
    );
}

#[test]
fn a_quota_shows_what_holds() {
    let given = sample("acme.yaml");
    let validated = quota::validate::validate(&given.quotas[0], &census("acb-acme", &given, &platform()));
    let status = quota::status::status(&given.quotas[0], &validated, None, FIRST);
    let effective = status.effective.unwrap();
    assert_eq!((status.agent_count, effective.messages_per_minute, effective.concurrent_streams), (Some(2), Some(600), Some(4)));
    assert_eq!(effective.bytes_per_minute, Some(100_000_000), "the default of an agent");
    assert_eq!(status.fields_not_acted_on, [""; 0]);
}

fn used(messages: &[(&str, i64)]) -> ObservedUsage {
    let messages = messages.iter().map(|(uid, used)| ((*uid).to_owned(), *used)).collect();
    ObservedUsage { messages, ..ObservedUsage::default() }
}

fn near(conditions: &[acb_crds::Condition]) -> Option<(String, String)> {
    let near = conditions.iter().find(|condition| condition.r#type == "NearLimit")?;
    Some((near.reason.clone(), near.message.clone()))
}

#[test]
fn a_tenant_shows_what_it_used_in_steps_and_what_is_near() {
    let given = tenancy(&tenant_text("acme", "{tier: Professional, limits: {messagesPerMonth: 1000}}"));
    let (platform, mut tenant) = (platform(), first(&given));
    let validated = tenant::validate::validate(&tenant, &world(&given), &platform).unwrap();
    let mut told = |usage: Option<ObservedUsage>| {
        let seen = Seen { usage, ..Seen::default() };
        let status = tenant::status::status(&tenant, Some(&validated), &Outcome::Ready, &seen, &platform, FIRST);
        tenant.status = Some(status.clone());
        (status.usage.and_then(|usage| usage.messages_per_month), near(&status.conditions))
    };
    assert_eq!(told(None), (None, None));
    assert_eq!(told(Some(used(&[("a", 700), ("b", 49)]))), (Some(700), None));
    let is_near = Some(("NearLimit".to_owned(), "used by 80 % or more: messagesPerMonth (1000)".to_owned()));
    assert_eq!(told(Some(used(&[("a", 700), ("b", 149)]))), (Some(800), is_near.clone()));
    // What was not looked at stays said.
    assert_eq!(told(None), (Some(800), is_near));
    let reached = Some(("LimitReached".to_owned(), "used up: messagesPerMonth (1000)".to_owned()));
    assert_eq!(told(Some(used(&[("a", 1000)]))), (Some(1000), reached));
    // Another month.
    assert_eq!(told(Some(used(&[]))), (Some(0), None));
}

#[test]
fn a_quota_shows_who_uses_the_most_and_that_nobody_is_under_it() {
    let given = sample("acme.yaml");
    let mut quota = given.quotas[0].clone();
    quota.spec.limits.messages_per_month = Some(100);
    let census = census("acb-acme", &given, &platform());
    let validated = quota::validate::validate(&quota, &census);
    let mut expected = validated.clone().unwrap();
    let agents = expected.selected.as_mut().unwrap();
    for (_, limits) in agents.iter_mut() {
        limits.messages_per_month = Some(100);
    }
    let usage = used(&[(&agents[0].0, 40), (&agents[1].0, 85), ("another", 99)]);
    let status = quota::status::status(&quota, &Ok(expected.clone()), Some(&usage), FIRST);
    assert_eq!(status.usage.unwrap().messages_per_month, Some(85));
    assert_eq!(near(&status.conditions).unwrap().0, "NearLimit");
    // Another Quota allows the first one less: who has more is not judged by that.
    let agents = expected.selected.as_mut().unwrap();
    agents[0].1.messages_per_month = Some(50);
    agents[1].1.messages_per_month = Some(1000);
    expected.effective.messages_per_month = Some(50);
    let status = quota::status::status(&quota, &Ok(expected), Some(&usage), FIRST);
    let told = near(&status.conditions);
    assert_eq!(told, Some(("NearLimit".to_owned(), "used by 80 % or more: messagesPerMonth (50)".to_owned())));
    assert!(status.conditions.iter().all(|condition| condition.r#type != "Unused"));

    quota.spec.selector.as_mut().unwrap().names = vec!["nobody".to_owned()];
    let validated = quota::validate::validate(&quota, &census);
    let status = quota::status::status(&quota, &validated, Some(&usage), FIRST);
    let unused = status.conditions.iter().find(|condition| condition.r#type == "Unused").unwrap();
    assert_eq!((status.agent_count, unused.reason.as_str()), (Some(0), "NoAgents"));
    assert!(status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True"));
}
