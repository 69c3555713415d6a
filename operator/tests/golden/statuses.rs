use acb_operator::{
    condition::{Outcome, Problem, Reason},
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
    let seen = Seen { endpoints: vec!["127.0.0.1:8443".into()], agents: 3, ..Seen::default() };
    let status =
        |tenant: &_, outcome: &Outcome, now| tenant::status::status(tenant, Some(&validated), outcome, &seen, &platform, now);
    let ready = status(&tenant, &Outcome::Ready, FIRST);
    assert_eq!(ready.observed_generation, Some(1));
    assert_eq!(ready.conditions.len(), 1);
    assert_eq!((ready.conditions[0].r#type.as_str(), ready.conditions[0].status.as_str()), ("Ready", "True"));
    tenant.status = Some(ready.clone());
    assert_eq!(status(&tenant, &Outcome::Ready, LATER), ready, "nothing changed");

    let problems = vec![Problem::new(Reason::AboveTier, "spec.hub", "too many")];
    let stalled = tenant::status::status(&tenant, None, &Outcome::Stalled(problems), &seen, &platform, LATER);
    let names: Vec<_> =
        stalled.conditions.iter().map(|condition| (condition.r#type.as_str(), condition.status.as_str())).collect();
    assert_eq!(names, [("Ready", "False"), ("Stalled", "True")]);
    assert_eq!(stalled.conditions[0].last_transition_time, LATER);
    assert_eq!(stalled.conditions[0].message, "spec.hub: too many");
    assert_eq!(stalled.effective, ready.effective, "what was provisioned stays said");
}

#[test]
fn fields_that_nothing_acts_on_are_named() {
    let given = tenancy(&tenant_text(
        "acme",
        "{tier: Professional, limits: {messagesPerMonth: 5, maxAgents: 1}, audit: {retentionDays: 90}, hub: {autoscaling: {minReplicas: 1, maxReplicas: 2}}}",
    ));
    let platform = platform();
    let validated = tenant::validate::validate(&first(&given), &world(&given), &platform).unwrap();
    let status = tenant::status::status(&first(&given), Some(&validated), &Outcome::Ready, &Seen::default(), &platform, FIRST);
    assert_eq!(status.fields_not_acted_on, ["spec.limits.messagesPerMonth", "spec.audit"]);
    let condition = status.conditions.iter().find(|condition| condition.r#type == "FieldsNotActedOn").unwrap();
    assert!(condition.message.contains("spec.audit"));
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
    let status = quota::status::status(&given.quotas[0], &validated, FIRST);
    let effective = status.effective.unwrap();
    assert_eq!((status.agent_count, effective.messages_per_minute, effective.concurrent_streams), (Some(2), Some(600), Some(4)));
    assert_eq!(effective.bytes_per_minute, Some(100_000_000), "the default of an agent");
    assert_eq!(status.fields_not_acted_on, ["spec.limits.messagesPerMinute", "spec.limits.concurrentStreams"]);
}
